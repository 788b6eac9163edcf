"""Import UrbanRadio3D (arXiv 2507.12166) into a store, from a folder or zip, with file names in any of three forms."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoml.errors import DataError
from geoml.grids.grid import Grid
from radiomaps.exchange.files import FileTree
from radiomaps.exchange.grey import RANGES, URBANRADIO3D, GreyCodec, SaturationCount, read_grey
from radiomaps.exchange.orientation import PICTURES, from_picture
from radiomaps.exchange.stores import Imported, write_imported
from radiomaps.scenes import Footprint
from radiomaps.scenes.footprints import burn
from radiomaps.scenes.urbanradio3d import HEIGHT_SCALE_M, parse_buildings

__all__ = ["MapName", "import_urbanradio3d", "parse_name"]

_NAME = re.compile(r"^(?P<map>.+?)_(?:(?P<x>\d+)X_(?P<y>\d+)Y|X(?P<x2>\d+)_Y(?P<y2>\d+)|(?P<x3>\d+)_(?P<y3>\d+))\.png$")
_FOLDERS = {"pathloss": "path_gain_db", "toa": "toa_s", "doa_azi": "doa_azimuth", "doa_ele": "doa_zenith"}
_HEIGHT = re.compile(r"^h(\d+)$", re.IGNORECASE)


@dataclass(frozen=True, order=True)
class MapName:
    """The map to which an image belongs: number of the map's area in the city, and the transmitter's cell X, Y."""

    piece: str
    x: int
    y: int


def parse_name(file: str) -> MapName | None:
    """Parse a file name in any of its three forms; returns None for other names.

    >>> parse_name("12_34X_200Y.png") == parse_name("12_X34_Y200.png") == parse_name("12_34_200.png")
    True
    """
    found = _NAME.match(file)
    if not found:
        return None
    x, y = (next(int(found[f"{axis}{form}"]) for form in ("", "2", "3") if found[f"{axis}{form}"]) for axis in "xy")
    return MapName(found["map"], x, y)


def _place(path: str) -> tuple[str, int] | None:
    """Variable and height of an image from the names of its folders. Path loss if no folder names a variable."""
    *folders, _ = path.split("/")
    heights = [int(found[1]) for folder in folders if (found := _HEIGHT.match(folder))]
    if not heights:
        return None
    for folder in folders:
        for prefix, variable in _FOLDERS.items():
            if folder.lower().startswith(prefix):
                return variable, heights[-1]
        if folder.lower().startswith(("propagation", "building")):
            return None
    return "path_gain_db", heights[-1]


def import_urbanradio3d(
    source: str | os.PathLike[str],
    store: str | os.PathLike[str],
    *,
    path_gain_range_db: tuple[float, float] | None = None,
    transmitter_height_m: float = 1.5,
    transmitter_power_dbm: float = 23.0,
    licence: str = "",
) -> list[dict[str, Any]]:
    """Import a folder or zip of UrbanRadio3D into a store; returns rows with the share of saturated values.

    Variables are those found for every map; layers are the heights found, 1 m apart. Buildings come from images of
    heights or JSON polygons, if there are any. Else a building is where all variables of the lowest layer are 0.
    Elsewhere a path gain of 0 becomes `no_path`, although it may also be the lower end of the range. Where there is a
    path gain, 0 is the lower end of other variables (an azimuth of due east).

    `path_gain_range_db`: path gains of grey levels 0 and 255. None reads `ranges.json` of the export of this package,
    or else uses -129 … -52 dB, which is 40 dB above the published range and agrees with free space. The rows and the
    warning of `write_imported` report whether it does for these files. The height of transmitters is not published.
    """
    tree = FileTree(source)
    pictures: dict[MapName, dict[tuple[str, int], str]] = defaultdict(dict)
    for path in tree.names:
        name, place = parse_name(path.rpartition("/")[2]), _place(path)
        if name and place:
            pictures[name][place] = path
    if not pictures:
        raise DataError(f"{source} holds no pictures named as UrbanRadio3D's, as pathLoss/h1/0_12X_34Y.png")
    maps = sorted(pictures)
    variables, heights = _complete(pictures, source)
    path_gain_range_db = path_gain_range_db or _recorded_range(tree)
    codecs = {**URBANRADIO3D, "path_gain_db": GreyCodec(*map(float, path_gain_range_db))}
    first = pictures[maps[0]][variables[0], heights[0]]
    size = read_grey(tree.read(first), first).shape[0]
    _check_places(maps, size, source)
    grid = Grid.box({"z": heights[0] - 0.5, "y": 0, "x": 0}, {"z": heights[-1] + 0.5, "y": size, "x": size}, 1.0)
    buildings = _Buildings(tree, size)

    def read(number: int) -> Imported:
        name, saturation = maps[number], SaturationCount()
        levels = {
            variable: np.stack([_levels(tree, pictures[name][variable, h], variable, size) for h in heights])
            for variable in variables
        }
        dark = np.logical_and.reduce([array == 0 for array in levels.values()])
        footprints, roofs = buildings.of(name.piece, dark[0])
        inside = dark if roofs is None else np.array(heights)[:, None, None] < roofs
        _check_transmitter(name, levels, pictures[name])
        for variable, array in levels.items():
            saturation.note_levels(variable, array, ~inside)
        others = [array > 0 for variable, array in levels.items() if variable != "path_gain_db"]
        found = np.logical_or.reduce(others) if others else np.ones_like(inside)
        if "path_gain_db" in levels:
            found &= levels["path_gain_db"] > 0
        known = found & ~inside
        fields: dict[str, NDArray[Any]] = {
            v: np.where(known, codecs[v].low + codecs[v].step * array, np.nan) for v, array in levels.items()
        }
        fields["no_path"] = ~found & ~inside
        place = (name.x + 0.5, name.y + 0.5, transmitter_height_m)
        return Imported(name.piece, place, transmitter_power_dbm, fields, inside, footprints, saturation)

    return write_imported(
        store, grid, (*variables, "no_path"), [(name.piece, f"{name.x}-{name.y}") for name in maps], read,
        attrs={"source": "UrbanRadio3D", "frequency_hz": 5.9e9, "solver": "WinProp dominant path model",
               "solver_version": "unknown", "path_gain_range_db": list(path_gain_range_db),
               "transmitter_height_m": transmitter_height_m},
        licence=licence or "UrbanRadio3D: see its terms",
    )  # fmt: skip


def _recorded_range(tree: FileTree) -> tuple[float, float]:
    """The range of path gain that an export recorded, or that of the published set."""
    if RANGES not in tree.names:
        return URBANRADIO3D["path_gain_db"].low, URBANRADIO3D["path_gain_db"].high
    try:
        low, high = json.loads(tree.read(RANGES))["path_gain_db"]
        return float(low), float(high)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{RANGES} in {tree.path} holds no range of path_gain_db ({error})") from error


def _complete(
    pictures: Mapping[MapName, Mapping[tuple[str, int], str]], source: Any
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the variables and heights of a set; raises `DataError` if a map lacks one of them."""
    places = {place for found in pictures.values() for place in found}
    variables = tuple(name for name in URBANRADIO3D if any(variable == name for variable, _ in places))
    heights = tuple(sorted({height for _, height in places}))
    for name, found in sorted(pictures.items()):
        for variable in variables:
            for height in heights:
                if (variable, height) not in found:
                    raise DataError(
                        f"{source}: map {name.piece}, transmitter {name.x}, {name.y} lacks {variable} at h{height}"
                    )
    if heights != tuple(range(heights[0], heights[-1] + 1)):
        raise DataError(f"{source}: heights {list(heights)} have gaps")
    return variables, heights


