"""Score fields and members at stations over the intervals of the gauges, with wet-day indices and return levels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoml.grids.grid import Grid
from geoml.metrics import Suite
from geoml.metrics.base import reached
from rainshift.data.stations import METHODS, Stations, taken_at
from rainshift.sources.valid_times import Row, Times, intervals_of, rows_for

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["PointRain", "StationScores", "climate_rows", "score_stations"]

Array = NDArray[Any]
#: Sampling method in which all gauges of a cell are averaged and compared with the cell.
CELL_MEAN = "cell mean"
SUITE = Suite(("crps_fair", "rmse", "bias", "spread_skill"))
#: Smallest wet rate of a gauge's interval, and smallest amount of a wet day (ETCCDI).
WET_MM_H, WET_DAY_MM = 0.1, 1.0
#: Smallest number of annual maxima for a return level, smallest number of known days per year, return periods in years.
LEAST_YEARS, LEAST_DAYS, PERIODS = 10, 330, (2, 10, 50)
DAY = np.timedelta64(1, "D")


class PointRain:
    """Collect predictions and gridded truth at stations while fields are scored."""

    def __init__(self, stations: Stations, grid: Grid) -> None:
        self.stations, self.grid = stations.inside(grid), grid
        self._times: list[Array] = []
        self._parts: dict[str, list[Array]] = {"prediction": [], "truth": []}

    def add(self, times: Array, prediction: Array, truth: Array) -> None:
        """Add fields `(time, member, lat, lon)` and the truth `(time, lat, lon)`, NaN where unknown."""
        self._times.append(times)
        for name, fields in (("prediction", prediction), ("truth", truth)):
            self._parts[name].append(np.stack([taken_at(fields, self.grid, self.stations, m) for m in METHODS]))

    def data_set(self) -> xr.Dataset:
        """Return `prediction` `(taken, time, member, station)` and `truth` `(taken, time, station)` in mm/h by time."""
        import xarray as xr

        times = np.concatenate(self._times)
        order = np.argsort(times, kind="stable")
        made = {
            name: (dims, np.concatenate(self._parts[name], axis=1)[:, order])
            for name, dims in (
                ("prediction", ("taken", "time", "member", "station")),
                ("truth", ("taken", "time", "station")),
            )
        }
        return xr.Dataset(made, {"time": times[order], "taken": list(METHODS), "station": self.stations.ids})


@dataclass(frozen=True)
class StationScores:
    """Scores of a model at stations, one row per sampling method, and notes that explain the rows."""

    rows: list[dict[str, Any]]
    notes: list[str]


@dataclass(frozen=True)
class _Matched:
    """Gauges `(interval, station)` and rain `(interval, member, station)` over the same intervals, in mm/h."""

    start: Times
    end: Times
    gauges: Array
    rain: dict[str, Array]
    truth: dict[str, Array]


def _matched(points: xr.Dataset, stations: Stations, seconds: float, stamp: str) -> _Matched:
    """Average fields over the intervals of gauges, or gauges over the intervals of fields if those are longer."""
    start, end = intervals_of(points["time"].values, seconds, stamp if stamp != "unknown" else "end")
    length = (stations.end - stations.start) / np.timedelta64(1, "s")
    long = length >= 0.999 * seconds
    spans = np.unique(np.stack([stations.start[long], stations.end[long]], 1), axis=0)
    own = np.unique(np.stack([start, end], 1), axis=0) if (~long).any() else spans[:0]
    spans = np.unique(np.concatenate([spans, own]), axis=0)
    rows = rows_for(start, end, spans[:, 0], spans[:, 1])
    kept = [i for i, row in enumerate(rows) if row is not None]
    spans, rows = spans[kept], [rows[i] for i in kept]
    gauges = stations.over(spans[:, 0], spans[:, 1], seconds)
    some = np.asarray(np.isfinite(gauges).any(axis=1))
    spans, gauges = spans[some], gauges[some]
    rows = [row for row, keep in zip(rows, some, strict=True) if keep]
    taken = {name: {str(m): _over(points[name].sel(taken=m).values, rows) for m in METHODS}
             for name in ("prediction", "truth")}  # fmt: skip
    return _Matched(spans[:, 0], spans[:, 1], gauges, taken["prediction"], taken["truth"])


def _over(values: Array, rows: list[Row]) -> Array:
    made = [np.tensordot(row[1], values[row[0]], 1) for row in rows if row is not None]
    return np.stack(made) if made else np.empty((0, *values.shape[1:]))


def score_stations(
    points: xr.Dataset,
    stations: Stations,
    grid: Grid,
    *,
    seconds: float,
    stamp: str,
    reference: xr.Dataset | None = None,
) -> StationScores:
    """Score the prediction, the reference and the gridded truth at stations, in mm/h.

    Fields are averaged over the intervals of the gauges; gauges with shorter intervals are averaged over those of the
    fields. Sampling methods: `bilinear` interpolates between cells, `nearest` uses the cell that contains the gauge,
    and `cell mean` compares this cell with the mean of its gauges, if it has several. `skill` is computed from the fair
    CRPS of the prediction and of the reference, with the same sampling.
    """
    stations = stations.inside(grid)
    mine = _matched(points, stations, seconds, stamp)
    its = None if reference is None else _matched(reference, stations, seconds, stamp)
    rows, notes = [], []
    if not len(mine.gauges):
        return StationScores([], ["no gauge has an interval that predicted times cover"])
    cells = stations.cells(grid)
    for method in (*METHODS, CELL_MEAN):
        gauges, places = mine.gauges, np.arange(mine.gauges.shape[1])
        if method == CELL_MEAN:
            gauges, places = _by_cell(gauges, cells)
            if not len(places):
                continue
        key = METHODS[1] if method == CELL_MEAN else method
        base = None
        for name, rain in (
            ("reference", None if its is None else its.rain[key]),
            ("prediction", mine.rain[key]),
            ("gridded truth", mine.truth[key][:, None]),
        ):
            if rain is None or (name == "reference" and len(rain) != len(gauges)):
                continue
            row = _row(name, method, rain[..., places], gauges)
            base = row["crps_fair"] if name == "reference" else base
            row["skill"] = 1 - row["crps_fair"] / base if base and name != "reference" else None
            rows.append(row)
    notes.append(_representative(mine.gauges, cells, stations))
    return StationScores(rows, notes)


def _row(name: str, method: str, rain: Array, gauges: Array) -> dict[str, Any]:
    known = np.isfinite(gauges) & np.isfinite(rain).all(axis=1)
    table = SUITE.update(
        np.where(known[:, None], rain, 0.0), np.where(known, gauges, 0.0), ids=np.arange(len(gauges)), mask=known
    )
    values = SUITE.evaluate(table)
    wet = reached(WET_MM_H)
    return {
        "rain": name,
        "taken": method,
        "stations": int(known.any(axis=0).sum()),
        "values": int(known.sum()),
        **values,
        "wet %": round(100 * float((rain >= wet).mean(axis=1)[known].mean()), 2) if known.any() else None,
        "gauges wet %": round(100 * float((gauges >= wet)[known].mean()), 2) if known.any() else None,
    }


def _by_cell(gauges: Array, cells: Array) -> tuple[Array, Array]:
    """Return the mean over the gauges of each cell with several gauges, and the first gauge of each."""
    import warnings

    _, first, inverse, counts = np.unique(cells, axis=0, return_index=True, return_inverse=True, return_counts=True)
    several = np.flatnonzero(counts > 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # times at which no gauge of a cell is known
        means = [np.nanmean(gauges[:, inverse.ravel() == k], axis=1) for k in several]
    return (np.stack(means, axis=1) if means else gauges[:, :0]), first[several]


def _representative(gauges: Array, cells: Array, stations: Stations) -> str:
    """State how well one gauge represents its cell, from the other gauges of the cell."""
    off, rain, pairs = [], [], 0
    _, inverse = np.unique(cells, axis=0, return_inverse=True)
    for k in np.unique(inverse):
        mine = np.flatnonzero(inverse.ravel() == k)
        for s in mine if len(mine) > 1 else ():
            others = np.delete(gauges[:, mine], np.flatnonzero(mine == s)[0], axis=1)
            both = np.isfinite(gauges[:, s]) & np.isfinite(others).all(axis=1)
            off.append(np.abs(gauges[both, s] - others[both].mean(axis=1)))
            rain.append(gauges[both, s])
            pairs += 1
    count = sum(map(len, off))
    if not count:
        return (
            f"{len(stations.ids)} stations, no two in one cell: the difference between a point and its cell mean is "
            "unknown; even a perfect field of cell means has an error"
        )
    mean = float(np.concatenate(rain).mean())
    error = float(np.concatenate(off).mean())
    share = f"{error / mean:.0%} of" if mean else "without"
    return (
        f"a gauge differs from the other gauges of its cell by {error:.3g} mm/h on average, {share} "
        f"the rain ({pairs} gauges, {count} values): no field of cell means can have a much smaller error"
    )


def climate_rows(
    points: xr.Dataset, stations: Stations, grid: Grid, *, seconds: float, stamp: str
) -> tuple[list[dict[str, Any]], list[str]]:
    """Compute wet-day indices (ETCCDI: days of 1 mm or more) and return levels of gauges, prediction and truth.

    Values are means over stations and members, from daily amounts. Return levels are from a generalised extreme value
    distribution fitted to annual maxima (SciPy). Without complete days there are no rows, only a note.
    """
    stations = stations.inside(grid)
    found = _matched(points, stations, seconds, stamp)
    days = _days(found)
    if days is None:
        return [], ["no station has complete days, so there are no wet-day indices"]
    when, rows_of = days
    series = {"gauges": found.gauges[:, None], "prediction": found.rain["nearest"],
              "gridded truth": found.truth["nearest"][:, None]}  # fmt: skip
    daily = {name: 24 * _over(values, rows_of) for name, values in series.items()}
    known = np.isfinite(daily["gauges"][:, 0])
    years = when.astype("datetime64[Y]")
    rows = []
    for name, amounts in daily.items():
        columns = [
            amounts[known[:, s], m, s]
            for s in range(amounts.shape[2])
            for m in range(amounts.shape[1])
            if known[:, s].any()
        ]
        dates = [
            when[known[:, s]] for s in range(amounts.shape[2]) for _ in range(amounts.shape[1]) if known[:, s].any()
        ]
        indices = [_indices(values, date) for values, date in zip(columns, dates, strict=True)]
        row: dict[str, Any] = {"rain": name, "days": int(known.sum())}
        row |= {key: round(float(np.nanmean([each[key] for each in indices])), 3) for key in indices[0]}
        levels = [_levels(values, date) for values, date in zip(columns, dates, strict=True)]
        whole = [each for each in levels if each is not None]
        row |= {f"{p}-year day, mm": round(float(np.mean([x[i] for x in whole])), 1) if whole else None
                for i, p in enumerate(PERIODS)}  # fmt: skip
        rows.append(row)
    count = len(np.unique(years))
    short = f"return levels need {LEAST_YEARS} years with {LEAST_DAYS} known days each; the data span {count} years"
    return rows, [] if rows[0][f"{PERIODS[0]}-year day, mm"] is not None else [short]


def _days(found: _Matched) -> tuple[Array, list[Row]] | None:
    """Return the complete UTC days (or the gauges' daily intervals), and positions and weights of their values."""
    length = (found.end - found.start) / DAY
    if len(length) and np.allclose(length, 1):
        one = np.ones(1)
        return found.start, [(np.array([i]), one) for i in range(len(length))]
    short = np.flatnonzero(length < 1)
    if not len(short):
        return None
    days = np.unique(found.start[short].astype("datetime64[D]")).astype("datetime64[ns]")
    after: Times = (days + DAY).astype("datetime64[ns]")
    rows = rows_for(found.start, found.end, days, after)
    kept = [i for i, row in enumerate(rows) if row is not None]
    return (days[kept], [rows[i] for i in kept]) if kept else None


def _indices(amounts: Array, dates: Array) -> Mapping[str, float]:
    """Compute wet-day indices of one series of daily amounts in mm."""
    wet = amounts >= reached(WET_DAY_MM)
    longest = run = 0
    before = None
    for date, is_wet in zip(dates.astype("datetime64[D]"), wet, strict=True):
        follows = before is not None and date - before == 1
        run = 0 if is_wet else (run + 1 if follows else 1)
        longest, before = max(longest, run), date
    return {
        "wet days %": 100 * float(wet.mean()),
        "mm on wet days": float(amounts[wet].mean()) if wet.any() else np.nan,
        "longest dry spell, days": float(longest),
        "wettest day, mm": float(amounts.max()),
    }


def _levels(amounts: Array, dates: Array) -> list[float] | None:
    """Compute return levels for `PERIODS` years; None for a series that is too short."""
    from scipy.stats import genextreme

    years = dates.astype("datetime64[Y]")
    maxima = [amounts[years == year].max() for year in np.unique(years) if (years == year).sum() >= LEAST_DAYS]
    if len(maxima) < LEAST_YEARS or np.ptp(maxima) == 0:
        return None
    fitted = genextreme.fit(np.asarray(maxima, float))
    return [float(genextreme.isf(1 / period, *fitted)) for period in PERIODS]
