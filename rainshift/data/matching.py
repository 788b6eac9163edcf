"""Match a prediction and its truth: same times, same fine cells, mm/h."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from geoml.errors import DataError
from geoml.grids.axes import TOLERANCE, Axis
from geoml.grids.grid import conform, grid_of, require_same
from rainshift.data.inputs import as_dataset, find_rain, interval_hours, with_time
from rainshift.sources.times import MEMBER_DIMS
from rainshift.sources.units import rain_factor
from rainshift.sources.variables import VARIABLES

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["matched"]


def matched(
    prediction: Any, truth: Any, *, what: tuple[str, str] = ("the prediction", "the truth")
) -> tuple[xr.DataArray, xr.DataArray]:
    """Return predicted rain `(member, [time,] lat, lon)` and the truth `([time,] lat, lon)` on their common cells.

    Both are in mm/h on canonical axes, and lazy if the input is. The truth may have more times. Raises `DataError` if
    a predicted time is not in the truth, the cells differ, the grids do not overlap, or units are missing.
    """
    rain, timed = _rain(prediction, what[0])
    observed, also_timed = _rain(truth, what[1])
    if "member" in observed.dims:
        raise DataError(f"{what[1]} has members; pass the prediction first, the truth second")
    if "member" not in rain.dims:
        rain = rain.expand_dims("member")
    if timed and also_timed:
        wanted, known = rain["time"].values, observed["time"].values
        if not np.isin(wanted, known).all():
            late = wanted[~np.isin(wanted, known)]
            raise DataError(
                f"{what[0]}: {len(late)} of {len(wanted)} times, the first {late[0]}, are not among the times of "
                f"{what[1]}, which are {known.min()} to {known.max()}"
            )
        observed = observed.sel(time=wanted)
    elif rain.sizes["time"] != observed.sizes["time"]:
        raise DataError(
            f"{what[0]} has {rain.sizes['time']} times and {what[1]} {observed.sizes['time']}; one of them has no dates"
        )
    else:
        observed = observed.assign_coords(time=rain["time"].values)
    ours, theirs = grid_of(rain), grid_of(observed)
    parts: dict[str, tuple[slice, slice]] = {}
    for a, b in zip(ours.axes, theirs.axes, strict=True):
        common = _common(a, b)
        if common is None:
            require_same(ours, theirs, f"{what[0]} and {what[1]}")
            common = slice(None), slice(None)
        parts[a.name] = common
    rain = rain.isel({name: pair[0] for name, pair in parts.items()})
    observed = observed.isel({name: pair[1] for name, pair in parts.items()})
    observed = observed.transpose("time", "lat", "lon").assign_coords(lat=rain["lat"], lon=rain["lon"])
    rain = rain.transpose("member", "time", "lat", "lon")
    return (rain, observed) if timed or also_timed else (rain.isel(time=0, drop=True), observed.isel(time=0, drop=True))


def _rain(data: Any, what: str) -> tuple[xr.DataArray, bool]:
    """Return the rain of a data set in mm/h with a time axis, and whether the data set has a time axis."""
    dataset = as_dataset(data)
    array = dataset[find_rain(dataset, what)]
    try:
        dim, arrays = with_time({what: array})
        array = conform(arrays[what])
    except DataError as error:
        raise DataError(f"{what}: {error}") from error
    found = [name for name in MEMBER_DIMS if name in array.dims]
    if len(found) > 1:
        raise DataError(f"{what} has several dims of members: {', '.join(found)}; expected one")
    array = array.rename({found[0]: "member"}) if found else array
    array = array.squeeze(
        [d for d in array.dims if d not in ("member", "time", "lat", "lon") and array.sizes[d] == 1], drop=True
    )
    if beyond := [str(d) for d in array.dims if d not in ("member", "time", "lat", "lon")]:
        raise DataError(
            f"{what} has additional dims {', '.join(beyond)}; expected member, time, latitude and longitude"
        )
    units = str(array.attrs.get("units", ""))
    hours = interval_hours(dataset, array["time"].values, dim)
    if not units:
        raise DataError(f"{what} has no units; expected {VARIABLES['precipitation'].units}: set attrs['units']")
    factors = [rain_factor(units, value, label=what) for value in (1.0, 2.0)]
    if factors[0] != factors[1] and hours is None:
        raise DataError(
            f"{what} is an amount ({units}), and its interval cannot be determined from the times; convert it to mm h-1"
        )
    factor = rain_factor(units, hours or 1.0, label=what)
    array = (array if factor == 1.0 else array * factor).assign_attrs(VARIABLES["precipitation"].attrs)
    return array.reset_coords(drop=True), dim is not None


def _common(a: Axis, b: Axis) -> tuple[slice, slice] | None:
    """Return slices of the common cells of two axes; None if the cells differ or do not overlap."""
    if abs(a.step - b.step) * max(a.size, b.size) > TOLERANCE * 10 * a.step:
        return None
    turn = 360 * round((a.start - b.start) / 360) if a.is_longitude else 0
    offset = (b.start + turn - a.start) / a.step
    if abs(offset - round(offset)) > 10 * TOLERANCE:
        return None
    first, stop = max(0, round(offset)), min(a.size, round(offset) + b.size)
    if stop <= first:
        return None
    return slice(first, stop), slice(first - round(offset), stop - round(offset))
