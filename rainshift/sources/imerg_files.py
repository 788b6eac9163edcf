"""Read GPM IMERG half hours in HDF5 and NetCDF4: index the files by half hour, and average to hours.

Supported are granules of V06 (`precipitationCal`) and V07 (`precipitation`), complete (group `Grid`) or as a
server-side subset (`.nc4`, variables at the root), with dims (time, lon, lat), fill value −9999.9 and units mm/hr.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoml.errors import DataError, UserError
from geoml.grids.grid import Grid, grid_of
from rainshift.sources.times import snapped
from rainshift.sources.units import rain_factor
from rainshift.sources.validity import check_rain

if TYPE_CHECKING:
    import h5py

__all__ = ["HalfHours", "find_granules"]

SUFFIXES = (".hdf5", ".h5", ".nc4", ".nc", ".rt-h5")
NAMES = ("precipitation", "precipitationCal", "Grid_precipitation", "Grid_precipitationCal")
GRANULE = re.compile(r"3B-(?P<kind>HHR(-[EL])?|DAY(-[EL])?|MO)\..*3IMERG\.(?P<day>\d{8})-S(?P<start>\d{6})-E\d{6}")
VERSION = re.compile(r"\.V(\d\d)[A-Z]?\b")
HALF_HOUR = np.timedelta64(30, "m")
SECONDS = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86400}


def find_granules(folder: Path) -> list[Path]:
    """Return the files in a folder that can be IMERG half hours, sorted by name. Raises `UserError` without any."""
    if folder.is_file():
        return [folder]
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise UserError(f"{folder} contains no IMERG file; expected 3B-HHR….HDF5 or .nc4 files")
    return found


@dataclass(frozen=True)
class HalfHours:
    """IMERG half hours in many files, read on demand. An hour is the mean of its two half hours."""

    files: tuple[Path, ...]
    variable: str | None = None

    @cached_property
    def places(self) -> dict[np.datetime64, tuple[Path, int]]:
        """File and position of each half hour, by its start.

        The start is taken from the file name of a granule; files with other names are opened. Raises `DataError` if two
        files contain the same half hour, or files come from different algorithm versions.
        """
        found: dict[np.datetime64, tuple[Path, int]] = {}
        versions: dict[str, Path] = {}
        for path in self.files:
            if version := VERSION.search(path.name):
                versions.setdefault(version[1], path)
            for position, start in enumerate(self._starts(path)):
                if start in found:
                    raise DataError(
                        f"{found[start][0]} and {path} both contain the half hour from {start}; keep one of them (do "
                        "not mix Final, Late and Early runs, or versions)"
                    )
                found[start] = path, position
        if len(versions) > 1:
            (one, here), (other, there) = sorted(versions.items())[:2]
            raise DataError(
                f"{here.name} has version {one}, {there.name} version {other}; keep one version: their rain differs"
            )
        return dict(sorted(found.items()))

    def _starts(self, path: Path) -> list[np.datetime64]:
        named = GRANULE.search(path.name)
        if named is None:
            with _opened(path) as group:
                return list(_times(group, path))
        if not named["kind"].startswith("HHR"):
            raise DataError(f"{path} is a mean over a {named['kind'].lower()}; expected half hours (3B-HHR)")
        day, clock = named["day"], named["start"]
        text = f"{day[:4]}-{day[4:6]}-{day[6:]}T{clock[:2]}:{clock[2:4]}:{clock[4:]}"
        return [np.datetime64(text, "s")]

    @cached_property
    def grid(self) -> Grid:
        """Grid of the first file; all other files must have the same grid."""
        with _opened(self.files[0]) as group:
            return _grid(group, self.files[0])

    @cached_property
    def hours(self) -> NDArray[np.datetime64]:
        """Ends of the hours for which both half hours exist, ascending.

        The hour that ends at t is the mean of the half hours that start at t − 60 min and t − 30 min, the interval of
        ERA5 accumulations at t.
        """
        starts = self.places
        ends = [s + 2 * HALF_HOUR for s in starts if s + HALF_HOUR in starts and s == s.astype("datetime64[h]")]
        if not ends:
            raise DataError(
                f"{self.files[0].parent} has {len(starts)} half hours, but no complete hour: the hour that ends at t "
                "requires the half hours from t - 60 min and t - 30 min"
            )
        return np.array(ends, "datetime64[ns]")

    def read_hours(self, ends: Iterable[np.datetime64], rows: slice, columns: slice) -> NDArray[np.float32]:
        """Read hourly means in mm/h, `(hour, lat, lon)`, on a part of `grid`; NaN if a half hour has no value."""
        fields = []
        for end in ends:
            start = end.astype("datetime64[s]") - 2 * HALF_HOUR
            halves = [self.read(moment, rows, columns) for moment in (start, start + HALF_HOUR)]
            fields.append((halves[0] + halves[1]) / 2)
        return np.stack(fields)

    def read(self, start: np.datetime64, rows: slice, columns: slice) -> NDArray[np.float32]:
        """Read one half hour in mm/h, `(lat, lon)`, on a part of `grid`, south first; missing values are NaN."""
        path, position = self.places[start]
        with _opened(path) as group:
            if not _grid(group, path).matches(self.grid):
                raise DataError(f"the grid of {path} differs from {self.files[0]}; expected one grid")
            held = _times(group, path)
            if position >= len(held) or held[position] != start:
                raise DataError(
                    f"{path}: the start in the name is {start}, in the time coordinate "
                    f"{held[0] if len(held) else 'missing'}; expected equal times"
                )
            data = _rain(group, self.variable, path)
            axes = _axes(group, data, path)
            latitude = group["lat"][:2]
            descending = bool(latitude[1] < latitude[0])
            size = group["lat"].shape[0]
            picked = slice(size - rows.stop, size - rows.start) if descending else rows
            where = {"time": position, "lat": picked, "lon": columns}
            try:
                values = np.asarray(data[tuple(where[axis] for axis in axes)], np.float32)
            except OSError as error:
                raise DataError(f"{path}: {data.name} cannot be read: {error}") from error
            if [axis for axis in axes if axis != "time"] == ["lon", "lat"]:
                values = values.T
            label = f"{path}: {data.name.strip('/')!r}"
            for fill in (*_fills(data), -9999.9):
                values = np.where(np.isclose(values, fill), np.float32(np.nan), values)
            units = _text(data.attrs.get("units", data.attrs.get("Units", "mm/hr")))
            rain = check_rain(values, label, rain_factor(units, 0.5, label=label))
        return rain[::-1] if descending else rain


class _opened:
    """Context manager that opens an IMERG file and returns the group with its fields."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> h5py.Group:
        import h5py

        if not self.path.exists():
            raise DataError(f"{self.path} does not exist")
        try:
            self.file = h5py.File(self.path, "r")
        except OSError as error:
            raise DataError(f"{self.path} cannot be read; it may be truncated or not HDF5: {error}") from error
        group = self.file.get("Grid", self.file)
        if missing := [name for name in ("time", "lat", "lon") if name not in group]:
            self.file.close()
            raise DataError(f"{self.path} has no {', '.join(missing)}; expected an IMERG granule")
        return group

    def __exit__(self, *details: object) -> None:
        self.file.close()


