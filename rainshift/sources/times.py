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

__all__ = ["MEMBER_DIMS", "TIME_DIMS", "lead_of", "snapped", "unrolled", "with_time"]

logger = logging.getLogger(__name__)

TIME_DIMS = ("time", "valid_time", "datetime", "date", "t", "forecast_time")
MEMBER_DIMS = (
    "member", "members", "number", "realization", "realisation", "realizations", "ensemble", "ensemble_member", "ens",
    "eps", "sample", "samples", "draw", "draws", "n_members",
)  # fmt: skip
#: Names of lead times, and of the time of a run.
STEP_DIMS = ("step", "lead_time", "prediction_timedelta", "leadtime", "lead", "forecast_period", "lead_hours")
RUN_NAMES = ("time", "init_time", "inittime", "init", "initial_time", "reference_time", "forecast_reference_time",
             "run", "base_time")  # fmt: skip
#: Tolerance for rounding times to full minutes, for decimal days and for seconds that end at 59.
SNAP = np.timedelta64(1, "s")


def with_time(array: xr.DataArray, label: str) -> xr.DataArray:
    """Return an array with a `datetime64[ns]` dimension `time`; runs and lead times of forecasts are flattened.

    Raises `DataError` for missing, invalid or non-existent dates.
    """
    array = unrolled(array, label)
    if "time" not in array.dims:
        names = [str(dim) for dim in array.dims]
        found = [dim for dim in names if dim.lower() in TIME_DIMS or _is_time(array, dim)]
        if len(found) != 1:
            if not found and (name := next((n for n in TIME_DIMS if n in array.coords and not array[n].ndim), None)):
                return with_time(array.expand_dims(name), label)
            raise DataError(f"{label} has dims {tuple(names)}; a time dimension is required")
        array = array.drop_vars("time", errors="ignore").rename({found[0]: "time"})
    if "time" not in array.coords:
        raise DataError(f"{label}: dimension time has no coordinate, so its times are unknown; add time coordinates")
    array = array.assign_coords(time=("time", _dates(array["time"], array.indexes["time"], label)))
    array["time"].attrs.clear()
    return array


def _is_time(array: xr.DataArray, dim: str) -> bool:
    if dim not in array.coords:
        return False
    attrs = array[dim].attrs
    named = attrs.get("standard_name") in ("time", "forecast_reference_time") or attrs.get("axis") == "T"
    return named or array[dim].dtype.kind == "M"


def unrolled(array: xr.DataArray, label: str) -> xr.DataArray:
    """Flatten forecasts by run and lead time to valid times. Overlapping runs are detected later."""
    step = next((str(dim) for dim in array.dims if str(dim).lower() in STEP_DIMS), None)
    if step is None:
        return _of_one_lead(array, label)
    run = next((str(name) for name in array.coords if str(name).lower() in RUN_NAMES), None)
    if "valid_time" in array.coords:
        valid = array["valid_time"]
    elif run is None or step not in array.coords:
        raise DataError(
            f"{label} has lead times along {step!r}, but the time of the run or the values of the lead times are "
            "missing"
        )
    else:
        valid = array[run] + _leads(array[step], label)
    if valid.dtype.kind != "M":
        raise DataError(f"{label}: valid times cannot be computed from its runs and lead times")
    dims = [dim for dim in (run, step) if dim in array.dims]
    times = valid.transpose(*dims).values.ravel()
    stacked = array.drop_vars(["valid_time"], errors="ignore").stack(line=dims)
    stacked = stacked.drop_vars(["line", run or step, step, "time"], errors="ignore").rename(line="time")
    return stacked.assign_coords(time=times).transpose("time", ...)


def lead_of(array: xr.DataArray, label: str) -> np.timedelta64 | None:
    """Return the lead time if it is a scalar coordinate; None otherwise."""
    name = next((str(name) for name in array.coords if str(name).lower() in STEP_DIMS), None)
    if name is None or array[name].ndim or array[name].dtype.kind not in "miuf":
        return None
    return np.timedelta64(_leads(array[name].expand_dims("one"), label).values[0], "ns")


def _of_one_lead(array: xr.DataArray, label: str) -> xr.DataArray:
    """For forecasts with a single lead time, convert times of runs to valid times."""
    run = next((str(dim) for dim in array.dims if str(dim).lower() in RUN_NAMES), None)
    lead = None if run is None else lead_of(array, label)
    if not lead or run not in array.coords or array[run].dtype.kind != "M":
        return array
    return array.assign_coords({run: array[run] + lead}).drop_vars("valid_time", errors="ignore")


