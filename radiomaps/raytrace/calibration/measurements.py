"""Measured powers from CSV files: position, cell and power. Rows that cannot be used are counted by reason."""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoml.errors import DataError, UserError, unknown
from geoml.runs.files import column_name, csv_lines, read_text

if TYPE_CHECKING:
    from radiomaps.scenes import Scene

__all__ = ["Measurements", "read_measurements"]

_SAME = {
    "x_m": "x", "easting": "x", "y_m": "y", "northing": "y", "z_m": "z", "height": "height_m",
    **dict.fromkeys(("latitude", "lat_deg", "latitude_deg"), "lat"),
    **dict.fromkeys(("longitude", "lng", "lon_deg", "longitude_deg"), "lon"),
    **dict.fromkeys(("cell_id", "cell_name", "cellname", "pci", "site"), "cell"),
    **dict.fromkeys(("power", "dbm", "rss_dbm", "rscp", "rscp_dbm", "received_power_dbm"), "power_dbm"),
    **dict.fromkeys((f"{kind}rsrp{unit}" for kind in ("", "ss_", "lte_", "nr_") for unit in ("", "_dbm")), "power_dbm"),
}  # fmt: skip
#: Columns in other units: the standard column, the factor, and the offset in dB.
_UNITS = {
    "height_ft": ("height_m", 0.3048, 0.0),
    **{f"{name}_dbw": (name, 1.0, 30.0) for name in ("power", "received_power", "rsrp", "ss_rsrp", "rscp", "rssi")},
}  # fmt: skip
_EMPTY = ("", "nan", "na", "n/a", "#n/a", "n.a.", "null", "none", "nil", "-", "--")
#: Columns with the power of the complete band, used if no column has the power of one signal.
_WHOLE_BAND = ("rssi", "rssi_dbm")
_FIELDS = ("x", "y", "z", "lat", "lon", "height_m", "cell", "power_dbm")
_WEAKEST_DBM, _STRONGEST_DBM = -250.0, 100.0


@dataclass(frozen=True, eq=False)
class Measurements:
    """Powers in dBm of `cell` at points `(n, 3)` in the scene's metres; `count` readings were averaged into each.

    `left_out` is the number of rows that were not used, by reason.
    """

    points: NDArray[np.float64]
    cell: NDArray[Any]
    power_dbm: NDArray[np.float64]
    count: NDArray[np.int64]
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.power_dbm)

    def __getitem__(self, chosen: NDArray[Any]) -> Measurements:
        return replace(
            self, points=self.points[chosen], cell=self.cell[chosen], power_dbm=self.power_dbm[chosen],
            count=self.count[chosen],
        )  # fmt: skip

    def averaged(self, size_m: float) -> Measurements:
        """Mean position and mean dB of each cell's readings within squares of this size.

        This averages out fast fading, which power maps do not contain (Lee 1985 averages over 40 wavelengths).
        """
        squares = np.floor(self.points[:, :2] / size_m).astype(np.int64)
        names, number = np.unique(self.cell, return_inverse=True)
        keys = np.column_stack([number, squares, np.floor(self.points[:, 2] / size_m).astype(np.int64)])
        _, group = np.unique(keys, axis=0, return_inverse=True)
        group = group.ravel()
        weight = np.bincount(group, self.count)

        def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.asarray(np.bincount(group, values * self.count) / weight)

        points = np.stack([mean(self.points[:, k]) for k in range(3)], axis=1)
        cell = names[np.round(np.bincount(group, number) / np.bincount(group)).astype(int)]
        return replace(self, points=points, cell=cell, power_dbm=mean(self.power_dbm), count=weight.astype(np.int64))

    def within(self, scene: Scene, known: Sequence[str]) -> Measurements:
        """The measurements outdoors in the scene; raises `UserError` for a cell that is not in `known`."""
        for name in dict.fromkeys(self.cell.tolist()):
            if name not in known:
                raise unknown("measured cell", name, known, hint="the names in the sites file")
        lower, upper = (np.array(corner) for corner in scene.extent)
        inside: NDArray[np.bool_] = np.all(
            (self.points[:, :2] >= lower[:2]) & (self.points[:, :2] <= upper[:2]), axis=1
        )
        outdoors = inside.copy()
        outdoors[inside] = ~_indoors(scene, self.points[inside])
        reasons = {"outside the scene": int((~inside).sum()), "inside a building": int((inside & ~outdoors).sum())}
        reasons = {reason: number for reason, number in reasons.items() if number}
        return replace(self[outdoors], left_out={**self.left_out, **reasons})


