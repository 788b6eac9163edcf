"""Cells of sites in YAML (nested or flat) or CSV files: positions, directions, patterns and powers of antennas.

Angles are those of network planning: azimuth clockwise from north, tilt below the horizon, both in degrees.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoml.errors import DataError, UserError, unknown
from geoml.runs.files import column_name, csv_rows, read_text
from geoml.runs.stored_config import parse_yaml
from radiomaps.antennas.arrays import steering_weights
from radiomaps.antennas.pattern import PATTERNS, POLARIZATIONS, MeasuredPattern, Pattern
from radiomaps.antennas.planet import read_pattern
from radiomaps.maps.layout import Transmitter

if TYPE_CHECKING:
    from radiomaps.scenes import Scene

__all__ = ["RadioCell", "cells_of", "read_sites", "write_sites"]

#: Alternative field names: the standard name, and the factor that converts to its unit.
_SAME: dict[str, tuple[str, float]] = {
    **dict.fromkeys(("cell", "id", "site", "sector", "cell_name", "site_name", "cell_id"), ("name", 1)),
    **dict.fromkeys(("latitude", "lat_deg", "latitude_deg"), ("lat", 1)),
    **dict.fromkeys(("longitude", "lng", "lon_deg", "longitude_deg"), ("lon", 1)),
    "x_m": ("x", 1), "y_m": ("y", 1), "z_m": ("z", 1), "easting": ("x", 1), "northing": ("y", 1),
    **dict.fromkeys(("height", "antenna_height", "antenna_height_m", "height_agl", "height_agl_m"), ("height_m", 1)),
    "azimuth": ("azimuth_deg", 1),
    **dict.fromkeys(("height_ft", "antenna_height_ft", "height_agl_ft"), ("height_m", 0.3048)),
    **dict.fromkeys(("tilt", "downtilt", "downtilt_deg", "mechanical_tilt", "mechanical_tilt_deg",
                     "mechanical_downtilt", "mechanical_downtilt_deg"), ("tilt_deg", 1)),
    **dict.fromkeys(("electrical_tilt", "electrical_downtilt", "electrical_downtilt_deg"), ("electrical_tilt_deg", 1)),
    "antenna": ("pattern", 1),
    **dict.fromkeys(("power", "tx_power", "tx_power_dbm"), ("power_dbm", 1)),
    "frequency": ("frequency_hz", 1), "carrier_hz": ("frequency_hz", 1), "frequency_khz": ("frequency_hz", 1e3),
    "frequency_mhz": ("frequency_hz", 1e6), "frequency_ghz": ("frequency_hz", 1e9),
}  # fmt: skip
_TEXTS = ("name", "pattern", "polarization", "weights")
#: Fields whose value is a nested list of cells.
_GROUPS = {"sites", "cells", "sectors"}
_WATTS = {"power_w": 1.0, "tx_power_w": 1.0, "power_mw": 1e-3, "tx_power_mw": 1e-3}
_SLANTS = {"vertical": "V", "horizontal": "H", "±45": "cross", "+-45": "cross", "+/-45": "cross", "x": "cross",
           "xpol": "cross", "slant": "cross"}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RadioCell:
    """One sector of a site.

    Its position is `x, y` (scene's metres) or `lat, lon` (degrees), at `z` (scene's metres) or `height_m` above the
    ground. `pattern` is a name of `radiomaps.antennas.pattern.PATTERNS`, the path of a `.msi` or `.pln` file, or a
    `MeasuredPattern`. `rows` and `columns` define an array of such elements, spaced by half a wavelength, with
    `weights` row by row from below, or with a beam `electrical_tilt_deg` below boresight. The default of `frequency_hz`
    is the carrier of the trace.
    """

    name: str = ""
    x: float | None = None
    y: float | None = None
    lat: float | None = None
    lon: float | None = None
    z: float | None = None
    height_m: float | None = None
    azimuth_deg: float = 0.0
    tilt_deg: float = 0.0
    pattern: Pattern = "iso"
    polarization: str = "V"
    power_dbm: float = 43.0
    frequency_hz: float | None = None
    rows: int = 1
    columns: int = 1
    weights: tuple[complex, ...] = ()
    electrical_tilt_deg: float = 0.0

    def __post_init__(self) -> None:
        where = f"cell {self.name!r}"
        if (self.x is None) != (self.y is None) or (self.lat is None) != (self.lon is None):
            raise UserError(
                f"{where}: incomplete position; give both x and y in metres, or both lat and lon in degrees"
            )
        if (self.x is None) == (self.lat is None):
            raise UserError(f"{where}: give its place, either x and y in metres or lat and lon in degrees")
        if (self.z is None) == (self.height_m is None):
            raise UserError(f"{where}: give its height, either z in the scene or height_m above the ground")
        if isinstance(self.pattern, str) and self.pattern not in PATTERNS:
            raise unknown(f"{where}: pattern", self.pattern, PATTERNS, hint="or a .msi or .pln file")
        if self.polarization not in POLARIZATIONS:
            raise unknown(f"{where}: polarization", self.polarization, POLARIZATIONS)
        if self.weights and self.electrical_tilt_deg:
            raise UserError(f"{where}: weights already steer the array; leave out electrical_tilt_deg")
        if self.electrical_tilt_deg and self.rows < 2:
            raise UserError(
                f"{where}: electrical_tilt_deg takes an array of 2 rows or more; tilt_deg turns the antenna"
            )
        for name, low, high in (("lat", -90, 90), ("lon", -360, 360), ("azimuth_deg", -360, 360),
                                ("tilt_deg", -90, 90), ("electrical_tilt_deg", -90, 90), ("power_dbm", -200, 200),
                                ("frequency_hz", 1e6, 1e12)):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise UserError(f"{where}: {name}={value:g}; expected {low:g} … {high:g}")

    def transmitter(self, scene: Scene | None = None) -> Transmitter:
        """The cell as a `Transmitter`; degrees and heights above the ground need the scene."""
        weights = self.weights
        if self.electrical_tilt_deg:
            steered = steering_weights(self.rows, self.columns, tilt_deg=self.electrical_tilt_deg)
            weights = tuple(complex(weight) for weight in steered.ravel())
        return Transmitter(
            self.position(scene), self.power_dbm, self.name, self.pattern, self.polarization,
            (math.radians(90.0 - self.azimuth_deg), math.radians(self.tilt_deg), 0.0), self.rows, self.columns,
            weights, self.frequency_hz,
        )  # fmt: skip

    def position(self, scene: Scene | None = None) -> tuple[float, float, float]:
        """Position of the cell in the scene's metres."""
        x, y, z = self.x, self.y, self.z
        if scene is None and (x is None or z is None):
            raise UserError(f"cell {self.name!r}: lat and lon, and height_m, need the scene")
        if x is None or y is None:
            assert scene is not None
            x, y = _local(scene, float(self.lon or 0.0), float(self.lat or 0.0), self.name)
        if z is None:
            assert scene is not None
            z = _ground(scene, x, y) + float(self.height_m or 0.0)
        return float(x), float(y), float(z)

    def describe(self) -> dict[str, Any]:
        """The fields that are set, as JSON types; `cells_of` reads them back."""
        row = {field.name: getattr(self, field.name) for field in fields(self)}
        row = {key: value for key, value in row.items() if value not in (None, "", ())}
        if isinstance(self.pattern, MeasuredPattern):
            row["pattern"] = asdict(self.pattern)
        if self.weights:
            row["weights"] = [[weight.real, weight.imag] for weight in self.weights]
        return row


