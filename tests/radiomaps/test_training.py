"""Training and sampling of radio maps on small stores: one scene is learned by heart, kill -9 changes nothing."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import load_file

from geoml.cli import app
from geoml.data.fields import Batch
from geoml.errors import DataError, UserError
from geoml.models.tiles import Tiling
from geoml.report import Viewer
from geoml.runs.folder import RunFolder
from geoml.train import Trainer
from radiomaps.__main__ import APP
from radiomaps.generation.generate import generate
from radiomaps.generation.plan import Placement, Plan, Window
from radiomaps.models import build
from radiomaps.models.symmetry import flip_error, flip_errors
from radiomaps.prediction import mean_and_spread, predicted_maps, truth_of
from radiomaps.report.html import report
from radiomaps.report.pictures import picture_taker
from radiomaps.tasks import Observations, Task
from radiomaps.tasks.dataset import loader
from radiomaps.tasks.splits import parts_of
from radiomaps.trained import Trained, load_trained
from radiomaps.training import Recipe, fit

TASK = Task(prior="free_space")
MIXED = Task(
    targets=("path_gain_db", "doa_azimuth"), radiation="mixed", prior="free_space", observations=Observations(rate=0.05)
)
SMALL: dict[str, Any] = {"base": 8, "multipliers": [1, 2]}
TINY = ["model.network.base=4", "model.network.multipliers=[1,2]", "loader.batch_size=4", "trainer.ema_half_life=20"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four scenes of two transmitters on 16 × 16 × 4 voxels."""
    scenes = ({"name": "procedural", "seed": 3, "count": 4, "size_m": 64},)
    window = Window(size_m=64, step_m=4, heights_m=(1, 10, 3))
    return generate(Plan(scenes, Placement(count=2), window), tmp_path_factory.mktemp("maps") / "maps.zarr")


