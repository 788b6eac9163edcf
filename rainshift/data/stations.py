"""Stations: read gauges from a table or a CF file, and sample fields at their positions and intervals."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoml.errors import DataError
from geoml.grids.grid import Grid
from rainshift.data.station_series import series_table
from rainshift.sources.fetching import local_copy
from rainshift.sources.intervals import SIGNS
from rainshift.sources.units import rain_units
from rainshift.sources.valid_times import Times, rows_for
from rainshift.sources.validity import SENTINELS, most_mm_h

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["METHODS", "Stations", "read_stations", "taken_at"]

logger = logging.getLogger(__name__)

#: Methods to sample a field at a point: bilinear between four cells, or the value of the cell that contains it.
METHODS = ("bilinear", "nearest")
#: Usual names of columns.
COLUMNS = {
    "id": ("id", "station", "station_id", "name", "site", "stationid"),
    "lat": ("lat", "latitude", "y"),
    "lon": ("lon", "longitude", "lng", "x"),
    "time": ("time", "date", "datetime", "valid_time", "end"),
    "amount": ("amount", "precipitation", "precip", "rain", "rainfall", "prcp", "rr", "value"),
    "interval": ("interval", "duration", "period", "step"),
}
#: Smallest number of amounts of a station for recognising values that are accumulated since a start.
FEWEST_OF_SUM = 12
MINUTE = np.timedelta64(60, "s")


@dataclass(frozen=True)
class Stations:
    """Gauges `(station,)` with their positions, and rates in mm/h `(value,)` with station number and interval."""

    ids: NDArray[np.str_]
    lat: NDArray[np.float64]
    lon: NDArray[np.float64]
    station: NDArray[np.intp]
    start: Times
    end: Times
    rate: NDArray[np.float64]

    def inside(self, grid: Grid) -> Stations:
        """Return the stations within the cells of a grid, with longitudes in its convention."""
        lat, lon = grid["lat"], grid["lon"]
        turned = self.lon + 360.0 * np.round(((lon.start + lon.stop) / 2 - self.lon) / 360.0)
        keep = (self.lat > lat.edges[0]) & (self.lat < lat.edges[-1])
        keep &= (turned > lon.edges[0]) & (turned < lon.edges[-1])
        if not keep.any():
            across = (self.lon > lat.edges[0]) & (self.lon < lat.edges[-1])
            across &= (self.lat > lon.edges[0]) & (self.lat < lon.edges[-1])
            raise DataError(
                f"none of the {len(self.ids)} stations lies within {lat.edges[0]:g} to {lat.edges[-1]:g} N, "
                f"{lon.edges[0]:g} to {lon.edges[-1]:g} E"
                + "; their latitudes and longitudes seem to be swapped"
                * bool(across.any())
            )
        new = np.cumsum(keep) - 1
        rows = keep[self.station]
        return Stations(
            self.ids[keep], self.lat[keep], turned[keep], new[self.station[rows]], self.start[rows], self.end[rows],
            self.rate[rows],
        )  # fmt: skip

    def over(self, start: Times, end: Times, seconds: float) -> NDArray[np.float64]:
        """Return mean rates over intervals, `(interval, station)`; NaN if a station has none.

        A value with an interval of `seconds` or longer is used for exactly this interval. Values with shorter intervals
        are averaged if together they fill an interval.
        """
        rates = np.full((len(start), len(self.ids)), np.nan)
        long = (self.end - self.start) / np.timedelta64(1, "s") >= 0.999 * seconds
        at = {pair: i for i, pair in enumerate(zip(start.astype(np.int64), end.astype(np.int64), strict=True))}
        for s, pair, rate in zip(
            self.station[long],
            zip(self.start[long].astype(np.int64), self.end[long].astype(np.int64), strict=True),
            self.rate[long],
            strict=True,
        ):
            if (place := at.get(pair)) is not None:
                rates[place, s] = rate
        for s in range(len(self.ids)):
            mine = np.flatnonzero((self.station == s) & ~long)
            mine = mine[np.argsort(self.end[mine])]
            if len(mine) and len(start):
                for i, row in enumerate(rows_for(self.start[mine], self.end[mine], start, end)):
                    if row is not None and np.isnan(rates[i, s]):
                        rates[i, s] = self.rate[mine[row[0]]] @ row[1]
        return rates

    def cells(self, grid: Grid) -> NDArray[np.intp]:
        """Return the cell `(row, column)` of the grid that contains each station, `(station, 2)`."""
        places = [
            np.clip(np.floor((values - axis.edges[0]) / axis.step), 0, axis.size - 1).astype(np.intp)
            for values, axis in ((self.lat, grid["lat"]), (self.lon, grid["lon"]))
        ]
        return np.stack(places, axis=1)


def read_stations(place: str) -> Stations:
    """Read gauges from a CSV table or a NetCDF file.

    A table has one row per value with the columns id, lat, lon, time (end of the interval, UTC by default), amount in
    mm and interval ("1 h", "10 min", "1 D"). Other common column names are recognised. A NetCDF file has rain with
    units, and latitude, longitude and id of each station, in a layout of CF for time series: `(station, time)`, a
    single station, or a ragged array. Missing values are skipped with a warning. Raises `DataError` for negative,
    impossible or repeated values.
    """
    path = local_copy(place)
    if not path.exists():
        raise DataError(f"the file of stations {place} does not exist")
    if path.suffix.lower() in (".csv", ".txt", ".tsv", ".gz"):
        return _checked(_of_table(path), path)
    return _checked(series_table(path, COLUMNS), path)


def _of_table(path: Path) -> pd.DataFrame:
    import pandas as pd

    table = _table(path)
    columns = _columns(table, path)
    unit = _unit_of(str(columns["amount"]), path)
    made = pd.DataFrame({"id": table[columns["id"]].str.strip()})
    for name in ("lat", "lon", "amount"):
        text = table[columns[name]].fillna("").str.strip()
        if text.str.fullmatch(r"[+-]?\d+,\d+").any() and not text.str.contains(".", regex=False).any():
            text = text.str.replace(",", ".", regex=False)  # 60,15
        made[name] = pd.to_numeric(text, errors="coerce")
        wrong = made[name].isna() & ~text.str.lower().isin(("", "nan", "na", "null", "-"))
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise DataError(f"{path} line {row + 2}: {name} is {text.iloc[row]!r}; expected a number")
    times = _in_utc(table, columns, path)
    end = pd.to_datetime(times, utc=True, errors="coerce", format="ISO8601")
    _require(end.notna(), path, "time", times, "a date and time, as 2016-09-28T16:00Z")
    lengths = _lengths(table[columns["interval"]], str(columns["interval"]), path)
    made["end"] = end.dt.tz_localize(None).astype("datetime64[ns]")
    made["start"] = made["end"] - lengths
    hours = lengths / pd.Timedelta(hours=1)
    made["rate"] = made["amount"] * unit.factor / (hours if unit.amount else 1.0)
    return made


def _table(path: Path) -> pd.DataFrame:
    """Read the cells of a table as text, with any separator, in UTF-8 or Latin-1."""
    import csv

    import pandas as pd

    encoding = "utf-8-sig"
    if path.suffix != ".gz":
        try:
            path.read_text(encoding)
        except UnicodeDecodeError:
            encoding = "latin-1"
    try:
        return pd.read_csv(
            path, sep=None, engine="python", dtype=str, comment="#", skipinitialspace=True, encoding=encoding
        )
    except (ValueError, csv.Error, pd.errors.ParserError) as error:
        raise DataError(f"{path} cannot be read as a table: {error}") from error


def _columns(table: pd.DataFrame, path: Path) -> dict[str, Any]:
    """Find the column of each quantity by its common names; `clock` is a time of day if `time` is a date."""
    given = {str(name).strip().lower(): name for name in table.columns}
    columns = {}
    for want, names in COLUMNS.items():
        exact = [given[name] for name in given if name in names]
        found = exact or [given[name] for name in given if re.split(r"[_ (\[]", name)[0] in names]
        if not found:
            raise DataError(
                f"{path} has the columns {', '.join(map(str, table.columns))}; a column {want} is missing. Rename or "
                "add it"
            )
        if want == "amount" and len(found) > 1:
            raise DataError(f"{path} has several columns of amounts, {', '.join(map(str, found))}; keep one of them")
        columns[want] = found[0]
        if want == "time":
            clock = [
                each for each in found if table[each].fillna("").str.fullmatch(r"\s*\d{1,2}:\d{2}(:\d{2})?\s*").all()
            ]
            dates = [each for each in found if each not in clock]
            if clock and dates:
                columns |= {"time": dates[0], "clock": clock[0]}
    return columns


def _in_utc(table: pd.DataFrame, columns: dict[str, Any], path: Path) -> pd.Series:
    """Return times as text, with date and time of day joined. Raises `DataError` for a zone other than UTC."""
    times = table[columns["time"]].fillna("").str.strip()
    if "clock" in columns:
        times = times + "T" + table[columns["clock"]].fillna("").str.strip().str.zfill(5)
    zone = re.search(r"local|[(\[]([A-Za-z]{1,5})[)\]]$|_([A-Z]{3,4})$", str(columns["time"]).strip())
    said = "local" if zone and not (zone[1] or zone[2]) else str((zone and (zone[1] or zone[2])) or "UTC")
    if said.upper() not in ("UTC", "GMT", "Z") and not times.str.contains(r"(?:Z|[+-]\d{2}:?\d{2})$").all():
        raise DataError(
            f"{path}: {columns['time']!r} is not in UTC; write times with their offset, such as 2016-09-28T19:00+03:00"
        )
    return times


def _unit_of(column: str, path: Path) -> Any:
    """Return the unit in the name of a column, such as `amount_mm` or `rain (in)`; mm if there is none.

    Raises `DataError` for a name with a number or fraction that is not a unit, such as `rain_24h`.
    """
    label = f"{path}: {column!r}"
    rest = re.sub(r"[(\[\])_]", " ", column.strip().lower()).partition(" ")[2]
    if "(" in column or "[" in column:
        return rain_units(rest, label=label)
    try:
        return rain_units(rest.replace("tenths", "0.1") or "mm", label=label)
    except DataError:
        if re.search(r"\d|tenth|hundredth|inch", rest):
            raise
        return rain_units("mm")


def _lengths(column: pd.Series, name: str, path: Path) -> pd.Series:
    import pandas as pd

    text = column.fillna("").str.strip()
    lowered = name.lower()
    unit = next((u for u, words in (("min", ("minute", "_min", "(min")), ("h", ("hour", "_h", "(h"))) if any(
        word in lowered for word in words)), None)  # fmt: skip
    numbers = pd.to_numeric(text, errors="coerce")
    if unit is not None and numbers.notna().all():
        made = pd.to_timedelta(numbers, unit=unit)
    elif numbers.notna().any():
        shown = text[numbers.notna()].iloc[0]
        raise DataError(
            f"{path}: {name} has numbers without a unit, such as {shown}; write '60 min', or rename the column to "
            "interval_minutes or interval_hours"
        )
    else:
        made = pd.to_timedelta(text, errors="coerce")
    _require(made.notna() & (made > pd.Timedelta(0)), path, name, text, "a positive duration, as 60 min")
    return made.astype("timedelta64[ns]")


def _require(good: pd.Series, path: Path, what: str, shown: pd.Series, expected: str) -> None:
    if not good.all():
        row = int(np.flatnonzero(~good.to_numpy())[0])
        raise DataError(f"{path} line {row + 2}: {what} is {shown.iloc[row]!r}; expected {expected}")


def _checked(table: pd.DataFrame, path: Path) -> Stations:
    lost = table["rate"].isna()
    if lost.all():
        raise DataError(f"{path} contains no rain amounts; all are missing")
    if lost.any():
        logger.warning("%s: %d of %d amounts are missing and left out", path, int(lost.sum()), len(table))
    table = table[~lost].reset_index(drop=True)
    if (again := table.duplicated()).any():
        logger.warning("%s: %d rows come twice and are used once", path, int(again.sum()))
        table = table[~again].reset_index(drop=True)
    hours = (table["end"] - table["start"]).to_numpy() / np.timedelta64(1, "h")
    most = np.array([most_mm_h(float(h)) for h in np.unique(hours)])[np.searchsorted(np.unique(hours), hours)]
    for wrong, why in (
        (table["amount"] < 0, "is below 0; leave missing amounts empty"),
        (table["amount"].isin(SENTINELS), "marks missing data in many tables; leave missing amounts empty"),
        (table["rate"] > most, "is more than rain can be in its interval"),
        (~table["lat"].between(-90, 90), "has an invalid latitude; expected -90 to 90"),
        (~table["lon"].between(-360, 360), "has an invalid longitude; expected -360 to 360"),
        (table.duplicated(["id", "end", "start"]), "occurs twice; keep one of the rows"),
    ):
        if wrong.any():
            row = table[wrong].iloc[0]
            raise DataError(f"{path}: the amount {row['amount']:g} of {row['id']} at {row['end']} {why}")
    _refuse_sums(table, path)
    places = table.groupby("id", sort=True)[["lat", "lon"]].agg(["min", "max"])
    moved = (places[("lat", "max")] - places[("lat", "min")] > 1e-6) | (
        places[("lon", "max")] - places[("lon", "min")] > 1e-6
    )
    if moved.any():
        raise DataError(
            f"{path}: station {places.index[moved][0]} has several positions; use a different id for each position"
        )
    ids = places.index.to_numpy().astype(str)
    station = np.searchsorted(ids, table["id"].to_numpy().astype(str))
    return Stations(
        ids, places[("lat", "min")].to_numpy(float), places[("lon", "min")].to_numpy(float), station.astype(np.intp),
        table["start"].to_numpy("datetime64[ns]"), table["end"].to_numpy("datetime64[ns]"),
        table["rate"].to_numpy(float),
    )  # fmt: skip


def _refuse_sums(table: pd.DataFrame, path: Path) -> None:
    """Raise `DataError` for a station whose amounts are readings of a counter that is never reset.

    Such amounts never decrease and repeat positive values while it is dry.
    """
    for name, amounts in table.sort_values("end").groupby("id")["amount"]:
        values = amounts.to_numpy()
        change = np.diff(values)
        rests = ((change == 0) & (values[1:] > 0)).any()
        if len(change) >= FEWEST_OF_SUM and (change >= 0).all() and (change > 0).sum() >= SIGNS and rests:
            raise DataError(
                f"{path}: the amounts of {name} never decrease, so they seem to be accumulated since a start; expected "
                "the amount of each interval"
            )


def taken_at(fields: NDArray[Any], grid: Grid, stations: Stations, method: str) -> NDArray[np.float32]:
    """Sample fields `(…, lat, lon)` at the stations, `(…, station)`; NaN if a cell that is needed is missing."""
    if method == "nearest":
        rows, columns = stations.cells(grid).T
        return np.asarray(fields[..., rows, columns], np.float32)
    made: Any = 0.0
    parts = []
    for values, axis in ((stations.lat, grid["lat"]), (stations.lon, grid["lon"])):
        place = np.clip((values - axis.start) / axis.step, 0, axis.size - 1)
        low = np.minimum(np.floor(place).astype(np.intp), max(axis.size - 2, 0))
        parts.append((low, np.minimum(low + 1, axis.size - 1), place - low))
    (y, above, up), (x, beside, right) = parts
    for rows, share in ((y, 1 - up), (above, up)):
        for columns, part in ((x, 1 - right), (beside, right)):
            weight = share * part
            made = made + np.where(weight > 1e-9, fields[..., rows, columns] * weight, 0.0)
    return np.asarray(made, np.float32)
