"""Read axes from CF coordinates; coordinates that cannot be used raise an error with index and reason."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoml.errors import DataError
from geoml.grids.axes import LATITUDE_UNITS, LONGITUDE_UNITS, TIME_UNITS, TOLERANCE, Axis, Registration, nice_number

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Found", "find_axes", "read_axis", "rounding"]

DEGREES = {"degrees", "degree", "degrees_north", "degree_north", "degrees_n", "degreen", "degrees_east", "degree_east",
           "degrees_e", "degreee"}  # fmt: skip
LENGTHS = {"m", "km", "meter", "meters", "metre", "metres", "kilometer", "kilometre"}


@dataclass(frozen=True)
class Found:
    """An axis, its dim and coordinate in the data, and the index order that sorts the data (None: unchanged)."""

    axis: Axis
    dim: str
    coordinate: str
    order: slice | NDArray[np.intp] | None
    attrs: dict[str, Any]


def find_axes(
    data: xr.Dataset | xr.DataArray, *, time: bool, registration: Registration | None = None
) -> tuple[Found, ...]:
    """The spatial axes (and time) of xarray data, canonical names and order: time, z, lat/y, lon/x."""
    found: dict[str, Found] = {}
    curved: list[str] = []
    flat = {_kind(str(name), each): each.dims for name, each in data.coords.items() if each.ndim == 1 and each.size > 1}
    if "lat" in flat and flat["lat"] == flat.get("lon"):
        raise DataError(
            f"its cells are a list along {flat['lat'][0]!r} (an unstructured grid, or points); expected latitudes by "
            "longitudes: regrid it first, for example with cdo remapcon"
        )
    for name, variable in data.coords.items():
        kind = _kind(str(name), variable)
        if kind is None or (kind == "time" and not time):
            continue
        if (kind, str(name).lower()[:3]) in (("lat", "lon"), ("lon", "lat")):
            raise DataError(f"{_label(str(name), data)} is a {kind} by its attributes; its name and attributes differ")
        label = _label(str(name), data)
        if variable.ndim != 1:
            if variable.ndim == 2:
                curved.append(f"{label} is two-dimensional {variable.shape}")
            continue
        if kind in found:
            raise DataError(f"{label} and {found[kind].coordinate!r} both look like {kind}; keep one")
        values, units = variable.values, _units(kind, variable)
        if kind == "time":
            values = _seconds(values, label)
        asked = registration or variable.attrs.get("registration")
        axis, order = read_axis(kind, values, units, label=label, registration=asked)
        found[kind] = Found(axis, str(variable.dims[0]), str(name), order, dict(variable.attrs))
    if time and "time" not in found:
        raise DataError(
            f"no time coordinate of datetimes among {[str(name) for name in data.coords]}; decode the times"
        )
    space = [kind for kind in ("z", "lat", "y", "lon", "x") if kind in found]
    pairs = [pair for pair in (("lat", "lon"), ("y", "x")) if all(kind in found for kind in pair)]
    if not pairs and curved:
        raise DataError(f"{curved[0]}: a curvilinear grid; interpolate to even latitudes and longitudes first")
    if not pairs:
        where = f" in {source}" if (source := data.encoding.get("source")) else ""
        raise DataError(
            f"no pair of lat and lon, or of y and x, coordinates{where}; found {[str(name) for name in data.coords]} "
            f"on dims {[str(dim) for dim in data.dims]}"
        )
    if len(pairs) == 2:
        space = [kind for kind in space if kind not in ("y", "x")]
    order_of = (["time"] if "time" in found else []) + space
    return tuple(found[kind] for kind in order_of)


def read_axis(
    name: str, values: Any, units: str, *, label: str = "", registration: str | None = None
) -> tuple[Axis, slice | NDArray[np.intp] | None]:
    """The axis of coordinate `values`, which may be noisy, and the index order that sorts the data.

    >>> axis, order = read_axis("lon", [359.0, 0.0, 1.0], "degrees_east")
    >>> axis.start, axis.step, order
    (-1.0, 1.0, None)
    """
    label = label or repr(name)
    x = np.asarray(values, dtype=np.float64)
    if x.size < 2:
        raise DataError(f"{label} has {x.size} value(s); the spacing needs at least 2")
    if not np.isfinite(x).all():
        at = int(np.flatnonzero(~np.isfinite(x))[0])
        raise DataError(f"{label}[{at}] is {x[at]}; coordinates have to be finite")
    indices = np.arange(x.size)
    cyclic = units == LONGITUDE_UNITS
    if units == LATITUDE_UNITS and np.abs(x).max() > 90 + 1e-5:
        at = int(np.abs(x).argmax())
        raise DataError(f"{label}[{at}] is {x[at]:g}, which is not a latitude; are latitude and longitude swapped?")
    if cyclic and np.abs(x).max() > 360 + 180:
        at = int(np.abs(x).argmax())
        raise DataError(f"{label}[{at}] is {x[at]:g}, which is not a longitude in degrees")
    if _usual_step(x, cyclic) < 0:
        x, indices = x[::-1], indices[::-1]
    if cyclic:
        x, indices = _unroll(x, indices)
    step = _even_step(x, indices, label)
    period = None
    if cyclic:
        if x.size * step > 360 + TOLERANCE * step:
            raise DataError(f"{label} overlaps: {x[0]:g} … {x[-1]:g} overlaps itself around the globe; drop the "
                            "repeated meridians")  # fmt: skip
        if abs(x.size * step - 360) <= TOLERANCE * step * x.size:
            period = 360.0
            shift = int(np.argmin((x + 180 + 1e-6 * step) % 360))
            x = np.concatenate([x[shift:], x[:shift] + 360])
            indices = np.concatenate([indices[shift:], indices[:shift]])
        x = x - 360 * math.floor((x[0] + 180) / 360 + 1e-9)
    start = _tidy_start(float(x[0]), step)
    if registration is None:
        on_nodes = abs(start / step - round(start / step)) <= 10 * TOLERANCE
        registration = "node" if on_nodes else "centre"
    elif registration not in ("centre", "node"):
        raise DataError(f"{label} has registration {registration!r}; expected 'centre' or 'node'")
    axis = Axis(name, start, step, x.size, units, registration, period)  # type: ignore[arg-type]
    return axis, _as_order(indices)


def _usual_step(x: NDArray[np.float64], cyclic: bool) -> float:
    """The signed step, ignoring jumps at the date line and gaps."""
    steps = np.diff(x)
    if not cyclic:
        return float(np.median(steps))
    steps = (steps + 180) % 360 - 180
    return float(steps[np.abs(steps).argmin()])


def _unroll(x: NDArray[np.float64], indices: NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Longitudes with at most one jump (date line, Greenwich), shifted so that they ascend."""
    steps = np.diff(x)
    usual = _usual_step(x, cyclic=True)
    odd = np.flatnonzero(np.abs(steps - usual) > 0.5 * abs(usual))
    if odd.size != 1 or usual <= 0:
        return x, indices
    cut = int(odd[0]) + 1
    if abs(steps[cut - 1] + 360 - usual) < 0.5 * usual:  # … 179, -180 …: goes on after the jump
        return np.concatenate([x[:cut], x[cut:] + 360]), indices
    if abs(x[0] + 360 - x[-1] - usual) < 0.5 * usual:  # 0 … 10, 350 … 359: begins after the gap
        return np.concatenate([x[cut:], x[:cut] + 360]), np.concatenate([indices[cut:], indices[:cut]])
    return x, indices


