"""Reading rain from one file: which variable, which units, which interval, what is missing; refused with the reason."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoml.errors import DataError, UserError, unknown
from rainshift.sources.variables import VARIABLES, rain_factor

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Rain", "check_rain", "read_rain"]

STANDARD_NAMES = {
    "lwe_precipitation_rate", "precipitation_flux", "rainfall_rate", "rainfall_flux", "precipitation_amount",
    "rainfall_amount", "lwe_thickness_of_precipitation_amount", "thickness_of_rainfall_amount",
}  # fmt: skip
USUAL_NAMES = (
    "precipitation", "precipitationcal", "precip", "preciprate", "precip_rate", "precipitation_rate", "pr", "prcp",
    "tp", "total_precipitation", "rain", "rainfall", "rain_rate", "rainrate", "rainfall_rate", "rr", "rw", "acrr",
)  # fmt: skip
#: More than any gauge has seen in a minute; less than a value in wrong units or unscaled integers.
MOST_MM_H = 3000.0
#: Rounding of packed data may fall this far below zero; anything lower is a fill value in disguise.
LEAST_MM_H = -0.05
CHUNK_VALUES = 1_000_000


@dataclass(frozen=True)
class Rain:
    """Lazy rain in mm/h, `(time, lat, lon)` on canonical axes, with its own step."""

    values: xr.DataArray
    step: timedelta
    stamp: str
    attrs: dict[str, Any]


def read_rain(
    path: Path,
    *,
    variable: str | None = None,
    units: str | None = None,
    step_minutes: float | None = None,
    stamp: str | None = None,
) -> Rain:
    """The rain in a NetCDF file or Zarr store; the options stand for what the file does not say."""
    from geoml.data.netcdf import read_dataset
    from geoml.grids.grid import conform

    dataset = read_dataset(path)
    array = dataset[_find(dataset, variable, path)]
    _refuse_twice_scaled(array, path)
    array = _with_time(_lazy(array, path), path)
    try:
        array = conform(array)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    single = [dim for dim in array.dims if dim not in ("time", "lat", "lon") and array.sizes[dim] == 1]
    array = array.squeeze(single, drop=True)
    if array.dims != ("time", "lat", "lon"):
        raise DataError(f"{path}: {array.name!r} has dims {array.dims}; expected (time, lat, lon)")
    array = _sorted(array, path)
    bounds = _bounds(dataset, array)
    step = _step(array["time"].values, step_minutes, bounds, path)
    label = f"{path}: {array.name!r}"
    found = units or array.attrs.get("units")
    factor = rain_factor(found, step.total_seconds() / 3600, label=label)
    if stamp not in (None, "end", "start", "middle", "point", "unknown"):
        raise UserError(f"data.stamp is {stamp!r}; expected end, start, middle, point or unknown")
    amount = rain_factor(found, 1.0, label=label) != rain_factor(found, 2.0, label=label)
    stamp = stamp or _stamp(array["time"].values, bounds) or ("end" if amount else "unknown")
    return Rain(_checked(array, factor, label), step, stamp, dict(dataset.attrs))


@dataclass(frozen=True)
class _OnDisk:
    """An array of a file; what cannot be read of it, a broken chunk for example, is told with the file's name."""

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


def _lazy(array: xr.DataArray, path: Path) -> xr.DataArray:
    """The array in Dask blocks as the file has them."""
    import dask.array as da

    stored = array.encoding.get("preferred_chunks", {})
    chunks = tuple(stored.get(dim, size) for dim, size in array.sizes.items())
    on_disk = _OnDisk(array.variable, f"{path}: {array.name!r}")
    return array.copy(data=da.from_array(on_disk, chunks, name=False, asarray=False))


def _find(dataset: xr.Dataset, variable: str | None, path: Path) -> str:
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
            raise DataError(f"{path} holds several kinds of rain: {', '.join(found)}; choose with data.variable=")
    raise DataError(f"{path} holds no variable known as rain among {', '.join(names)}; name it with data.variable=")


def _refuse_twice_scaled(array: xr.DataArray, path: Path) -> None:
    """Floats with a scale factor were decoded once and kept the attribute: decoded again they are too small."""
    scale = array.encoding.get("scale_factor", 1)
    if scale != 1 and np.dtype(array.encoding.get("dtype", array.dtype)).kind == "f":
        raise DataError(
            f"{path}: {array.name!r} is stored as floats with a scale_factor of {float(scale):g}, which would "
            "scale them twice; drop the attribute, or store the packed integers"
        )


