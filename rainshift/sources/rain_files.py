"""Read rain from files: find the variable, its units, its time intervals and its missing values."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from geoml.errors import DataError, UserError, unknown
from rainshift.sources.intervals import (
    Intervals,
    bounds_of,
    cell_methods,
    common_step,
    find_intervals,
    increments,
    is_running_sum,
    starts_of_sums,
)
from rainshift.sources.opening import GRIB, data_sets, open_rain
from rainshift.sources.times import MEMBER_DIMS, TIME_DIMS, lead_of, snapped, with_time
from rainshift.sources.units import RainUnits, rain_units
from rainshift.sources.usual import final_first
from rainshift.sources.validity import blanked, check_rain, lost_parts, validity_of
from rainshift.sources.variables import VARIABLES
from rainshift.sources.warping import rectified

__all__ = [
    "Rain",
    "find_rain",
    "holding",
    "lazy_on_disk",
    "on_axes",
    "read_rain",
    "refuse_contradiction",
    "sorted_by_time",
]

logger = logging.getLogger(__name__)

STANDARD_NAMES = {
    "lwe_precipitation_rate", "precipitation_flux", "rainfall_rate", "rainfall_flux", "precipitation_amount",
    "rainfall_amount", "lwe_thickness_of_precipitation_amount", "thickness_of_rainfall_amount",
}  # fmt: skip
USUAL_NAMES = (
    "precipitation", "precipitationcal", "precip", "preciprate", "precip_rate", "precipitation_rate", "pr", "prcp",
    "tp", "total_precipitation", "rain", "rainfall", "rain_rate", "rainrate", "rainfall_rate", "rr", "rw", "acrr",
)  # fmt: skip
CHUNK_VALUES = 1_000_000
#: Names of dims of length 1 that `conform` would take for an axis of the grid.
SINGLE = ("height", "altitude", "z", "depth", "level", "lev", "plev")
#: Values of `cell_methods` and `GRIB_stepType` for amounts and mean or instantaneous rates. Others are refused.
OVER_TIME = ("sum", "mean", "point", "average", "accumulation", "accumulated", "instantaneous", "instant", "accum",
             "avg", "avgua", "avgfc", "avgid", "diff")  # fmt: skip
STAMPS = ("end", "start", "middle", "point", "unknown")


@dataclass(frozen=True)
class Rain:
    """Lazy rain in mm/h, `(time, lat, lon)` on canonical axes, with its time step."""

    values: xr.DataArray
    step: timedelta
    stamp: str
    attrs: dict[str, Any]


def read_rain(
    paths: Path | Sequence[Path],
    *,
    variable: str | None = None,
    units: str | None = None,
    step_minutes: float | None = None,
    stamp: str | None = None,
    amounts: str | None = None,
    absent_chunks: str | None = None,
) -> Rain:
    """Read the rain of a NetCDF file or Zarr store, or of several files that form one record.

    The options replace missing or wrong metadata. Accumulated sums are first converted to amounts per interval.
    Amounts are divided by their interval, which is taken from time bounds or from the time step. If the time step
    changes, the record is averaged to the longest step. Raises `UserError` for invalid options, `DataError` for files
    that cannot be read.
    """
    if stamp not in (None, *STAMPS):
        raise UserError(f"data.stamp is {stamp!r}; expected {', '.join(STAMPS)}")
    if amounts not in (None, "interval", "since_start"):
        raise UserError(f"data.amounts is {amounts!r}; expected interval or since_start")
    files = [paths] if isinstance(paths, Path) else list(paths)
    parts = [_Part.read(path, variable, units, absent_chunks) for path in files]
    whole = parts[0] if len(parts) == 1 else _Part.joined(parts)
    label, meant = whole.label, whole.meant
    array, order = sorted_by_time(_on_step(whole.array, label, step_minutes), label)
    bounds = None if whole.bounds is None else whole.bounds[order]
    array, intervals = _amounts(array, bounds, meant, label, step_minutes, amounts)
    if meant.amount and step_minutes is None and bounds is None and whole.lead not in (0.0, intervals.step):
        raise DataError(
            f"{label} has forecasts of {whole.lead / 3600:g} h at steps of {intervals.step / 3600:g} h, so the "
            "interval of their amounts is unknown; set data.step_minutes="
        )
    factor = meant.to_rate(1.0) / (intervals.hours if meant.amount else np.ones(array.sizes["time"]))
    rain = _checked(array, factor, intervals, label)
    if intervals.changes:
        rain = common_step(rain, intervals, label)
    stamp = stamp or intervals.stamp or ("end" if meant.amount else "unknown")
    return Rain(rain, timedelta(seconds=intervals.step), stamp, whole.attrs)


@dataclass(frozen=True)
class _Part:
    """Rain of one file in its stored units, with its metadata; times are in the order of the file."""

    array: xr.DataArray
    bounds: NDArray[np.datetime64] | None
    meant: RainUnits
    label: str
    attrs: dict[str, Any]
    #: Lead time in seconds if all forecasts have the same, else 0.
    lead: float = 0.0

    @classmethod
    def read(cls, path: Path, variable: str | None, units: str | None, absent_chunks: str | None) -> _Part:
        dataset = holding(path, variable)
        array = dataset[find_rain(dataset, variable, path)]
        label = f"{path}: {array.name!r}"
        if array.dtype.kind not in "iuf":
            raise DataError(f"{label} is {array.dtype}, not numbers; choose another variable with data.variable=")
        _refuse_twice_scaled(array, label)
        validity = validity_of(array, label)
        lead = float((lead_of(array, label) or np.timedelta64(0)) / np.timedelta64(1, "s"))
        meant = rain_units(units or array.attrs.get("units"), label=label)
        refuse_contradiction(array, meant, label, units)
        coordinate = next((name for name in TIME_DIMS if name in array.coords), "time")
        lost = () if absent_chunks == "dry" else lost_parts(path, array, label)
        array = final_first(lazy_on_disk(array, path, lost), label)
        array = on_axes(rectified(array, dataset, label), label)
        if not array.sizes["time"]:
            raise DataError(f"{label} has no times; remove the file, or select others with data.include=[NAMES]")
        bounds = bounds_of(dataset, coordinate, slice(None))
        if bounds is not None:
            bounds = snapped(bounds.ravel(), label).reshape(-1, 2) if len(bounds) == array.sizes["time"] else None
        array = array.copy(data=array.data.map_blocks(validity.apply, label, dtype=array.dtype))
        return cls(array, bounds, meant, label, dict(dataset.attrs), lead)

    @classmethod
    def joined(cls, parts: Sequence[_Part]) -> _Part:
        """Concatenate the files of one record."""
        from geoml.grids.grid import grid_of

        first = parts[0]
        for part in parts[1:]:
            if part.meant.amount != first.meant.amount:
                raise DataError(
                    f"{first.label} and {part.label} cannot form one record: one is a rate, the other an amount; "
                    "set data.include=[NAMES] to read one of them"
                )
            if not grid_of(part.array).matches(grid_of(first.array)):
                raise DataError(f"{first.label} and {part.label} cannot form one record: their grids differ")
        same = [part.array * (part.meant.factor / first.meant.factor) for part in parts]
        coords = {name: first.array[name] for name in ("lat", "lon")}
        array = xr.concat([each.assign_coords(coords) for each in same], "time").rename(first.array.name)
        array = array.assign_attrs(first.array.attrs)
        known = [part.bounds for part in parts if part.bounds is not None]
        bounds = np.concatenate(known) if len(known) == len(parts) else None
        label = f"{first.label} and {len(parts) - 1} more files"
        return cls(array, bounds, first.meant, label, first.attrs, first.lead)


def holding(path: Path, variable: str | None) -> xr.Dataset:
    """Return the data set of a file that contains the rain; for GRIB with several data sets, the first with rain."""
    if path.suffix.lower() not in GRIB:
        return open_rain(path)
    found = data_sets(path)
    for data in found:
        try:
            find_rain(data, variable, path)
        except UserError:
            continue
        return data
    return found[0]


def _on_step(array: xr.DataArray, label: str, step_minutes: float | None) -> xr.DataArray:
    """Round times that differ from the given step by less than a tenth of it (radar scans) to the step."""
    time = array["time"].values
    if not step_minutes or len(time) < 2:
        return array
    step = np.timedelta64(round(60e9 * step_minutes), "ns")
    whole = np.round((time - time[0]) / step).astype(np.int64) * step
    off = (time - time[0] - whole) / np.timedelta64(1, "s")
    middle = float(np.median(off))
    if not 1 < np.abs(off - middle).max() <= 6 * step_minutes:
        return array
    logger.warning("%s: times differ by up to %.0f s from a step of %g min and are rounded to it", label,
                   np.abs(off - middle).max(), step_minutes)  # fmt: skip
    first = time[0] + np.timedelta64(round(1e9 * (middle + 30)), "ns")
    return array.assign_coords(time=first.astype("datetime64[m]").astype("datetime64[ns]") + whole)


def _amounts(
    array: xr.DataArray,
    bounds: NDArray[np.datetime64] | None,
    meant: RainUnits,
    label: str,
    step_minutes: float | None,
    amounts: str | None,
) -> tuple[xr.DataArray, Intervals]:
    """Return values with their intervals. Accumulated sums are converted to amounts per step."""
    time = array["time"].values
    starts = starts_of_sums(bounds) if meant.amount else None
    since_start = amounts == "since_start" or starts is not None
    if not since_start and amounts is None and meant.amount and bounds is None:
        since_start = is_running_sum(array)
    if not since_start:
        return array, find_intervals(time, bounds, label, step_minutes=step_minutes, amount=meant.amount)
    if not meant.amount:
        raise UserError(f"{label} is a rate, but data.amounts=since_start is for amounts; remove the option")
    array, _ = increments(array, starts, label)
    intervals = find_intervals(time, None, label, step_minutes=step_minutes)
    return array, replace(intervals, seconds=intervals.seconds[1:], stamp="end")


def on_axes(array: xr.DataArray, label: str) -> xr.DataArray:
    """Return an array as `(time, lat, lon)` on canonical axes; other dims of length 1 are dropped.

    Raises `DataError` for an ensemble and for any other dims.
    """
    from geoml.grids.grid import conform

    array = with_time(array, label)
    single = [dim for dim in array.dims if str(dim).lower() in SINGLE and array.sizes[dim] == 1]
    array = array.squeeze(single, drop=True)
    try:
        array = conform(array)
    except DataError as error:
        raise DataError(f"{label}: {error}") from error
    single = [dim for dim in array.dims if dim not in ("time", "lat", "lon") and array.sizes[dim] == 1]
    array = array.squeeze(single, drop=True)
    if members := [dim for dim in array.dims if str(dim).lower() in MEMBER_DIMS]:
        raise DataError(f"{label} is an ensemble of {array.sizes[members[0]]} along {members[0]!r}; select one member")
    if set(array.dims) != {"time", "lat", "lon"}:
        raise DataError(f"{label} has dims {array.dims}; expected (time, lat, lon)")
    return array.transpose("time", "lat", "lon").reset_coords(drop=True)


def refuse_contradiction(array: xr.DataArray, meant: RainUnits, label: str, units: str | None) -> None:
    """Raise `DataError` if units and metadata contradict each other.

    Units of an amount contradict a CF standard name or cell method of a rate, and vice versa. Extremes and other
    statistics over the intervals are refused, too.
    """
    methods = [*cell_methods(array), str(array.attrs.get("GRIB_stepType", "") or "accum")]
    if other := next((method for method in methods if method not in OVER_TIME), None):
        raise DataError(f"{label} is the {other} over its intervals; expected their sum or mean")
    wrong = {"sum": "a rate", "mean": "an amount"}.get(methods[-2] if len(methods) > 1 else "")
    if units is None and wrong == ("an amount" if meant.amount else "a rate"):
        raise DataError(
            f"{label} has units of {wrong}, {array.attrs.get('units')!r}, but its cell_methods state the "
            f"{methods[-2]} over each interval; set the units (data.units=): 'mm' for amounts of the interval, "
            "'mm h-1' for rates"
        )
    name = str(array.attrs.get("standard_name", ""))
    said = None if name not in STANDARD_NAMES else "rate" not in name and "flux" not in name
    if units is None and said is not None and said != meant.amount:
        kind = "an amount" if meant.amount else "a rate"
        raise DataError(
            f"{label} has the standard name {name} and units of {kind}, {array.attrs.get('units')!r}; one of them is "
            "wrong: set data.units"
        )


@dataclass(frozen=True)
class _OnDisk:
    """Array in a file. Errors on reading it, such as a corrupted chunk, state the path."""

    variable: xr.Variable
    label: str

    @property
    def shape(self) -> tuple[int, ...]:
        return self.variable.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.variable.dtype

    @property
    def ndim(self) -> int:
        return self.variable.ndim

    def __getitem__(self, key: Any) -> NDArray[Any]:
        try:
            return np.asarray(self.variable[key].values)
        except (OSError, ValueError, RuntimeError) as error:
            raise DataError(f"{self.label} cannot be read; the file may be truncated: {error}") from error


def lazy_on_disk(array: xr.DataArray, path: Path, lost: tuple[tuple[slice, ...], ...]) -> xr.DataArray:
    """Return the array in Dask blocks that match the chunks of the file, with NaN in the missing parts."""
    import dask.array as da

    if array.chunks is not None:
        return array
    stored = array.encoding.get("preferred_chunks", {})
    chunks = tuple(stored.get(dim, size) for dim, size in array.sizes.items())
    on_disk = _OnDisk(array.variable, f"{path}: {array.name!r}")
    lazy = da.from_array(on_disk, chunks, name=False, asarray=False)
    if lost:
        lazy = lazy.map_blocks(blanked, lost, dtype=np.result_type(array.dtype, np.float32))
    return array.copy(data=lazy)


def find_rain(dataset: xr.Dataset, variable: str | None, path: Path) -> str:
    """Return the name of the rain variable: as given, else by CF standard name, else by common names."""
    names = [str(name) for name in dataset.data_vars]
    if variable is not None:
        if variable not in names:
            raise unknown("data.variable", variable, names, hint=f"in {path}")
        return variable
    tests = (
        lambda name: dataset[name].attrs.get("standard_name") in STANDARD_NAMES,
        lambda name: name.lower() in USUAL_NAMES,
    )
    for test in tests:
        found = [name for name in names if test(name)]
        if len(found) == 1:
            return found[0]
        if found:
            raise DataError(f"{path} has several rain variables: {', '.join(found)}; choose one with data.variable=")
    raise DataError(
        f"{path} has no known rain variable among {', '.join(names) or 'none'}; set data.variable=NAME, or exclude "
        "a file of other data with data.include=[NAMES of the others]"
    )


def _refuse_twice_scaled(array: xr.DataArray, label: str) -> None:
    """Raise `DataError` for floats with a scale factor: they were decoded before and would be scaled twice."""
    scale = array.encoding.get("scale_factor", 1)
    if scale != 1 and np.dtype(array.encoding.get("dtype", array.dtype)).kind == "f":
        raise DataError(
            f"{label} is stored as floats with a scale_factor of {float(scale):g}, which would scale them twice; "
            "remove the attribute, or store the packed integers"
        )


def sorted_by_time(array: xr.DataArray, label: str) -> tuple[xr.DataArray, NDArray[np.intp] | slice]:
    """Return the array sorted by time, and the order."""
    time = array["time"].values
    order: NDArray[np.intp] | slice = slice(None)
    if (np.diff(time) < np.timedelta64(0)).any():
        order = np.argsort(time, kind="stable")
        array = array.isel(time=order)
        time = array["time"].values
    same = np.flatnonzero(np.diff(time) == np.timedelta64(0))
    for place in same:
        if not np.array_equal(array[place].values, array[place + 1].values, equal_nan=True):
            raise DataError(f"{label}: time {time[place]} occurs twice with different values; keep one of the fields")
    if same.size:
        logger.warning("%s: %d of the times occur twice with equal values, first %s; one of each is used", label,
                       len(same), time[same[0]])  # fmt: skip
        kept = np.delete(np.arange(len(time)), same + 1)
        order = np.arange(len(time))[order][kept]
        array = array.isel(time=kept)
    return array, order


def _checked(array: xr.DataArray, factor: NDArray[np.float64], intervals: Intervals, label: str) -> xr.DataArray:
    """Return lazy values in mm/h that are checked when read. The first and the last time are checked now."""
    import dask.array as da

    plane = array.sizes["lat"] * array.sizes["lon"]
    array = array.chunk({"time": max(1, math.ceil(CHUNK_VALUES / plane)), "lat": -1, "lon": -1})
    hours = float(intervals.hours.max())
    for place in {0, array.sizes["time"] - 1}:  # finds errors that affect all times early
        check_rain(array.isel(time=place).values, label, factor[place], hours=hours)
    factors = da.from_array(factor[:, None, None], chunks=(array.data.chunks[0], 1, 1))
    values = da.map_blocks(_rate, array.data, factors, label=label, hours=hours, dtype=np.float32)
    return array.copy(data=values).rename("precipitation").assign_attrs(VARIABLES["precipitation"].attrs)


def _rate(values: NDArray[Any], factor: NDArray[np.float64], *, label: str, hours: float) -> NDArray[np.float32]:
    return check_rain(values, label, factor, hours=hours)
