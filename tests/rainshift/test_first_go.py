"""A newcomer's benchmark: what is done with files that say nothing of training and test, and what is said of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy.ndimage import gaussian_filter

from geoml.errors import DataError, UserError
from rainshift.__main__ import _own_names, main
from rainshift.benchmarking.first_go import first_go
from rainshift.data.archive import Archive
from rainshift.places.partitions import Partition
from rainshift.places.splits import split_fold
from rainshift.sources import open_source

DATA = {"source": "gridded", "condition": ["tp"], "static": [], "first_guess": {"precipitation": "tp"}}
NETWORK = "{model: resnet, width: 4, coarse_blocks: 1, fine_blocks: 1, name: tiny}"
QUICK = ["trainer.samples=32", "trainer.validate_every=0", "metrics.metrics=[crps_fair,rmse,rank_deviation]"]


def record(times: int, *, start="2021-06-01", minutes=30, n=30, lat=5.05, lon=100.05, seed=0) -> xr.Dataset:
    """Rain in showers on n x n cells of 0.1 degree."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(times, n, n)), (2, 2, 2))
    rain = np.maximum(noise / noise.std() - 0.8, 0).astype("f4") * 4
    time = np.datetime64(start, "ns") + np.arange(times) * np.timedelta64(minutes, "m")
    coords = {
        "time": time,
        "lat": ("lat", lat + 0.1 * np.arange(n), {"units": "degrees_north"}),
        "lon": ("lon", lon + 0.1 * np.arange(n), {"units": "degrees_east"}),
    }
    return xr.Dataset({"precipitation": (("time", "lat", "lon"), rain, {"units": "mm/hr"})}, coords)


def prepared(folder: Path, cache: Path) -> Archive:
    archive = Archive({**DATA, "root": str(folder)}, cache)
    for name in archive.names:
        archive.prepare(name, "all")
    return archive


