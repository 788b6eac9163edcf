"""The regression with diffused residuals: members around the mean, the gate and its file, derived inputs."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from geoml.cli import app
from geoml.data.fields import Batch
from geoml.errors import UserError
from geoml.grids.grid import Grid
from geoml.models.base import Channels
from geoml.models.noise import member_noise
from geoml.runs.files import read_json
from geoml.train import Trainer
from radiomaps.__main__ import APP
from radiomaps.generation.generate import generate
from radiomaps.generation.plan import Placement, Plan, Window
from radiomaps.models import build
from radiomaps.models.corrdiff3d import CorrDiff3D
from radiomaps.models.gating import described, fit_gate, gated
from radiomaps.tasks import Task
from radiomaps.tasks.conditions import Site
from radiomaps.tasks.features import feature_channels
from radiomaps.tasks.task import SIGHT
from radiomaps.trained import load_trained, weights_of
from radiomaps.training import Recipe

CHANNELS = Channels(("building", "gain_prior", SIGHT), ("gain",), first_guess=(("gain", "gain_prior"),))
GRID = Grid.box({"z": 0.0, "y": 0.0, "x": 0.0}, {"z": 4.0, "y": 8.0, "x": 8.0}, 1.0)
SMALL = {"base": 4, "multipliers": [1, 2], "residual_network": None, "steps": 2}


def model() -> CorrDiff3D:
    made = build({"model": "corrdiff3d", **SMALL}, CHANNELS)
    assert isinstance(made, CorrDiff3D)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return made.eval()


def batch(error: tuple[float, float]) -> Batch:
    """Two maps whose prior errs by so much out of sight and in sight, which is the left half."""
    target = torch.rand(2, 1, *GRID.shape, generator=torch.Generator().manual_seed(2))
    seen = torch.zeros_like(target)
    seen[..., :4] = 1
    prior = target + torch.where(seen > 0, error[1], error[0])
    condition = torch.cat((torch.zeros_like(target), prior, seen), dim=1)
    return Batch(condition, GRID, GRID, target, mask=torch.ones_like(target, dtype=torch.bool), ids=(0, 1))


def test_members_come_in_pairs_around_the_mean() -> None:
    made, maps = model(), batch((0.2, 0.0))
    members = made.predict(maps, members=4)
    mean = made.centre(made.predictors(maps)).detach()
    torch.testing.assert_close(members.mean(dim=1), mean)
    torch.testing.assert_close(members[:, 0] - mean, mean - members[:, 1])
    assert (members[:, 0] - members[:, 2]).abs().max() > 0
    torch.testing.assert_close(made.predict(maps, members=3), members[:, :3])


def test_the_gate_shuts_where_the_prior_is_exact() -> None:
    made, maps = model(), batch((0.2, 0.0))
    gate = fit_gate(made, [maps])
    assert math.isinf(gate.threshold[1][0])
    assert gate.opened[1][0] == 0
    made.gated(gate)
    mean = made.centre(made.predictors(maps)).detach()
    seen = maps.condition[:, 2:] > 0
    assert torch.equal(mean[seen], maps.condition[:, 1:2][seen])
    # Members have the variance of the errors where the gate was fitted: none in sight.
    deviation = made.predict(maps, members=8) - mean.detach().unsqueeze(1)
    assert float(deviation[seen.unsqueeze(1).expand_as(deviation)].abs().max()) < 1e-6
    kept = described(gate, CHANNELS.target)
    assert kept["threshold"][1] == [None]
    again = gated(model(), kept)
    assert isinstance(again, CorrDiff3D)
    torch.testing.assert_close(again.threshold, made.threshold)
    made.gated(None)
    assert not made.threshold.any()


def test_the_spread_is_that_of_the_errors() -> None:
    made = model()
    maps = batch((0.2, 0.1))
    made.gated(fit_gate(made, [maps]))
    deviation = made.predict(maps, members=16) - made.centre(made.predictors(maps)).detach().unsqueeze(1)
    with torch.no_grad():
        error = maps.target - made.centre(made.predictors(maps))
    assert float(deviation.square().mean().sqrt() / error.square().mean().sqrt()) == pytest.approx(1, rel=0.3)


def test_a_training_leaves_its_gate_which_prediction_reads(tmp_path: Path) -> None:
    scenes = ({"name": "procedural", "seed": 3, "count": 5, "size_m": 96},)
    plan = Plan(scenes, Placement(count=2), Window(size_m=64, step_m=4, heights_m=(1.5, 4.5, 3)))
    store = generate(plan, tmp_path / "maps.zarr")
    words = ["train", f"store={store}", "model=corrdiff3d", "model.network.base=4", "model.residual_network.base=4"]
    words += ["task.features=[walls,obstruction,roofs,diffracted_once]", "trainer.samples=8", "loader.batch_size=4"]
    words += ["pictures=0"]
    words += ["split={by: scene, parts: {train: 0.6, validation: 0.2, test: 0.2}}", f"run.dir={tmp_path / 'run'}"]
    assert app.main(APP, words) == 0
    values = read_json(tmp_path / "run" / "checkpoints" / "gate.json")
    assert values["channels"] == ["path_gain_db"]
    trained = load_trained(tmp_path / "run")
    assert isinstance(trained.model, CorrDiff3D)
    assert trained.model.spread[0, 0] == pytest.approx(values["spread"][0][0])
    predicted = [
        "predict",
        f"checkpoint={tmp_path / 'run'}",
        f"store={store}",
        "samples=[0]",
        "members=2",
        "pictures=0",
    ]
    assert app.main(APP, [*predicted, f"run.dir={tmp_path / 'drawn'}"]) == 0


@pytest.mark.parametrize("share", [0.5, 0])
def test_an_untrained_or_no_diffusion_samples_a_field_with_the_correlation_of_its_noise(share: float) -> None:
    lengths = {"noise_lengths": [2.0, 4.0, 4.0], "steps": 6, "share": share}
    made = build({"model": "corrdiff3d", **SMALL, **lengths}, CHANNELS).eval()
    assert isinstance(made, CorrDiff3D)
    maps = batch((0.2, 0.0))
    members = made.predict(maps, members=800)[:, ::2]
    predictors = made.predictors(maps)
    with torch.no_grad():
        away = (members - made.centre(predictors).unsqueeze(1)) / made.scales(predictors).unsqueeze(1)
    assert float(away.square().mean()) == pytest.approx(1, rel=0.1)
    for axis, length in ((-1, 4.0), (-2, 4.0), (-3, 2.0)):
        size = away.shape[axis]
        for lag in (1, 2):
            alike = (away.narrow(axis, 0, size - lag) * away.narrow(axis, lag, size - lag)).mean()
            assert float(alike) == pytest.approx(math.exp(-lag / length), abs=0.06)
    with pytest.raises(UserError, match="noise_lengths"):
        build({"model": "corrdiff3d", **SMALL, "noise_lengths": [-1.0]}, CHANNELS)


def test_members_have_the_correlation_of_the_errors_where_the_gate_was_fitted() -> None:
    made = build({"model": "corrdiff3d", **SMALL, "share": 0}, CHANNELS).eval()
    assert isinstance(made, CorrDiff3D)
    grid = Grid.box({"z": 0.0, "y": 0.0, "x": 0.0}, {"z": 8.0, "y": 24.0, "x": 24.0}, 1.0)
    error = member_noise((1, *grid.shape), range(48), members=1, seed=3, lengths=(1.0, 3.0, 3.0))[:, 0]
    condition = torch.zeros((48, 3, *grid.shape))
    maps = Batch(condition, grid, grid, error, mask=torch.ones_like(error, dtype=torch.bool), ids=tuple(range(48)))
    kept = described(fit_gate(made, [maps]), CHANNELS.target)
    assert kept["lengths"][0] == pytest.approx([1.0, 3.0, 3.0], rel=0.1)
    again = gated(build({"model": "corrdiff3d", **SMALL, "share": 0}, CHANNELS).eval(), kept)
    away = again.predict(maps, members=2)[:, 0]
    assert float(away.std()) == pytest.approx(1, rel=0.05)
    alike = (away[..., 1:] * away[..., :-1]).mean() / away.square().mean()
    assert float(alike) == pytest.approx(math.exp(-1 / 3), abs=0.03)


def test_a_share_below_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="share=-1"):
        build({"model": "corrdiff3d", **SMALL, "share": -1}, CHANNELS)


def test_features_know_walls_roofs_and_what_stands_between() -> None:
    grid = Grid.box({"z": 0.0, "y": 0.0, "x": 0.0}, {"z": 12.0, "y": 64.0, "x": 64.0}, {"z": 3.0, "y": 4.0, "x": 4.0})
    building = np.zeros(grid.shape, bool)
    building[:2, :, 8] = True  # a wall of 6 m along y, 4 m thick, from x = 32 m
    roof = np.zeros(grid.shape[1:], np.float32)
    roof[:, 8] = 6 / 20
    site = Site((10.0, 30.0, 1.5), 23.0, 5.9e9)
    length, height = feature_channels("obstruction", site, grid, building, roof)
    assert not length[:, :, :8].any()  # nothing stands before the wall
    assert (length[0, :, 10:] > 0).all()
    assert (height[0, :, 12:] > 0).all()
    assert height[0].max() == pytest.approx(4.5 / 20, abs=0.02)
    assert length[3, 7, 10] == 0 < length[0, 7, 10]  # the path to a higher voxel passes over it
    (distance,) = feature_channels("walls", None, grid, building, roof)
    assert distance[0, 3, 8] == 0 < distance[0, 3, 7] < distance[0, 3, 0]
    assert distance[3].min() == 1.0  # no wall at this height
    (above,) = feature_channels("roofs", None, grid, building, roof)
    assert above[0, 3, 5] == pytest.approx((1.5 - 6) / 20, abs=1e-3)


def test_an_unaware_task_has_no_obstruction() -> None:
    with pytest.raises(UserError, match="obstruction needs the transmitter"):
        Task(radiation="unaware", observations={"rate": 0.1}, features=("obstruction",))
    with pytest.raises(UserError, match="did you mean 'walls'"):
        Task(features=("wall",))
    assert "features" not in Task().describe()


@pytest.mark.skipif(weights_of("general") is None, reason="the package has no weights of a general model")
def test_the_shipped_weights_predict_a_scene_without_training(tmp_path: Path) -> None:
    words = ["predict", "scene.size_m=128", "window={size_m: 64, heights_m: [1.5, 7.5, 3]}"]
    assert app.main(APP, [*words, "members=2", "pictures=0", f"run.dir={tmp_path}"]) == 0
    assert len(list((tmp_path / "samples").glob("map-*.nc"))) == 1


def test_training_crops_are_an_edge_or_a_size() -> None:
    assert Recipe(Trainer(), patch=[2, 8, 8]).patch == (2, 8, 8)  # type: ignore[arg-type]
    for bad in ([8, 8], [0, 8, 8], -1):
        with pytest.raises(UserError, match=r"loader\.patch"):
            Recipe(Trainer(), patch=bad)  # type: ignore[arg-type]
