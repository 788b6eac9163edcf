"""Station observations for guided prediction: matched to predicted times and cells, with their errors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from geoml.cli.config import build
from geoml.data.points import Points
from geoml.errors import DataError, UserError
from geoml.grids.grid import Grid
from rainshift.data.inputs import as_dataset
from rainshift.data.stations import Stations, read_stations
from rainshift.sources.intervals import bounds_of
from rainshift.sources.valid_times import Times, intervals_of

if TYPE_CHECKING:
    from rainshift.data.archive import Archive
    from rainshift.data.inputs import CoarseFields

__all__ = ["MatchedReadings", "ObservationError", "Readings", "readings_of"]


@dataclass(frozen=True)
class ObservationError:
    """Standard error of a station as an observation of its cell: `share` of the rate, at least `least` in mm/h.

    It includes the difference between a point and the cell mean, which usually exceeds the error of the gauge. The
    default is 30 %: single gauges differ by 20 to 41 % from the mean of a 6 km box in daily rain (22 gauges in humid
    tropical mountains). Hourly rain varies more within a cell, widespread rain less.
    """

    share: float = 0.3
    least: float = 0.1

    def __post_init__(self) -> None:
        for name in ("share", "least"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < np.inf:
                raise UserError(f"observation_error.{name} is {value!r}; expected a number of 0 or more")
        if not self.least > 0:
            raise UserError("observation_error.least is 0; a dry station needs an error above 0 mm/h, such as 0.05")

    def of(self, rates: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the standard errors of rates in mm/h."""
        return np.maximum(self.share * rates, self.least)

    def __str__(self) -> str:
        return f"{100 * self.share:g} % of the rate, at least {self.least:g} mm/h"


@dataclass(frozen=True)
class Readings:
    """Stations with their observation errors, not yet matched to a domain and its times."""

    stations: Stations
    error: ObservationError
    label: str

    def at(self, grid: Grid, times: Times, start: Times, end: Times) -> MatchedReadings:
        """Match values to predicted times with intervals `start` to `end`. Raises `DataError` if none matches."""
        inside = self.stations.inside(grid)
        seconds = float(np.median((end - start) / np.timedelta64(1, "s")))
        rates = inside.over(start, end, seconds)
        if not np.isfinite(rates).any():
            have = self.stations
            raise DataError(
                f"{self.label}: no value matches the interval of a predicted time. Predicted: {start[0]} to {end[0]} … "
                f"{end[-1]}; stations: {have.start.min()} … {have.end.max()}, intervals of "
                f"{np.median((have.end - have.start) / np.timedelta64(1, 'm')):g} min. Intervals must equal or divide "
                "the intervals of the prediction. Times are in UTC; times of stations are ends of intervals"
            )
        cells = inside.cells(grid)
        order = np.argsort(times)
        counts = len(inside.ids), len(self.stations.ids) - len(inside.ids)
        order_of_end = np.argsort(end)
        place = order_of_end[np.searchsorted(end[order_of_end], inside.end).clip(max=len(end) - 1)]
        within = (inside.end <= end[place]) & (inside.start >= start[place])
        return MatchedReadings(times[order], cells, rates[order], self.error, *counts, int((~within).sum()))


