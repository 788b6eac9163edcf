"""Prisms from footprints, the ground below them, and scenes of both."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geoml.errors import DataError, UserError
from radiomaps.scenes.footprints import clean, polygons_of
from radiomaps.scenes.repairs import Repairs
from radiomaps.scenes.scene import Footprint, Mesh, Scene

__all__ = ["around", "extrude", "flat_ground", "parse_bounds", "scene_of_footprints"]

#: xmin, ymin, xmax, ymax in metres.
Bounds = tuple[float, float, float, float]


def extrude(footprint: Footprint, *, floor: bool = True) -> Mesh:
    """The prism over a footprint as one mesh with merged vertices and outward normals.

    Vertices are merged because diffraction finds a wedge only where two triangles share an edge. The roof is a
    constrained Delaunay triangulation, so that it has no vertices other than the polygon's. `floor=False` leaves out
    the lower face, for buildings on the ground.

    >>> prism = extrude(Footprint(shapely.box(0, 0, 10, 20), 5.0))
    >>> prism.vertices.shape, len(prism.faces)
    ((8, 3), 12)
    """
    polygon = shapely.orient_polygons(footprint.polygon)
    rings = [np.asarray(ring.coords)[:-1] for ring in (polygon.exterior, *polygon.interiors)]
    corners, inverse = np.unique(np.concatenate(rings), axis=0, return_inverse=True)
    count, faces, start = len(corners), [], 0
    for ring in rings:
        here = inverse[start : start + len(ring)]
        there = np.roll(here, -1)
        start += len(ring)
        faces.append(np.stack([here, there, there + count], axis=1))
        faces.append(np.stack([here, there + count, here + count], axis=1))
    caps = _triangulate(polygon, corners)
    faces.append(caps + count)
    if floor:
        faces.append(caps[:, ::-1])
    lower = np.column_stack([corners, np.full(count, footprint.base_m)])
    upper = np.column_stack([corners, np.full(count, footprint.top_m)])
    vertices = np.concatenate([lower, upper])
    roof = footprint.roof_material
    return Mesh(footprint.name, vertices, np.concatenate(faces), footprint.material, roof_material=roof)


def _triangulate(polygon: shapely.Polygon, corners: NDArray[np.float64]) -> NDArray[np.int64]:
    """Triangles, counter-clockwise, as indices into `corners` (sorted by x, then y)."""
    triangles = shapely.get_parts(shapely.constrained_delaunay_triangles(polygon))
    points = np.stack([np.asarray(triangle.exterior.coords)[:3] for triangle in triangles])
    index = {(x, y): i for i, (x, y) in enumerate(corners.tolist())}
    try:
        faces = np.array([[index[x, y] for x, y in triangle] for triangle in points.tolist()], dtype=np.int64)
    except KeyError as error:
        raise DataError(f"triangulating a footprint made a new corner at {error}; is the polygon valid?") from None
    edge_b, edge_c = points[:, 1] - points[:, 0], points[:, 2] - points[:, 0]
    clockwise = edge_b[:, 0] * edge_c[:, 1] < edge_b[:, 1] * edge_c[:, 0]
    faces[clockwise] = faces[clockwise][:, ::-1]
    return faces


def flat_ground(bounds: Bounds, *, z: float = 0.0, material: str = "concrete") -> Mesh:
    """A rectangle of two triangles at height `z` over (xmin, ymin, xmax, ymax)."""
    x0, y0, x1, y1 = bounds
    vertices = np.array([[x0, y0, z], [x1, y0, z], [x1, y1, z], [x0, y1, z]], np.float64)
    return Mesh("ground", vertices, np.array([[0, 1, 2], [0, 2, 3]], np.int32), material, "ground")


def scene_of_footprints(
    name: str,
    footprints: Iterable[Footprint],
    *,
    bounds: Bounds | None = None,
    cut: bool = False,
    ground: Mesh | None = None,
    crs: str = "local",
    licence: str = "",
    source: str = "",
    repairs: Repairs | None = None,
) -> Scene:
    """Cleaned, extruded footprints on flat ground (or a given one) over `bounds`, or around them by 20 m.

    With `cut`, buildings are cut at `bounds`. `repairs` are those made before; the scene lists them with those made
    here.
    """
    repairs = repairs if repairs is not None else Repairs()
    kept, _ = clean(footprints, source=source or name, repairs=repairs)
    if bounds is not None and cut:
        kept = _within(kept, bounds, repairs)
    if not kept and bounds is None and ground is None:
        raise DataError(f"{source or name} contains no building with a usable footprint")
    if ground is None:
        ground = flat_ground(bounds or around(kept))
    level = float(ground.vertices[:, 2].max())
    named = [_renamed(footprint, index) for index, footprint in enumerate(kept)]
    meshes = [extrude(footprint, floor=footprint.base_m > level + 0.01) for footprint in named]
    return Scene(name, (ground, *meshes), tuple(named), crs, licence, repairs.lines())


def around(footprints: Iterable[Footprint], margin_m: float = 20.0) -> Bounds:
    """Default bounds of the ground: the extent of the buildings plus a margin, rounded outward to whole metres."""
    x0, y0, x1, y1 = shapely.total_bounds([footprint.polygon for footprint in footprints])
    low, high = np.floor([x0 - margin_m, y0 - margin_m]), np.ceil([x1 + margin_m, y1 + margin_m])
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def parse_bounds(bounds: Any) -> Bounds | None:
    """Check the option `bounds_m`: four finite numbers xmin, ymin, xmax, ymax, or None."""
    if bounds is None:
        return None
    try:
        x0, y0, x1, y1 = (float(value) for value in bounds)
    except (TypeError, ValueError):
        x0 = y0 = x1 = y1 = float("nan")
    if not (x0 < x1 and y0 < y1 and np.isfinite([x0, y0, x1, y1]).all()):
        raise UserError(f"bounds_m={bounds}; expected [xmin, ymin, xmax, ymax] in the scene's metres")
    return x0, y0, x1, y1


def _within(footprints: list[Footprint], bounds: Bounds, repairs: Repairs) -> list[Footprint]:
    """The parts of footprints inside the bounds."""
    window, kept = shapely.box(*bounds), []
    for footprint in footprints:
        if window.covers(footprint.polygon):
            kept.append(footprint)
            continue
        parts = polygons_of(footprint.polygon.intersection(window))
        parts = [part for part in parts if part.area > 1.0]
        repairs.note("buildings cut at the bounds" if parts else "buildings outside the bounds left out")
        kept += [replace(footprint, polygon=part) for part in parts]
    return kept


def _renamed(footprint: Footprint, index: int) -> Footprint:
    """The footprint with a name that is unique in the scene and safe as a file name."""
    plain = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in footprint.name)
    return replace(footprint, name=f"{index:05d}-{plain}")