def _with_time(array: xr.DataArray, path: Path) -> xr.DataArray:
    """The array with a datetime64 dimension `time`."""
    if "time" not in array.dims:
        others = [name for name in ("valid_time", "datetime", "date") if name in array.dims]
        if not others:
            raise DataError(f"{path}: {array.name!r} has dims {array.dims}; a time dimension is needed")
        array = array.drop_vars("time", errors="ignore").rename({others[0]: "time"})
    if "time" not in array.coords:
        raise DataError(f"{path}: dimension time has no coordinate; times cannot be told")
    index = array.indexes["time"]
    if hasattr(index, "to_datetimeindex"):
        try:
            array = array.assign_coords(time=index.to_datetimeindex(unsafe=True, time_unit="ns"))
        except ValueError as error:
            raise DataError(f"{path}: calendar {index.calendar!r} has dates that do not exist: {error}") from error
    if array["time"].dtype.kind != "M":
        raise DataError(f"{path}: time is {array['time'].dtype}, not dates; its units attribute may be missing")
    if np.isnat(array["time"].values).any():
        raise DataError(f"{path}: some times are missing")
    return array.assign_coords(time=array["time"].values.astype("datetime64[ns]"))


def _sorted(array: xr.DataArray, path: Path) -> xr.DataArray:
    time = array["time"].values
    if (np.diff(time) < np.timedelta64(0)).any():
        array = array.sortby("time")
        time = array["time"].values
    if (same := np.flatnonzero(np.diff(time) == np.timedelta64(0))).size:
        raise DataError(f"{path}: time {time[same[0]]} comes twice; keep one of the fields")
    return array


def _bounds(dataset: xr.Dataset, array: xr.DataArray) -> NDArray[np.datetime64] | None:
    for name in (dataset[dim].attrs.get("bounds") for dim in ("time",) if dim in dataset.coords):
        if name in dataset.variables and dataset[name].dtype.kind == "M":
            bounds = dataset[name].values.reshape(-1, 2)[: array.sizes["time"]]
            return bounds[np.argsort(bounds[:, 1], kind="stable")]  # as the times were sorted
    return None


def _step(time: Any, minutes: float | None, bounds: Any, path: Path) -> timedelta:
    """The file's own step; gaps of whole steps are allowed."""
    seconds = np.diff(time) / np.timedelta64(1, "s")
    if minutes is not None:
        step = 60.0 * minutes
    elif bounds is not None:
        widths = np.unique((bounds[:, 1] - bounds[:, 0]) / np.timedelta64(1, "s"))
        if len(widths) > 1:
            raise DataError(f"{path}: time bounds of {widths.min():g} s and {widths.max():g} s; one interval is needed")
        step = float(widths[0])
    elif not len(seconds):
        raise DataError(f"{path} holds one time only: the interval it stands for is unknown; set data.step_minutes=")
    else:
        step = float(seconds.min())
    if step <= 0:
        raise DataError(f"{path}: a step of {step:g} s; expected more than 0")
    uneven = np.abs(seconds / step - np.round(seconds / step)) > 1e-3
    if uneven.any():
        place = int(np.flatnonzero(uneven)[0])
        raise DataError(
            f"{path}: times are not a whole number of steps of {step:g} s apart: {time[place]} is followed by "
            f"{time[place + 1]}; split the file, or set data.step_minutes="
        )
    return timedelta(seconds=step)


def _stamp(time: Any, bounds: Any) -> str | None:
    if bounds is None:
        return None
    place = np.unique((time - bounds[:, 0]) / (bounds[:, 1] - bounds[:, 0]))
    names = {0.0: "start", 0.5: "middle", 1.0: "end"}
    return names.get(float(place[0])) if len(place) == 1 else None


def check_rain(values: NDArray[Any], label: str, factor: float) -> NDArray[np.float32]:
    """Values in mm/h, missing ones NaN; what cannot be rain is refused."""
    rain = values.astype(np.float32) * np.float32(factor)
    rain[~np.isfinite(rain)] = np.nan
    if rain.size and (low := np.nanmin(rain, initial=0.0)) < LEAST_MM_H:
        raise DataError(
            f"{label} holds negative values (lowest {low / factor:g}); if they mark missing data, declare them as "
            "_FillValue in the file"
        )
    if rain.size and (high := np.nanmax(rain, initial=0.0)) > MOST_MM_H:
        raise DataError(
            f"{label} reaches {high:g} mm/h, more than rain can be; its units, scale_factor or fill value are wrong "
            "(data.units= replaces the units)"
        )
    return np.maximum(rain, 0, out=rain, where=~np.isnan(rain))


def _checked(array: xr.DataArray, factor: float, label: str) -> xr.DataArray:
    plane = array.sizes["lat"] * array.sizes["lon"]
    chunks = {"time": max(1, math.ceil(CHUNK_VALUES / plane)), "lat": -1, "lon": -1}
    array = array.chunk(chunks)
    for place in {0, array.sizes["time"] - 1}:  # what is wrong everywhere is found at once, the rest when it is read
        check_rain(array.isel(time=place).values, label, factor)
    values = array.data.map_blocks(check_rain, label, factor, dtype=np.float32)
    return array.copy(data=values).rename("precipitation").assign_attrs(VARIABLES["precipitation"].attrs)
