"""Scenes from UrbanRadio3D's buildings: JSON polygons, or 8-bit pictures of heights."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import shapely

from geoml.errors import DataError
from radiomaps.scenes.extrude import scene_of_footprints
from radiomaps.scenes.footprints import polygons_of
from radiomaps.scenes.raster import prisms
from radiomaps.scenes.scene import Footprint, Scene

__all__ = ["HEIGHT_SCALE_M", "load_buildings_json", "load_height_picture", "parse_buildings"]

#: Metres of grey 255 in pictures of building heights.
HEIGHT_SCALE_M = 19.8


def parse_buildings(content: bytes, name: str) -> list[Footprint]:
    """Polygons and heights of a JSON file: a list of buildings, or an object that holds one."""
    try:
        found = json.loads(content)
    except ValueError as error:
        raise DataError(f"{name} is not valid JSON ({error})") from error
    if isinstance(found, dict):
        found = found.get("buildings", found.get("features", list(found.values())))
    footprints = []
    for index, entry in enumerate(found):
        ring = next((entry[key] for key in ("polygon", "coordinates", "footprint", "points") if key in entry), None)
        height = next((entry[key] for key in ("height", "height_m", "z") if key in entry), None)
        if ring is None or height is None:
            raise DataError(f"{name}: building {index} has no polygon or no height (keys: {sorted(entry)})")
        footprints.append(Footprint(shapely.Polygon(ring), float(height), name=str(index)))
    return footprints


def load_buildings_json(
    path: str | os.PathLike[str], *, size_m: float = 256.0, material: str = "concrete", licence: str = ""
) -> Scene:
    """A scene of `size_m` by `size_m` from a JSON file of polygons and heights in metres from its corner."""
    path = Path(path)
    footprints = [
        Footprint(polygon, building.height_m, material=material, name=building.name)
        for building in parse_buildings(path.read_bytes(), str(path))
        for polygon in polygons_of(shapely.make_valid(building.polygon))
    ]
    bounds = (0.0, 0.0, float(size_m), float(size_m))
    return scene_of_footprints(path.stem, footprints, bounds=bounds, licence=licence, source=str(path))


def load_height_picture(
    path: str | os.PathLike[str],
    *,
    step_m: float = 1.0,
    scale_m: float = HEIGHT_SCALE_M,
    material: str = "concrete",
    licence: str = "",
) -> Scene:
    """A scene from an 8-bit picture whose grey level 255 is `scale_m` high; its first row is north."""
    from PIL import Image

    path = Path(path)
    try:
        with Image.open(path) as picture:
            levels = np.asarray(picture.convert("L"))[::-1]
    except (OSError, SyntaxError) as error:
        raise DataError(f"{path} is no readable picture ({error})") from error
    heights = levels.astype(np.float64) / 255 * scale_m
    rows, columns = heights.shape
    level, step = scale_m / 255, float(step_m)  # every grey level is a height of its own
    footprints = prisms(
        heights, np.zeros_like(heights), lambda cells: cells * step,
        level_m=level, lowest_m=level / 2, simplify_m=0.0, material=material,
    )  # fmt: skip
    bounds = (0.0, 0.0, columns * step, rows * step)
    return scene_of_footprints(path.stem, footprints, bounds=bounds, licence=licence, source=str(path))
