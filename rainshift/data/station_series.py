"""Time series of stations in a NetCDF file, in the layouts of CF for discrete sampling geometries."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from geoml.errors import DataError
from rainshift.sources.intervals import bounds_of, find_intervals
from rainshift.sources.opening import open_rain
from rainshift.sources.rain_files import find_rain, refuse_contradiction
from rainshift.sources.units import rain_units
from rainshift.sources.valid_times import intervals_of
from rainshift.sources.validity import validity_of

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

__all__ = ["series_table"]

logger = logging.getLogger(__name__)

#: Numbers of the stations of a series, and its values `(station, time)`, times `(time,)` and bounds `(time, 2)`.
Series = tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.datetime64], NDArray[np.datetime64] | None]


def series_table(path: Path, columns: Mapping[str, tuple[str, ...]]) -> pd.DataFrame:
    """Convert rain at stations to a table with the columns id, lat, lon, start, end, rate and amount.

    Layouts (CF conventions 1.11, chapter 9 and appendix H.2): `(station, time)` with common times, a single station
    with scalar coordinates, `(station, observation)` with times of each station, and contiguous and indexed ragged
    arrays. `columns` has the usual names of variables. Raises `DataError` for another layout.
    """
    import pandas as pd

    data = open_rain(path)
    array = data[find_rain(data, None, path)]
    label = f"{path}: {array.name!r}"
    meant = rain_units(array.attrs.get("units"), label=label)
    refuse_contradiction(array, meant, label, None)
    lat, lon = (_position(data, kind, columns[kind], path) for kind in ("lat", "lon"))
    dim = str(lat.dims[0]) if lat.ndim else None
    ids = next((data[n] for n in data.variables if str(n).lower() in columns["id"] and data[n].dims[:1] == lat.dims[:1]
                and (dim is not None or data[n].ndim == 0)), None)  # fmt: skip
    names = np.arange(lat.size).astype(str) if ids is None else _texts(ids)
    lats, lons = (np.atleast_1d(np.asarray(each.values, float)) for each in (lat, lon))
    parts = []
    for stations, values, stamps, bounds in _series(data, array, dim, columns["time"], label):
        known = ~np.isnat(stamps)
        values, stamps = values[:, known], stamps[known]
        if bounds is None and len(stamps) < 2 and len(stations) < len(names):
            logger.warning("%s: station %s has %d values, so their interval is unknown; it is left out", path,
                           names[stations[0]], len(stamps))  # fmt: skip
            continue
        bounds = None if bounds is None else bounds[known]
        order = np.argsort(stamps, kind="stable")
        sorted_bounds = None if bounds is None else bounds[order]
        whose = str(path) if len(stations) > 1 else f"{path}, station {names[stations[0]]}"
        intervals = find_intervals(stamps[order], sorted_bounds, whose, amount=meant.amount)
        if sorted_bounds is not None:
            start, end = sorted_bounds.T
        else:
            start, end = intervals_of(stamps[order], intervals.step, intervals.stamp or "end")
        amounts = validity_of(array, label).apply(values[:, order], label)
        rate = amounts * meant.factor / (intervals.hours if meant.amount else 1.0)
        rows, count = np.repeat(stations, len(stamps)), len(stations)
        parts.append(pd.DataFrame({
            "id": names[rows], "lat": lats[rows], "lon": lons[rows], "start": np.tile(start, count),
            "end": np.tile(end, count), "rate": rate.ravel(), "amount": amounts.ravel(),
        }))  # fmt: skip
    if not parts:
        raise DataError(f"{label}: no station has two values or time bounds, so intervals are unknown; add time bounds")
    return pd.concat(parts, ignore_index=True)


def _position(data: xr.Dataset, kind: str, usual: tuple[str, ...], path: Path) -> xr.DataArray:
    """Return latitudes or longitudes: one value per station, or a scalar for a single station."""
    named = [n for n in data.variables if str(n).lower() in usual]
    named += [n for n in data.variables if str(data[n].attrs.get("standard_name", ""))[:3] == kind]
    found = next(iter(named), None)
    if found is None or data[found].ndim > 1:
        raise DataError(f"{path} has no {kind} of the stations; expected a variable {kind} with one value per station")
    return data[found]


def _series(
    data: xr.Dataset, array: xr.DataArray, dim: str | None, usual: tuple[str, ...], label: str
) -> Iterator[Series]:
    """Generate series: all stations at once if they share their times, else one station after another."""
    times = [
        str(n)
        for n, each in data.variables.items()
        if each.dtype.kind == "M" and each.dims and set(each.dims) <= set(array.dims)
    ]
    time = next((n for n in times if n.lower() in usual), next(iter(times), None))
    whole = slice(None)
    if time is None or array.ndim - (dim in array.dims) != 1:
        raise DataError(
            f"{label} has dims {array.dims}; expected (station, time) with times as dates, or a ragged array of CF"
        )
    if dim is None or dim not in array.dims:
        owner = np.zeros(array.size, np.intp) if dim is None else _owners(data, array, dim, label)
        bounds = bounds_of(data, time, whole)
        for number in np.unique(owner):
            rows = owner == number
            yield (np.array([number]), np.asarray(array.values, float)[None, rows], _stamps(data[time].values[rows]),
                   None if bounds is None else bounds[rows])  # fmt: skip
        return
    values = np.asarray(array.transpose(dim, ...).values, float)
    if data[time].ndim == 1:
        yield np.arange(len(values)), values, _stamps(data[time].values), bounds_of(data, time, whole)
        return
    for number in range(len(values)):
        one = data.isel({dim: number})
        yield np.array([number]), values[number][None], _stamps(one[time].values), bounds_of(one, time, whole)


def _owners(data: xr.Dataset, array: xr.DataArray, dim: str, label: str) -> NDArray[np.intp]:
    """Return the station number of each value of a ragged array, contiguous or indexed."""
    (along,) = array.dims
    for name, each in data.variables.items():
        values = np.asarray(each.values)
        if "sample_dimension" in each.attrs and each.dims == (dim,):
            counts = np.nan_to_num(values).astype(np.intp)
            if (counts < 0).any() or counts.sum() != array.size:
                raise DataError(f"{label} has {array.size} values; {name!r} counts {counts.sum()}")
            return np.repeat(np.arange(len(counts)), counts)
        if "instance_dimension" in each.attrs and each.dims == (along,):
            if not np.isin(values, np.arange(data.sizes[dim])).all():
                raise DataError(f"{label}: {name!r} has numbers outside 0 to {data.sizes[dim] - 1}, the stations")
            return values.astype(np.intp)
    raise DataError(
        f"{label} has dims {array.dims} and positions on {dim!r}; expected a variable with the attribute "
        "sample_dimension (a count per station) or instance_dimension (a station number per value)"
    )


def _stamps(values: NDArray[np.datetime64]) -> NDArray[np.datetime64]:
    return values.astype("datetime64[ns]")


def _texts(ids: xr.DataArray) -> NDArray[np.str_]:
    values = np.asarray(ids.values)
    if values.ndim == 2:
        values = np.array([b"".join(row).decode() for row in values.astype("S1")])
    values = np.atleast_1d(values)
    return np.array([v.decode() if isinstance(v, bytes) else str(v) for v in values.tolist()]).astype(str)
