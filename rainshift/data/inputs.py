"""Prepare coarse fields of any CF data set for a model: find its channels, convert units, use canonical axes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geoml.data.patch_groups import KNOWN
from geoml.errors import DataError, UserError
from geoml.grids.coordinates import Found, find_axes
from geoml.grids.grid import Grid, conform, grid_of
from geoml.regrid import Method, Regridder
from rainshift.data.geometry import Geometry
from rainshift.sources.pair import on_grid
from rainshift.sources.rain_files import STANDARD_NAMES, USUAL_NAMES, refuse_contradiction
from rainshift.sources.times import unrolled
from rainshift.sources.units import rain_units
from rainshift.sources.usual import final_first, usual
from rainshift.sources.validity import Validity, check_rain, validity_of
from rainshift.sources.variables import VARIABLES, inside_factor
from rainshift.sources.warping import rectified

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geoml.models.base import Channels

__all__ = ["CoarseFields", "as_dataset", "find_rain", "has_fields", "interval_hours", "static_fields", "with_time"]

#: Number of values per Dask block.
ONCE = 4_000_000
TIME_NAMES = ("time", "valid_time", "datetime", "date")


@dataclass(frozen=True)
class CoarseFields:
    """Lazy predictors of a model on canonical axes, with the original axes of the data.

    Attributes:
        arrays: predictors `(time, lat, lon)` by channel.
        factors: factor by channel that converts values to internal units.
        grid: canonical coarse grid.
        times: datetimes, also if the data have no time axis.
        axes: original latitude and longitude of the data.
        time_dim: name of the time axis; None if the data have none.
        first_longitude: smallest longitude of the data, which shows their longitude convention.
        lazy: whether the data are Dask arrays.
    """

    arrays: Mapping[str, xr.DataArray]
    factors: Mapping[str, float]
    grid: Grid
    times: NDArray[np.datetime64]
    axes: tuple[Found, ...]
    time_dim: str | None
    first_longitude: float
    lazy: bool = False

    @classmethod
    def of(cls, data: Any, channels: Channels, geometry: Geometry | None) -> CoarseFields:
        """Find the predictors of `channels` among the variables of a data set.

        Raises `DataError` for a predictor that is missing, has no units or wrong units, for dims other than time,
        latitude and longitude, and for axes that are not evenly spaced.
        """
        dataset = as_dataset(data)
        wanted = [n for n in channels.condition if n in dataset or not n.endswith(KNOWN)]
        guesses = {name for _, name in channels.first_guess} | {"tp"}
        names = {channel: _find(dataset, channel, rain=channel in guesses) for channel in wanted}
        if missing := [channel for channel, name in names.items() if name is None]:
            held = ", ".join(map(str, dataset.data_vars)) or "nothing"
            raise DataError(
                f"the model requires {', '.join(wanted)}; the data have {held}: {', '.join(missing)} missing. Rename "
                "variables with dataset.rename, or train a model on the predictors that you have"
            )
        arrays = {
            channel: _known_values(dataset, str(name), channel).rename(channel) for channel, name in names.items()
        }
        time_dim, arrays = with_time(arrays)
        first = next(iter(arrays.values()))
        axes = find_axes(first, time=False)
        tidy = {channel: _canonical(array, channel) for channel, array in arrays.items()}
        first = next(iter(tidy.values()))
        grid = grid_of(first, registration=geometry.coarse.axes[0].registration if geometry else None)
        for channel, array in tidy.items():
            if array.shape != first.shape or not np.array_equal(array["time"].values, first["time"].values):
                raise DataError(
                    f"{channel} has sizes {dict(array.sizes)} and {first.name} has {dict(first.sizes)}; expected the "
                    "same times and grid for all predictors"
                )
        if geometry is not None and (brought := geometry.brought(grid)) is not None:
            tidy = {channel: on_grid(_in_blocks(array), grid, brought)[0] for channel, array in tidy.items()}
            grid = brought
        times = first["time"].values.astype("datetime64[ns]")
        hours = interval_hours(dataset, times, time_dim)
        factors = {channel: _factor(channel, array, hours, geometry) for channel, array in tidy.items()}
        raw = _first_longitude(arrays, axes)
        lazy = bool(dataset[str(names[wanted[0]])].chunks)
        return cls(tidy, factors, grid, times, axes, time_dim, raw, lazy)

    def values(self, rows: slice) -> NDArray[np.float32]:
        """Return values `(channel, time, lat, lon)` at the times `rows`, in internal units."""
        made = []
        for channel, array in self.arrays.items():
            part, factor = array.isel(time=rows).values, self.factors[channel]
            rain = _is_rain(channel)
            made.append(
                check_rain(part, repr(channel), factor) if rain else part.astype(np.float32) * np.float32(factor)
            )
        return np.stack(made)

    @property
    def chunks(self) -> Any:
        """Chunks along time if the data are Dask arrays, else None."""
        return next(iter(self.arrays.values())).chunks if self.lazy else None


def _is_rain(channel: str) -> bool:
    return channel in VARIABLES and VARIABLES[channel].units == "mm h-1"


def _known_values(dataset: xr.Dataset, name: str, channel: str) -> xr.DataArray:
    """Return a variable with its declared no-data values as NaN, on evenly spaced degrees.

    Raises `DataError` for rain that is not a mean or an amount (such as a maximum), and for common fill values that the
    file does not declare.
    """
    array, label = dataset[name], repr(name)
    rain = _is_rain(channel)
    validity = validity_of(array, label, rain=rain)
    if rain and array.attrs.get("units"):
        refuse_contradiction(array, rain_units(array.attrs["units"], label=label), label, None)
    array = final_first(array, label)
    if validity != Validity(slack=validity.slack):
        lazy = _in_blocks(array)
        array = array.copy(data=lazy.data.map_blocks(validity.apply, label, dtype=array.dtype))
    return rectified(array, dataset, label)


def _in_blocks(array: xr.DataArray) -> xr.DataArray:
    """Return the array in Dask blocks along its first dimension, which limits the memory of one read."""
    return array if array.chunks else array.chunk({array.dims[0]: max(1, ONCE // max(1, array[0].size))})


def as_dataset(data: Any) -> xr.Dataset:
    """Convert a data set, a named data array or a node of a data tree to a data set with usual coordinates."""
    if isinstance(data, xr.DataTree):
        return usual(data.to_dataset())
    if isinstance(data, xr.DataArray):
        return usual(data.to_dataset(name=data.name or "tp"))
    if not isinstance(data, xr.Dataset):
        raise UserError(f"got {type(data).__name__}; expected an xarray Dataset of coarse predictors")
    return usual(data)


def held(data: Any, channels: Iterable[str]) -> tuple[str, ...]:
    """Return the names among `channels` that a data set has."""
    dataset = as_dataset(data)
    return tuple(name for name in channels if _find(dataset, name, rain=False) is not None)


def _find(dataset: xr.Dataset, channel: str, *, rain: bool) -> str | None:
    """Find the variable of a channel: by name, by CF standard name, then by common names of rain."""
    names = [str(name) for name in dataset.data_vars]
    if channel in names:
        return channel
    standard = VARIABLES[channel].standard_name if channel in VARIABLES else None
    tests = [lambda name: dataset[name].attrs.get("standard_name") == standard]
    if rain:
        tests += [
            lambda name: dataset[name].attrs.get("standard_name") in STANDARD_NAMES,
            lambda name: name.lower() in USUAL_NAMES,
        ]
    for test in tests:
        found = [name for name in names if test(name)]
        if len(found) == 1:
            return found[0]
        if found and rain:
            raise DataError(
                f"several variables could be {channel}: {', '.join(found)}; keep one, or rename it {channel}"
            )
    return None


def find_rain(dataset: xr.Dataset, what: str) -> str:
    """Return the name of the rain variable of a data set. Raises `DataError` if there is none."""
    found = "precipitation" if "precipitation" in dataset else _find(dataset, "tp", rain=True)
    if found is None:
        raise DataError(
            f"{what} has the variables {', '.join(map(str, dataset.data_vars)) or 'none'}; expected precipitation"
        )
    return found


def with_time(arrays: dict[str, xr.DataArray]) -> tuple[str | None, dict[str, xr.DataArray]]:
    """Give all arrays a time axis of datetimes. Returns the original name of this axis and the arrays."""
    made, dims = {}, set()
    for channel, array in arrays.items():
        array = unrolled(array, channel)
        dim = next((name for name in TIME_NAMES if name in array.dims), None)
        scalar = next((name for name in TIME_NAMES if name in array.coords and array[name].ndim == 0), None)
        if dim is None:
            when = array[scalar].values if scalar and array[scalar].dtype.kind == "M" else np.datetime64(0, "ns")
            array = array.drop_vars([name for name in TIME_NAMES if name in array.coords]).expand_dims(time=[when])
        elif dim != "time":
            array = array.drop_vars("time", errors="ignore").rename({dim: "time"})
        if "time" not in array.coords:
            raise DataError(
                f"{channel} has a dimension {dim!r} without coordinates; assign the times of the fields to it"
            )
        index = array.indexes["time"]
        if hasattr(index, "to_datetimeindex"):
            array = array.assign_coords(time=index.to_datetimeindex(unsafe=True, time_unit="ns"))
        if array["time"].dtype.kind != "M" or np.isnat(array["time"].values).any():
            raise DataError(f"the times of {channel} are {array['time'].dtype}, not datetimes; decode them with xarray")
        made[channel] = array
        dims.add(dim)
    if len(dims) > 1:
        raise DataError(f"some predictors have a time axis and others have none: {', '.join(arrays)}")
    return dims.pop(), made


def _canonical(array: xr.DataArray, channel: str) -> xr.DataArray:
    tidy = conform(array)
    single = [dim for dim in tidy.dims if dim not in ("time", "lat", "lon") and tidy.sizes[dim] == 1]
    tidy = tidy.squeeze(single, drop=True)
    if set(tidy.dims) != {"time", "lat", "lon"}:
        others = [str(dim) for dim in tidy.dims if dim not in ("time", "lat", "lon")]
        raise DataError(f"{channel} has additional dims {others or tidy.dims}; select one position along each of them")
    return tidy.transpose("time", "lat", "lon")


def interval_hours(dataset: xr.Dataset, times: NDArray[np.datetime64], dim: str | None) -> float | None:
    """Return the interval of amounts in hours, from time bounds, else from an even time step; None if unknown."""
    bounds = dataset[dim].attrs.get("bounds") if dim in dataset.coords else None
    if bounds in dataset.variables and dataset[bounds].dtype.kind == "M":
        width = np.unique(np.diff(dataset[bounds].values.reshape(-1, 2), axis=1) / np.timedelta64(1, "h"))
        return float(width[0]) if len(width) == 1 and width[0] > 0 else None
    steps = np.unique(np.diff(np.sort(times)) / np.timedelta64(1, "h"))
    return float(steps[0]) if len(steps) == 1 and steps[0] > 0 else None


def _factor(channel: str, array: xr.DataArray, hours: float | None, geometry: Geometry | None) -> float:
    units = array.attrs.get("units")
    if units is None or not str(units).strip():
        known = VARIABLES[channel].units if channel in VARIABLES else (geometry.units.get(channel) if geometry else "")
        if not known:
            return 1.0
        raise DataError(f"{channel} has no units; expected {known}: set dataset[{channel!r}].attrs['units']")
    label = f"{channel!r}"
    if channel not in VARIABLES:
        expected = geometry.units.get(channel) if geometry else None
        if expected and str(units).strip() != expected:
            raise DataError(f"{label} is in {units}; the model was trained on {expected}: convert it")
        return 1.0
    one, two = (inside_factor(channel, str(units), label=label, step_hours=value) for value in (1.0, 2.0))
    if one == two:
        return one
    if hours is None:
        raise DataError(
            f"{label} is an amount ({units}), and its interval cannot be determined from the times; convert it to "
            f"{VARIABLES[channel].units}"
        )
    return inside_factor(channel, str(units), label=label, step_hours=hours)


def _first_longitude(arrays: Mapping[str, xr.DataArray], axes: Sequence[Found]) -> float:
    """Return the smallest longitude of the data, which shows their longitude convention."""
    return float(next(iter(arrays.values()))[axes[-1].coordinate].values.min())


def has_fields(data: Any, names: Sequence[str]) -> bool:
    """Whether a data set has all of these variables."""
    dataset = as_dataset(data)
    return all(_find(dataset, name, rain=False) for name in names)


def static_fields(data: Any, names: Sequence[str], grid: Grid) -> NDArray[np.float32]:
    """Read static fields `(name, lat, lon)` on a grid. Finer fields are averaged, coarser ones interpolated.

    Raises `DataError` for a field that is missing, has no units or does not cover the grid.
    """
    dataset = as_dataset(data)
    fields = np.empty((len(names), *grid.shape), np.float32)
    for row, name in zip(fields, names, strict=True):
        found = _find(dataset, name, rain=False)
        if found is None:
            raise DataError(
                f"the model requires the static field {name}; the static data have "
                f"{', '.join(map(str, dataset.data_vars)) or 'nothing'}"
            )
        array = conform(dataset[found])
        if "time" in array.dims:
            array = array.isel(time=0)
        array = array.squeeze([dim for dim in array.dims if dim not in ("lat", "lon")], drop=True)
        source = grid_of(array)
        for have, want in zip(source.axes, grid.axes, strict=True):
            low, high = have.edges[0] - 0.5 * have.step, have.edges[-1] + 0.5 * have.step
            shift = 360 * round((have.start - want.start) / 360) if have.is_longitude else 0
            if have.period is None and not (low <= want.start + shift and want.stop + shift <= high):
                raise DataError(
                    f"static field {name} covers {have.start:g} to {have.stop:g} along {have.name}; "
                    f"expected at least {want.start:g} to {want.stop:g}"
                )
        units = array.attrs.get("units")
        factor = inside_factor(name, units, label=repr(name)) if name in VARIABLES else 1.0
        method: Method = "conservative" if source["lat"].step <= grid["lat"].step * 1.001 else "bilinear"
        values = np.asarray(array.values, np.float64) * factor
        row[...] = values if source.matches(grid) else Regridder(source, grid, method)(values)
        if not np.isfinite(row).all():
            raise DataError(
                f"static field {name} has missing values at {int((~np.isfinite(row)).sum())} cells of the fine grid"
            )
    return fields
