"""What the tests of ERA5 and of IMERG share: a small region, its hours, half hours of rain as NASA writes them."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml

HOURS = 30
START = np.datetime64("2020-01-31T20", "ns")
TIME = START + np.arange(HOURS) * np.timedelta64(1, "h")


@pytest.fixture(autouse=True)
def small_region(tmp_path, monkeypatch):
    """`tiny`: 2 × 2 degrees across Greenwich."""
    folder = tmp_path / "regions"
    folder.mkdir()
    box = {"name": "tiny", "lat_min": 40.0, "lat_max": 42.0, "lon_min": -1.0, "lon_max": 1.0}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(box))
    monkeypatch.setenv("RAINSHIFT_REGIONS", str(folder))


def half_hour(folder, start, rain, *, version="07B", style="hdf5", run="HHR", time=None, lat=None, lon=None):
    """One granule as NASA writes it: group Grid, (time, lon, lat), fill −9999.9, a calendar called Julian."""
    start = np.datetime64(start, "s")
    text = str(start).replace("-", "").replace(":", "")
    day, clock = text.split("T")
    stop = str(start + np.timedelta64(1799, "s")).replace(":", "").split("T")[1]
    minutes = int((start - start.astype("datetime64[D]")) / np.timedelta64(1, "m"))
    ending = {"hdf5": "HDF5", "nc4": "HDF5.nc4"}[style]
    path = folder / f"3B-{run}.MS.MRG.3IMERG.{day}-S{clock}-E{stop}.{minutes:04d}.V{version}.{ending}"
    lat = np.arange(38.05, 44, 0.1) if lat is None else lat
    lon = np.arange(-3.95, 4, 0.1) if lon is None else lon
    epoch = np.datetime64("1980-01-06" if version.startswith("07") else "1970-01-01", "s")
    name = "precipitation" if version.startswith("07") else "precipitationCal"
    values = np.where(np.isnan(rain), np.float32(-9999.9), rain).astype("f4")
    with h5py.File(path, "w") as file:
        group = file.create_group("Grid") if style == "hdf5" else file
        said = np.datetime64(start if time is None else time, "s")
        made = group.create_dataset("time", data=np.array([(said - epoch) / np.timedelta64(1, "s")], "i4"))
        made.attrs.update(units=np.bytes_(f"seconds since {epoch.astype('datetime64[D]')} 00:00:00 UTC"),
                          calendar=np.bytes_("julian"))  # fmt: skip
        group.create_dataset("lat", data=lat.astype("f4")).attrs["units"] = np.bytes_("degrees_north")
        group.create_dataset("lon", data=lon.astype("f4")).attrs["units"] = np.bytes_("degrees_east")
        field = group.create_dataset(name, data=values.T[None])
        field.attrs.update(DimensionNames=np.bytes_("time,lon,lat"), units=np.bytes_("mm/hr"),
                           _FillValue=np.float32(-9999.9))  # fmt: skip
    return path


def rain_at(start, lat=None, lon=None):
    lat = np.arange(38.05, 44, 0.1) if lat is None else lat
    lon = np.arange(-3.95, 4, 0.1) if lon is None else lon
    minutes = (np.datetime64(start, "s") - START.astype("datetime64[s]")) / np.timedelta64(30, "m")
    return 1 + 0.1 * minutes + 0.05 * (lat - 40)[:, None] + 0.02 * lon


def half_hours(folder, count=2 * HOURS, **options):
    folder.mkdir(exist_ok=True)
    for number in range(count):
        start = START.astype("datetime64[s]") - np.timedelta64(60, "m") + number * np.timedelta64(30, "m")
        half_hour(folder, start, rain_at(start), **options)
    return folder


def samples():
    """The folder of small real files; the test that asks is skipped where there is none."""
    root = os.environ.get("GEOML_DATA")
    if not root:
        pytest.skip("GEOML_DATA is not set")
    return Path(root) / "samples"
