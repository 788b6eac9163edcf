"""Coarse rain from files: whether it is the mean of the fine rain is measured, and what follows from it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import rainshift
from geoml.cli.compose import compose
from geoml.errors import UserError
from rainshift.__main__ import main
from rainshift.data.archive import Archive
from rainshift.data.exactness import TOLERANCE, deviation, exact_means
from rainshift.data.geometry import Geometry
from tests.rainshift.test_first_go import DATA, NETWORK, QUICK, record

pytestmark = pytest.mark.usefixtures("in_folder")


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()


def coarsened(fine: xr.Dataset, cells: int) -> xr.DataArray:
    """Means of blocks of cells, by xarray."""
    return fine.precipitation.coarsen(lat=cells, lon=cells).mean(keep_attrs=True)


def save(fine: xr.Dataset, coarse: xr.DataArray, name: str = "storm") -> None:
    fine.to_netcdf(f"in/{name}_fine.nc")
    coarse.to_dataset(name="precipitation").to_netcdf(f"in/{name}_coarse.nc")


def archive_of_folder(**config) -> Archive:
    return Archive({**DATA, "root": "in", **config}, Path("cache"))


def errors(coarse: xr.DataArray, size: float) -> xr.DataArray:
    return coarse * np.random.default_rng(1).lognormal(-(size**2) / 2, size, coarse.shape).astype("f4")


ALTERED = {
    "rounded to 0.1": (lambda c: c.round(1), True),
    "as they are": (lambda c: c, True),
    "errors of 60 %": (lambda c: errors(c, 0.6), False),
    "errors of 10 %": (lambda c: errors(c, 0.1), False),
    "a fifth too wet": (lambda c: c * 1.2, False),
    "an hour late": (lambda c: c.shift(time=2, fill_value=0.0), False),
    "shifted by a cell": (lambda c: c.roll(lon=1), False),
}


@pytest.mark.parametrize("case", ALTERED)
@pytest.mark.parametrize("cells", [2, 4])
def test_means_are_told_from_analyses(case, cells):
    alter, exact = ALTERED[case]
    fine = record(20, n=32)
    save(fine, alter(coarsened(fine, cells)))
    archive = archive_of_folder()
    assert exact_means(archive, ["storm"]) is exact, deviation(archive, "storm")
    assert Geometry.of(archive, "storm").exact is exact


def test_cells_at_the_rim_and_with_gaps_are_not_compared():
    fine = record(12, n=32)
    coarse = coarsened(fine, 4)
    fine = fine.where((fine.lat > 5.6) | (fine.lon > 100.6))  # part of the place is not known, its means are
    save(fine.isel(lat=slice(2, 32)), coarse)
    archive = archive_of_folder(expected_gaps=["tp"])
    assert deviation(archive, "storm") < 1e-3


def test_rain_that_never_falls_tells_nothing():
    fine = record(12, n=32) * 0
    fine.precipitation.attrs["units"] = "mm/h"
    save(fine, coarsened(fine, 4))
    assert deviation(archive_of_folder(), "storm") is None
    assert not exact_means(archive_of_folder(), ["storm"])


def test_one_region_with_errors_is_enough():
    for name, size, lat in (("a", 0.0, 5.05), ("b", 0.5, 25.05)):
        fine = record(12, n=32, lat=lat)
        save(fine, errors(coarsened(fine, 4), size), name)
    archive = archive_of_folder()
    assert exact_means(archive, ["a"])
    assert not exact_means(archive, ["b"])
    assert not exact_means(archive, ["a", "b"])


def test_pairs_are_measured():
    fine = record(12, n=32, minutes=60)
    save(fine, coarsened(fine, 4))
    pair = {
        "source": "pair",
        "fine": "in/storm_fine.nc",
        "coarse": "in/storm_coarse.nc",
        "coarse_registration": "centre",
    }
    pair |= {key: DATA[key] for key in ("condition", "static", "first_guess")}
    archive = Archive(pair, Path("cache"))
    assert deviation(archive, *archive.names) < TOLERANCE


def benchmark(*words: str) -> dict:
    assert main(["benchmark", "data=gridded", "data.root=in", "run.dir=run", *QUICK, *words, "members=2"]) == 0
    return json.loads(Path("run/summary.json").read_text())


@pytest.mark.parametrize(("size", "said"), [(0.0, "the area mean of the fine rain within 5%"), (0.6, "% (RMS) from")])
def test_a_benchmark_says_it_and_conserves_only_means(size, said):
    fine = record(24, n=32)
    save(fine, errors(coarsened(fine, 4), size))
    found = benchmark(f"models=[bilinear,{NETWORK}]", "test_samples=4")
    assert any("partner file" in note and said in note for note in found["notes"])
    assert ("tiny+conserved" in {row["model"] for row in found["scores"]}) is (size == 0.0)


def test_the_general_model_is_left_out_of_other_factors_with_a_note():
    record(24, n=30).to_netcdf("in/a.nc")
    models = "models=[bilinear,rainfarm,general]"
    found = benchmark(models, "test_samples=4", "data.coarse_step=0.4")
    assert {row["model"] for row in found["scores"]} == {"bilinear", "rainfarm"}
    assert any("general is left out" in note and "4 times finer" in note for note in found["notes"])
    benchmark(models, "test_samples=4", "run.dir=again")
    rows = json.loads(Path("again/summary.json").read_text())["scores"]
    assert {row["model"] for row in rows} == {"bilinear", "rainfarm", "general"}


def test_a_benchmark_compares_with_the_strong_rival_by_default():
    models = compose("rainshift.conf", "benchmark", []).models
    assert {"rainfarm", "general"} <= set(models)


@pytest.fixture
def flat() -> xr.Dataset:
    """Fine rain that is even within half a degree; saved with its means on a grid of 0.25 degrees."""
    fine = record(24, n=50)
    means = fine.precipitation.coarsen(lat=5, lon=5).mean().values
    coords = {"time": fine.time}
    for dim, first in (("lat", 5.125), ("lon", 100.125)):
        coords[dim] = (dim, first + 0.25 * np.arange(20), fine[dim].attrs)
    halves = means.repeat(2, 1).repeat(2, 2)
    fine["precipitation"] = (("time", "lat", "lon"), means.repeat(5, 1).repeat(5, 2), {"units": "mm/h"})
    save(fine, xr.DataArray(halves, coords, ("time", "lat", "lon"), attrs={"units": "mm/h"}))
    return fine


def assert_kept(made: xr.Dataset, fine: xr.Dataset) -> None:
    lat, lon = (slice(5.5, 9.5), slice(100.5, 104.5))
    means = made.precipitation.sel(lat=lat, lon=lon).coarsen(lat=5, lon=5).mean()
    truth = fine.precipitation.sel(time=made.time, lat=lat, lon=lon).coarsen(lat=5, lon=5).mean()
    np.testing.assert_allclose(*xr.broadcast(means, truth), atol=0.02)


def test_members_of_the_general_model_keep_means_that_were_measured(flat):
    archive = archive_of_folder(coarse_registration="centre")
    assert deviation(archive, "storm") < 1e-3
    words = ["data=gridded", "data.root=in", "data.coarse_registration=centre", "region=storm", "role=test"]
    assert main(["predict", "model=general", *words, "members=2", "samples=3", "run.dir=p"]) == 0
    with xr.open_dataset("p/samples/storm-test.nc") as made:
        assert_kept(made, flat)


@pytest.mark.parametrize("name", ["general", "bilinear"])
def test_members_keep_means_that_are_declared(flat, name):
    with xr.open_dataset("in/storm_coarse.nc") as coarse:
        some = coarse.isel(time=slice(0, 24, 8))
        assert_kept(rainshift.load(name).predict(some, members=2, target=flat, coarse="exact"), flat)


def test_what_cannot_be_declared_is_refused(flat):
    with xr.open_dataset("in/storm_coarse.nc") as coarse, pytest.raises(UserError, match="expected exact"):
        rainshift.load("general").predict(coarse, coarse="mean")