def _text(value: Any) -> str:
    value = value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
    return value.decode() if isinstance(value, bytes) else str(value)


def _fills(data: h5py.Dataset) -> tuple[float, ...]:
    found = (data.attrs.get(key) for key in ("_FillValue", "CodeMissingValue"))
    return tuple(float(_text(value)) for value in found if value is not None)


def _times(group: h5py.Group, path: Path) -> NDArray[np.datetime64]:
    """Read the starts of the half hours.

    The files declare a Julian calendar. Between 1901 and 2100 it has the same leap years as the Gregorian calendar, so
    a number of seconds since a date gives the same time in both.
    """
    variable = group["time"]
    units = _text(variable.attrs.get("units", variable.attrs.get("Units", "")))
    found = re.match(r"(seconds|minutes|hours|days) since (\d{4}-\d{1,2}-\d{1,2})[T ]?(\d\d:\d\d(:\d\d)?)?", units)
    if found is None:
        raise DataError(f"{path}: time has units {units!r}; expected seconds since a date")
    epoch = np.datetime64(f"{found[2]}T{found[3] or '00:00'}", "s")
    values = np.asarray(variable[...]).ravel()
    if not np.isfinite(values.astype(float)).all():
        raise DataError(f"{path}: some times are missing")
    seconds = values.astype(np.float64) * SECONDS[found[1]]
    return snapped(epoch + np.round(seconds).astype("timedelta64[s]"), str(path)).astype("datetime64[s]")


def _grid(group: h5py.Group, path: Path) -> Grid:
    import xarray as xr

    coords = {name: (name, np.asarray(group[name][:], np.float64)) for name in ("lat", "lon")}
    try:
        return grid_of(xr.Dataset(coords=coords), registration="centre")
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _rain(group: h5py.Group, variable: str | None, path: Path) -> h5py.Dataset:
    names = (variable,) if variable else NAMES
    name = next((name for name in names if name in group), None)
    if name is None:
        held = ", ".join(key for key in group if len(getattr(group[key], "shape", ())) == 3)
        raise DataError(f"{path} contains {held or 'no field'}; expected {' or '.join(names[:2])} (data.variable=)")
    return group[name]


def _axes(group: h5py.Group, data: h5py.Dataset, path: Path) -> tuple[str, ...]:
    """Return the names of a field's dims: as declared in the file, else inferred from their sizes."""
    declared = _text(data.attrs.get("DimensionNames", "")).replace(" ", "").split(",")
    if sorted(declared) == ["lat", "lon", "time"]:
        return tuple(declared)
    scales = [next((key.rpartition("/")[2] for key in _scale_names(dim)), "") for dim in data.dims]
    if sorted(scales) == ["lat", "lon", "time"]:
        return tuple(scales)
    sizes = {name: group[name].shape[0] for name in ("time", "lon", "lat")}
    matching = [order for order in (("time", "lon", "lat"), ("time", "lat", "lon"))
                if data.shape == tuple(sizes[name] for name in order)]  # fmt: skip
    if len(matching) != 1:
        raise DataError(
            f"{path}: {data.name} has shape {data.shape} and no dimension names, so lat and lon are ambiguous; "
            "add names"
        )
    return matching[0]


def _scale_names(dim: Any) -> list[str]:
    return [str(scale.name) for scale in dim.values()]
