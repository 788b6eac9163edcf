"""Files that say something other than what they hold: the right fields, or an error with file and cause."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from geoml.data.blocks import ArraySource
from geoml.data.loader import BlockLoader
from geoml.errors import DataError
from geoml.grids.grid import Grid
from geoml.models.registry import build
from geoml.testing import TOY_CHANNELS
from rainshift.sources import open_source


def event(times: int = 6, units: str = "mm h-1") -> xr.Dataset:
    rain = np.random.default_rng(0).gamma(0.5, 2.0, (times, 50, 60)).astype("float32")
    coords = {
        "time": np.datetime64("2020-02-28T20", "ns") + np.arange(times) * np.timedelta64(1, "h"),
        "lat": ("lat", 50.05 + 0.1 * np.arange(50), {"units": "degrees_north"}),
        "lon": ("lon", 2.05 + 0.1 * np.arange(60), {"units": "degrees_east"}),
    }
    return xr.Dataset({"precipitation": (("time", "lat", "lon"), rain, {"units": units})}, coords)


def opened(folder: Path) -> np.ndarray:
    return open_source("gridded", root=str(folder)).open("event").time


def with_time(values: list[float], units: str, calendar: str | None = None) -> xr.Dataset:
    """The event with times as numbers of these units, undecoded."""
    attrs = {"units": units} | ({"calendar": calendar} if calendar else {})
    return event(len(values)).assign_coords(time=("time", values, attrs))


@pytest.mark.fault("cftime calendar", "dates that exist are kept; others are refused, with file and calendar")
def test_calendars(tmp_path: Path) -> None:
    hours = "hours since 2021-02-28 22:00"
    with_time([0.0, 1.0, 2.0, 3.0], hours, "noleap").to_netcdf(tmp_path / "event_0p10.nc")
    assert opened(tmp_path)[[0, 2]].tolist() == np.array(["2021-02-28T22", "2021-03-01T00"], "datetime64[ns]").tolist()
    with_time([0.0, 24.0, 48.0], hours, "360_day").to_netcdf(tmp_path / "event_0p10.nc")
    with pytest.raises(DataError, match=r"event_0p10.nc.*360_day"):
        opened(tmp_path)


@pytest.mark.fault("time zone in the units of time", "the times are UTC")
def test_time_zones(tmp_path: Path) -> None:
    with_time([0.0, 1.0, 2.0], "hours since 2020-06-01 00:00:00 +02:00").to_netcdf(tmp_path / "event_0p10.nc")
    assert opened(tmp_path)[0] == np.datetime64("2020-05-31T22")


@pytest.mark.fault("values scaled twice", "floats that still carry a scale factor are refused, with file and factor")
def test_double_scale_factor(tmp_path: Path) -> None:
    dataset = event()
    dataset["precipitation"].attrs["scale_factor"] = 0.1
    dataset.to_netcdf(tmp_path / "event_0p10.nc")
    with pytest.raises(DataError, match=r"event_0p10.nc: 'precipitation'.*scale_factor of 0.1.*twice"):
        opened(tmp_path)
    packed = event()
    encoding = {"dtype": "int16", "scale_factor": 0.01, "_FillValue": -1}
    packed.to_netcdf(tmp_path / "event_0p10.nc", encoding={"precipitation": encoding})
    data = open_source("gridded", root=str(tmp_path)).open("event")
    assert float(abs(data.target["precipitation"] - packed["precipitation"]).max()) <= 0.0051


@pytest.mark.fault(
    "missing shard of a foreign Zarr store", "its hours are missing, not dry; they are left out with a message"
)
def test_missing_shard(tmp_path: Path) -> None:
    chunks = {"chunks": (1, 50, 60), "shards": (3, 50, 60)}
    path = tmp_path / "event_0p10.zarr"
    event().to_zarr(path, zarr_format=3, consolidated=False, encoding={"precipitation": chunks})
    (path / "precipitation/c/1/0/0").unlink()
    whole = open_source("gridded", root=str(tmp_path), min_coverage=1.0).open("event")
    assert whole.missing == (3, 4, 5)
    kept = open_source("gridded", root=str(tmp_path), min_coverage=0.0).open("event")
    assert np.isnan(kept.target["precipitation"].values[3:]).all()
    assert np.isnan(kept.condition["tp"].values[3:]).all()


@pytest.mark.fault("all-NaN sample", "it has no influence: no known cell, no gradient, a finite loss")
def test_a_sample_without_a_known_cell() -> None:
    grid = Grid.latlon(0, 8, 0, 8, 1.0)
    rng = np.random.default_rng(0)
    condition, target = rng.normal(size=(4, 2, *grid.shape)), rng.normal(size=(4, 2, *grid.shape))
    target[2] = np.nan
    names = {"condition": TOY_CHANNELS.condition, "target": TOY_CHANNELS.target, "static": ("height",)}
    static = rng.normal(size=(1, *grid.shape))

    def loss(samples: list[int]) -> float:
        source = ArraySource(condition, grid, grid, target=target, static=static, channels=names, samples=samples)
        (batch,) = BlockLoader([source], batch_size=4, shuffle=False)
        torch.manual_seed(0)
        model = build("unet", TOY_CHANNELS, 2)
        value = model.loss(batch)
        value.backward()
        assert all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in model.parameters())
        return value.item()

    assert loss([0, 1, 2, 3]) == pytest.approx(loss([0, 1, 3]), rel=1e-5)
    assert math.isfinite(loss([2]))
