"""Height of the surface of meshes, seen from above, at points of the plane."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

__all__ = ["surface_height"]


def surface_height(
    vertices: NDArray[np.float64], faces: NDArray[np.int32], x: NDArray[np.float64], y: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Height of the uppermost triangle at the lattice `y × x` (both evenly spaced and ascending), `-inf` without one.

    Vertical triangles have no area from above and are ignored; triangles include their borders.

    >>> square = np.array([[0.0, 0, 3], [2, 0, 3], [2, 2, 5], [0, 2, 5]])
    >>> surface_height(square, np.array([[0, 1, 2], [0, 2, 3]], np.int32), np.array([1.0, 3.0]), np.array([0.0, 1.0]))
    array([[  3., -inf],
           [  4., -inf]])
    """
    heights = np.full((len(y), len(x)), -np.inf)
    if len(faces):
        spacing = (float(x[1] - x[0]) if len(x) > 1 else 1.0, float(y[1] - y[0]) if len(y) > 1 else 1.0)
        _raise_to(heights, np.ascontiguousarray(vertices), faces, float(x[0]), float(y[0]), *spacing)
    return heights


@numba.njit(cache=True)
def _raise_to(heights: Any, vertices: Any, faces: Any, x0: float, y0: float, dx: float, dy: float) -> None:
    ny, nx = heights.shape
    slack = 1e-9
    for face in faces:
        ax, ay, az = vertices[face[0]]
        bx, by, bz = vertices[face[1]]
        cx, cy, cz = vertices[face[2]]
        twice_area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if abs(twice_area) < 1e-9:
            continue
        first_x = max(int(np.ceil((min(ax, bx, cx) - x0) / dx - slack)), 0)
        last_x = min(int(np.floor((max(ax, bx, cx) - x0) / dx + slack)), nx - 1)
        first_y = max(int(np.ceil((min(ay, by, cy) - y0) / dy - slack)), 0)
        last_y = min(int(np.floor((max(ay, by, cy) - y0) / dy + slack)), ny - 1)
        for j in range(first_y, last_y + 1):
            py = y0 + j * dy
            for i in range(first_x, last_x + 1):
                px = x0 + i * dx
                wa = ((bx - px) * (cy - py) - (by - py) * (cx - px)) / twice_area
                wb = ((cx - px) * (ay - py) - (cy - py) * (ax - px)) / twice_area
                wc = 1.0 - wa - wb
                if wa >= -slack and wb >= -slack and wc >= -slack:
                    z = az + wb * (bz - az) + wc * (cz - az)  # exact on flat roofs
                    heights[j, i] = max(heights[j, i], z)