def _check_places(maps: list[MapName], size: int, source: Any) -> None:
    for name in maps:
        if max(name.x, name.y) >= size:
            raise DataError(
                f"{source}: map {name.piece} has its transmitter at {name.x}, {name.y}, beyond its {size} pixels"
            )


def _levels(tree: FileTree, path: str, variable: str, size: int) -> NDArray[np.uint8]:
    picture = read_grey(tree.read(path), path)
    if picture.shape != (size, size):
        raise DataError(f"{path} has {picture.shape} pixels; {size} × {size} were expected")
    return from_picture(picture, variable)


def _check_transmitter(name: MapName, levels: Mapping[str, NDArray[np.uint8]], files: Mapping[Any, str]) -> None:
    """Warn if the strongest or earliest voxel is far from the transmitter's position in the file name."""
    for variable in ("path_gain_db", "toa_s"):
        if variable not in levels:
            continue
        layer = levels[variable][0].astype(int)
        best = layer == (layer.max() if variable == "path_gain_db" else layer[layer > 0].min(initial=255))
        rows, columns = np.nonzero(best)
        apart = np.hypot(rows - name.y, columns - name.x).min(initial=np.inf)
        swapped = np.hypot(rows - name.x, columns - name.y).min(initial=np.inf)
        if apart > 10 and swapped < apart / 2:
            file = next(path for (which, _), path in files.items() if which == variable)
            warnings.warn(
                f"{file}: {variable} is best {apart:.0f} cells from the transmitter its name gives, and "
                f"{swapped:.0f} with its axes swapped; this set may store its axes another way",
                stacklevel=2,
            )


class _Buildings:
    """Building footprints and roof heights of each map of a set, from JSON polygons or height images."""

    def __init__(self, tree: FileTree, size: int) -> None:
        self._tree, self._size = tree, size
        folder = [name for name in tree.names if re.search(r"building", name, re.IGNORECASE)]
        self._json = {Path(name).stem: name for name in folder if name.endswith(".json")}
        self._heights = {Path(name).stem: name for name in folder if name.endswith(".png")}

    def of(self, piece: str, dark: NDArray[np.bool_]) -> tuple[list[Footprint], NDArray[np.float64] | None]:
        """Footprints (empty where unknown) and roofs `[y, x]` (None where unknown).

        The orientation of images of heights is not documented: the one that matches the lowest layer's dark cells is
        used.
        """
        footprints: list[Footprint] = []
        if piece in self._json:
            footprints = parse_buildings(self._tree.read(self._json[piece]), self._json[piece])
        if piece in self._heights:
            picture = read_grey(self._tree.read(self._heights[piece]), self._heights[piece])
            ways = [turn(picture) for turn in PICTURES.values()]
            best = max(ways, key=lambda way: float(((way > 0) == dark).mean()))
            return footprints, best.astype(np.float64) / 255 * HEIGHT_SCALE_M
        if footprints:
            return footprints, _roofs(footprints, self._size)
        return footprints, None


def _roofs(footprints: list[Footprint], size: int) -> NDArray[np.float64]:
    shapes = [(footprint.polygon, footprint.top_m) for footprint in sorted(footprints, key=lambda f: f.top_m)]
    return burn(shapes, (size, size))
