"""Scenes from UrbanRadio3D's buildings: JSON polygons, or 8-bit images of heights."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from geoml.errors import DataError
from radiomaps.scenes.extrude import parse_bounds, scene_of_footprints
from radiomaps.scenes.footprints import polygons_of
from radiomaps.scenes.raster import prisms
from radiomaps.scenes.repairs import Repairs
from radiomaps.scenes.scene import Footprint, Scene
from radiomaps.scenes.tags import HIGHEST_M

__all__ = ["HEIGHT_SCALE_M", "load_buildings_json", "load_height_picture", "parse_buildings"]

#: Height in metres of grey level 255 in images of building heights.
HEIGHT_SCALE_M = 19.8


def parse_buildings(content: bytes, name: str, repairs: Repairs | None = None) -> list[Footprint]:
    """Polygons, with optional `holes`, and heights of a JSON file: a list, or an object that contains one.

    Polygons of fewer than three corners are left out and counted in `repairs`.
    """
    repairs = repairs if repairs is not None else Repairs()
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name} is not valid JSON ({error}); it may be truncated") from error
    if isinstance(found, dict):
        found = found.get("buildings", found.get("features", list(found.values())))
    if not isinstance(found, list) or not found:
        raise DataError(f"{name} holds no list of buildings")
    footprints = []
    for index, entry in enumerate(found):
        if not isinstance(entry, dict):
            raise DataError(
                f"{name}: building {index} is {str(entry)[:40]!r}; an object with polygon and height is expected"
            )
        ring = next((entry[key] for key in ("polygon", "coordinates", "footprint", "points") if key in entry), None)
        height = next((entry[key] for key in ("height", "height_m", "z") if key in entry), None)
        if ring is None or height is None:
            raise DataError(f"{name}: building {index} has no polygon or no height (keys: {sorted(map(str, entry))})")
        try:
            top, base = float(height), float(entry.get("base", 0.0))
            nested = bool(ring) and isinstance(ring[0], list) and bool(ring[0]) and isinstance(ring[0][0], list)
            rings = [_ring(part) for part in (ring if nested else [ring, *entry.get("holes", ())])]
        except (TypeError, ValueError, IndexError, KeyError) as error:
            raise DataError(f"{name}: building {index} has numbers that cannot be read ({error})") from error
        if not 0 <= base < top < HIGHEST_M:
            raise DataError(
                f"{name}: building {index} is {height} m high above {base} m; up to {HIGHEST_M:g} m is expected"
            )
        if len(rings[0]) < 3:
            repairs.note("polygons of fewer than three corners left out", f"building {index}")
            continue
        holes = [hole for hole in rings[1:] if len(hole) > 2]
        footprints.append(Footprint(shapely.Polygon(rings[0], holes), top - base, base, name=str(index)))
    if not footprints:
        raise DataError(f"{name} holds no building that can be used ({'; '.join(repairs.lines())})")
    return footprints


def _ring(points: Any) -> list[tuple[float, float]]:
    """Corners of a polygon as pairs of finite numbers, without the repeated last corner."""
    ring = [(float(point[0]), float(point[1])) for point in points]
    if not np.isfinite(ring).all():
        raise ValueError("a corner is not finite")
    return ring[:-1] if len(ring) > 1 and ring[0] == ring[-1] else ring


def load_buildings_json(
    path: str | os.PathLike[str],
    *,
    size_m: float = 256.0,
    bounds_m: Sequence[float] | None = None,
    material: str = "concrete",
    licence: str = "",
) -> Scene:
    """A scene from a JSON file of polygons and heights, in metres from its corner.

    The ground is a square of `size_m`, or covers `bounds_m`.
    """
    path, repairs = Path(path), Repairs()
    footprints = [
        replace(building, polygon=polygon, material=material)
        for building in parse_buildings(path.read_bytes(), str(path), repairs)
        for polygon in polygons_of(shapely.make_valid(building.polygon))
    ]
    bounds = parse_bounds(bounds_m) or (0.0, 0.0, float(size_m), float(size_m))
    cut = bounds_m is not None
    return scene_of_footprints(
        path.stem, footprints, bounds=bounds, cut=cut, licence=licence, source=str(path), repairs=repairs
    )


def load_height_picture(
    path: str | os.PathLike[str],
    *,
    step_m: float = 1.0,
    scale_m: float = HEIGHT_SCALE_M,
    material: str = "concrete",
    licence: str = "",
) -> Scene:
    """A scene from an 8-bit image whose grey level 255 is the height `scale_m`; its first row is north."""
    from PIL import Image

    path = Path(path)
    try:
        with Image.open(path) as picture:
            if picture.mode.startswith(("I", "F")):
                raise DataError(f"{path} has pixels of mode {picture.mode}; an 8-bit grey picture is expected")
            colours = np.asarray(picture.convert("RGB")).astype(int)
            if np.ptp(colours, axis=2).max() > 0:
                raise DataError(f"{path} is a coloured picture; grey levels of heights were expected")
            levels = np.asarray(picture.convert("L"))[::-1]
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is no readable picture ({error})") from error
    if not levels.any():
        raise DataError(f"{path} holds no building: all of it is grey 0")
    heights = levels.astype(np.float64) / 255 * scale_m
    rows, columns = heights.shape
    level, step = scale_m / 255, float(step_m)  # every grey level is a separate height
    footprints = prisms(
        heights, np.zeros_like(heights), lambda cells: cells * step,
        level_m=level, lowest_m=level / 2, simplify_m=0.0, material=material,
    )  # fmt: skip
    bounds = (0.0, 0.0, columns * step, rows * step)
    return scene_of_footprints(path.stem, footprints, bounds=bounds, licence=licence, source=str(path))
