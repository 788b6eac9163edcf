"""Scenes from OpenStreetMap XML: buildings and their parts, with heights, storeys and materials from tags."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import shapely
from shapely.ops import polygonize

from geoml.errors import DataError
from radiomaps.scenes.extrude import scene_of_footprints
from radiomaps.scenes.footprints import polygons_of
from radiomaps.scenes.geojson import height_of, material_of
from radiomaps.scenes.projection import WGS84, local_crs, project
from radiomaps.scenes.scene import Footprint, Scene

__all__ = ["load_osm"]

_LICENCE = "ODbL 1.0 (OpenStreetMap contributors)"
Tags = dict[str, str]


def load_osm(
    path: str | os.PathLike[str],
    *,
    default_height_m: float | None = 9.0,
    material: str = "concrete",
    licence: str = _LICENCE,
) -> Scene:
    """A scene from the buildings of an `.osm` file, in metres around the middle of them.

    Closed ways and multipolygons tagged `building` or `building:part`, except underground ones. A building with parts
    gives way to them, as tagging has it. Heights come from `height` or `building:levels` (3 m each), else
    `default_height_m`; None refuses what has neither.
    """
    path = Path(path)
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise DataError(f"{path} is not valid XML ({error}); it may be truncated") from error
    if root.tag != "osm":
        raise DataError(f"{path} is no OpenStreetMap file: it begins with <{root.tag}>")
    found = list(_buildings(root, path))
    if not found:
        raise DataError(f"{path} holds no building")
    bounds = shapely.total_bounds([polygon for _, _, polygon in found])
    crs = local_crs((bounds[0] + bounds[2]) / 2, (bounds[1] + bounds[3]) / 2)
    footprints: list[tuple[bool, Footprint]] = []
    for identity, tags, polygon in found:
        where = f"{path}: {identity}"
        base, height = height_of(tags, default_height_m, where=where)
        metric = shapely.transform(polygon, lambda points: project(points, WGS84, crs))
        is_part = "building:part" in tags and "building" not in tags
        name = tags.get("name", identity)
        footprints.append((is_part, Footprint(metric, height, base, material_of(tags, material, where=where), name)))
    kept = _outlines_without_parts(footprints)
    return scene_of_footprints(path.stem, kept, crs=crs, licence=licence, source=str(path))


def _tags(element: ElementTree.Element) -> Tags:
    return {tag.get("k", ""): tag.get("v", "") for tag in element.iter("tag")}


def _is_building(tags: Tags) -> bool:
    kind = tags.get("building") or tags.get("building:part") or "no"
    return kind != "no" and tags.get("location") != "underground" and not tags.get("layer", "0").startswith("-")


def _buildings(root: ElementTree.Element, path: Path) -> Iterator[tuple[str, Tags, shapely.Polygon]]:
    """Identity, tags and polygon in degrees of every building; ways that a relation uses as its ring are its own."""
    nodes = {
        node.get("id"): (float(node.get("lon", "nan")), float(node.get("lat", "nan"))) for node in root.iter("node")
    }
    ways = {way.get("id"): [nd.get("ref") for nd in way.iter("nd")] for way in root.iter("way")}

    def points(way: str | None, owner: str) -> list[tuple[float, float]]:
        missing = [ref for ref in ways[way] if ref not in nodes]
        if missing:
            raise DataError(
                f"{path}: {owner} needs node {missing[0]}, which the file lacks; download it with all nodes"
            )
        return [nodes[ref] for ref in ways[way]]

    for relation in root.iter("relation"):
        tags = _tags(relation)
        if tags.get("type") != "multipolygon" or not _is_building(tags):
            continue
        identity = f"relation {relation.get('id')}"
        members = [member for member in relation.iter("member") if member.get("ref") in ways]
        rings = {role: [points(m.get("ref"), identity) for m in members if (m.get("role") or "outer") == role]
                 for role in ("outer", "inner")}  # fmt: skip
        outer, inner = (
            shapely.union_all(list(polygonize([shapely.LineString(line) for line in rings[role] if len(line) > 1])))
            for role in ("outer", "inner")
        )
        for polygon in polygons_of(shapely.difference(outer, inner)):
            yield identity, tags, polygon
    for way in root.iter("way"):
        tags = _tags(way)
        if not _is_building(tags):
            continue
        ring = points(way.get("id"), f"way {way.get('id')}")
        if len(ring) >= 4 and ring[0] == ring[-1]:
            yield f"way {way.get('id')}", tags, shapely.Polygon(ring)


def _outlines_without_parts(footprints: list[tuple[bool, Footprint]]) -> list[Footprint]:
    """All parts, and of the outlines those that parts do not cover by half or more."""
    parts = [footprint for is_part, footprint in footprints if is_part]
    if not parts:
        return [footprint for _, footprint in footprints]
    tree = shapely.STRtree([part.polygon for part in parts])
    kept = list(parts)
    for is_part, footprint in footprints:
        if is_part:
            continue
        sound = shapely.make_valid(footprint.polygon)
        near = [parts[int(index)].polygon for index in np.atleast_1d(tree.query(sound))]
        covered = shapely.union_all([shapely.make_valid(polygon) for polygon in near]).intersection(sound).area
        if covered < 0.5 * sound.area:
            kept.append(footprint)
    return kept
