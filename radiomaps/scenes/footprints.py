"""Cleaning of footprints: self-intersections and overlaps are resolved, and every repair is counted."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from geoml.errors import DataError
from radiomaps.scenes.repairs import Repairs
from radiomaps.scenes.scene import Footprint

__all__ = ["SNAP_M", "burn", "clean", "polygons_of"]

#: Vertices are snapped to this lattice (m), so that adjacent buildings share their walls exactly.
SNAP_M = 0.01
_SLIVER_AREA_M2, _SLIVER_WIDTH_M, _HOLE_AREA_M2 = 1.0, 0.2, 1.0


def polygons_of(geometry: BaseGeometry) -> list[shapely.Polygon]:
    """The polygons in a geometry of any type; lines and points are left out."""
    if isinstance(geometry, shapely.Polygon):
        return [geometry] if not geometry.is_empty else []
    return [polygon for part in getattr(geometry, "geoms", ()) for polygon in polygons_of(part)]


def burn(
    shapes: Iterable[tuple[BaseGeometry, float]],
    shape: tuple[int, int],
    *,
    cell_m: tuple[float, float] = (1.0, 1.0),
    corner_m: tuple[float, float] = (0.0, 0.0),
) -> NDArray[np.float64]:
    """Values of polygons on the cells `(y, x)` whose centres they cover, later over earlier ones; 0 elsewhere.

    `cell_m` is the size of a cell along x and y, `corner_m` the corner of the first cell, in the polygons' metres.

    >>> burn([(shapely.box(2, 0, 4, 2), 7.0)], (2, 3), cell_m=(2, 1)).tolist()
    [[0.0, 7.0, 0.0], [0.0, 7.0, 0.0]]
    """
    from rasterio.errors import NotGeoreferencedWarning
    from rasterio.features import rasterize

    with warnings.catch_warnings():
        # rasterio takes the transform of cells of 1 m at (0, 0) for a missing georeference, and warns.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        transform = (cell_m[0], 0, corner_m[0], 0, cell_m[1], corner_m[1])
        return rasterize(shapes, shape, transform=transform, fill=0.0, dtype="float64")


def clean(
    footprints: Iterable[Footprint], *, source: str = "footprints", repairs: Repairs | None = None
) -> tuple[list[Footprint], tuple[str, ...]]:
    """Clean footprints; returns valid polygons that do not overlap, and a list of all repairs as text.

    Self-intersections are resolved. Vertices are snapped to a centimetre. Slivers (under 1 m² or 0.2 m wide) and holes
    under 1 m² are dropped. If two buildings overlap in plan and height, the higher building keeps the common area.
    A height that is missing, not finite or not above 0 raises `DataError` with the building's name.
    """
    repairs = repairs if repairs is not None else Repairs()
    sound: list[Footprint] = []
    for index, footprint in enumerate(footprints):
        name = footprint.name or f"building-{index}"
        if not (math.isfinite(footprint.height_m) and footprint.height_m > 0 and math.isfinite(footprint.base_m)):
            raise DataError(
                f"{source}: {name} has height {footprint.height_m} m above {footprint.base_m} m; "
                "a height is a number above 0 (give a default height, or drop the building)"
            )
        for part in _sound_polygons(footprint.polygon, repairs):
            sound.append(replace(footprint, polygon=part, name=name))
    kept = _without_overlaps(sound, repairs)
    return kept, repairs.lines()


def _sound_polygons(polygon: shapely.Polygon, repairs: Repairs) -> list[shapely.Polygon]:
    """Valid, snapped polygons without slivers and tiny holes."""
    geometry: Any = polygon
    if not geometry.is_valid:
        repairs.note("invalid polygons resolved" if geometry.area > 0 else "polygons without an area left out")
        # By structure: what two holes share is open, which the even-odd rule would build.
        geometry = shapely.make_valid(geometry, method="structure", keep_collapsed=False)
    geometry = shapely.set_precision(geometry, SNAP_M)
    sound = []
    for part in polygons_of(geometry):
        holes = [ring for ring in part.interiors if shapely.Polygon(ring).area >= _HOLE_AREA_M2]
        if len(holes) < len(part.interiors):
            repairs.note("holes under 1 m² closed", count=len(part.interiors) - len(holes))
            part = shapely.Polygon(part.exterior, holes)
        # Precision 0 keeps the snapped coordinates but computes in floating point: on the lattice, GEOS loses polygons
        # that it buffers by a few steps only.
        part = shapely.set_precision(shapely.set_precision(shapely.simplify(part, SNAP_M / 2), SNAP_M), 0)
        if part.is_empty or part.area < _SLIVER_AREA_M2 or part.buffer(-_SLIVER_WIDTH_M / 2).is_empty:
            repairs.note("slivers dropped")
        else:
            sound.extend(polygons_of(part))
    return sound


def _without_overlaps(footprints: list[Footprint], repairs: Repairs) -> list[Footprint]:
    """Cut lower buildings where their prisms overlap with higher ones; the order is that of the input."""
    if not footprints:
        return []
    tree = shapely.STRtree([footprint.polygon for footprint in footprints])
    kept: list[Footprint] = []
    for index, footprint in enumerate(footprints):
        rank = (footprint.top_m, -index)
        rivals = [
            other.polygon
            for near in sorted(int(i) for i in tree.query(footprint.polygon, predicate="intersects"))
            if near != index
            and ((other := footprints[near]).top_m, -near) > rank
            and other.base_m < footprint.top_m
            and footprint.polygon.intersection(other.polygon).area > SNAP_M
        ]
        if not rivals:
            kept.append(footprint)
            continue
        repairs.note("overlaps given to the higher building")
        rest = shapely.difference(footprint.polygon, shapely.union_all(rivals), grid_size=SNAP_M)
        parts = [sound for part in polygons_of(rest) for sound in _sound_polygons(part, Repairs())]
        kept.extend(replace(footprint, polygon=part) for part in parts)
    return kept
