"""A scene of buildings from tagged areas, as in OpenStreetMap and GeoJSON."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from geoml.errors import DataError
from radiomaps.scenes.extrude import around, parse_bounds, scene_of_footprints
from radiomaps.scenes.footprints import polygons_of
from radiomaps.scenes.projection import Frame
from radiomaps.scenes.repairs import Repairs
from radiomaps.scenes.scene import Footprint, Scene
from radiomaps.scenes.tags import (
    DEFAULT_HEIGHT_M,
    HeightKey,
    Tags,
    base_and_top,
    has_height,
    material_of,
    roof_material_of,
)
from radiomaps.scenes.terrain import Terrain

__all__ = ["Area", "scene_of_areas"]


@dataclass(frozen=True)
class Area:
    """A building, or a part of one: its name in messages, its normalised tags, and its polygons in file coordinates."""

    name: str
    tags: Tags
    geometry: BaseGeometry

    def turned(self) -> Area:
        """Return the area with x and y of its coordinates swapped."""
        return replace(self, geometry=shapely.transform(self.geometry, lambda points: points[:, ::-1]))

    @property
    def is_part(self) -> bool:
        return "building:part" in self.tags and "building" not in self.tags


def scene_of_areas(
    path: Path,
    areas: Sequence[Area],
    system: Any,
    *,
    default_height_m: float | None,
    key: HeightKey,
    material: str,
    bounds_m: Sequence[float] | None,
    terrain: str | os.PathLike[str] | None,
    licence: str,
    repairs: Repairs,
) -> Scene:
    """The scene of buildings whose coordinates are in a rasterio `CRS`, or in metres where `system` is None.

    Without `default_height_m` a building of unknown height gets 9 m, but a file without any height raises `DataError`,
    because its property may have another name. On `terrain` a building stands at the lowest ground below it.
    """
    if default_height_m is None:
        _require_heights(path, areas, key)
    default = float(DEFAULT_HEIGHT_M if default_height_m is None else default_height_m)
    if not default > 0:
        raise DataError(f"default_height_m={default_height_m}; expected metres above 0")
    geometries = np.array([area.geometry for area in areas], dtype=object)
    frame = Frame.of(shapely.get_coordinates(geometries), system, where=str(path))
    if frame.origin is None or frame.origin != (0.0, 0.0):
        geometries = shapely.transform(geometries, frame.local)
    if system is not None and frame.crs == "local":
        repairs.note("coordinates near (0, 0) are not of the system the file names, taken as local metres")
    if system is None and frame.origin != (0.0, 0.0):
        repairs.note(f"metres of an unknown system, counted from {frame.origin}; give crs=EPSG:… to keep the place")
    footprints: list[Footprint] = []
    parts: list[Footprint] = []
    for area, geometry in zip(areas, geometries, strict=True):
        base, top = base_and_top(area.tags, default, repairs, where=area.name, key=key)
        made = (material_of(area.tags, material), str(area.tags.get("name", area.name)), roof_material_of(area.tags))
        (parts if area.is_part else footprints).extend(
            Footprint(polygon, top - base, base, *made) for polygon in polygons_of(geometry)
        )
    kept = [*parts, *_outlines_without_parts(footprints, parts)]
    bounds = parse_bounds(bounds_m)
    ground = None
    if terrain is not None:
        ground_of = Terrain.read(Path(terrain), repairs=repairs).placed(frame)
        bounds = bounds or around(kept)
        kept = [replace(f, base_m=f.base_m + ground_of.lowest(f.polygon)) for f in kept]
        ground = ground_of.mesh(bounds)
    return scene_of_footprints(
        path.stem, kept, bounds=bounds, cut=bounds_m is not None, ground=ground, crs=frame.crs, licence=licence,
        source=str(path), repairs=repairs,
    )  # fmt: skip


def _require_heights(path: Path, areas: Sequence[Area], key: HeightKey) -> None:
    tried = Repairs()
    if any(has_height(area.tags, key, tried) for area in areas):
        return
    numeric = sorted({k for a in areas[:1000] for k, v in a.tags.items() if isinstance(v, int | float)})[:12]
    numbers = f"; its numbers are called {', '.join(numeric)}" if numeric else ""
    raise DataError(
        f"{path}: no building has a usable height{''.join(f' ({line})' for line in tried.lines()[:1])}{numbers}; name "
        "the attribute of the "
        "height with height_key=NAME (height_unit=ft if it is in feet), or give default_height_m=9 for all of them"
    )


def _outlines_without_parts(outlines: list[Footprint], parts: list[Footprint]) -> list[Footprint]:
    """The outlines of which parts cover less than half."""
    if not parts:
        return outlines
    solid = [shapely.make_valid(part.polygon) for part in parts]
    tree = shapely.STRtree(solid)
    kept = []
    for outline in outlines:
        sound = shapely.make_valid(outline.polygon)
        near = [solid[int(index)] for index in np.atleast_1d(tree.query(sound))]
        if shapely.union_all(near).intersection(sound).area < 0.5 * sound.area:
            kept.append(outline)
    return kept
