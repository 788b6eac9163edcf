"""Time coordinates of files: find them, convert dates of any calendar, and correct rounding errors."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoml.errors import DataError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["MEMBER_DIMS", "TIME_DIMS", "snapped", "with_time"]

logger = logging.getLogger(__name__)

TIME_DIMS = ("time", "valid_time", "datetime", "date", "t", "forecast_time")
MEMBER_DIMS = ("member", "number", "realization", "realisation", "ensemble", "ensemble_member", "ens", "sample", "draw")
#: Tolerance within which times are rounded to full minutes: decimal days, seconds that end at 59.
SNAP = np.timedelta64(1, "s")


def with_time(array: xr.DataArray, label: str) -> xr.DataArray:
    """The array with a `datetime64[ns]` dimension `time`; other names are renamed, runs and lead times flattened.

    Raises `DataError` for missing, invalid or non-existent dates.
    """
    array = _unrolled(array, label)
    if "time" not in array.dims:
        names = [str(dim) for dim in array.dims]
        found = [dim for dim in names if dim.lower() in TIME_DIMS or _is_time(array, dim)]
        if len(found) != 1:
            if not found and (name := next((n for n in TIME_DIMS if n in array.coords and not array[n].ndim), None)):
                return with_time(array.expand_dims(name), label)
            raise DataError(f"{label} has dims {tuple(names)}; a time dimension is required")
        array = array.drop_vars("time", errors="ignore").rename({found[0]: "time"})
    if "time" not in array.coords:
        raise DataError(f"{label}: dimension time has no coordinate; its times are unknown")
    array = array.assign_coords(time=("time", _dates(array["time"], array.indexes["time"], label)))
    array["time"].attrs.clear()
    return array


def _is_time(array: xr.DataArray, dim: str) -> bool:
    return dim in array.coords and array[dim].attrs.get("standard_name") in ("time", "forecast_reference_time")


def _unrolled(array: xr.DataArray, label: str) -> xr.DataArray:
    """Forecasts `(time, step)` flattened to valid times; overlapping runs are detected later."""
    steps = [dim for dim in ("step", "lead_time", "prediction_timedelta", "leadtime") if dim in array.dims]
    if not steps:
        return array
    step = steps[0]
    if "time" not in array.dims:
        valid = array["valid_time"] if "valid_time" in array.coords else array["time"] + array[step]
        return array.drop_vars(["time", "valid_time"], errors="ignore").assign_coords(
            time=(step, np.atleast_1d(valid.values))
        ).swap_dims({step: "time"}).drop_vars(step)  # fmt: skip
    valid = array["valid_time"] if "valid_time" in array.coords else array["time"] + array[step]
    if valid.dtype.kind != "M":
        raise DataError(f"{label}: valid times cannot be computed from its runs and steps")
    times = valid.transpose("time", step).values.ravel()
    stacked = array.drop_vars(["valid_time"], errors="ignore").stack(line=("time", step))
    stacked = stacked.drop_vars(["line", "time", step], errors="ignore").rename(line="time")
    return stacked.assign_coords(time=times).transpose("time", ...)


def _dates(coordinate: xr.DataArray, index: Any, label: str) -> NDArray[np.datetime64]:
    if hasattr(index, "to_datetimeindex"):
        try:
            index = index.to_datetimeindex(unsafe=True, time_unit="ns")
        except ValueError as error:
            raise DataError(f"{label}: calendar {index.calendar!r} has dates that do not exist: {error}") from error
    values = np.asarray(index.values)
    units = str(coordinate.attrs.get("units", ""))
    if values.dtype.kind in "iuf" and re.match(r"day as %Y%m%d", units):
        values = _of_numbers(values)
    if values.dtype.kind != "M":
        said = f" in {units!r}" if units else "; its units attribute may be missing"
        raise DataError(
            f"{label}: time is {values.dtype}, not dates{said}; expected units such as 'hours since 2001-01-01'"
        )
    if np.isnat(values).any():
        raise DataError(f"{label}: some times are missing")
    return snapped(values.astype("datetime64[ns]"), label)


def _of_numbers(values: NDArray[Any]) -> NDArray[np.datetime64]:
    """Convert numbers such as 20200601.25, as written by CDO, to dates."""
    days = np.floor(values).astype(np.int64)
    text = np.char.add(np.char.add((days // 10000).astype(str), "-"), np.char.zfill((days // 100 % 100).astype(str), 2))
    text = np.char.add(np.char.add(text, "-"), np.char.zfill((days % 100).astype(str), 2))
    seconds = np.round((values - np.floor(values)) * 86400).astype("timedelta64[s]")
    return np.asarray(text.astype("datetime64[D]") + seconds)


def snapped(time: NDArray[np.datetime64], label: str) -> NDArray[np.datetime64]:
    """Times rounded to full minutes if all are within a second of them, else unchanged.

    >>> snapped(np.array(["2020-01-01T00:59:59.97"], "M8[ns]"), "here")
    array(['2020-01-01T01:00:00.000000000'], dtype='datetime64[ns]')
    """
    minutes = (time + np.timedelta64(30, "s")).astype("datetime64[m]").astype("datetime64[ns]")
    off = np.abs(time - minutes)
    if not len(time) or not off.max() or off.max() > SNAP:
        return time
    logger.info("%s: times differ from full minutes by up to %.3g s and are rounded", label, off.max() / SNAP)
    return minutes