def _leads(steps: xr.DataArray, label: str) -> xr.DataArray:
    """Return lead times as time differences."""
    if steps.dtype.kind == "m":
        return steps
    unit = str(steps.attrs.get("units", "")).lower().rstrip("s")
    seconds = {"s": 1, "sec": 1, "second": 1, "min": 60, "minute": 60, "h": 3600, "hr": 3600, "hour": 3600, "d": 86400,
               "day": 86400}.get(unit or "s")  # fmt: skip
    if seconds is None or not unit or steps.dtype.kind not in "iuf":
        raise DataError(f"{label}: its lead times {steps.name!r} have units {unit!r}; expected hours, minutes or days")
    return steps.copy(data=(np.round(steps.values * seconds) * 1e9).astype("timedelta64[ns]"))


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
    _refuse_ambiguous(str(coordinate.encoding.get("units", "")), label)
    return snapped(_of_singles(values.astype("datetime64[ns]"), coordinate.encoding, label), label)


def _refuse_ambiguous(units: str, label: str) -> None:
    """Raise `DataError` for an ambiguous reference date, or a time zone other than UTC that is given by name."""
    date = re.search(r"since\s+(\d{1,2})[-/.](\d{1,2})[-/.](\d{4})", units)
    zone = re.search(r"since\s.*\d\s*([A-Za-z]{2,})$", units.strip())
    if date and date[1] != date[2]:
        raise DataError(f"{label}: time is in {units!r}, in which day and month are ambiguous; expected a "
                                "reference such as 'hours since 2001-01-31'")  # fmt: skip
    if zone and zone[1].upper() not in ("UTC", "GMT"):
        raise DataError(f"{label}: time is in {units!r}; expected UTC, or an offset such as '+01:00' for {zone[1]!r}")


def _of_singles(time: NDArray[np.datetime64], encoding: Any, label: str) -> NDArray[np.datetime64]:
    """Round times that were stored as float32 to the longest common step to which all are nearest."""
    unit = re.match(r"\s*(day|hour|h\b|minute|min|second|s\b)", str(encoding.get("units", "")).lower())
    if unit is None or encoding.get("dtype") != np.float32 or not len(time):
        return time
    try:
        origin = np.datetime64(re.search(r"since\s+(\d+-\d+-\d+)", str(encoding["units"]))[1], "D")  # type: ignore[index]
    except (TypeError, ValueError):
        return time
    seconds = {"d": 86400, "h": 3600, "m": 60, "s": 1}[unit[1][0]]
    far = float(np.abs((time - origin) / SNAP).max()) / seconds
    resolution = float(np.spacing(np.float32(far))) * seconds
    for step in (3600, 1800, 900, 600, 300, 60):
        off = (time - time.astype("datetime64[D]")) / SNAP
        rounded = np.round(off / step) * step
        if step >= 4 * resolution and (np.abs(off - rounded) <= 0.51 * resolution).all():
            if (np.abs(off - rounded) > 1e-3).any():
                logger.warning("%s: times are float32, exact to %.0f s, and are rounded to %d min", label, resolution,
                               step // 60)  # fmt: skip
            return time.astype("datetime64[D]") + (rounded * 1e9).astype("timedelta64[ns]")
    return time


def _of_numbers(values: NDArray[Any]) -> NDArray[np.datetime64]:
    """Convert numbers such as 20200601.25, as written by CDO, to dates."""
    days = np.floor(values).astype(np.int64)
    text = np.char.add(np.char.add((days // 10000).astype(str), "-"), np.char.zfill((days // 100 % 100).astype(str), 2))
    text = np.char.add(np.char.add(text, "-"), np.char.zfill((days % 100).astype(str), 2))
    seconds = np.round((values - np.floor(values)) * 86400).astype("timedelta64[s]")
    return np.asarray(text.astype("datetime64[D]") + seconds)


def snapped(time: NDArray[np.datetime64], label: str) -> NDArray[np.datetime64]:
    """Round times to full minutes if all are within a second of full minutes; otherwise return them unchanged.

    >>> snapped(np.array(["2020-01-01T00:59:59.97"], "M8[ns]"), "here")
    array(['2020-01-01T01:00:00.000000000'], dtype='datetime64[ns]')
    """
    minutes = (time + np.timedelta64(30, "s")).astype("datetime64[m]").astype("datetime64[ns]")
    off = np.abs(time - minutes)
    if not len(time) or not off.max() or off.max() > SNAP:
        return time
    logger.info("%s: times differ from full minutes by up to %.3g s and are rounded", label, off.max() / SNAP)
    return minutes
