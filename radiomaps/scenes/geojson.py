"""Scenes from GeoJSON footprints with heights, in longitude and latitude or in local metres."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import shapely

from geoml.errors import DataError
from geoml.runs.files import read_json
from radiomaps.scenes.extrude import scene_of_footprints
from radiomaps.scenes.footprints import polygons_of
from radiomaps.scenes.projection import WGS84, local_crs, project
from radiomaps.scenes.scene import MATERIALS, Footprint, Scene

__all__ = ["LEVEL_M", "load_geojson", "material_of", "metres"]

#: Height of a storey where only their number is known.
LEVEL_M = 3.0
_HEIGHTS = ("height_m", "height", "building:height", "Height", "HEIGHT", "render_height")
_BASES = ("min_z_m", "base_m", "min_height", "building:min_height", "render_min_height")
#: OpenStreetMap's building:material, where its word is not ITU's.
_MATERIALS = {"stone": "marble", "timber_framing": "wood", "plaster": "brick", "cement_block": "concrete",
              "steel": "metal", "mirror": "glass", "sandstone": "marble", "limestone": "marble"}  # fmt: skip


def metres(value: Any, *, where: str) -> float | None:
    """A length as tags give it, "12", "12.5 m", "40 ft" or 40'; None where there is none.

    >>> metres("40 ft", where="roof"), metres("12.5m", where="roof"), metres(None, where="roof")
    (12.192, 12.5, None)
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    text = str(value).strip().lower().replace(",", ".")
    factor = 1.0
    for ending, scale in (("ft", 0.3048), ("feet", 0.3048), ("'", 0.3048), ("m", 1.0)):
        if text.endswith(ending):
            text, factor = text.removesuffix(ending).strip(), scale
            break
    try:
        length = float(text) * factor
    except ValueError:
        raise DataError(f"{where}: {value!r} is no length; write metres, as 12.5 or '12.5 m'") from None
    if not math.isfinite(length):
        raise DataError(f"{where}: {value!r} is no finite length")
    return length


def material_of(tags: Mapping[str, Any], default: str, *, where: str) -> str:
    """The ITU material of a building: by `material` (which has to be known), by OpenStreetMap's tag, or the default."""
    if tags.get("material") is not None:
        name = str(tags["material"])
        if name not in MATERIALS:
            raise DataError(f"{where}: material {name!r} unknown (known: {', '.join(MATERIALS)})")
        return name
    word = str(tags.get("building:material", "")).lower()
    return word if word in MATERIALS else _MATERIALS.get(word, default)


def height_of(tags: Mapping[str, Any], default_m: float | None, *, where: str) -> tuple[float, float]:
    """Base and height of a building; storeys count 3 m, what is missing is `default_m` or a `DataError`."""
    base = next((b for key in _BASES if (b := metres(tags.get(key), where=where)) is not None), 0.0)
    top = next((h for key in _HEIGHTS if (h := metres(tags.get(key), where=where)) is not None), None)
    if top is None:
        levels = metres(tags.get("building:levels", tags.get("levels")), where=where)
        top = levels * LEVEL_M if levels is not None else default_m
    if top is None:
        raise DataError(f"{where} has no height; give default_height_m to use one for all such buildings")
    return base, top - base


def load_geojson(
    path: str | os.PathLike[str],
    *,
    metric: bool | None = None,
    default_height_m: float | None = None,
    material: str = "concrete",
    licence: str = "",
) -> Scene:
    """A scene from polygons with `height_m`, `height` or `building:levels` (heights above ground level 0).

    `metric`: coordinates are local metres; None decides by their size (beyond ±180 by ±90: metres), and refuses what
    could be either. Longitudes and latitudes are projected to metres around their middle.
    """
    path = Path(path)
    content = read_json(path)
    if not isinstance(content, dict) or content.get("type") != "FeatureCollection":
        raise DataError(f"{path} is no GeoJSON FeatureCollection")
    polygons, tags = [], []
    for index, feature in enumerate(content.get("features", [])):
        try:
            geometry = shapely.from_geojson(json.dumps(feature["geometry"]))
        except (KeyError, TypeError, shapely.errors.GEOSException) as error:
            raise DataError(f"{path}: feature {index} has no readable geometry ({error})") from error
        for polygon in polygons_of(geometry):
            polygons.append(polygon)
            tags.append((index, feature.get("properties") or {}))
    if not polygons:
        raise DataError(f"{path} holds no polygon")
    bounds = shapely.total_bounds(polygons)
    lonlat = not (_is_metric(bounds, path, content) if metric is None else metric)
    crs = "local"
    if lonlat:
        crs = local_crs((bounds[0] + bounds[2]) / 2, (bounds[1] + bounds[3]) / 2)
        polygons = [shapely.transform(polygon, lambda p: project(p, WGS84, crs)) for polygon in polygons]
    footprints = []
    for polygon, (index, properties) in zip(polygons, tags, strict=True):
        where = f"{path}: building {properties.get('name') or index}"
        base, height = height_of(properties, default_height_m, where=where)
        name = str(properties.get("name") or index)
        footprints.append(Footprint(polygon, height, base, material_of(properties, material, where=where), name))
    licence = licence or str(content.get("licence") or content.get("license") or "")
    return scene_of_footprints(path.stem, footprints, crs=crs, licence=licence, source=str(path))


def _is_metric(bounds: Any, path: Path, content: Mapping[str, Any]) -> bool:
    """Whether coordinates can only be metres; small ones around (0, 0) might be either and are refused."""
    x0, y0, x1, y1 = bounds
    if x0 < -180 or x1 > 180 or y0 < -90 or y1 > 90:
        return True
    if max(x1 - x0, y1 - y0) > 0.5:
        raise DataError(
            f"{path}: coordinates {x0:g} … {x1:g} by {y0:g} … {y1:g} could be degrees or metres; "
            "say metric=true or metric=false"
        )
    return False
