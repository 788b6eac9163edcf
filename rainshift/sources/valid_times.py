"""Bring fields of one record to the time intervals of another: weighted means of intervals or instants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import xarray as xr

    from rainshift.sources.rain_files import Rain

__all__ = ["Timed", "brought_to", "intervals_of", "rows_for"]

Times: TypeAlias = NDArray[np.datetime64]
#: Positions and weights of the fields that make up a sample; None if they do not cover its interval.
Row: TypeAlias = tuple[NDArray[np.intp], NDArray[np.float64]] | None
SECOND = np.timedelta64(1, "s")
#: Number of samples per Dask task.
SAMPLES_A_TASK = 48
#: Largest distance between instants for interpolation, in multiples of their median distance.
MOST_APART = 1.5
#: Largest share of an interval that may be uncovered because of rounding.
SLACK = 1e-6


@dataclass(frozen=True)
class Timed:
    """Lazy fields `(time, lat, lon)` with the interval of validity of each; for instants, start and end are equal."""

    values: xr.DataArray
    start: Times
    end: Times

    @property
    def instants(self) -> bool:
        """Whether fields are instantaneous."""
        return bool((self.start == self.end).all())

    @property
    def hours(self) -> float:
        """Length of the intervals in hours; 0 for instants."""
        return float(np.median((self.end - self.start) / SECOND)) / 3600

    @classmethod
    def of_rain(cls, rain: Rain) -> Timed:
        """Wrap rain with the intervals from its stamp and step. An unknown stamp counts as the end."""
        return cls(rain.values, *intervals_of(rain.values["time"].values, rain.step.total_seconds(), rain.stamp))


def intervals_of(time: Times, seconds: float, stamp: str) -> tuple[Times, Times]:
    """Return start and end of intervals from times with a `stamp`: the position of a time in its interval.

    >>> start, end = intervals_of(np.array(["2020-01-01T01"], "M8[ns]"), 3600, "middle")
    >>> str(start[0])[11:16], str(end[0])[11:16]
    ('00:30', '01:30')
    """
    length = np.timedelta64(round(seconds * 1e9), "ns")
    if stamp == "point":
        return time, time
    before = {"start": 0 * length, "middle": length // 2}.get(stamp, length)
    return time - before, time - before + length


def rows_for(have_start: Times, have_end: Times, start: Times, end: Times) -> list[Row]:
    """Return for each interval the positions and weights of fields whose weighted mean represents it.

    Interval means are weighted by their overlap; instants are integrated linearly. An instant (start equal to end) is
    interpolated between instants, or takes the mean of the interval that contains it.
    """
    if not len(start):
        return []
    origin = min(have_start[0], start[0])
    a, b = ((values - origin) / SECOND for values in (start, end))
    first, last = ((values - origin) / SECOND for values in (have_start, have_end))
    if (first == last).all():
        return [_of_instants(first, low, high) for low, high in zip(a, b, strict=True)]
    return [_of_means(first, last, low, high) for low, high in zip(a, b, strict=True)]


def _of_means(first: NDArray[np.float64], last: NDArray[np.float64], low: float, high: float) -> Row:
    if low == high:
        place = int(np.searchsorted(last, low))
        inside = place < len(last) and first[place] < low
        return (np.array([place]), np.ones(1)) if inside else None
    places = np.arange(np.searchsorted(last, low, "right"), np.searchsorted(first, high, "left"))
    overlap = np.minimum(last[places], high) - np.maximum(first[places], low)
    places, overlap = places[overlap > SLACK * (high - low)], overlap[overlap > SLACK * (high - low)]
    if abs(overlap.sum() - (high - low)) > 2 * SLACK * (high - low):
        return None
    return places, overlap / overlap.sum()


def _of_instants(times: NDArray[np.float64], low: float, high: float) -> Row:
    """Return the weights for the mean over [low, high] of the linear interpolation between instants."""
    usual = float(np.median(np.diff(times))) if len(times) > 1 else np.inf
    before = int(np.searchsorted(times, low + 1e-6, "right")) - 1
    after = int(np.searchsorted(times, high - 1e-6, "left"))
    if before < 0 or after >= len(times):
        return None
    if low == high and abs(times[before] - low) < 1e-3:
        return np.array([before]), np.ones(1)
    places = np.arange(before, after + 1)
    if len(places) > 1 and np.diff(times[places]).max() > MOST_APART * usual:
        return None
    if len(places) == 1:
        return places, np.ones(1)
    if low == high:
        share = (low - times[before]) / (times[after] - times[before])
        return places, np.array([1 - share, share])
    weights = np.zeros(len(places))
    for k in range(len(places) - 1):
        left, right = times[places[k]], times[places[k + 1]]
        p, q = max(left, low), min(right, high)
        if q > p:
            share = ((p + q) / 2 - left) / (right - left)  # the mean of the line is its value at the middle
            weights[k] += (q - p) * (1 - share)
            weights[k + 1] += (q - p) * share
    kept = weights > 0
    return places[kept], weights[kept] / weights.sum()


def brought_to(values: xr.DataArray, rows: Sequence[Row], time: Times) -> xr.DataArray:
    """Compute the fields of samples at `time` lazily. All rows must exist; missing values stay missing."""
    import dask
    import dask.array as da
    import xarray as xr

    known = [row for row in rows if row is not None]
    if len(known) != len(rows):
        raise ValueError("some samples have no rows; expected positions and weights for every sample")
    coords = {"time": time, **{name: values[name] for name in ("lat", "lon")}}
    if all(len(places) == 1 for places, _ in known):
        taken = values.isel(time=np.array([places[0] for places, _ in known], int))
        return taken.assign_coords(time=time)
    plane, parts = values.shape[1:], []
    for begin in range(0, len(known), SAMPLES_A_TASK):
        some = known[begin : begin + SAMPLES_A_TASK]
        low, high = min(int(p[0]) for p, _ in some), max(int(p[-1]) for p, _ in some) + 1
        rows_here = [(places - low, weights) for places, weights in some]
        made = dask.delayed(_combined)(values.data[low:high], rows_here)
        parts.append(da.from_delayed(made, (len(some), *plane), np.float32))
    return xr.DataArray(da.concatenate(parts), coords, ("time", "lat", "lon"), values.name, values.attrs)


def _combined(values: NDArray[Any], rows: Sequence[tuple[NDArray[np.intp], NDArray[np.float64]]]) -> NDArray[Any]:
    return np.stack([np.tensordot(weights, values[places], 1) for places, weights in rows]).astype(np.float32)