@pytest.fixture(scope="module")
def trained(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A model of a mixed task that has seen a little."""
    folder = tmp_path_factory.mktemp("mixed")
    recipe = Recipe(Trainer(samples=64, learning_rate=2e-3, device="cpu"), batch_size=4)
    fit({"model": "radiodiff3d", **SMALL}, MIXED, store, {"train": range(6)}, recipe=recipe, folder=folder)
    return load_trained(folder)


def nmse(model: Trained, store: Path, sample: int, members: int = 4) -> tuple[float, float]:
    """Of the members' mean, and of the prior alone, over the voxels that count."""
    batch = next(iter(loader(store, [sample], model.task, batch_size=1, shuffle=False)))
    assert batch.target is not None
    made = model.predict(batch, members=members)[0].mean(1)
    prior = batch.condition[:, [model.task.channels.guess_index(name) for name in model.task.channels.target]]
    power = batch.target[batch.mask].square().sum()
    first, second = (float((fields - batch.target)[batch.mask].square().sum() / power) for fields in (made, prior))
    return first, second


@pytest.mark.parametrize("name", ["unet3d", "radiodiff3d"])
def test_one_scene_is_learned_by_heart(name: str, store: Path, tmp_path: Path) -> None:
    trainer = Trainer(samples=1600, learning_rate=4e-3, ema_half_life=80, device="cpu")
    recipe = Recipe(trainer, batch_size=8, patch=16, patches_per_sample=8, augment=False)
    row = fit({"model": name, **SMALL}, TASK, store, {"train": [1]}, recipe=recipe, folder=tmp_path)
    model = load_trained(tmp_path)
    ours, prior = nmse(model, store, 1)
    assert ours < 0.1 * prior
    assert row["samples_seen"] == 1600
    assert 0 < row["flip_error"] < 0.5


def test_the_task_and_the_grid_lie_beside_the_checkpoints(trained: Trained) -> None:
    assert trained.task == MIXED
    assert trained.window == {"step_m": 4.0, "heights_m": [1.0, 10.0, 3.0], "above_ground": False}


def test_another_task_is_refused_in_the_same_folder(store: Path, tmp_path: Path) -> None:
    recipe = Recipe(Trainer(samples=4, device="cpu"), batch_size=4)
    model = {"model": "unet3d", "base": 4, "multipliers": [1, 2]}
    fit(model, TASK, store, {"train": [0]}, recipe=recipe, folder=tmp_path)
    with pytest.raises(UserError, match="another task"):
        fit(model, TASK.changed(prior=None), store, {"train": [0]}, recipe=recipe, folder=tmp_path)
    with pytest.raises(UserError, match="no map"):
        fit(model, TASK, store, {"train": []}, recipe=recipe, folder=tmp_path / "other")


def test_what_is_no_training_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load_trained(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"task\.json"):
        load_trained(tmp_path)


def test_parts_share_no_scene(store: Path) -> None:
    parts = parts_of(store, {"by": "scene", "parts": {"train": 0.5, "test": 0.5}, "seed": 1})
    assert {int(n) // 2 for n in parts["train"]}.isdisjoint({int(n) // 2 for n in parts["test"]})


# -- sampling


def test_members_of_a_map_do_not_depend_on_what_else_is_sampled(trained: Trained, store: Path) -> None:
    (alone,) = predicted_maps(trained, store, [3], members=2, seed=1)
    among = dict(predicted_maps(trained, store, [0, 3, 5], members=2, seed=1))
    assert alone[0] == 3
    xr.testing.assert_allclose(alone[1], among[3], rtol=1e-4)


def test_samples_are_physical_and_honour_what_was_observed(trained: Trained, store: Path) -> None:
    (_, made) = next(predicted_maps(trained, store, [6], members=3))
    assert made["path_gain_db"].dims == ("member", "z", "y", "x")
    assert made["path_gain_db"].attrs["units"] == "dB"
    assert float(made["path_gain_db_mean"].min()) > -400
    azimuth = made["doa_azimuth"].values
    assert ((azimuth >= 0) & (azimuth <= 2 * np.pi) | np.isnan(azimuth)).all()
    inside = made["building"].values > 0
    assert np.isnan(made["path_gain_db_mean"].values[inside]).all()
    assert np.isfinite(made["path_gain_db_mean"].values[~inside]).all()
    batch = next(iter(loader(store, [6], MIXED, batch_size=1, shuffle=False)))
    here = batch.condition[0, MIXED.channels.condition.index("observed")].numpy() > 0
    truth = truth_of(MIXED, store, 6)
    for name in MIXED.targets:
        np.testing.assert_allclose(made[name].values[:, here], truth[name].values[here][None].repeat(3, 0), atol=1e-3)
        assert float(np.nanmax(made[f"{name}_uncertainty"].values[here])) < 5e-2
    assert float(made["path_gain_db_uncertainty"].median()) > 0


def test_mean_and_spread_of_a_circle() -> None:
    angles = torch.distributions.VonMises(torch.tensor(0.0), torch.tensor(50.0))
    torch.manual_seed(0)
    mean, spread = mean_and_spread("doa_azimuth", angles.sample((4000,)) % (2 * torch.pi))
    assert math.cos(float(mean)) > 0.999
    assert float(spread) == pytest.approx(1 / math.sqrt(50), rel=0.1)
    mean, spread = mean_and_spread("toa_s", torch.tensor([1.0, 3.0]))
    assert (float(mean), float(spread)) == (2.0, pytest.approx(math.sqrt(2)))


def test_tiles_are_the_whole_and_the_transmitter_may_be_outside(store: Path, trained: Trained) -> None:
    """With a halo as wide as the receptive field of a network without norms."""
    torch.manual_seed(1)
    model = build(
        {"model": "radiodiff3d", "base": 4, "multipliers": [1, 2], "norm": "none", "steps": 2}, MIXED.channels
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    whole = Trained(type(trained.predictor)(model, trained.predictor.transforms), MIXED)
    cut = Trained(whole.predictor, MIXED, Tiling(tile=16, blend=2, halo=32, limit=16))
    batch = _tripled(next(iter(loader(store, [2], MIXED, batch_size=1, shuffle=False))))
    torch.testing.assert_close(
        cut.predict(batch, members=2)[0], whole.predict(batch, members=2)[0], rtol=1e-3, atol=1e-3
    )


def _tripled(batch: Batch) -> Batch:
    """The conditions of a map beside themselves, on a wider grid."""
    from dataclasses import replace

    from geoml.grids.grid import Grid

    z, y, x = batch.target_grid.axes
    grid = Grid((z, replace(y, size=3 * y.size), replace(x, size=3 * x.size)), batch.target_grid.crs)
    return Batch(batch.condition.repeat(1, 1, 1, 3, 3), grid, grid, ids=batch.ids)


def test_the_flip_error_is_zero_for_what_is_equivariant(store: Path) -> None:
    batch = next(iter(loader(store, [0, 1], MIXED, batch_size=2, shuffle=False)))
    untrained = build({"model": "radiodiff3d", **SMALL}, MIXED.channels)
    assert flip_error(untrained.eval(), batch) < 1e-4
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in untrained.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    assert flip_error(untrained, batch) > 1e-2
    each = flip_errors(untrained, batch)
    assert each.shape == (len(MIXED.channels.target),)
    assert float(each.square().mean().sqrt()) == pytest.approx(flip_error(untrained, batch))


def test_pictures_of_validation_are_drawn(trained: Trained, store: Path, tmp_path: Path) -> None:
    picture_taker(MIXED, store, [6], tmp_path, members=2)(trained.model, 64)
    (picture,) = tmp_path.glob("*.png")
    assert picture.name == "000000000064-map-00006.png"
    assert picture.stat().st_size > 20_000


# -- the verbs


def command(store: Path, run: Path, *words: str) -> list[str]:
    own = [f"store={store}", f"run.dir={run}", "trainer.device=cpu", *TINY, *words]
    return [sys.executable, "-m", "radiomaps", "train", *own]


def weights(run: Path) -> dict[str, torch.Tensor]:
    folder = RunFolder.load(run).checkpoints
    return load_file(max(folder.glob("[0-9]*")) / "ema.safetensors")


def test_a_killed_training_comes_to_the_same_weights(store: Path, tmp_path: Path) -> None:
    words = [
        "trainer.samples=160",
        "trainer.checkpoint_every=8",
        "trainer.validate_every=80",
        "pictures=1",
        "members=1",
    ]
    killed = command(store, tmp_path / "killed", *words)
    process = subprocess.Popen(killed, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 300
        while process.poll() is None and not list(_checkpoints(tmp_path / "killed")):
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
    subprocess.run(killed, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(command(store, tmp_path / "whole", *words), check=True, stdout=subprocess.DEVNULL)
    first, second = weights(tmp_path / "killed"), weights(tmp_path / "whole")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    run = RunFolder.load(tmp_path / "whole")
    assert run.summary["samples_seen"] == 160
    assert len(list(run.samples.glob("*.png"))) == 2


def _checkpoints(run: Path) -> Iterator[Path]:
    return (path for path in run.glob("checkpoints/[0-9]*") if (path / "SHA256SUMS").exists())


@pytest.mark.slow
def test_two_processes_come_to_the_weights_of_one(store: Path, tmp_path: Path) -> None:
    words = ["trainer.samples=32"]
    subprocess.run(command(store, tmp_path / "one", *words), check=True, stdout=subprocess.DEVNULL)
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "radiomaps",
    ]
    subprocess.run([*launcher, *command(store, tmp_path / "two", *words)[3:]], check=True, stdout=subprocess.DEVNULL)
    first, second = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert all(torch.allclose(first[name], second[name], atol=1e-5) for name in first)


@pytest.fixture(scope="module")
def run(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the command line."""
    path = tmp_path_factory.mktemp("runs") / "aware"
    words = command(store, path, "trainer.samples=32", "pictures=0", "task.targets=[path_gain_db,toa_s]")[3:]
    assert app.main(APP, words) == 0
    return path


def test_a_store_is_sampled_by_part(run: Path, store: Path, tmp_path: Path) -> None:
    words = [f"checkpoint={run}", f"store={store}", "part=test", "members=2", "steps=1", "pictures=1", "device=cpu"]
    assert app.main(APP, ["predict", *words, f"run.dir={tmp_path / 'out'}"]) == 0
    files = sorted((tmp_path / "out/samples").glob("*.nc"))
    assert len(files) == 2
    assert len(list((tmp_path / "out/samples").glob("*.png"))) == 1
    with xr.open_dataset(files[0]) as made:
        assert made.attrs["Conventions"] == "CF-1.11"
        assert dict(made["toa_s"].sizes) == {"member": 2, "z": 4, "y": 16, "x": 16}
        assert made["toa_s_uncertainty"].attrs["units"] == "s"
        assert float(made["x"][1] - made["x"][0]) == 4
    page = report(tmp_path / "out")
    assert page is not None
    viewer = next(block for block in page.sections[0].blocks if isinstance(block, Viewer))
    # the maps are those of a store, so their truth is shown beside them
    assert {field.panel for field in viewer.fields} == {"truth", "mean", "member", "mean − truth", "uncertainty"}


def test_a_training_starts_from_the_weights_of_another(run: Path, store: Path, tmp_path: Path) -> None:
    still = ["trainer.samples=4", "trainer.learning_rate=1e-12", "trainer.weight_decay=0", "pictures=0"]
    words = command(store, tmp_path / "on", *still, "task.targets=[path_gain_db,toa_s]", f"start={run}")[3:]
    assert app.main(APP, words) == 0
    first, second = weights(run), weights(tmp_path / "on")
    assert all(torch.allclose(first[name], second[name], atol=1e-5) for name in first)


def test_a_scene_with_a_transmitter_is_sampled(run: Path, tmp_path: Path) -> None:
    words = [
        f"checkpoint={run}",
        "scene=procedural",
        "scene.size_m=96",
        "scene.seed=9",
        "window.size_m=96",
        "members=2",
    ]
    place = ["transmitters.positions_m=[[20,30,25]]", "format=zarr", "device=cpu", "pictures=1"]
    tiles = ["tiles.tile=16", "tiles.limit=16", "tiles.blend=2", "tiles.halo=8"]
    assert app.main(APP, ["predict", *words, *place, *tiles, f"run.dir={tmp_path / 'out'}"]) == 0
    (file,) = (tmp_path / "out/samples").glob("*.zarr")
    with xr.open_zarr(file) as made:
        assert dict(made["path_gain_db"].sizes) == {"member": 2, "z": 4, "y": 24, "x": 24}
        assert (float(made["tx_x"]), float(made["tx_y"]), float(made["tx_z"])) == pytest.approx((20, 30, 25))
        assert made["z"].values.tolist() == [1, 4, 7, 10]


def test_mistakes_are_told(run: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["part=tset", f"store={store}"], "did you mean 'test'"),
        (["samples=[99]", f"store={store}"], "map 99"),
        (["sampler=hein", f"store={store}"], "did you mean 'heun'"),
        (["format=tiff", f"store={store}"], "format"),
    ):
        out = f"run.dir={tmp_path / words[0].partition('=')[0]}"
        assert app.main(APP, ["predict", f"checkpoint={run}", "device=cpu", *words, out]) != 0
        assert message in capsys.readouterr().err
