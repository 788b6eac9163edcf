"""Scenes from GeoJSON footprints with heights; the reference system is read from the file or its coordinates."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from geoml.errors import DataError, UserError
from radiomaps.scenes.areas import Area, scene_of_areas
from radiomaps.scenes.projection import WGS84, is_turned, reference_system
from radiomaps.scenes.repairs import Repairs
from radiomaps.scenes.scene import Scene
from radiomaps.scenes.tags import HeightKey, is_building, tidy

__all__ = ["FOREIGN", "is_geojson", "load_geojson", "parse_json"]

#: Types of JSON that hold buildings in another form.
FOREIGN = ("CityJSON", "CityJSONFeature", "Topology")
_TYPES = ("FeatureCollection", "Feature", "Polygon", "MultiPolygon", "GeometryCollection")


def load_geojson(
    path: str | os.PathLike[str],
    *,
    crs: str | None = None,
    metric: bool | None = None,
    default_height_m: float | None = None,
    height_key: str | None = None,
    height_unit: str | None = None,
    material: str = "concrete",
    bounds_m: Sequence[float] | None = None,
    terrain: str | os.PathLike[str] | None = None,
    licence: str = "",
) -> Scene:
    """A scene from polygons with `height_m`, `height` or `building:levels` (heights above ground level 0).

    The reference system is `crs`, else that of the file's `crs` member, else degrees or metres by the magnitude of the
    coordinates; `metric` resolves ambiguous ones. `height_key` is the property of the height if it has another name,
    `height_unit` the unit of its numbers unless its name ends with one (`HEIGHT_FT`). Features that are not polygons,
    or are not buildings in a file with `building` tags, are left out and counted.
    """
    path, repairs = Path(path), Repairs()
    content = parse_json(path)
    if not is_geojson(content):
        kind = _other_kind(content)
        raise DataError(f"{path} is no GeoJSON FeatureCollection (it is {kind})")
    areas = list(_areas(content, path, repairs))
    if not areas:
        lines = "; ".join(repairs.lines())
        raise DataError(f"{path} holds no polygon{f' that can be used ({lines})' if lines else ''}")
    tagged = [area for area in areas if "building" in area.tags or "building:part" in area.tags]
    if tagged:
        kept = [area for area in tagged if is_building(area.tags)]
        repairs.note("areas that are no building above ground left out", count=len(areas) - len(kept))
        areas = kept
        if not areas:
            raise DataError(f"{path} holds no building above ground ({'; '.join(repairs.lines())})")
    system, areas = _placed(areas, content, path, crs, metric, repairs)
    licence = licence or str(content.get("licence") or content.get("license") or "")
    return scene_of_areas(
        path, areas, system, default_height_m=default_height_m, key=HeightKey(height_key, height_unit),
        material=material, bounds_m=bounds_m, terrain=terrain, licence=licence, repairs=repairs,
    )  # fmt: skip


def _other_kind(content: Any) -> str:
    """Describe a JSON value that is not GeoJSON, for an error message."""
    if not isinstance(content, dict):
        return type(content).__name__
    if "geometryType" in content:
        return "Esri's JSON; export it as GeoJSON"
    kind = str(content.get("type", "an object"))
    return f"{kind[:60]}; convert its footprints and heights to GeoJSON" if kind in FOREIGN else kind[:60]


def is_geojson(content: Any) -> bool:
    """Whether a JSON value is an object of GeoJSON."""
    return isinstance(content, dict) and content.get("type") in _TYPES


def parse_json(path: Path) -> Any:
    """The value of a JSON file in any encoding; a file of one GeoJSON feature per line becomes a collection."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    if not raw.strip():
        raise DataError(f"{path} is empty")
    text = raw.decode(json.detect_encoding(raw), "surrogateescape").lstrip("\ufeff")
    if any("\udc80" <= letter <= "\udcff" for letter in text):
        text = raw.decode("cp1252", "replace")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        content = _lines(text)
        if content is None:
            raise DataError(f"{path} is not valid JSON ({error}); it may be truncated") from error
    return content


def _lines(text: str) -> dict[str, Any] | None:
    """A collection from a text with one feature per line (GeoJSONSeq), or None."""
    features = []
    for line in filter(None, (line.strip(" \t\r\x1e") for line in text.split("\n"))):
        try:
            feature = json.loads(line)
        except (ValueError, RecursionError):
            return None
        if not isinstance(feature, dict) or feature.get("type") != "Feature":
            return None
        features.append(feature)
    return {"type": "FeatureCollection", "features": features} if features else None


def _areas(content: Mapping[str, Any], path: Path, repairs: Repairs) -> Iterator[Area]:
    kind = content["type"]
    features = content.get("features") if kind == "FeatureCollection" else [content]
    if not isinstance(features, list):
        raise DataError(f"{path} has no list of features; expected a FeatureCollection")
    for index, feature in enumerate(features):
        if not isinstance(feature, Mapping):
            repairs.note("entries that are not GeoJSON features left out", f"feature {index}")
            continue
        geometry = feature.get("geometry") if feature.get("type") == "Feature" else feature
        properties = feature.get("properties")
        tags = tidy(properties) if isinstance(properties, Mapping) else {}
        name = f"building {tags.get('name') or index}"
        if not geometry:
            repairs.note("features without a geometry left out", f"feature {index}")
            continue
        polygons = list(_polygons(geometry, f"feature {index}", repairs))
        if polygons:
            yield Area(name, tags, polygons[0] if len(polygons) == 1 else shapely.MultiPolygon(polygons))