def _local(scene: Scene, lon: float, lat: float, name: str) -> tuple[float, float]:
    from radiomaps.scenes.projection import WGS84, project

    if scene.crs in ("", "local"):
        raise UserError(f"cell {name!r} is at lat {lat:g}, lon {lon:g}, but scene {scene.name!r} is not georeferenced")
    x, y = project(np.array([[lon, lat]]), WGS84, scene.crs)[0]
    return float(x), float(y)


def _ground(scene: Scene, x: float, y: float) -> float:
    from geoml.grids.grid import Grid

    point = Grid.box({"z": 0, "y": y - 0.5, "x": x - 0.5}, {"z": 1, "y": y + 0.5, "x": x + 0.5}, 1.0)
    return float(scene.ground_height(point)[0, 0])


def read_sites(path: str | os.PathLike[str]) -> tuple[RadioCell, ...]:
    """Read the cells of a `.yaml`, `.json` or `.csv` file, in the order of the file.

    YAML: a list of cells, or a mapping with `sites` or `cells`. Other keys of the mapping apply to all its cells. A
    site may contain `cells`. CSV: a header of field names, then one cell per row, separated by commas, semicolons or
    tabs. Paths of patterns are relative to the file's folder. Raises `DataError` with the name of an invalid cell.
    """
    path = Path(path)
    text = read_text(path, "sites file")
    kind = path.suffix.lower()
    if kind in (".yaml", ".yml", ".json"):
        content = parse_yaml(text, path)
    elif kind in (".csv", ".tsv", ".txt"):
        content = csv_rows(text, path)
    else:
        raise UserError(f"sites file {path} is {kind or 'without a suffix'}; expected .yaml, .json or .csv")
    try:
        return cells_of(content, folder=path.parent)
    except UserError as error:
        raise DataError(f"{path}: {error}") from error