@pytest.fixture(autouse=True)
def _inside(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()


# ---- which files are one record


def test_files_that_follow_each_other_are_one_record(tmp_path):
    whole = record(96)
    for day in (0, 1):
        whole.isel(time=slice(48 * day, 48 * day + 48)).to_netcdf(tmp_path / "in" / f"rain_2021060{day + 1}.nc")
    source = open_source("gridded", root="in")
    assert source.names == ("rain",)
    np.testing.assert_array_equal(source.open("rain").time, whole.time.values)
    assert set(source.files("rain")) == {"rain_20210601.nc", "rain_20210602.nc"}


def test_files_of_one_time_each_are_one_record(tmp_path):
    whole = record(6, minutes=1440)
    for day in range(6):
        whole.isel(time=[day]).to_netcdf(tmp_path / "in" / f"r{day}.nc")
    assert len(open_source("gridded", root="in").open("r").time) == 6


def test_other_places_and_other_years_are_records_of_their_own(tmp_path):
    record(24).to_netcdf(tmp_path / "in" / "radar1.nc")
    record(24, lat=25.05).to_netcdf(tmp_path / "in" / "radar2.nc")
    record(24, start="2023-06-01").to_netcdf(tmp_path / "in" / "radar3.nc")
    assert open_source("gridded", root="in").names == ("radar1", "radar3", "radar2")


@pytest.mark.parametrize("ends", [("_0p10", "_0p25"), ("_fine", "_coarse"), ("", "_coarse")])
def test_coarse_partners_are_found_by_name(tmp_path, ends):
    fine = record(6)
    fine.to_netcdf(tmp_path / "in" / f"storm{ends[0]}.nc")
    exact = open_source("gridded", root="in", coarse="exact").open("storm")
    partner = exact.condition.rename(tp="precipitation") * 0 + 2.0
    partner["precipitation"].attrs["units"] = "mm/h"
    partner.to_netcdf(tmp_path / "in" / f"storm{ends[1]}.nc")
    found = open_source("gridded", root="in")
    assert found.names == ("storm",)
    data = found.open("storm")
    assert data.provenance["coarse"] == "partner file"
    assert float(data.condition.tp.min()) == float(data.condition.tp.max()) == 2.0


def test_any_even_grid_has_a_coarse_partner_and_a_finer_one_is_refused(tmp_path):
    data = record(4)
    data.assign_coords(lat=50 + 0.0371 * np.arange(30), lon=5 + 0.0371 * np.arange(30)).assign_coords(
        lat=lambda d: d.lat.assign_attrs(units="degrees_north"), lon=lambda d: d.lon.assign_attrs(units="degrees_east")
    ).to_netcdf(tmp_path / "in" / "a.nc")
    opened = open_source("gridded", root="in").open("a")
    assert opened.coarse["lat"].step / opened.fine["lat"].step == pytest.approx(2.5)
    with pytest.raises(DataError, match=r"at least 1\.5 times the fine step"):
        open_source("gridded", root="in", coarse_step=0.03).open("a")


# ---- what is done with them


def test_a_short_record_is_cut_into_folds(tmp_path):
    record(14 * 48, n=20).to_netcdf(tmp_path / "in" / "a.nc")
    go = first_go(prepared(tmp_path / "in", tmp_path / "c"), ["a"])
    assert go.folds == {"a": ["a@0", "a@1", "a@2", "a@3"]}
    tested = np.concatenate([go.archive.samples(fold, "test")[1] for fold in go.folds["a"]])
    assert sorted(tested) == list(range(14 * 48))
    for fold in go.folds["a"]:
        train, test = (go.archive.times(fold, role) for role in ("train", "test"))
        assert np.abs(train[:, None] - test).min() >= np.timedelta64(24, "h")
    said = " ".join(go.notes)
    assert "14 days" in said and "4 blocks" in said and "analysis.block_hours=12" in said  # noqa: PT018


def test_a_long_record_is_cut_into_blocks_of_time(tmp_path):
    record(130, minutes=1440, n=20).to_netcdf(tmp_path / "in" / "a.nc")
    go = first_go(prepared(tmp_path / "in", tmp_path / "c"), ["a"])
    assert go.shared == ("a",)
    times = {role: go.archive.times("a", role) for role in ("train", "validation", "test")}
    assert all(len(part) for part in times.values())
    assert np.abs(times["train"][:, None] - times["test"]).min() >= np.timedelta64(48, "h")


def test_places_are_left_out_in_turn_and_steps_are_not_mixed(tmp_path):
    record(24, n=20).to_netcdf(tmp_path / "in" / "here.nc")
    record(24, n=20, lat=25.05).to_netcdf(tmp_path / "in" / "there.nc")
    record(24, n=20, minutes=5).to_netcdf(tmp_path / "in" / "often.nc")
    go = first_go(prepared(tmp_path / "in", tmp_path / "c"), ["here", "there", "often"])
    assert go.outside == {"here": ("there",), "there": ("here",)}
    assert list(go.folds) == ["often"]
    assert "never trained on together" in go.notes[0]


def test_events_of_one_place_are_left_out_in_turn(tmp_path):
    for number, year in enumerate((2019, 2020, 2021)):
        record(24, n=20, start=f"{year}-06-01", seed=number).to_netcdf(tmp_path / "in" / f"storm{year}.nc")
    go = first_go(prepared(tmp_path / "in", tmp_path / "c"), ["storm2019", "storm2020", "storm2021"])
    assert go.inside["storm2020"] == ("storm2019", "storm2021")


def test_a_fold_that_leaves_nothing_is_refused():
    time = np.datetime64("2020-01-01") + np.arange(12) * np.timedelta64(1, "h")
    with pytest.raises(UserError, match="no training times remain"):
        split_fold(time, 0, 2, np.timedelta64(12, "h").item())


def test_the_first_go_trains_scores_and_draws(tmp_path, capsys):
    record(72, n=30, minutes=240).to_netcdf(tmp_path / "in" / "mine.nc")
    words = ["data=gridded", "data.root=in", f"models=[bilinear,{NETWORK}]", *QUICK, "run.dir=first", "cache=c"]
    assert main(["benchmark", *words]) == 0
    said = capsys.readouterr()
    assert "4 blocks" in said.out + said.err
    results = xr.open_dataset(tmp_path / "first" / "benchmark.nc")
    assert results.model.values.tolist() == ["tiny", "tiny+conserved", "bilinear"]
    assert results.test_region.values.tolist() == ["mine"]
    assert np.isfinite(results["score"].sel(model="tiny", metric="crps_fair", distribution="in")).all()
    assert int(xr.open_dataset(tmp_path / "first" / "curves.nc").truths.sum()) == 288
    page = (tmp_path / "first" / "report.md").read_text()
    assert "4 blocks" in page
    assert page.index("4 blocks") < page.index("crps_fair")
    assert "4 blocks" in (tmp_path / "first" / "report.html").read_text()
    shown = xr.open_dataset(next((tmp_path / "first" / "maps").glob("*.nc")))
    assert shown.model.values.tolist() == ["tiny", "tiny+conserved", "bilinear"]


@pytest.mark.slow
def test_fourteen_days_train_every_default_model(tmp_path):
    record(14 * 48, n=60).to_netcdf(tmp_path / "in" / "mine.nc")
    words = ["data=gridded", "data.root=in", "trainer.samples=400", "run.dir=first", "cache=c"]
    assert main(["benchmark", *words]) == 0
    results = xr.open_dataset(tmp_path / "first" / "benchmark.nc")
    scores = results["score"].sel(metric="crps_fair", distribution="in", test_region="mine")
    assert np.isfinite(scores).all()
    assert {"resnet", "unet"} <= set(results.model.values)
    summary = json.loads((tmp_path / "first" / "summary.json").read_text())
    assert len(summary["trainings"]) == 3 * 4  # climatology, resnet, unet; four folds
    assert not summary["failures"]


# ---- one model


def test_settings_come_from_the_checkpoint_and_trained_times_are_not_scored(tmp_path, capsys):
    record(60, n=30, minutes=240).to_netcdf(tmp_path / "in" / "mine.nc")
    model = ["model=resnet", "model.width=4", "model.coarse_blocks=1", "model.fine_blocks=1", *QUICK[:2]]
    train = ["train", "data=gridded", "data.root=in", *model, "cache=c"]
    shares = ["data.shares={train: 0.7, test: 0.3}", "data.blocks=1", "data.purge_hours=4"]
    assert main([*train, "region=mine", *shares, "run.dir=some"]) == 0
    assert main(["evaluate", "checkpoint=some", "run.dir=e1", "cache=c"]) == 0
    rows = json.loads((tmp_path / "e1" / "summary.json").read_text())["rows"]
    assert rows[0]["region"] == "mine"
    assert rows[0]["times"] == 17
    assert main(["predict", "checkpoint=some", "regions=[mine]", "members=1", "run.dir=p1", "cache=c"]) == 0
    assert main([*train, "run.dir=all"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "checkpoint=all", "run.dir=e2", "cache=c"]) == 2
    assert "trained on" in capsys.readouterr().err
    copied = record(60, n=30, minutes=240)
    (tmp_path / "copy").mkdir()
    copied.to_netcdf(tmp_path / "copy" / "other.nc")
    assert main(["evaluate", "checkpoint=all", "data=gridded", "data.root=copy", "run.dir=e3", "cache=c"]) == 2
    assert main(["evaluate", "checkpoint=all", "on_trained=mark", "run.dir=e4", "cache=c"]) == 0
    assert json.loads((tmp_path / "e4" / "summary.json").read_text())["rows"][0]["trained on, %"] == 100


@pytest.mark.parametrize(
    ("words", "read"),
    [
        (["train", "region=melanesia"], ["train", "region=melanesia"]),
        (["train", "region=mine"], ["train", "train_regions=[mine]"]),
        (["train", "regions=[a,b]"], ["train", "train_regions=[a,b]"]),
        (["evaluate", "region=mine"], ["evaluate", "regions=[mine]"]),
        (["prepare", "region=melanesia"], ["prepare", "regions=[melanesia]"]),
        (["benchmark", "region=[a,b]"], ["benchmark", "regions=[a,b]"]),
        (["train", "-m", "region=a,b"], ["train", "-m", "train_regions=[a],[b]"]),
        (["regions", "region=x"], ["regions", "region=x"]),
    ],
)
def test_names_of_regions_mean_the_same_in_every_verb(words, read):
    assert _own_names(words) == read


# ---- partitions


def test_a_partition_is_a_file_with_a_source(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("name: P1\nsource: table 2 of a paper\ntrain_regions: [a, b]\ntest_regions: [c]\n")
    found = Partition.load(file, ["a", "b", "c"])
    assert (found.train_regions, found.test_regions, found.source) == (("a", "b"), ("c",), "table 2 of a paper")
    file.write_text("name: P1\ntrain_regions: [a]\ntest_regions: [c]\n")
    with pytest.raises(DataError, match="has no source"):
        Partition.load(file, ["a", "c"])
    file.write_text("name: P1\nsource: s\ntrain_regions: [a]\ntest_regions: [atlantis]\n")
    with pytest.raises(UserError, match="atlantis"):
        Partition.load(file, ["a", "c"])
    with pytest.raises(UserError, match=r"partition file .*none\.yaml does not exist"):
        Partition.load(tmp_path / "none.yaml", [])
