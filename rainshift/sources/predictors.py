"""Coarse predictors from files: select variable and level, convert units, and find the time interval of each value."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoml.errors import DataError, UserError, unknown
from geoml.grids.grid import grid_of
from rainshift.sources.era5_files import ALIASES, LEVELS
from rainshift.sources.intervals import bounds_of, cell_method
from rainshift.sources.opening import data_sets
from rainshift.sources.rain_files import find_rain, lazy_on_disk, on_axes, read_rain, sorted_by_time
from rainshift.sources.times import MEMBER_DIMS, TIME_DIMS, snapped
from rainshift.sources.usual import final_first
from rainshift.sources.valid_times import Timed, intervals_of
from rainshift.sources.validity import lost_parts, validity_of
from rainshift.sources.variables import VARIABLES, inside_factor
from rainshift.sources.warping import rectified

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["CoarsePredictor", "predictors_of", "read_predictor"]

logger = logging.getLogger(__name__)

#: Names of vertical dims: pressure, height and depth.
VERTICAL = (*LEVELS, "height", "altitude", "depth", "isobaric", "lev", "plevel", "heightaboveground")
#: Values over an interval, in GRIB and CF terms.
OVER_TIME = ("accum", "avg", "max", "min", "sum", "mean", "maximum", "minimum")
KINDS = ("instant", "interval")


@dataclass(frozen=True)
class CoarsePredictor:
    """Selection of a predictor in files: its variable if that has another name, its level, and missing properties.

    `kind` is "instant" or "interval". `stamp` is the position of times in their intervals. None reads both from the
    file.
    """

    name: str
    variable: str | None = None
    level: float | None = None
    units: str | None = None
    kind: str | None = None
    stamp: str | None = None
    amounts: str | None = None
    step_minutes: float | None = None

    @classmethod
    def of(cls, name: str, options: Mapping[str, Any] | None) -> CoarsePredictor:
        """Parse the options of a predictor. Raises `UserError` for an unknown key."""
        known = [field.name for field in fields(cls) if field.name != "name"]
        for key in options or {}:
            if key not in known:
                raise unknown(f"key of data.predictors.{name}", key, known)
        made = cls(name, **dict(options or {}))
        if made.kind not in (None, *KINDS):
            raise UserError(f"data.predictors.{name}.kind is {made.kind!r}; expected instant or interval")
        return made

    @property
    def is_rain(self) -> bool:
        """Whether the predictor is an amount or a rate of rain."""
        return self.name in VARIABLES and VARIABLES[self.name].units == "mm h-1"


def predictors_of(given: Sequence[str] | Mapping[str, Any] | None) -> tuple[CoarsePredictor, ...]:
    """Parse the predictors of a configuration: names, or options by name; rain alone if there are none."""
    if isinstance(given, Mapping):
        return tuple(CoarsePredictor.of(str(name), options) for name, options in given.items())
    return tuple(CoarsePredictor.of(str(name), None) for name in given or ["tp"])


def read_predictor(wanted: CoarsePredictor, files: Sequence[Path]) -> Timed:
    """Read lazy fields `(time, lat, lon)` of a predictor, with the time interval of each.

    Known variables are in the units of `rainshift.sources.variables`, others in those of the file. Raises `DataError`
    if no file contains the predictor, or if the level, member or units are unknown.
    """
    if wanted.is_rain:
        holding = [path for path in files if any(_rain_name(wanted, data) for data in data_sets(path))]
        if not holding:
            raise _absent(wanted, files)
        name = next(found for data in data_sets(holding[0]) if (found := _rain_name(wanted, data)))
        options = {key: getattr(wanted, key) for key in ("units", "stamp", "amounts", "step_minutes")}
        return Timed.of_rain(read_rain(holding, variable=name, **options))
    parts = list(_parts(wanted, files))
    if not parts:
        raise _absent(wanted, files)
    return _joined(wanted, parts)


def _rain_name(wanted: CoarsePredictor, data: xr.Dataset) -> str | None:
    """Return the name of the variable of a data set that contains this rain predictor; None if there is none."""
    names = (
        [wanted.variable] if wanted.variable else [wanted.name, *(k for k, v in ALIASES.items() if v == wanted.name)]
    )
    if found := next((name for name in names if name in data.data_vars), None):
        return found
    if wanted.variable or wanted.name != "tp":
        return None
    try:
        return find_rain(data, None, Path())
    except DataError:
        return None


def _absent(wanted: CoarsePredictor, files: Sequence[Path]) -> DataError:
    held = sorted({str(name) for path in files[:50] for data in data_sets(path) for name in data.data_vars})
    return DataError(
        f"no file in {files[0].parent} contains {wanted.variable or wanted.name}; variables are "
        f"{', '.join(held) or 'none'}. Set the name of the variable: data.predictors.{wanted.name}.variable="
    )


@dataclass(frozen=True)
class _PredictorPart:
    array: xr.DataArray
    start: NDArray[np.datetime64] | None
    end: NDArray[np.datetime64] | None
    over_time: bool
    label: str


def _parts(wanted: CoarsePredictor, files: Sequence[Path]) -> Iterator[_PredictorPart]:
    """Yield the predictor in each file that contains it."""
    for path in files:
        for data in data_sets(path):
            if (name := _name_in(wanted, data)) is not None:
                yield _part(wanted, data, name, path)


def _name_in(wanted: CoarsePredictor, data: xr.Dataset) -> str | None:
    names = [str(name) for name in data.data_vars]
    if wanted.variable is not None:
        return wanted.variable if wanted.variable in names else None
    standard = VARIABLES[wanted.name].standard_name if wanted.name in VARIABLES else None
    tests = (
        lambda name: name == wanted.name,
        lambda name: ALIASES.get(name) == wanted.name,
        lambda name: standard is not None and data[name].attrs.get("standard_name") == standard,
    )
    return next((name for test in tests for name in names if test(name)), None)


def _part(wanted: CoarsePredictor, data: xr.Dataset, name: str, path: Path) -> _PredictorPart:
    label = f"{path}: {name!r}"
    array = data[name]
    if array.dtype.kind not in "iuf":
        raise DataError(f"{label} has the type {array.dtype}; expected numbers")
    kind = str(array.attrs.get("GRIB_stepType", ""))
    over_time = (cell_method(array) or kind) in OVER_TIME
    validity = validity_of(array, label, rain=False)
    lost = () if array.chunks is not None else lost_parts(path, array, label)
    array = _at_level(final_first(lazy_on_disk(array, path, lost), label), wanted, label)
    coordinate = next((time for time in TIME_DIMS if time in array.coords), "time")
    bounds = bounds_of(data, coordinate, slice(None))
    array = _first_member(array, label)
    array = on_axes(rectified(array, data, label), label)
    array = array.copy(data=array.data.map_blocks(validity.apply, label, dtype=array.dtype))
    if bounds is None or len(bounds) != array.sizes["time"]:
        return _PredictorPart(array, None, None, over_time, label)
    start, end = (snapped(side, label) for side in (bounds[:, 0], bounds[:, 1]))
    return _PredictorPart(array, start, end, over_time, label)


def _at_level(array: xr.DataArray, wanted: CoarsePredictor, label: str) -> xr.DataArray:
    """Select the wanted level. Raises `DataError` if there are several levels and none is set."""
    name = next(
        (str(dim) for dim in (*array.dims, *array.coords) if str(dim).lower() in map(str.lower, VERTICAL)), None
    )
    if name is None or name not in array.coords:
        return array
    levels = np.atleast_1d(array[name].values).astype(float)
    unit = str(array[name].attrs.get("units", "")).strip()
    shown = ", ".join(f"{value:g}" for value in levels)
    if wanted.level is None:
        if len(levels) > 1:
            raise DataError(
                f"{label} is at {shown} {unit} along {name}; choose with data.predictors.{wanted.name}.level="
            )
        return array.isel({name: 0}, drop=True) if name in array.dims else array.drop_vars(name)
    close = np.isclose(levels, float(wanted.level))
    if not close.any() and unit.lower() in ("pa", "pascal", "pascals"):  # levels of pressure are named in hPa
        close = np.isclose(levels, 100 * float(wanted.level))
    if not close.any():
        raise DataError(
            f"{label} is at {shown} {unit} along {name}, but data.predictors.{wanted.name}.level is {wanted.level:g}"
        )
    return array.isel({name: int(np.argmax(close))}, drop=True) if name in array.dims else array.drop_vars(name)


def _first_member(array: xr.DataArray, label: str) -> xr.DataArray:
    for dim in [dim for dim in array.dims if str(dim).lower() in MEMBER_DIMS]:
        if array.sizes[dim] > 1:
            raise DataError(f"{label} is an ensemble of {array.sizes[dim]} along {dim!r}; select one member")
        array = array.isel({dim: 0}, drop=True)
    return array


def _joined(wanted: CoarsePredictor, parts: Sequence[_PredictorPart]) -> Timed:
    """Concatenate the parts in the order of time, in internal units."""
    import xarray as xr

    first = parts[0]
    for part in parts[1:]:
        if not grid_of(part.array).matches(grid_of(first.array)):
            raise DataError(f"the grids of {first.label} and {part.label} differ; expected one grid for all files")
    coords = {name: first.array[name] for name in ("lat", "lon")}
    label = first.label if len(parts) == 1 else f"{first.label} and {len(parts) - 1} more files"
    array = xr.concat([part.array.assign_coords(coords) for part in parts], "time")
    array, order = sorted_by_time(array, label)
    time = array["time"].values
    start = end = time
    if all(part.start is not None for part in parts):
        start = np.concatenate([np.asarray(part.start) for part in parts])[order]
        end = np.concatenate([np.asarray(part.end) for part in parts])[order]
    over_time = wanted.kind == "interval" or (wanted.kind is None and any(part.over_time for part in parts))
    factor, summed = _factor(wanted, parts)
    over_time = over_time or summed
    if wanted.kind == "instant" and not summed:
        start = end = time
    elif over_time and (start == end).all():
        if len(time) < 2 and wanted.step_minutes is None:
            raise DataError(f"{label} has a single time; set data.predictors.{wanted.name}.step_minutes=")
        step = 60 * wanted.step_minutes if wanted.step_minutes else float(np.diff(time).min() / np.timedelta64(1, "s"))
        start, end = intervals_of(time, step, wanted.stamp or "end")
    array = array if factor == 1.0 else array * np.float32(factor)
    if summed:  # sums of energy become rates, each by its own interval
        seconds = (end - start) / np.timedelta64(1, "s")
        array = array / xr.DataArray(seconds.astype(np.float32), dims="time")
    attrs = VARIABLES[wanted.name].attrs if wanted.name in VARIABLES else {"units": _units(wanted, first)}
    return Timed(array.astype(np.float32).rename(wanted.name).assign_attrs(attrs), start, end)


def _units(wanted: CoarsePredictor, part: _PredictorPart) -> str:
    units = wanted.units or str(part.array.attrs.get("units", "")).strip()
    if not units:
        raise DataError(f"{part.label} has no units; set data.predictors.{wanted.name}.units")
    return units


def _factor(wanted: CoarsePredictor, parts: Sequence[_PredictorPart]) -> tuple[float, bool]:
    """Return the factor to internal units, and whether values are sums that must be divided by their interval."""
    units = {_units(wanted, part) for part in parts}
    if len(units) > 1:
        raise DataError(f"{wanted.name} has the units {' and '.join(sorted(units))} in different files; expected one")
    (unit,) = units
    if wanted.name not in VARIABLES:
        return 1.0, False
    one, two = (inside_factor(wanted.name, unit, label=parts[0].label, step_hours=hours) for hours in (1.0, 2.0))
    return (one, False) if one == two else (one * 3600.0, True)