def write_sites(path: str | os.PathLike[str], cells: Sequence[RadioCell]) -> Path:
    """Write cells as YAML that `read_sites` reads back."""
    import yaml

    from geoml.runs.files import atomic_path

    path = Path(path)
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise UserError(f"sites are written as .yaml, not {path.name!r}")
    rows = [cell.describe() for cell in cells]
    with atomic_path(path) as partial:
        partial.write_text(
            yaml.safe_dump({"cells": rows}, sort_keys=False, default_flow_style=None, width=120), encoding="utf-8"
        )
    return path


def cells_of(content: Any, *, folder: str | os.PathLike[str] = ".") -> tuple[RadioCell, ...]:
    """Cells from the path or the content of a sites file, or from a list; `folder` contains the pattern files.

    >>> content = {"frequency_mhz": 3500, "sites": [{"name": "A", "x": 0, "y": 0, "z": 25, "pattern": "tr38901",
    ...            "cells": [{"azimuth": 30}, {"azimuth": 150}]}]}
    >>> [(cell.name, cell.azimuth_deg, cell.frequency_hz) for cell in cells_of(content)]
    [('A-1', 30.0, 3500000000.0), ('A-2', 150.0, 3500000000.0)]
    """
    if isinstance(content, str | os.PathLike):
        return read_sites(content)
    rows = list(_rows(content, {}))
    if not rows:
        raise UserError("no cell; expected a list of cells with x, y, z, or lat, lon, height_m")
    patterns: dict[str, Pattern] = {}
    cells = [row if isinstance(row, RadioCell) else _cell(row, index, Path(folder), patterns)
             for index, row in enumerate(rows)]  # fmt: skip
    names = [cell.name for cell in cells]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"cell {name!r} is defined twice; expected unique names")
    return tuple(cells)


def _rows(content: Any, above: dict[str, Any]) -> Iterator[Any]:
    """Yield one mapping per cell, which includes the fields inherited from its site and from the file."""
    if isinstance(content, RadioCell):
        yield content
    elif isinstance(content, Mapping):
        if not _GROUPS.intersection(map(column_name, content)):
            content = {"cells": cells} if (cells := _by_name(content)) else content
        own = _canonical(content)
        inner = [own.pop(key) for key in sorted(_GROUPS, reverse=True) if key in own]
        if not inner:
            yield {**above, **own}
            return
        named = own.get("name")
        for part in (_by_name(part) or part for part in inner):
            if not _is_list(part):
                raise UserError(f"cells={part!r}; expected a list of them")
            for index, entry in enumerate(part):
                for row in _rows(entry, {**above, **own}):
                    if named is not None and isinstance(row, dict) and row.get("name") == named:
                        row = {**row, "name": f"{named}-{index + 1}"}
                    yield row
    elif isinstance(content, Sequence) and not isinstance(content, str):
        for entry in content:
            yield from _rows(entry, above)
    else:
        raise UserError(f"{content!r} is no cell; expected x, y, z, azimuth_deg, tilt_deg, pattern, power_dbm, …")


def _canonical(content: Mapping[Any, Any]) -> dict[str, Any]:
    """Rename fields to their standard names and convert their units; nested cells are unchanged."""
    known = [field.name for field in fields(RadioCell)]
    given = _named({column_name(key): value for key, value in content.items() if value not in (None, "")})
    where = f"cell {str(given['name'])!r}" if "name" in given else "a cell"
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key in _GROUPS:
            values[key] = value
            continue
        if key in ("position", "position_m"):
            if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 3:
                raise UserError(f"{where}: {key}={value!r}; expected [x, y, z] in metres")
            found = dict(zip("xyz", (_number(part, 1.0, where, key) for part in value), strict=True))
        elif key in _WATTS:
            watts = _number(value, _WATTS[key], where, key)
            if watts <= 0:
                raise UserError(f"{where}: {key}={value!r}; expected more than 0")
            found = {"power_dbm": 10 * math.log10(watts) + 30}
        else:
            field, factor = _SAME.get(key, (key, 1.0))
            if field not in known:
                raise unknown(f"{where}: field", key, [*known, *_SAME, "position"])
            found = {field: value if field in _TEXTS else _number(value, factor, where, key)}
        for field in found:
            if field in values:
                raise UserError(f"{where}: {key!r} and another field both set {field!r}")
        values |= found
    return values


