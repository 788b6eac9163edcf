"""Open rain files as data sets: NetCDF, Zarr, and GeoTIFF with the time given by its name."""

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

__all__ = ["GRIB", "RASTERS", "data_sets", "grib_data_sets", "open_rain"]

RASTERS = (".tif", ".tiff")
GRIB = (".grib", ".grb", ".grib2", ".grb2")
#: A date with an optional time of day in a file name: 20200601_0130, 2020-06-01T01:30, 202006010130, 20200601.
STAMP = re.compile(
    r"(?<!\d)(\d{4})[-_.]?(\d{2})[-_.]?(\d{2})(?:[-_.T]?(\d{2})[-_.:h]?(\d{2})(?:[-_.:]?(\d{2}))?)?(?!\d)"
)


def open_rain(path: Path) -> xr.Dataset:
    """Open a file as a data set; a GeoTIFF has one time, in UTC, and `precipitation` in the unit of its band.

    Raises `DataError` for a GeoTIFF without a date in its name.
    """
    if path.suffix.lower() not in RASTERS:
        from geoml.data.netcdf import read_dataset

        return read_dataset(path)
    return _raster(path)


def grib_data_sets(path: Path) -> Iterator[xr.Dataset]:
    """The data sets in a GRIB file, one for each kind of level and step."""
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
    """The data sets in a file: one, but of GRIB one for each kind of level and step."""
    return _kept_open(path, path.stat().st_mtime_ns if path.exists() else 0)


def _raster(path: Path) -> xr.Dataset:
    import dask
    import dask.array as da

    from geoml.data.raster import read_raster

    header = read_raster(path)
    lazy = da.from_delayed(dask.delayed(_values)(path), header.shape, np.float32)
    names = [str(dim) for dim in header.dims]
    coords: dict[str, Any] = {name: header[name] for name in names}
    attrs = {"units": header.attrs["units"]} if header.attrs.get("units") else {}
    made = xr.Dataset({"precipitation": (("time", *names), lazy[None], attrs)}, {"time": [_time(path)], **coords})
    if names != ["lat", "lon"]:
        made["precipitation"].attrs["grid_mapping"] = "crs"
        made["crs"] = (), 0, {"crs_wkt": header.attrs["crs"]}
    return made


def _values(path: Path) -> NDArray[np.float32]:
    from geoml.data.raster import read_raster

    return np.asarray(read_raster(path).values, np.float32)


def _time(path: Path) -> np.datetime64:
    found = STAMP.search(path.stem)
    if found is None:
        raise DataError(f"{path}: a GeoTIFF has no time coordinate, and its name has no date such as 20200601_0130")
    year, month, day, hour, minute, second = (part or "00" for part in found.groups())
    try:
        return np.datetime64(f"{year}-{month}-{day}T{hour}:{minute}:{second}", "ns")
    except ValueError as error:
        raise DataError(f"{path}: {found[0]} in its name is not a valid date: {error}") from error