def _polygons(geometry: Any, name: str, repairs: Repairs, depth: int = 0) -> Iterator[shapely.Polygon]:
    """The polygons of a geometry without z; other or invalid geometries are counted."""
    kind = geometry.get("type") if isinstance(geometry, Mapping) else None
    inner = geometry.get("geometries" if kind == "GeometryCollection" else "coordinates") if kind else None
    if kind == "GeometryCollection" and isinstance(inner, list) and depth < 16:
        for part in inner:
            yield from _polygons(part, name, repairs, depth + 1)
    elif kind in ("Polygon", "MultiPolygon") and isinstance(inner, list):
        for rings in [inner] if kind == "Polygon" else inner:
            try:
                polygon = _polygon(rings, name, repairs)
            except (TypeError, ValueError, IndexError, shapely.errors.GEOSException):
                repairs.note("polygons with broken coordinates left out", name)
                continue
            if polygon.is_empty:
                repairs.note("empty polygons left out", name)
            elif len(set(polygon.exterior.coords)) < 3:
                repairs.note("polygons of fewer than three corners left out", name)
            else:
                yield polygon
    elif kind in ("Point", "MultiPoint", "LineString", "MultiLineString"):
        repairs.note("points and lines left out", f"{name}: {kind}")
    else:
        repairs.note("unreadable geometries left out", name)


def _polygon(rings: Any, name: str, repairs: Repairs) -> shapely.Polygon:
    """A polygon from rings of positions, of which the first two numbers are used."""
    closed = []
    for ring in rings:
        points = [(float(position[0]), float(position[1])) for position in ring]
        if not np.isfinite(points).all():
            raise ValueError("a coordinate is not finite")
        if points and points[0] != points[-1]:
            repairs.note("rings that do not close, closed", name)
            points.append(points[0])
        closed.append(points)
    if not closed or not closed[0]:
        return shapely.Polygon()
    return shapely.Polygon(closed[0], [ring for ring in closed[1:] if len(ring) > 3])


def _placed(
    areas: list[Area], content: Mapping[str, Any], path: Path, crs: str | None, metric: bool | None, repairs: Repairs
) -> tuple[Any, list[Area]]:
    """Determine the reference system (None: local metres); returns it with the areas, x or longitude first."""
    x0, y0, x1, y1 = shapely.total_bounds([area.geometry for area in areas])
    named = _named_system(content, path, repairs) if crs is None else None
    if crs is not None:
        system = None if crs == "local" else reference_system(crs, where=str(path))
        return system, areas
    degrees = abs(x0) <= 360 and abs(x1) <= 360 and y0 >= -90 and y1 <= 90
    if metric is True:
        return (named if named is not None and not named.is_geographic else None), areas
    small = max(x1 - x0, y1 - y0) < 0.5
    if named is not None and not named.is_geographic and metric is None and not (degrees and small):
        if is_turned(np.array([[x0, y0], [x1, y1]]), named):
            repairs.note("northing stood before easting, swapped")
            areas = [area.turned() for area in areas]
        return named, areas
    if named is not None and not named.is_geographic:
        repairs.note(f"coordinates are degrees, not of {named.to_string()[:40]} as the file says")
        named = None
    if not degrees and max(abs(y0), abs(y1)) <= 180 and max(abs(x0), abs(x1)) <= 90 and small:
        repairs.note("latitude stood before longitude, swapped")
        areas = [area.turned() for area in areas]
        degrees = True
    if not degrees and metric is False:
        raise DataError(f"{path}: coordinates {x0:g} … {x1:g} by {y0:g} … {y1:g} are no degrees; give crs=EPSG:…")
    if not degrees:
        if named is not None:
            repairs.note(f"coordinates are metres, not of {named.to_string()[:40]} as the file says")
        return None, areas
    if metric is None and named is None and max(_span(areas), y1 - y0) > 0.5:
        raise DataError(
            f"{path}: coordinates {x0:g} … {x1:g} by {y0:g} … {y1:g} could be degrees or metres; "
            "give metric=true or metric=false, or crs=EPSG:…"
        )
    return named or reference_system(WGS84, where=str(path)), areas


def _named_system(content: Mapping[str, Any], path: Path, repairs: Repairs) -> Any:
    """The system of the `crs` member, as a name, a link or an old EPSG code; None if it is missing or unreadable."""
    member = content.get("crs") or content.get("coordRefSys")
    if not member:
        return None
    found: Any = member
    if isinstance(member, Mapping):
        about = member.get("properties")
        about = about if isinstance(about, Mapping) else {}
        found = about.get("name") or about.get("href") or about.get("code") or member.get("name")
    try:
        return reference_system(found, where=str(path))
    except UserError:
        repairs.note("reference system not understood; give crs=EPSG:…", repr(found))
        return None


def _span(areas: list[Area]) -> float:
    """Degrees of longitude that the areas span, the shorter way around the Earth."""
    longitudes = np.sort(shapely.get_coordinates([area.geometry for area in areas])[:, 0] % 360)
    gaps = np.diff(np.append(longitudes, longitudes[0] + 360))
    direct = np.ptp(shapely.get_coordinates([area.geometry for area in areas])[:, 0])
    return float(min(direct, 360 - gaps.max()))
