"""Radio maps from Python: public names, predictions without a store, labelled scores, observations."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import radiomaps
from geoml.errors import DataError, UserError
from radiomaps.generation.generate import generate
from radiomaps.generation.plan import Placement, Plan, Window
from radiomaps.prediction import predicted_maps
from radiomaps.tasks import Task
from radiomaps.tasks.scene_batch import observed_on

RUNS = Path(__file__).parent.parent / "data" / "checkpoints_9c6128b" / "radio"
NAMES = ["Grid", "Model", "Scene", "Transmitter", "benchmark", "calibrate", "evaluate", "load"]
WINDOW = Window(size_m=48.0, step_m=8.0, heights_m=(1.0, 4.0, 1.0))
GRID = radiomaps.Grid.box({"z": 1, "y": 96, "x": 96}, {"z": 5, "y": 160, "x": 160}, {"z": 2, "y": 8, "x": 8})


def test_dir_lists_the_public_names_and_each_has_help() -> None:
    assert dir(radiomaps) == [*NAMES, "load_scene", "open", "paths", "trace", "train"]
    for name in dir(radiomaps):
        assert len((getattr(radiomaps, name).__doc__ or "").splitlines()[0]) > 20, name


@pytest.mark.parametrize("package", ["radiomaps", "mcp_experts", "rainshift", "geoml"])
def test_importing_a_package_loads_nothing_heavy(package: str) -> None:
    heavy = "torch xarray dask sionna numpy pandas hydra scipy"
    code = f"import sys, {package}; dir({package}); print(*sorted(set('{heavy}'.split()) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_folder_of_the_same_name_does_not_hide_a_function() -> None:
    import radiomaps.evaluation

    assert callable(radiomaps.trace)
    assert callable(radiomaps.evaluate)
    assert callable(radiomaps.benchmark)


@pytest.fixture(scope="module")
def scene() -> radiomaps.Scene:
    return radiomaps.load_scene("procedural", seed=3, size_m=96)


def test_a_scene_and_a_store_give_the_same_prediction(scene: radiomaps.Scene, tmp_path: Path) -> None:
    plan = Plan(({"name": "procedural", "seed": 3, "size_m": 96},), Placement(count=2), WINDOW, "dominant")
    store = generate(plan, tmp_path / "maps.zarr")
    model = radiomaps.load(RUNS / "radiodiff3d", device="cpu")
    from_store = [made for _, made in predicted_maps(model.trained, store, [0, 1], members=2, seed=5)]
    made = model.predict(scene, plan.transmitters(0), WINDOW.grid(scene), members=2, seed=5)
    assert dict(made.sizes) == {"tx": 2, "member": 2, "z": 4, "y": 6, "x": 6}
    for number, other in enumerate(from_store):
        one = made.isel(tx=number)
        np.testing.assert_allclose(one["path_gain_db"], other["path_gain_db"], atol=0.05)  # a store keeps 0.01 dB
        np.testing.assert_array_equal(one["building"], other["building"])
        for name in ("x", "y", "z", "tx_x", "tx_y", "tx_z", "frequency_hz"):
            np.testing.assert_allclose(one[name], other[name], atol=0.01)
    alone = model.predict(scene, plan.transmitters(0)[:1], WINDOW.grid(scene), members=1, seed=5)
    np.testing.assert_allclose(alone["path_gain_db"][0, 0], made["path_gain_db"][0, 0], atol=1e-4)


def test_other_options_of_sampling_hold_for_one_call(scene: radiomaps.Scene) -> None:
    model = radiomaps.load(RUNS / "radiodiff3d", device="cpu")
    grid, place = WINDOW.grid(scene), [scene_place(scene)]
    before = model.predict(scene, place, grid, members=1)
    other = model.predict(scene, place, grid, members=1, steps=1)
    after = model.predict(scene, place, grid, members=1)
    assert not np.allclose(before["path_gain_db"], other["path_gain_db"], equal_nan=True, atol=1e-3)
    np.testing.assert_array_equal(before["path_gain_db"], after["path_gain_db"])
    with pytest.raises(UserError, match="UNet3D has no steps"):
        radiomaps.load(RUNS / "unet3d", device="cpu").predict(scene, place, grid, steps=1)


def scene_place(scene: radiomaps.Scene) -> tuple[float, float, float]:
    lower, upper = scene.extent
    return (lower[0] + upper[0]) / 2, (lower[1] + upper[1]) / 2, upper[2] + 5.0


def test_the_grid_is_that_of_the_training_and_another_is_warned_of(
    scene: radiomaps.Scene, caplog: pytest.LogCaptureFixture
) -> None:
    model = radiomaps.load(RUNS / "unet3d", device="cpu")
    with caplog.at_level(logging.WARNING):
        made = model.predict(scene, [scene_place(scene)], members=3)
    assert "trained on voxels" not in caplog.text
    assert dict(made.sizes) == {"tx": 1, "member": 3, "z": 4, "y": 12, "x": 12}
    with caplog.at_level(logging.WARNING):
        model.predict(scene, [scene_place(scene)], scene.grid(16.0, (1.0, 4.0, 1.0)))
    assert "trained on voxels of 8 m × 1 m" in caplog.text


def test_observations_are_needed_exactly_where_they_are_read(scene: radiomaps.Scene) -> None:
    grid, place = WINDOW.grid(scene), [scene_place(scene)]
    aware, mixed = (radiomaps.load(RUNS / name, device="cpu") for name in ("unet3d", "unet3d-mixed"))
    points = xr.Dataset(
        {"path_gain_db": ("point", [-80.0])}, {axis: ("point", [grid[axis].coordinates[0]]) for axis in "xyz"}
    )
    with pytest.raises(UserError, match="needs observed voxels"):
        mixed.predict(scene, place, grid)
    with pytest.raises(UserError, match="reads no observations"):
        aware.predict(scene, place, grid, observed=points)
    with pytest.raises(UserError, match="needs transmitters"):
        aware.predict(scene, [], grid)
    free = ~scene.building_mask(grid)[0]
    row, column = np.argwhere(free)[0]
    for axis, index in (("y", row), ("x", column)):
        points[axis] = ("point", [grid[axis].coordinates[index]])
    made = mixed.predict(scene, place, grid, members=1, observed=points)
    assert float(made["path_gain_db"][0, 0, 0, row, column]) == pytest.approx(-80.0, abs=1e-3)


def test_points_are_averaged_in_their_voxels_around_the_circle() -> None:
    task = Task(targets=("doa_azimuth",), radiation="unaware", observations={"rate": 0.1})  # type: ignore[arg-type]
    points = xr.Dataset(
        {"doa_azimuth": ("point", [0.1, 2 * np.pi - 0.1, 1.0, np.nan])},
        {"x": ("point", [97.0, 98.0, 500.0, 97.0]), "y": ("point", [97.0] * 4), "z": ("point", [1.5] * 4)},
    )
    found = observed_on(GRID, task, points)["doa_azimuth"]
    assert np.isfinite(found).sum() == 1
    assert np.cos(found[0, 0, 0]) == pytest.approx(1.0)
    field = xr.full_like(xr.DataArray(found, {n: GRID[n].coordinates for n in "zyx"}, ("z", "y", "x")), np.nan)
    field[1, 2, 3] = 2.0
    again = observed_on(GRID, task, field.to_dataset(name="doa_azimuth").transpose("x", "y", "z"))["doa_azimuth"]
    assert again[1, 2, 3] == 2.0
    assert np.isfinite(again).sum() == 1
    with pytest.raises(DataError, match="no observation is finite and within the grid"):
        observed_on(GRID, task, points.assign_coords(z=("point", [90.0] * 4)))
    with pytest.raises(DataError, match="lack doa_azimuth"):
        observed_on(GRID, task, points.rename(doa_azimuth="azimuth"))


@pytest.fixture(scope="module")
def truth() -> xr.Dataset:
    return radiomaps.trace("procedural-0", [(60.0, 100.0, 40.0), (100.0, 60.0, 40.0)], GRID, solver="dominant")


def test_scores_are_those_of_known_errors(truth: xr.Dataset) -> None:
    random = np.random.default_rng(0)
    noise = xr.DataArray(random.normal(size=truth["toa_s"].shape), dims=truth["toa_s"].dims)
    made = xr.Dataset(
        {
            "path_gain_db": truth["path_gain_db"] + xr.where(truth["los"], 1.0, 4.0),
            "toa_s": truth["toa_s"] + 5e-9 * noise,
            "doa_azimuth": (truth["doa_azimuth"] + np.deg2rad(20.0)) % (2 * np.pi),
        }
    )
    scores = radiomaps.evaluate(made, truth)
    gain = scores.sel(target="path_gain_db")
    assert gain["rmse"].sel(voxels=["los", "nlos"]).values == pytest.approx([1.0, 4.0], abs=1e-4)
    assert gain["within"].sel(voxels=["los", "nlos"]).values == pytest.approx([1.0, 0.0])
    assert scores["rmse"].sel(target="toa_s", voxels="all") == pytest.approx(5.0, rel=0.15)
    assert scores["bias"].sel(target="doa_azimuth", voxels="all") == pytest.approx(20.0, abs=1e-3)
    assert scores["unit"].values.tolist() == ["dB", "ns", "°"]
    assert scores["voxels"].values.tolist() == ["all", "los", "nlos", "z = 2 m", "z = 4 m"]


def test_members_are_scored_as_an_ensemble(truth: xr.Dataset) -> None:
    shifted = [truth[["path_gain_db"]] + shift for shift in (-1.0, 1.0)]
    scores = radiomaps.evaluate(xr.concat(shifted, "member"), truth).sel(target="path_gain_db", voxels="all")
    assert float(scores["rmse"]) == pytest.approx(0.0, abs=1e-5)
    assert float(scores["crps_fair"]) == pytest.approx(0.0, abs=1e-5)  # mean |x - y| 1, half the mean difference 1
    assert float(scores["spread"]) == pytest.approx(2**0.5, abs=1e-4)


def test_a_store_is_scored_in_the_metres_of_its_scene(tmp_path: Path) -> None:
    plan = Plan(({"name": "procedural", "seed": 3, "size_m": 96},), Placement(count=2), WINDOW, "dominant")
    maps = radiomaps.open(generate(plan, tmp_path / "maps.zarr"))
    scores = radiomaps.evaluate(maps, maps)
    assert float(scores["rmse"].sel(target="path_gain_db", voxels="all")) == 0.0
    scene = radiomaps.load_scene("procedural", seed=3, size_m=96)
    traced = radiomaps.trace(scene, plan.transmitters(0), WINDOW.grid(scene), solver="dominant")
    scores = radiomaps.evaluate(traced, maps.isel(scene=0))
    assert float(scores["rmse"].sel(target="path_gain_db", voxels="all")) < 0.01


def test_what_cannot_be_compared_is_refused(truth: xr.Dataset) -> None:
    made = truth[["path_gain_db"]]
    with pytest.raises(DataError, match="share none"):
        radiomaps.evaluate(made.rename(path_gain_db="gain"), truth)
    with pytest.raises(DataError, match="run along x"):
        radiomaps.evaluate(made.assign_coords(x=made["x"] + 4.0), truth)
    with pytest.raises(DataError, match="transmitters of maps and truth differ by up to 3 m along x"):
        radiomaps.evaluate(made.assign_coords(tx_x=made["tx_x"] + 3.0), truth)
    with pytest.raises(DataError, match="not predicted in"):
        radiomaps.evaluate(made.where(made["x"] > 120), truth)
    with pytest.raises(DataError, match="1 maps are predicted, 2 are in the truth"):
        radiomaps.evaluate(made.isel(tx=[0]), truth)


def test_unknown_words_name_the_right_ones() -> None:
    with pytest.raises(UserError, match="did you mean 'height_m'"):
        radiomaps.load_scene("procedural-0", heigth=3)
    with pytest.raises(UserError, match="did you mean 'dominant'"):
        radiomaps.trace("procedural-0", [(60, 100, 40)], GRID, solver="dominat")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="'depth'"):
        radiomaps.paths("procedural-0", [(60, 100, 40)], [[100, 100, 1.5]], dept=3)


def test_training_from_python_leaves_a_run_that_is_found_again(tmp_path: Path) -> None:
    plan = Plan(({"name": "procedural", "size_m": 96, "count": 3},), Placement(count=2), WINDOW, "dominant")
    store = generate(plan, tmp_path / "maps.zarr")
    settings = {
        "store": store, "samples": 8, "run": tmp_path / "run", "loader__batch_size": 4, "trainer__device": "cpu",
        "split": {"by": "scene", "parts": {"train": 0.4, "validation": 0.3, "test": 0.3}},
    }  # fmt: skip
    small = {"model": "unet3d", "network": {"base": 4, "multipliers": [1]}}
    model = radiomaps.train(small, **settings)  # type: ignore[arg-type]
    assert repr(model) == "<radiomaps.Model UNet3D: path_gain_db, radiation=aware, prior=free_space>"
    assert (tmp_path / "run" / "config.yaml").exists()
    again = radiomaps.train(small, **settings)  # type: ignore[arg-type]
    assert again.trained.window == model.trained.window
