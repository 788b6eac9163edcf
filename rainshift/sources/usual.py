"""Convert unconventional coordinates: times as text, radians, cell bounds without coordinates, WRF positions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoml.errors import DataError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["final_first", "usual", "versions"]

NAMES = {"lat": ("lat", "latitude", "y"), "lon": ("lon", "longitude", "x")}
STANDARD = {"lat": "latitude", "lon": "longitude"}
DEGREES = ("degrees", "degree", "deg")
TIMES = ("time", "times", "valid_time", "datetime", "date")
#: A time as text: 2020-06-01T01:00:00Z, 2020-06-01_01:00:00 (WRF).
TEXT = re.compile(r"\d{4}-\d{2}-\d{2}([T _]\d{2}:?\d{2}.*)?")


def usual(data: xr.Dataset) -> xr.Dataset:
    """Return the data set with times as dates and positions in degrees.

    Times as text become dates in UTC. Latitudes and longitudes in radians become degrees. Axes `Y` and `X` in degrees
    are taken as latitude and longitude. Cell bounds without coordinates give the cell centres. Two-dimensional
    positions that are repeated at each time (WRF) lose the time dimension. Raises `DataError` for positions that change
    with time.
    """
    return _places(_times(data))


def _times(data: xr.Dataset) -> xr.Dataset:
    for name, variable in list(data.variables.items()):
        lower = str(name).lower()
        if variable.ndim != 1 or lower not in TIMES:
            continue
        dim = str(variable.dims[0])
        if variable.dtype.kind in "SUO" and (dates := _of_text(variable.values)) is not None:
            attrs = {key: value for key, value in variable.attrs.items() if key != "units"}
            data = data.drop_vars([name]).assign_coords({str(name): (dim, dates, attrs)})
        if data[name].dtype.kind in "MO" and dim not in data.coords:
            data = data.set_coords(str(name)).swap_dims({dim: str(name)})
    return data


def _of_text(values: NDArray[Any]) -> NDArray[np.datetime64] | None:
    """Convert text to dates in UTC; None for other values. Leap seconds become the next full minute."""
    import pandas as pd

    texts = [v.decode() if isinstance(v, bytes) else v for v in values.tolist()]
    if not texts or not all(isinstance(text, str) and TEXT.fullmatch(text.strip("\0 ")) for text in texts):
        return None
    tidy = pd.Series([re.sub(r"(?<=\d)[_ ](?=\d)", "T", text.strip("\0 ")) for text in texts])
    leap = tidy.str.contains(r":60(?!\d)")
    dates = pd.to_datetime(
        tidy.str.replace(r":60(?!\d)", ":59", regex=True), utc=True, format="ISO8601", errors="coerce"
    )
    dates = dates + pd.to_timedelta(leap.astype(int), unit="s")
    return np.asarray(dates.dt.tz_localize(None).to_numpy("datetime64[ns]"))


def _places(data: xr.Dataset) -> xr.Dataset:
    changed: dict[str, Any] = {}
    for name, variable in data.variables.items():
        kind, units = _kind(str(name), variable), str(variable.attrs.get("units", "")).lower()
        if kind is None or variable.dtype.kind != "f":
            continue
        attrs, dims = dict(variable.attrs), variable.dims
        if variable.ndim == 3:  # WRF repeats them at each time
            values, dims = variable[0].values, dims[1:]
            for place in {len(variable) // 2, len(variable) - 1}:
                if not np.array_equal(variable[place].values, values, equal_nan=True):
                    raise DataError(
                        f"{name!r} changes along {variable.dims[0]!r}; expected the same positions at all times"
                    )
        else:
            values = variable.values
        if units in ("radian", "radians", "rad"):
            values = np.rad2deg(values)
        elif variable.ndim != 3 and (units not in DEGREES or attrs.get("standard_name") == STANDARD[kind]):
            continue
        attrs |= {"units": "degrees_north" if kind == "lat" else "degrees_east", "standard_name": STANDARD[kind]}
        changed[str(name)] = (dims, values, attrs)
    for kind, names in NAMES.items():
        for dim in map(str, data.dims):
            if dim.lower() in names[:2] and dim not in data.variables:
                bounds = next((b for end in ("bnds", "bounds") if (b := f"{dim}_{end}") in data.variables), None)
                if bounds is not None and data[bounds].dims[:1] == (dim,) and data[bounds].ndim == 2:
                    changed[dim] = ((dim,), data[bounds].values.mean(axis=1), {"standard_name": STANDARD[kind]})
    return data.drop_vars([n for n in changed if n in data.variables]).assign_coords(changed) if changed else data


def _kind(name: str, variable: Any) -> str | None:
    """Return "lat" or "lon" for a coordinate, by its standard name, axis or name; None for other variables."""
    standard, units = str(variable.attrs.get("standard_name", "")), str(variable.attrs.get("units", "")).lower()
    if standard.startswith(("grid_", "projection_")):
        return None
    lower, axis = name.lower(), str(variable.attrs.get("axis", "")).upper()
    for kind, letter in (("lat", "Y"), ("lon", "X")):
        if standard == STANDARD[kind] or lower in (*NAMES[kind][:2], "xlat" if kind == "lat" else "xlong"):
            return kind
        if units in DEGREES and variable.ndim == 1 and (axis == letter or lower == NAMES[kind][2]):
            return kind
    return None


def final_first(array: xr.DataArray, label: str) -> xr.DataArray:
    """Combine the ERA5 dimension `expver`: final data if they exist, else preliminary data."""
    if "expver" not in array.dims:
        return array
    parts = [array.isel(expver=int(i), drop=True) for i in np.argsort(versions(array, label), kind="stable")]
    made = parts[0]
    for part in parts[1:]:
        made = made.fillna(part)
    made = made.assign_attrs(array.attrs)
    made.encoding = dict(array.encoding)
    return made


def versions(array: xr.DataArray, label: str) -> list[int]:
    """Return the values of `expver` from numbers, text, characters or bytes; 1 is final, 5 preliminary."""
    if "expver" not in array.coords:
        raise DataError(f"{label} has a dimension expver without values, so final data are unknown; add 1 and 5")
    values = np.asarray(array["expver"].values)
    if values.dtype.kind == "S" and values.ndim > 1 and values.dtype.itemsize == 1:
        values = np.array([b"".join(row) for row in values.reshape(-1, values.shape[-1])])
    found = []
    for value in np.atleast_1d(values).ravel().tolist():
        text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
        text = text.strip().strip("\x00")
        try:
            found.append(int(float(text)))
        except ValueError:
            raise DataError(f"{label} has the expver {value!r}; expected 1 (final) or 5 (preliminary)") from None
    return found
