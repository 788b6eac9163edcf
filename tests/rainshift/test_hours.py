"""Models over time see windows of consecutive hours; every hour is scored once, whatever the windows."""

import json

import numpy as np
import pytest
import torch
import xarray as xr

from geoml.cli.compose import compose
from geoml.errors import UserError
from rainshift.__main__ import main
from rainshift.data.archive import archive_of
from rainshift.data.selection import choose, hourly, whole_fields
from rainshift.models.spec import ModelSpec
from rainshift.prediction import predict_maps

SMALL = (
    "data.size_deg=2",
    "data.splits_at.train.hours=48",
    "data.splits_at.validation.hours=24",
    "data.splits_at.test.hours=48",
    "data.condition=[tp,u]",
)
REGION = "melanesia"


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hours")
    made = archive_of(compose("rainshift.conf", "train", [*SMALL, f"cache={folder}"]))
    for split in made.splits:
        made.prepare(REGION, split)
    return made


class Echo:
    """Gives the target back, an hour or a window at a time."""

    def __init__(self, window):
        self.window = window

    def predict(self, batch, members=1, seed=0):
        return batch.target.unsqueeze(1).expand(-1, members, *batch.target.shape[1:]), 0.0


@pytest.mark.parametrize("window", [None, 2, 5, 24, 100])
@pytest.mark.parametrize("wanted", [slice(None), [3, 4, 22, 23, 24, 40]])
def test_every_hour_wanted_comes_once_and_is_itself(archive, window, wanted):
    positions = np.arange(48)[wanted]
    rain = predict_maps(Echo(window), archive, REGION, positions=positions, members=2)["precipitation"]
    truth = archive.open(REGION, "test")["target"]["precipitation"].isel(time=positions)
    np.testing.assert_allclose(rain[1].values, truth.values, rtol=1e-6)
    assert (rain["time"].values == truth["time"].values).all()
    seen = [rows for _, rows in whole_fields(archive, REGION, "test", positions, window)]
    flat = np.concatenate([rows.ravel() for rows in seen])
    assert sorted(flat[flat >= 0]) == list(range(len(positions)))


def test_windows_do_not_reach_over_a_gap_in_time(archive):
    # Days of the test split are spread over a year: 24 hours follow each other, the 25th does not.
    batches = [batch for batch, _ in whole_fields(archive, REGION, "test", np.arange(48), 100)]
    assert sum(len(batch) for batch in batches) == 2
    for batch in batches:
        assert batch.condition.shape[2] == 24
        assert batch.target_grid["time"].step == 3600.0


def test_the_number_of_an_hour_is_its_own_whatever_else_is_asked_for(archive):
    alone = next(whole_fields(archive, REGION, "test", np.array([7])))[0]
    among = next(whole_fields(archive, REGION, "test", np.arange(5, 9)))[0]
    assert alone.ids == (7,)
    assert among.ids == (5, 6, 7, 8)


def test_hours_are_chosen_in_whole_windows(archive):
    chosen = choose(archive, REGION, "train", 20, 8)
    assert len(chosen) == 16
    assert (np.diff(chosen.reshape(2, 8), axis=1) == 1).all()
    assert len(choose(archive, REGION, "train", None, 8)) == 48
    with pytest.raises(UserError, match="no train window of 25 consecutive hours"):
        choose(archive, REGION, "train", None, 25)


def test_hourly_puts_time_beside_the_batch():
    fields = torch.arange(2 * 3 * 1 * 4 * 2 * 2).reshape(2, 3, 1, 4, 2, 2)
    made = hourly(fields, True)
    assert made.shape == (8, 3, 1, 2, 2)
    assert (made[5] == fields[1, :, :, 1]).all()
    assert hourly(fields[:, :, :, 0], False).shape == (2, 3, 1, 2, 2)


@pytest.mark.parametrize("window", [1, 2.5, "day"])
def test_a_window_is_a_whole_number_of_hours(window):
    with pytest.raises(UserError, match="expected a whole number of hours, 2 or more"):
        ModelSpec.of({"model": "unet", "window": window})


def test_a_model_over_time_is_trained_predicts_and_is_scored(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [*SMALL, "cache=cache"]
    unet = [
        "model=unet",
        "model.network.base=4",
        "model.network.multipliers=[1,2]",
        "window=6",
        "trainer.samples=16",
        "loader.patch=0",
    ]
    assert main(["train", f"region={REGION}", *words, *unet, "loader.batch_size=2", "run.dir=run"]) == 0
    assert json.loads((tmp_path / "run/checkpoints/window.json").read_text()) == {"hours": 6}
    wanted = [f"region={REGION}", *words, "checkpoint=run"]
    assert main(["predict", *wanted, "samples=5", "run.dir=predicted"]) == 0
    with xr.open_dataset(tmp_path / f"predicted/samples/{REGION}-test.nc") as data:
        assert np.isfinite(data["precipitation"]).all()
        assert data["precipitation"].sizes["time"] == 5
    assert main(["evaluate", *wanted, "run.dir=scored"]) == 0
    row = json.loads((tmp_path / "scored/summary.json").read_text())
    assert "'times': 48" in str(row)
    capsys.readouterr()
    assert main(["train", f"region={REGION}", *words, "model=climatology", "window=6", "run.dir=none"]) == 2
    assert "predicts single hours" in capsys.readouterr().err


def test_rows_over_one_hour_and_over_many_stand_in_one_benchmark(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net = "model:unet,base:4,multipliers:[1,2]"
    words = [
        *SMALL,
        "train_regions=[melanesia,caribbean]",
        "test_regions=[melanesia]",
        f"models=[bilinear,{{{net}}},{{{net},window:8,name:unet3d}}]",
        "trainer.samples=8",
        "loader.batch_size=2",
        "loader.patch=0",
        "sequence_hours=12",
        "run.dir=bench",
        "cache=cache",
    ]
    assert main(["benchmark", *words]) == 0
    with xr.open_dataset(tmp_path / "bench/benchmark.nc") as results:
        assert set(results["model"].values) == {"bilinear", "unet", "unet3d"}
        assert np.isfinite(results["score"].sel(model="unet3d", test_region="melanesia")).all()
        assert "lag1_error" in results["metric"].values
