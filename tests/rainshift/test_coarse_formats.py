"""Coarse fields to predict from, in the formats that training data come in; files behind URLs."""

from __future__ import annotations

import http.server
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from geoml.errors import DataError
from geoml.grids.grid import grid_of
from geoml.models.base import Channels
from rainshift.data.coarse_files import open_coarse
from rainshift.data.inputs import CoarseFields
from rainshift.sources import open_source
from rainshift.sources.fetching import local_copy
from tests.geoml.data.object_store import s3_server
from tests.rainshift.pair_cases import START, axis, hours_of, rain_file, truth

RAIN = Channels(("tp",), ("precipitation",), (), (("precipitation", "tp"),))
LAT, LON = axis(50, 53, 0.25), axis(4, 8, 0.25)


def read(path: Path) -> tuple[np.ndarray, CoarseFields]:
    fields = CoarseFields.of(open_coarse(path, RAIN.condition), RAIN, None)
    return fields.values(slice(None))[0], fields


@pytest.fixture(autouse=True)
def _inside(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    local_copy.cache_clear()


def folder_of_days(root: Path) -> Path:
    for day in range(2):
        rain_file(root / f"r{day}.nc", LAT, LON, minutes=60, count=24, begin=24 * day)
    return root


def geotiffs(root: Path) -> Path:
    import rasterio

    root.mkdir()
    place = rasterio.transform.from_origin(LON[0] - 0.125, LAT[-1] + 0.125, 0.25, 0.25)
    about = {"driver": "GTiff", "height": len(LAT), "width": len(LON), "count": 1, "dtype": "float32"}
    for hour in range(3):
        path = root / f"rain_20200601_{hour + 1:02d}00.tif"
        with rasterio.open(path, "w", crs="EPSG:4326", transform=place, **about) as sink:
            sink.write(truth(LAT, LON, [hour + 0.5])[0][::-1].astype("float32"), 1)
            sink.units = ("mm h-1",)
    return root


def running_sums(root: Path) -> Path:
    rates = truth(LAT, LON, np.arange(24) + 0.5)
    data = xr.Dataset(
        {"tp": (("time", "lat", "lon"), np.cumsum(rates, axis=0), {"units": "mm"})},
        {"time": START + np.arange(1, 25) * np.timedelta64(1, "h"), "lat": ("lat", LAT, {"units": "degrees_north"}),
         "lon": ("lon", LON, {"units": "degrees_east"})},
    )  # fmt: skip
    data.to_netcdf(root.with_suffix(".nc"))
    return root.with_suffix(".nc")


def uneven(root: Path) -> Path:
    lat = 50 + np.cumsum(np.r_[0, 0.24 + 0.002 * np.arange(12)])
    return rain_file(root.with_suffix(".nc"), lat, LON, minutes=60, count=4)


def packed(root: Path) -> Path:
    path = rain_file(root.with_suffix(".nc"), LAT, LON, minutes=60, count=4)
    with xr.open_dataset(path) as data:
        data = data.load()
    data["precipitation"][1, 2, 3] = 250.0
    data["precipitation"].attrs["valid_max"] = np.float32(200)
    data.to_netcdf(root.with_suffix(".v.nc"))
    return root.with_suffix(".v.nc")


@pytest.mark.parametrize("make", [folder_of_days, geotiffs, running_sums, uneven, packed], ids=lambda f: f.__name__)
def test_coarse_fields_are_read_as_training_data_are(tmp_path, make) -> None:
    values, fields = read(make(tmp_path / "coarse"))
    lat, lon = (fields.grid[name].coordinates for name in ("lat", "lon"))
    expected = truth(lat, lon, hours_of(fields.times) - 0.5)
    if make is packed:
        assert np.isnan(values[1, 2, 3])
        expected[1, 2, 3] = np.nan
    np.testing.assert_allclose(values, expected, atol=2e-3)
    assert fields.chunks is None or make in (geotiffs, folder_of_days, running_sums)
    assert len(fields.times) == {"folder_of_days": 48, "geotiffs": 3, "running_sums": 23}.get(make.__name__, 4)


def test_a_projected_field_of_xarray_is_predicted_too() -> None:
    y, x = np.meshgrid(np.arange(40), np.arange(50), indexing="ij")
    lat, lon = 50 + 0.25 * y + 0.01 * x, 4 + 0.25 * x - 0.01 * y
    rain = 6 + 0.5 * (lat - 50) + 0.3 * (lon - 5)
    data = xr.Dataset(
        {"tp": (("y", "x"), rain, {"units": "mm h-1"})}, {"lat": (("y", "x"), lat), "lon": (("y", "x"), lon)}
    )
    fields = CoarseFields.of(data, RAIN, None)
    values = fields.values(slice(None))[0, 0]
    grid = fields.grid
    expected = 6 + 0.5 * (grid["lat"].coordinates[:, None] - 50) + 0.3 * (grid["lon"].coordinates - 5)
    assert np.isfinite(values).mean() > 0.8
    np.testing.assert_allclose(values[np.isfinite(values)], expected[np.isfinite(values)], atol=1e-3)


# ---- behind URLs


@pytest.fixture
def served(tmp_path):
    """The address of an HTTP server of a folder."""
    root = tmp_path / "served"
    root.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(root)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield root, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_files_behind_http_are_copied_once(served) -> None:
    root, url = served
    rain_file(root / "fine.nc", axis(50.05, 52.95, 0.1), axis(4.05, 6.95, 0.1), minutes=60, count=4)
    folder_of_days(root / "coarse")
    fine = open_source("gridded", root=f"{url}/fine.nc").open("fine").target.precipitation
    np.testing.assert_allclose(fine.values, truth(fine.lat, fine.lon, hours_of(fine.time.values) - 0.5), atol=1e-3)
    source = open_source("pair", coarse=f"{url}/coarse", fine=f"{url}/fine.nc")
    data = source.open("fine")
    assert len(data) == 4
    assert set(source.files("fine")) == {"fine/fine.nc", "coarse/r0.nc", "coarse/r1.nc"}
    copied = local_copy(f"{url}/coarse") / "r0.nc"
    before = copied.stat().st_mtime_ns
    local_copy.cache_clear()
    assert local_copy(f"{url}/coarse") == copied.parent
    assert copied.stat().st_mtime_ns == before
    with pytest.raises(DataError, match=r"nothing\.nc"):
        local_copy(f"{url}/nothing.nc")


def test_files_in_an_object_store(tmp_path) -> None:
    here = rain_file(tmp_path / "a.zarr", LAT, LON, minutes=60, count=4)
    with s3_server("rain") as server:
        import s3fs

        system = s3fs.S3FileSystem(use_listings_cache=False)
        system.put(str(here), "rain/data/a.zarr", recursive=True)
        values, fields = read(local_copy("s3://rain/data/a.zarr"))
        np.testing.assert_allclose(
            values, truth(fields.grid["lat"].coordinates, fields.grid["lon"].coordinates, hours_of(fields.times) - 0.5),
            atol=1e-3,
        )  # fmt: skip
        assert grid_of(open_source("gridded", root="s3://rain/data").open("a").target).shape
        rain_file(tmp_path / "b.nc", LAT, LON, minutes=60, count=5)
        system.put(str(tmp_path / "b.nc"), "rain/data/b.nc")
        local_copy.cache_clear()
        assert sorted(path.name for path in local_copy("s3://rain/data").iterdir()) == ["a.zarr", "b.nc"]
        system.rm("rain/data/b.nc")
        local_copy.cache_clear()
        assert sorted(path.name for path in local_copy("s3://rain/data").iterdir()) == ["a.zarr"]
        assert server.requests