def _indoors(scene: Scene, points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether points are inside a prism or below the ground."""
    import shapely

    found = points[:, 2] < _ground(scene, points[:, :2]) - 0.01
    if scene.footprints and len(points):
        tree = shapely.STRtree([footprint.polygon for footprint in scene.footprints])
        at, which = tree.query(shapely.points(points[:, :2]), predicate="within")
        base = np.array([footprint.base_m for footprint in scene.footprints])[which]
        top = np.array([footprint.top_m for footprint in scene.footprints])[which]
        found[at[(points[at, 2] >= base) & (points[at, 2] < top)]] = True
    return np.asarray(found)


def _ground(scene: Scene, places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Height of the ground at places `(n, 2)`, from a grid of 1 m over them."""
    from geoml.grids.grid import Grid

    if not len(places):
        return np.empty(0)
    low, high = np.floor(places.min(axis=0)) - 1, np.ceil(places.max(axis=0)) + 1
    step = max(1.0, math.ceil(float((high - low).max()) / 2000))
    high = low + step * np.ceil((high - low) / step)
    grid = Grid.box({"z": 0, "y": low[1], "x": low[0]}, {"z": step, "y": high[1], "x": high[0]}, step)
    rows, columns = (np.floor((places[:, k] - low[k]) / step).astype(int) for k in (1, 0))
    return np.asarray(scene.ground_height(grid)[rows, columns])


def read_measurements(path: str | os.PathLike[str], scene: Scene, *, height_m: float = 1.5) -> Measurements:
    """Read a CSV file with columns `x`, `y` in the scene's metres or `lat`, `lon` in degrees, `cell`, `power_dbm`.

    Heights are `z` in the scene or `height_m` above the ground; the argument is used if the file has neither. Common
    alternative column names are recognised (`Latitude`, `SS-RSRP (dBm)`, `pci` …); other columns are ignored. Rows
    without a power, a cell or a place are counted as left out. Raises `DataError` with the number of an invalid row.
    """
    path = Path(path)
    text, before = csv_lines(read_text(path, "measurements file"))
    header = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text), delimiter=max(",;\t", key=header.count), skipinitialspace=True)
    found = [_UNITS.get(name, (name, 1.0, 0.0)) for name in map(column_name, next(reader, []))]
    names = [_SAME.get(name, name) for name, *_ in found]
    if "power_dbm" not in names:
        names = ["power_dbm" if name in _WHOLE_BAND else name for name in names]
    _check_header(path, names)
    columns: dict[str, list[Any]] = {name: [] for name in names if name in _FIELDS}
    left_out: Counter[str] = Counter()
    for number, row in enumerate(reader, start=2 + before):
        if not any(part.strip() for part in row):
            continue
        if len(row) != len(names):
            raise DataError(f"{path}, line {number}: {len(row)} values under {len(names)} columns")
        values = {name: part.strip() for name, part in zip(names, row, strict=True) if name in columns}
        lacking = [name for name, part in values.items() if part.lower() in _EMPTY]
        if lacking:
            what = "power" if "power_dbm" in lacking else "cell" if "cell" in lacking else "place"
            left_out[f"without a {what}"] += 1
            continue
        for name, part in values.items():
            if name == "cell":  # numbers of cells become 12.0 in tables with gaps
                columns[name].append(re.sub(r"^(\d+)\.0$", r"\1", part))
                continue
            _, factor, offset = found[names.index(name)]
            columns[name].append(_number(part, name, f"{path}, line {number}", factor, offset))
    power = np.array(columns["power_dbm"], float)
    if not len(power):
        raise DataError(f"{path} contains no measured power; expected rows under {', '.join(names)}")
    if np.median(power) > 0:
        raise DataError(
            f"{path}: the median power is {np.median(power):g} dBm, more than any receiver gets; expected dBm, such as "
            "-95 (is the sign missing, or is it an index or a path loss?)"
        )
    points = _points(path, scene, {name: np.array(column) for name, column in columns.items()}, height_m)
    return Measurements(points, np.array(columns["cell"], str), power, np.ones(len(power), np.int64), dict(left_out))


def _check_header(path: Path, names: list[str]) -> None:
    for name in _FIELDS:
        if names.count(name) > 1:
            raise DataError(f"{path} has two columns for {name}; expected one, rename or delete the other")
    place = {"x", "y"} <= set(names) or {"lat", "lon"} <= set(names)
    missing = [name for name in ("cell", "power_dbm") if name not in names]
    if not place or missing:
        need = [*missing, *(() if place else ("x and y, or lat and lon",))]
        raise DataError(f"{path} lacks a column for {', '.join(need)}; its header is {', '.join(names) or 'empty'}")


def _number(text: str, name: str, where: str, factor: float = 1.0, offset: float = 0.0) -> float:
    text = text.replace("−", "-")
    if text.count(",") == 1 and "." not in text:
        text = text.replace(",", ".")
    try:
        value = float(text) * factor + offset
    except ValueError:
        value = math.nan
    limits = {"power_dbm": (_WEAKEST_DBM, _STRONGEST_DBM), "lat": (-90, 90), "lon": (-180, 360)}
    low, high = limits.get(name, (-math.inf, math.inf))
    if not math.isfinite(value) or not low <= value <= high:
        expected = f"a number, {low:g} … {high:g}" if name in limits else "a number"
        raise DataError(f"{where}: {name} is {text!r}; expected {expected}")
    return value


def _points(path: Path, scene: Scene, columns: Mapping[str, NDArray[Any]], height_m: float) -> NDArray[np.float64]:
    """Positions in the scene's metres."""
    if "x" in columns:
        flat = np.stack([columns["x"], columns["y"]], axis=1)
    else:
        from radiomaps.scenes.projection import WGS84, project

        if scene.crs in ("", "local"):
            raise UserError(f"{path} has lat and lon, but scene {scene.name!r} is not georeferenced; give x and y")
        flat = np.asarray(project(np.stack([columns["lon"], columns["lat"]], axis=1), WGS84, scene.crs), float)
    if "z" in columns:
        return np.column_stack([flat, columns["z"]])
    lower, upper = (np.array(corner) for corner in scene.extent)
    inside = ((flat >= lower[:2]) & (flat <= upper[:2])).all(axis=1)
    z = columns.get("height_m", np.full(len(flat), height_m)).astype(float)
    z[inside] += _ground(scene, flat[inside])
    return np.column_stack([flat, z])
