"""Open rain files as data sets: NetCDF, Zarr, and GeoTIFF with the time in the file name."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from geoml.errors import DataError, UserError
from rainshift.sources.usual import usual

__all__ = ["GRIB", "RASTERS", "data_sets", "grib_data_sets", "open_rain"]

RASTERS = (".tif", ".tiff")
GRIB = (".grib", ".grb", ".grib2", ".grb2")
#: A date with an optional time of day in a file name: 20200601_0130, 2020-06-01T01:30, 202006010130, 20200601.
STAMP = re.compile(
    r"(?<!\d)(\d{4})[-_.]?(\d{2})[-_.]?(\d{2})(?:[-_.T]?(\d{2})[-_.:h]?(\d{2})(?:[-_.:]?(\d{2}))?)?(?!\d)"
)

#: Day, beginning and end in names of IMERG: 20200601-S003000-E005959.
INTERVAL = re.compile(r"(\d{8})-S(\d{6})-E(\d{6})")


def open_rain(path: Path) -> xr.Dataset:
    """Open a file as a data set. A GeoTIFF has one time in UTC, and `precipitation` in the unit of its band.

    Raises `DataError` for a GeoTIFF without a date in its name.
    """
    if path.suffix.lower() in RASTERS:
        return _raster(path)
    from geoml.data.netcdf import read_dataset

    data = read_dataset(path)
    if not data.data_vars and (group := _group_with_fields(path)) is not None:
        data = read_dataset(path, group=group)
        for variable in data.variables.values():
            variable.encoding["group"] = group
    return usual(data)


def _group_with_fields(path: Path) -> str | None:
    """Return the group with fields in a file without fields at its root, such as `Grid` of IMERG; None without one."""
    found: list[str] = []
    if path.is_dir() or path.suffix == ".zip":
        import zarr

        from geoml.data.zip_stores import open_zip

        root = zarr.open_group(open_zip(path) if path.suffix == ".zip" else path, mode="r")
        found = [
            name.rpartition("/")[0] for name, each in root.members(max_depth=2) if len(getattr(each, "shape", ())) > 2
        ]
    else:
        import netCDF4

        def look(group: Any) -> None:
            for inner in group.groups.values():
                if any(variable.ndim > 2 for variable in inner.variables.values()):
                    found.append(inner.path.strip("/"))
                look(inner)

        with netCDF4.Dataset(path) as file:
            look(file)
    outer = sorted(set(found), key=lambda name: (name.count("/"), name))
    if len(outer) > 1 and outer[0].count("/") == outer[1].count("/"):
        raise DataError(f"{path} has fields in the groups {', '.join(outer)}; copy one to a separate file")
    return outer[0] if outer else None


def grib_data_sets(path: Path) -> Iterator[xr.Dataset]:
    """Yield the data sets in a GRIB file, one per type of level and step."""
    try:
        import cfgrib
    except ImportError as error:
        raise UserError(f"{path} is GRIB, which needs cfgrib: pip install 'geoml[grib]'") from error
    with open(path, "rb") as stream:
        if stream.read(4) != b"GRIB":
            raise DataError(f"{path} does not start with a GRIB header; it may be truncated or of another format")
    try:
        found = cfgrib.open_datasets(str(path), backend_kwargs={"indexpath": "", "errors": "raise"})
    except Exception as error:  # errors of eccodes and cfgrib have no common base class
        raise DataError(f"{path} cannot be read as GRIB; it may be truncated: {error}") from error
    yield from found


@functools.lru_cache(maxsize=256)
def _kept_open(path: Path, changed: int) -> tuple[xr.Dataset, ...]:
    return tuple(grib_data_sets(path)) if path.suffix.lower() in GRIB else (open_rain(path),)


def data_sets(path: Path) -> tuple[xr.Dataset, ...]:
    """Return the data sets in a file: one, or for GRIB one per type of level and step."""
    return _kept_open(path, path.stat().st_mtime_ns if path.exists() else 0)


def _raster(path: Path) -> xr.Dataset:
    import dask
    import dask.array as da

    from geoml.data.raster import read_raster

    header = read_raster(path)
    if header.attrs.get("bands", 1) > 1:
        raise DataError(
            f"{path} has {header.attrs['bands']} bands; expected one band per file, with the time in the file "
            "name. Split it, for example with gdal_translate -b"
        )
    lazy = da.from_delayed(dask.delayed(_values)(path), header.shape, np.float32)
    names = [str(dim) for dim in header.dims]
    coords: dict[str, Any] = {name: header[name] for name in names}
    attrs = {"units": header.attrs["units"]} if header.attrs.get("units") else {}
    start, time = _times(path)
    made = xr.Dataset({"precipitation": (("time", *names), lazy[None], attrs)}, {"time": [time], **coords})
    if start is not None:
        made["time"].attrs["bounds"] = "time_bnds"
        made["time_bnds"] = ("time", "nv"), np.array([[start, time]])
    if names != ["lat", "lon"]:
        made["precipitation"].attrs["grid_mapping"] = "crs"
        made["crs"] = (), 0, {"crs_wkt": header.attrs["crs"]}
    return made


def _values(path: Path) -> NDArray[np.float32]:
    from geoml.data.raster import read_raster

    return np.asarray(read_raster(path).values, np.float32)


def _times(path: Path) -> tuple[np.datetime64 | None, np.datetime64]:
    """Return start and end of the interval in a file name with two dates; else None and the single date."""
    if both := INTERVAL.search(path.stem):
        names = [f"{both[1]}{both[2]}", f"{both[1]}{both[3]}"]
        found = [part for name in names if (part := STAMP.search(name))]
    else:
        found = list(STAMP.finditer(path.stem))
    if not found:
        raise DataError(f"{path}: a GeoTIFF needs its time in the file name, such as 20200601_0130; rename the file")
    dates = [_date(each, path) for each in found[:2]]
    if len(dates) < 2 or dates[1] <= dates[0]:
        return None, dates[0]
    last = dates[1].astype("datetime64[s]").astype(np.int64) % 60 == 59  # an interval that ends at 00:29:59
    return dates[0], dates[1] + np.timedelta64(int(last), "s")


def _date(found: re.Match[str], path: Path) -> np.datetime64:
    year, month, day, hour, minute, second = (part or "00" for part in found.groups())
    try:
        return np.datetime64(f"{year}-{month}-{day}T{hour}:{minute}:{second}", "ns")
    except ValueError as error:
        raise DataError(f"{path}: {found[0]} in the file name is not a valid date: {error}") from error