def _even_step(x: NDArray[np.float64], indices: NDArray[np.intp], label: str) -> float:
    """The common step of ascending coordinates, without rounding noise."""
    steps = np.diff(x)
    if (steps <= 0).any():
        at = int(np.flatnonzero(steps <= 0)[0])
        what = "repeats" if steps[at] == 0 else "turns back"
        raise DataError(f"{label} {what} at index {indices[at + 1]}: {x[at]:g}, {x[at + 1]:g}; it has to be monotonic")
    step = float(x[-1] - x[0]) / (x.size - 1)
    off = np.abs(x - (x[0] + step * np.arange(x.size)))
    noise = max(4 * float(np.spacing(np.float32(np.abs(x).max()))), rounding(x, step))
    if (worst := float(off.max())) > max(TOLERANCE * step, noise):
        usual = float(np.median(steps))
        at = int(np.abs(steps - usual).argmax())
        raise DataError(
            f"{label} is not evenly spaced: {x[at]:g} to {x[at + 1]:g} (index {indices[at + 1]}) is {steps[at]:g}, "
            f"the usual step is {usual:g}; {worst / step:.2g} of a step off"
        )
    return nice_number(step, max(TOLERANCE * step, 2 * float(off.max())) / (x.size - 1))


def rounding(x: NDArray[np.float64], step: float) -> float:
    """Largest deviation from even spacing that rounding to few decimals explains, as in 50.03, 50.07, 50.10.

    It is one unit of the last decimal if that is less than a third of the step, else 0.
    """
    for decimals in range(1, 5):
        unit = 10.0**-decimals
        if unit > abs(step) / 3 or x.size < 3:
            continue
        if np.abs(x / unit - np.round(x / unit)).max() < 1e-3:
            return unit * (1 + 1e-6)
    return 0.0


