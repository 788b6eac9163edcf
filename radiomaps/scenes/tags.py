"""Tags of buildings: which areas are buildings, their heights in various units, and their materials."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from geoml.errors import UserError
from radiomaps.scenes.repairs import Repairs
from radiomaps.scenes.scene import MATERIALS

__all__ = [
    "DEFAULT_HEIGHT_M",
    "HIGHEST_M",
    "LEVEL_M",
    "HeightKey",
    "base_and_top",
    "has_height",
    "is_building",
    "length_m",
    "material_of",
    "roof_material_of",
    "tidy",
]

Tags = dict[str, Any]

#: Default heights (m) of a storey, and of a building without any height.
LEVEL_M, DEFAULT_HEIGHT_M = 3.0, 9.0
#: Upper limit of building heights in metres (the highest, Burj Khalifa, has 828 m).
HIGHEST_M = 1000.0
_HEIGHTS = ("height_m", "height", "building:height", "building_height", "est_height", "render_height",
            "measuredheight", "measured_height", "height_ft", "height_feet")  # fmt: skip
_BASES = ("min_z_m", "base_m", "min_height", "building:min_height", "render_min_height")
_LEVELS = ("building:levels", "levels", "building_levels", "num_floors", "numfloors", "floors", "storeys", "stories",
           "num_storeys", "num_stories")  # fmt: skip
_MIN_LEVELS = ("building:min_level", "min_level", "min_floor")
#: ITU names for values of OpenStreetMap's building:material.
_MATERIALS = {"stone": "marble", "timber_framing": "wood", "plaster": "brick", "cement_block": "concrete",
              "steel": "metal", "mirror": "glass", "sandstone": "marble", "limestone": "marble"}  # fmt: skip
#: ITU names for values of OpenStreetMap's roof:material; other values mean the material of the walls.
_ROOFS = {**dict.fromkeys(("roof_tiles", "tile", "tiles"), "brick"), **dict.fromkeys(("slate", "stone"), "marble"),
          **dict.fromkeys(("copper", "zinc", "tin", "steel", "metal_sheet"), "metal"),
          **dict.fromkeys(("tar_paper", "bitumen"), "asphalt_concrete"), "solar_panels": "glass",
          **dict.fromkeys(("eternit", "asbestos", "gravel"), "concrete"),
          **dict.fromkeys(("thatch", "wood_shingle"), "wood")}  # fmt: skip
#: Values of `building` of buildings that are planned, demolished or underground.
_NOT_STANDING = ("no", "false", "0", "none", "", "proposed", "planned", "demolished", "razed", "removed", "destroyed",
                 "underground")  # fmt: skip
#: Values of `building` of a roof on posts, and its thickness in metres.
_OPEN, _ROOF_M = ("roof", "carport", "canopy"), 0.5
_FOOT, _INCH = 0.3048, 0.0254
_UNITS = {
    **dict.fromkeys(("", "m", "m.", "metre", "metres", "meter", "meters", "mètre", "mètres", "м"), 1.0),
    **dict.fromkeys(("ft", "ft.", "foot", "feet", "'", "′", "’"), _FOOT),
    **dict.fromkeys(("in", "inch", "inches", '"', "″", "”", "''"), _INCH),
    "cm": 0.01, "mm": 0.001, "dm": 0.1, "km": 1000.0, "yd": 0.9144,
}  # fmt: skip
_NUMBER = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?"
_LENGTH = re.compile(rf"({_NUMBER})\s*(.*)", re.DOTALL)
_FEET_AND_INCHES = re.compile(
    r"(\d+(?:\.\d+)?)\s*(?:'|′|’|ft\.?|feet|foot)\s*(\d+(?:\.\d+)?)\s*(?:\"|″|”|''|in|inch|inches)?"
)
_HSTORE = re.compile(r'"((?:[^"\\]|\\.)*)"=>"((?:[^"\\]|\\.)*)"')


def tidy(properties: Mapping[str, Any]) -> Tags:
    """Properties with lower-case keys, without nulls; contents of `tags` and GDAL's `other_tags` become keys, too.

    >>> tidy({"HEIGHT": 12, "name": None, "other_tags": '"building:levels"=>"4"'})
    {'height': 12, 'building:levels': '4'}
    """
    found: Tags = {}
    for key, value in properties.items():
        name = str(key).strip().lower()
        if name == "tags" and isinstance(value, Mapping):
            found.update(tidy(value))
        elif name == "other_tags" and isinstance(value, str):
            found.update({inner.lower(): text for inner, text in _HSTORE.findall(value)})
        elif value is not None and not (isinstance(value, str) and not value.strip()):
            found.setdefault(name, value)
    return found


def is_building(tags: Mapping[str, Any]) -> bool:
    """Whether an area is a building or a part of one that stands above ground."""
    below = str(tags.get("location", "")).lower() == "underground" or str(tags.get("layer", "0")).strip()[:1] == "-"
    return not below and any(kind not in _NOT_STANDING for kind in _kinds(tags))


def _kinds(tags: Mapping[str, Any]) -> list[str]:
    return [str(tags.get(key, "no")).strip().lower() for key in ("building", "building:part")]


def length_m(value: Any, unit: str = "m") -> float:
    """Metres of a tagged length: 12, "12.5 m", "12,5", "40 ft", 40' or 5'10"; `ValueError` for others.

    A number alone is in `unit`. A comma before one or two digits is a decimal comma. Lists, ranges and estimates
    ("3;4", "10-12", "~10") are rejected.

    >>> [round(length_m(value), 3) for value in (12, "12,5 metres", "40 ft", "5'10\\"", "1200 cm")]
    [12.0, 12.5, 12.192, 1.778, 12.0]
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{value!r} is no length")
    text = str(value).strip().lower()
    if both := _FEET_AND_INCHES.fullmatch(text):
        return float(both[1]) * _FOOT + float(both[2]) * _INCH
    text = re.sub(r"^([+-]?\d+),(\d{1,2})(?!\d)", r"\1.\2", text)
    match = _LENGTH.fullmatch(text)
    if not match or match[2].strip() not in _UNITS:
        raise ValueError(f"{value!r} is no length")
    length = float(match[1]) * _UNITS[match[2].strip() or unit]
    if not math.isfinite(length):
        raise ValueError(f"{value!r} is no length")
    return length


def _storeys_m(value: Any) -> float:
    """Height in metres of a number of storeys; "2+1" and "1,2" are rejected."""
    if isinstance(value, bool) or not re.fullmatch(_NUMBER, str(value).strip().lower()):
        raise ValueError(f"{value!r} is no number of storeys")
    return float(value) * LEVEL_M


@dataclass(frozen=True)
class HeightKey:
    """The tag that holds the height, where it has another name than usual, and the unit of its numbers."""

    name: str | None = None
    unit: str | None = None

    def __post_init__(self) -> None:
        if self.unit is not None and self.unit not in _UNITS:
            known = ", ".join(unit for unit in _UNITS if unit.isascii() and unit.isalpha())
            raise UserError(f"height_unit={self.unit!r}; expected one of {known}")

    def of(self, name: str) -> str:
        """The unit of the numbers of a tag: as its name ends, else as given, else metres."""
        ending = re.search(r"[^a-z](m|ft|feet)$", name)
        return ending[1] if ending else self.unit or "m"


def base_and_top(
    tags: Mapping[str, Any], default_m: float, repairs: Repairs, *, where: str, key: HeightKey = HeightKey()
) -> tuple[float, float]:
    """Heights in metres above ground of the base and the top of a building.

    The top is the height, else the storeys (3 m each) plus the roof's height or storeys, else `default_m`. Defaults and
    unusable values are noted among the repairs. The base is `min_height`, else the storeys below; a roof on posts
    (`building=roof`, `carport`) is a slab of half a metre.
    """
    top = _top(tags, repairs, where, key)
    if top is None:
        repairs.note(f"no usable height, default {default_m:g} m used", where)
        top = default_m
    base = _first(tags, _BASES, length_m, (-1e-9, HIGHEST_M), repairs, where)
    if base is None:
        base = _first(tags, _MIN_LEVELS, _storeys_m, (-1e-9, HIGHEST_M), repairs, where)
    if base is not None and base >= top:
        repairs.note("base above the top, taken as the ground", f"{where}: {base:g} m, top {top:g} m")
        base = None
    if base is None and any(kind in _OPEN for kind in _kinds(tags)):
        base = top - min(_ROOF_M, top / 2)
    return max(base or 0.0, 0.0), top


def has_height(tags: Mapping[str, Any], key: HeightKey = HeightKey(), repairs: Repairs | None = None) -> bool:
    """Whether any tag gives a usable height or number of storeys; those that do not are noted."""
    return _top(tags, Repairs() if repairs is None else repairs, str(tags.get("name", "a building")), key) is not None


def _top(tags: Mapping[str, Any], repairs: Repairs, where: str, key: HeightKey) -> float | None:
    """The height, or that of the storeys plus the roof; None if no tag can be used."""
    for name in (key.name.lower(), *_HEIGHTS) if key.name else _HEIGHTS:
        read = functools.partial(length_m, unit=key.of(name))
        if (top := _first(tags, (name,), read, (0.0, HIGHEST_M), repairs, where)) is not None:
            return top
    walls = _first(tags, _LEVELS, _storeys_m, (-1e-9, HIGHEST_M), repairs, where)
    if walls is None:
        return None
    roof = _first(tags, ("roof:height",), length_m, (-1e-9, HIGHEST_M), repairs, where)
    if roof is None:
        roof = _first(tags, ("roof:levels",), _storeys_m, (-1e-9, HIGHEST_M), repairs, where)
    top = walls + (roof or 0.0)
    if 0 < top <= HIGHEST_M:
        return top
    repairs.note("number of storeys not usable", f"{where}: {walls / LEVEL_M:g}")
    return None


def _first(
    tags: Mapping[str, Any],
    keys: Iterable[str],
    read: Any,
    limits: tuple[float, float],
    repairs: Repairs,
    where: str,
) -> float | None:
    """The first readable value among the keys that is above the lower limit and at most the upper limit."""
    for key in keys:
        if (value := tags.get(key)) is None:
            continue
        try:
            metres = read(value)
        except ValueError:
            repairs.note(f"{key} not understood", f"{where}: {value!r}")
            continue
        if limits[0] < metres <= limits[1]:
            return float(metres)
        repairs.note(f"{key} not usable", f"{where}: {value!r}")
    return None


def material_of(tags: Mapping[str, Any], default: str) -> str:
    """The material of a building: `material`, OpenStreetMap's `building:material`, or the default.

    A material that is not in ITU-R P.2040 is kept, because a table may define it.
    """
    word = str(tags.get("material", tags.get("building:material", ""))).strip()
    if word.lower() in MATERIALS:
        return word.lower()
    return _MATERIALS.get(word.lower(), word or default)


def roof_material_of(tags: Mapping[str, Any]) -> str:
    """The material of a roof: `roof_material` or OpenStreetMap's `roof:material`; empty: that of the walls."""
    word = str(tags.get("roof_material", tags.get("roof:material", ""))).strip()
    if word.lower() in MATERIALS:
        return word.lower()
    return _ROOFS.get(word.lower(), word)