@dataclass(frozen=True)
class MatchedReadings:
    """Station rates in mm/h at predicted times, `(time, station)`, NaN if unknown; `cells` are fine-grid indices."""

    times: Times
    cells: NDArray[np.intp]
    rates: NDArray[np.float64]
    error: ObservationError
    inside: int
    outside: int
    #: Number of values at other times or of longer intervals.
    unused: int

    def __str__(self) -> str:
        known = np.isfinite(self.rates)
        parts = [
            f"{int(known.any(0).sum())} of {self.inside + self.outside} stations guide the members, at "
            f"{int(known.any(1).sum())} of {len(self.times)} times ({_count(int(known.sum()), 'value')})"
        ]
        if self.outside:
            parts.append(f"{self.outside} outside the domain")
        if self.unused:
            parts.append(f"{_count(self.unused, 'value')} of other times or of longer intervals")
        if silent := int((~known.any(0)).sum()):
            parts.append(f"{silent} inside without a value at these times")
        return "; ".join(parts)

    @property
    def attrs(self) -> dict[str, str]:
        """Global attributes of guided predictions."""
        return {"observations": str(self), "observation_error": str(self.error)}

    def points(self, times: Times, columns: NDArray[np.int64] | None = None) -> Points | None:
        """Return the values at some times as points of a batch; None if there are none.

        `times` has shape `(batch,)` for single hours and `(batch, step)` for windows of hours. For global domains,
        `columns` are the columns of the fine grid of which the padded field consists.
        """
        rates, cells = self._of(times), self.cells
        if columns is not None:
            station, column = np.nonzero(cells[:, 1:] == columns)
            rates, cells = rates[..., station], np.stack((cells[station, 0], column), axis=1)
        if times.ndim == 2:
            steps, count = rates.shape[1:]
            rates = rates.reshape(len(rates), -1)
            cells = np.column_stack((np.repeat(np.arange(steps), count), np.tile(cells, (steps, 1))))
        some = np.isfinite(rates).any(axis=0)
        if not some.any():
            return None
        error = self.error.of(rates[:, some])
        ends = rates[:, some], np.maximum(rates[:, some] - error, 0), rates[:, some] + error
        return Points(torch.from_numpy(cells[some]).long(), *(torch.from_numpy(part).float() for part in ends))

    def _of(self, times: Times) -> NDArray[np.float64]:
        place = np.searchsorted(self.times, times).clip(max=len(self.times) - 1)
        return np.where((self.times[place] == times)[..., None], self.rates[place], np.nan)

    @classmethod
    def of_archive(
        cls, readings: Readings, archive: Archive, region: str, role: str, grid: Grid, positions: NDArray[np.int64]
    ) -> MatchedReadings:
        """Match stations to samples of a prepared region."""
        times = archive.times(region, role, positions).astype("datetime64[ns]")
        spans = intervals_of(times, archive.step_seconds(region), _stamp(archive.stamp(region)))
        return readings.at(grid, times, *spans)

    @classmethod
    def of_fields(
        cls, readings: Readings, data: Any, fields: CoarseFields, grid: Grid, step_seconds: float | None
    ) -> MatchedReadings:
        """Match stations to the times of coarse fields.

        Intervals are taken from time bounds. Without bounds, times are the ends of intervals of `step_seconds`, the
        time step of the training. The spacing of times is not used, since times may be a selection.
        """
        times = fields.times
        if fields.time_dim is None and (times == np.datetime64(0, "ns")).all():
            raise UserError(f"{readings.label} has times, but the coarse fields have none; add a time to them")
        bounds = None
        if fields.time_dim is not None:
            bounds = bounds_of(as_dataset(data), fields.time_dim, slice(None))
        if bounds is not None and (bounds[:, 1] > bounds[:, 0]).all():
            return readings.at(grid, times, bounds[:, 0], bounds[:, 1])
        return readings.at(grid, times, *intervals_of(times, step_seconds or 3600.0, "end"))


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _stamp(stamp: str) -> str:
    """Return "start" or "middle" unchanged, and "end" for instants and unknown positions."""
    return stamp if stamp in ("start", "middle") else "end"


def readings_of(given: Any, error: Mapping[str, Any] | ObservationError | None = None) -> Readings | None:
    """Read stations of a CSV or NetCDF file, or wrap `Stations`, with their errors. Returns None for None."""
    if given is None:
        return None
    checked = error if isinstance(error, ObservationError) else build(
        ObservationError, dict(error or {}), where="observation_error")  # fmt: skip
    if isinstance(given, Stations):
        return Readings(given, checked, "observations")
    if isinstance(given, str | os.PathLike):
        return Readings(read_stations(os.fspath(given)), checked, f"observations={os.fspath(given)}")
    raise UserError(f"observations is {type(given).__name__}; expected the path of a CSV or NetCDF file of stations")