def _named(given: dict[str, Any]) -> dict[str, Any]:
    """Set `name` from a site's and a cell's name: the cell's name, or `site-sector` if the cell has a sector only."""
    site = next((key for key in ("site", "site_name") if key in given), None)
    cells = [key for key in ("cell", "cell_name", "cell_id", "sector") if key in given and not _is_list(given[key])]
    if site is None or len(cells) != 1 or "name" in given:
        return given
    name = given[cells[0]] if cells[0] != "sector" else f"{given[site]}-{given[cells[0]]}"
    return {"name": name, **{key: value for key, value in given.items() if key not in (site, cells[0])}}


def _by_name(content: Any) -> list[dict[str, Any]]:
    """Convert a mapping from names to cells to a list of cells; return an empty list for anything else."""
    if not isinstance(content, Mapping) or not all(isinstance(cell, Mapping) for cell in content.values()):
        return []
    return [{"name": name, **cell} for name, cell in content.items()]


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _cell(row: Mapping[str, Any], index: int, folder: Path, patterns: dict[str, Pattern]) -> RadioCell:
    values = dict(row)
    where = f"cell {str(values.get('name', index + 1))!r}"
    for name in ("rows", "columns"):
        if name in values:
            if values[name] != int(values[name]) or not 1 <= values[name] <= 1024:
                raise UserError(f"{where}: {name}={values[name]:g}; expected a whole number from 1 to 1024")
            values[name] = int(values[name])
    values["name"] = str(values.get("name", f"cell{index + 1}"))
    slant = str(values.get("polarization", "V")).strip().removesuffix("°")
    exact = {name.lower(): name for name in POLARIZATIONS} | _SLANTS
    values["polarization"] = exact.get(slant.lower(), slant)
    if "weights" in values:
        values["weights"] = _weights(values["weights"], values.get("rows", 1) * values.get("columns", 1), where)
    values["pattern"] = _pattern(values.get("pattern", "iso"), folder, patterns, where)
    return RadioCell(**values)


def _number(value: Any, factor: float, where: str, key: str) -> float:
    text = str(value).strip().replace("−", "-")
    if text.count(",") == 1 and "." not in text:
        text = text.replace(",", ".")
    try:
        number = float(text) * factor
    except ValueError:
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise UserError(f"{where}: {key}={value!r} is no number")
    return number


def _weights(value: Any, count: int, where: str) -> tuple[complex, ...]:
    """Complex weights from a list or a string. Items are numbers, [real, imaginary], or strings like "0.5-0.5j"."""
    parts = value.split() if isinstance(value, str) else value
    try:
        weights = tuple(
            complex(*part) if isinstance(part, Sequence) and not isinstance(part, str)
            else complex(str(part).replace("i", "j").replace(" ", ""))
            for part in parts
        )  # fmt: skip
    except (TypeError, ValueError):
        raise UserError(f"{where}: weights={value!r}; expected numbers as 1, [0.5, -0.5] or '0.5-0.5j'") from None
    if len(weights) != count or not np.isfinite(weights).all() or not any(weights):
        raise UserError(f"{where}: {len(weights)} weights for {count} elements; give rows × columns of them, not all 0")
    return weights


def _pattern(value: Any, folder: Path, known: dict[str, Pattern], where: str) -> Pattern:
    if isinstance(value, MeasuredPattern):
        return value
    if isinstance(value, Mapping):
        try:
            return MeasuredPattern(**value)
        except (TypeError, ValueError):
            raise UserError(
                f"{where}: pattern={str(value)[:60]}; expected name, gain_dbi, horizontal, vertical"
            ) from None
    name = str(value)
    if Path(name).suffix.lower() not in (".msi", ".pln"):
        return name.lower() if name.lower() in PATTERNS else name
    if name not in known:
        known[name] = read_pattern(folder / name)
    return known[name]
