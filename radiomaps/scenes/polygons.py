"""Split faces of three or more corners into triangles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

__all__ = ["triangles_of"]


def triangles_of(vertices: NDArray[np.float64], faces: Any) -> NDArray[np.int32]:
    """Triangles (m, 3) of faces, given as lists of corners; concave faces are split correctly.

    >>> square = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    >>> triangles_of(square, [[0, 1, 2, 3]]).tolist()
    [[0, 1, 2], [0, 2, 3]]
    """
    if isinstance(faces, np.ndarray):
        return faces.astype(np.int32).reshape(-1, 3)
    found: list[Sequence[int]] = []
    for face in faces:
        if len(face) == 3:
            found.append(face)
        elif len(face) > 3:
            if min(face) < 0 or max(face) >= len(vertices):
                raise ValueError(f"a face points outside the {len(vertices)} vertices")
            found += _split(vertices[face], face)
    return np.array(found, np.int64).reshape(-1, 3).astype(np.int32)


def _split(points: NDArray[np.float64], face: Sequence[int]) -> list[Sequence[int]]:
    """A triangle fan if the polygon is convex, else a constrained Delaunay triangulation in its plane."""
    following = np.roll(points, -1, axis=0)
    normal = np.cross(points - points[0], following - points[0]).sum(axis=0)
    turns = np.cross(points - np.roll(points, 1, axis=0), following - points) @ normal
    fan = [(face[0], face[k], face[k + 1]) for k in range(1, len(face) - 1)]
    if (turns >= -1e-9 * max(float(normal @ normal), 1e-30)).all():
        return list(fan)
    drop = int(np.argmax(np.abs(normal)))
    flat = np.delete(points, drop, axis=1)
    polygon = shapely.Polygon(flat)
    if not polygon.is_valid:
        return list(fan)
    index = dict(zip(map(tuple, flat.tolist()), face, strict=True))
    triangles = []
    for triangle in shapely.get_parts(shapely.constrained_delaunay_triangles(polygon)):
        corners = [index[place] for place in list(triangle.exterior.coords)[:3]]
        a, b, c = (np.asarray(place) for place in list(triangle.exterior.coords)[:3])
        side = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
        # The sign of the face's orientation in that plane: dropping the middle axis mirrors it.
        turned = (side > 0) != ((normal[drop] > 0) != (drop == 1))
        triangles.append(tuple(corners[::-1]) if turned else tuple(corners))
    return list(triangles)