def _tidy_start(start: float, step: float) -> float:
    """Round `start` to the nearest multiple of half a step if it is within rounding noise of that multiple."""
    halves = round(2 * start / step)
    tidy = nice_number(halves * step / 2, 1e-9 * abs(step))
    return tidy if abs(tidy - start) <= TOLERANCE * step else nice_number(start, 1e-6 * abs(step))


def _as_order(indices: NDArray[np.intp]) -> slice | NDArray[np.intp] | None:
    if (np.diff(indices) == 1).all():
        return None
    if (np.diff(indices) == -1).all():
        return slice(None, None, -1)
    return indices


def _kind(name: str, variable: xr.DataArray) -> str | None:
    """The kind of axis of a coordinate: by CF attributes, else by name."""
    attrs, lower = variable.attrs, name.lower()
    units = str(attrs.get("units", "")).lower()
    standard = str(attrs.get("standard_name", ""))
    if standard == "latitude" or units in ("degrees_north", "degree_north", "degrees_n", "degreen"):
        return "lat"
    if standard == "longitude" or units in ("degrees_east", "degree_east", "degrees_e", "degreee"):
        return "lon"
    if lower in ("lat", "latitude", "nav_lat") or (lower == "y" and units in DEGREES):
        return "lat"
    if lower in ("lon", "longitude", "long", "nav_lon") or (lower == "x" and units in DEGREES):
        return "lon"
    if np.issubdtype(variable.dtype, np.datetime64) and lower in ("time", "valid_time"):
        return "time"
    if variable.dims != (name,):
        return None
    if standard == "projection_x_coordinate" or (lower == "x" and (not units or units in LENGTHS)):
        return "x"
    if standard == "projection_y_coordinate" or (lower == "y" and (not units or units in LENGTHS)):
        return "y"
    return "z" if lower in ("z", "height", "altitude") and (not units or units in LENGTHS) else None


def _units(kind: str, variable: xr.DataArray) -> str:
    fixed = {"lat": LATITUDE_UNITS, "lon": LONGITUDE_UNITS, "time": TIME_UNITS}
    return fixed.get(kind) or str(variable.attrs.get("units", "m"))


def _seconds(values: NDArray[Any], label: str) -> NDArray[np.float64]:
    if not np.issubdtype(values.dtype, np.datetime64):
        raise DataError(f"{label} holds {values.dtype}, not datetimes; decode the times (xarray: decode_times=True)")
    return (values - np.datetime64("1970-01-01")) / np.timedelta64(1, "s")


def _label(name: str, data: xr.Dataset | xr.DataArray) -> str:
    """The variable and its source for messages: `'lat' of file.nc`."""
    source = data.encoding.get("source")
    if not source and hasattr(data, "data_vars"):
        source = next((s for v in data.data_vars.values() if (s := v.encoding.get("source"))), None)
    return f"coordinate {name!r}" + (f" of {source}" if source else "")
