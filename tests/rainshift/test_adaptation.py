"""Adaptation to a place: contiguous hours, weights that the held-out hours choose, rows and hours to half the gap."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import xarray as xr

from geoml.cli.compose import compose
from geoml.errors import UserError
from geoml.train import checkpoint
from rainshift.__main__ import main
from rainshift.benchmarking import adaptation
from rainshift.benchmarking.adaptation import adapted_hours, block_of, half_gap_hours
from rainshift.benchmarking.run import Experiment
from rainshift.models.general import WEIGHTS

SPLITS = (
    "data.splits_at={train:{start:'2001-06-01',end:'2001-06-05',hours:96},"
    "test:{start:'2004-01-01',end:'2006-01-01',hours:48}}"
)
OPTIONS = [
    "data.size_deg=2",
    SPLITS,
    "regions=[melanesia]",
    "transforms=physical",
    "models=[bilinear,general-regression,{model:anchored-regression,start:general-regression,name:mine}]",
    "adapt=[0,8,48]",
    "alignment=[quantile_mapping,coral]",
    "trainer.samples=160",
    "trainer.validate_every=0",
    "loader.batch_size=8",
    "loader.patch=0",
    "loader.validation_samples=0",
    "test_samples=24",
    "analysis.block_hours=1",
    "analysis.replicates=100",
]
STEPS = ["mine+0h", "mine+8h", "mine+48h"]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adaptation")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(adaptation, "CLIMATES", 3)
        assert main(["benchmark", *OPTIONS, "run.dir=bench"]) == 0
    return folder


def test_rows_of_hours_and_the_unadapted_model_is_the_shipped_one(workplace):
    results = xr.open_dataset(workplace / "bench" / "benchmark.nc")
    score = results["score"].sel(metric="crps_fair", distribution="in").squeeze("test_region")
    assert {*STEPS, "mine", "mine+0h+quantile_mapping", "mine+0h+coral"} < {*map(str, score["model"].values)}
    assert np.isfinite(score).all()
    assert np.isclose(score.sel(model="mine+0h"), score.sel(model="general-regression"), rtol=1e-5)
    assert not np.isclose(score.sel(model="mine+0h+coral"), score.sel(model="mine+0h"), rtol=1e-3)
    (row,) = json.loads((workplace / "bench" / "summary.json").read_text())["adaptation"]
    assert row["hours"] == [0, 8, 48, 96]
    assert np.allclose(row["score"], [float(score.sel(model=name)) for name in [*STEPS, "mine"]])
    gap = 100 * (row["score"][0] / row["score"][-1] - 1)
    assert np.isclose(row["gap_percent"][0], gap)
    assert (row["half_gap_hours"] is None) == (row["gap_percent"][1] <= 0)
    share = results["largest_outside_share"].sel(distribution="in").squeeze("test_region")
    assert 0 <= float(share.sel(model="mine+0h")) < 1
    assert np.isnan(share.sel(model="bilinear"))
    page = (workplace / "bench" / "report.md").read_text()
    assert "outside %" in page
    assert "Adaptation to local data" in page
    assert "half gap, h" in page


def test_held_out_hours_choose_among_averages_of_weights(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    experiment = Experiment(compose("rainshift.conf", "benchmark", OPTIONS))
    given = checkpoint.load_file(WEIGHTS / "general-regression" / "ema.safetensors")
    for cell in experiment.plan.cells:
        if cell.model not in STEPS[1:]:
            continue
        cost = experiment.trained(cell.model, cell.train_set, cell.seed)  # finished: nothing is trained again
        assert cost["held_out_after"] <= cost["held_out_before"]
        folder = experiment.trained_in(cell) / "checkpoints"
        made = checkpoint.load_file(checkpoint.chosen(folder) / "ema.safetensors")
        tuned = checkpoint.load_file(checkpoint.chosen(folder / "steps") / "ema.safetensors")
        for name in ("network.head.weight", "level") if "network.head.weight" in made else ("level",):
            wanted = torch.lerp(given[name], tuned[name], cost["share_of_tuned"])
            assert torch.allclose(made[name], wanted, atol=1e-6)


def test_dry_hours_change_nothing(tmp_path, monkeypatch, caplog):
    """Some folds have dry hours in the middle of their training record: a benchmark has all its rows."""
    monkeypatch.chdir(tmp_path)
    time = np.datetime64("2021-06-01T01", "ns") + np.arange(120) * np.timedelta64(1, "h")
    rain = np.random.default_rng(0).gamma(0.4, 2.0, (120, 20, 20)).astype("f4")
    rain[:80] = 0
    at = {"time": time, "lat": 10.05 + 0.1 * np.arange(20), "lon": 5.05 + 0.1 * np.arange(20)}
    xr.Dataset({"precipitation": (("time", "lat", "lon"), rain, {"units": "mm/h"})}, at).to_netcdf("rain.nc")
    words = [word for word in OPTIONS if not word.startswith(("data.", "regions", "models", "adapt", "alignment"))]
    words += ["data=gridded", "data.root=rain.nc", "adapt=[0,8]"]
    words += ["models=[bilinear,{model:anchored-regression,start:general-regression,name:mine}]"]
    assert main(["benchmark", *words, "run.dir=bench"]) == 0
    assert "mine+8h: the 8 local hours of rain@2 are too dry; its weights are kept" in caplog.text
    score = xr.open_dataset("bench/benchmark.nc")["score"].sel(metric="crps_fair", distribution="in").squeeze()
    assert (score.sel(model=["mine+0h", "mine+8h", "mine"]) > 0).all()


def test_a_finished_benchmark_is_found_again(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(adaptation, "fit", None)
    assert main(["benchmark", *OPTIONS, "run.dir=again"]) == 0


def test_a_block_is_contiguous_and_inside_the_training_hours():
    times = np.datetime64("2001-01-01T00", "h") + np.r_[0:30, 100:160]
    for seed in range(6):
        chosen = block_of(times, 24, seed)
        assert len({*np.diff(times[chosen]).astype(int)}) == 1
    assert len({int(block_of(times, 24, seed)[0]) for seed in range(6)}) == 6
    assert len(block_of(times, 80)) == 80  # no run is that long: consecutive hours of the record
    with pytest.raises(UserError, match="has 90"):
        block_of(times, 91)


def test_half_of_the_gap():
    assert half_gap_hours([0, 10, 100], [1.0, 0.5, 0.0]) == 10
    assert half_gap_hours([0, 10, 100], [1.0, 1.1, 0.9]) == 77.5
    assert half_gap_hours([0, 10, 100], [1.0, 0.9, 1.0]) is None
    assert half_gap_hours([0, 10, 100], [1.0, 0.9, float("nan")]) is None


@pytest.mark.parametrize("wrong", [[0, 2], [24, 24], "24", [-1], [], [1.5]])
def test_numbers_of_hours_that_say_nothing(wrong):
    with pytest.raises(UserError, match=r"adapt=\[0,24,96\]"):
        adapted_hours(wrong)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["models=[bilinear,general]"], "start:general"),
        (["adapt=[24]"], "add 0 to adapt"),
        (["models=[bilinear,{model:anchored,start:runs/mine}]"], "alignment=none"),
    ],
)
def test_mistakes_are_said_before_anything_is_trained(workplace, monkeypatch, words, message):
    monkeypatch.chdir(workplace)
    with pytest.raises(UserError, match=message):
        Experiment(compose("rainshift.conf", "benchmark", [*OPTIONS, *words]))


def test_weights_of_physical_fields_refuse_other_transforms(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["region=melanesia", "model=anchored-regression", "start=general-regression", "transforms=fourth_root"]
    words += [word for word in OPTIONS if word.startswith(("data.", "trainer.samples", "loader."))]
    assert main(["train", *words, "run.dir=t"]) == 2
    error = capsys.readouterr().err
    assert "was trained on physical fields, and the transforms are" in error
    assert "set transforms=physical" in error
