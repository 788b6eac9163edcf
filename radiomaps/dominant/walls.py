"""Walls of prisms in spatial bins, so that the walls that a line crosses are found without testing the others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numba
import numpy as np
import shapely
from numpy.typing import NDArray

from radiomaps.scenes import Footprint

__all__ = ["Walls", "blocked_in_plan", "convex_corners", "crossings", "first_wall", "walls_of"]

#: Corners are moved out of their building by this distance (m), so that lines through them do not cross its walls.
_CLEARANCE_M = 0.02


class Walls(NamedTuple):
    """`ends` (m, 4) as x0, y0, x1, y1; `base` and `top` (m,); bins of `size` metres from `origin`, `shape` (ny, nx).

    The walls of bin `b` are `members[first[b]:first[b + 1]]`. `eta` (complex permittivity) and `thickness` (m,)
    determine their reflection.
    """

    ends: NDArray[np.float64]
    base: NDArray[np.float64]
    top: NDArray[np.float64]
    origin: tuple[float, float]
    size: float
    shape: tuple[int, int]
    first: NDArray[np.int64]
    members: NDArray[np.int64]
    eta: NDArray[np.complex128]
    thickness: NDArray[np.float64]


def walls_of(
    footprints: Sequence[Footprint],
    *,
    surfaces: Mapping[str, tuple[complex, float]] | None = None,
    bin_m: float = 16.0,
) -> Walls:
    """The walls of all footprints, including courtyards; the building is on the left of each.

    `surfaces`: complex permittivity and thickness in wavelengths of each reflecting material.
    """
    ends, base, top = [np.empty((0, 4))], [np.empty(0)], [np.empty(0)]
    eta, thickness = [np.empty(0, np.complex128)], [np.empty(0)]
    for footprint in footprints:
        polygon = shapely.orient_polygons(footprint.polygon)
        for ring in (polygon.exterior, *polygon.interiors):
            points = np.asarray(ring.coords)[:, :2]
            ends.append(np.hstack([points[:-1], points[1:]]))
            base.append(np.full(len(points) - 1, footprint.base_m))
            top.append(np.full(len(points) - 1, footprint.top_m))
            found = (surfaces or {}).get(footprint.material, (1.0, 1.0))
            eta.append(np.full(len(points) - 1, found[0], np.complex128))
            thickness.append(np.full(len(points) - 1, found[1]))
    all_ends = np.concatenate(ends)
    low = all_ends.reshape(-1, 2).min(axis=0) - 1.0 if len(all_ends) else np.zeros(2)
    high = all_ends.reshape(-1, 2).max(axis=0) + 1.0 if len(all_ends) else np.ones(2)
    nx, ny = (int(np.ceil(extent / bin_m)) for extent in high - low)
    bins: list[list[int]] = [[] for _ in range(nx * ny)]
    for index, (x0, y0, x1, y1) in enumerate(all_ends):
        columns = range(int((min(x0, x1) - low[0]) // bin_m), int((max(x0, x1) - low[0]) // bin_m) + 1)
        rows = range(int((min(y0, y1) - low[1]) // bin_m), int((max(y0, y1) - low[1]) // bin_m) + 1)
        for j in rows:
            for i in columns:
                bins[j * nx + i].append(index)
    first = np.cumsum([0, *(len(members) for members in bins)]).astype(np.int64)
    members = np.array([index for members in bins for index in members], dtype=np.int64)
    origin = (float(low[0]), float(low[1]))
    return Walls(
        all_ends, np.concatenate(base), np.concatenate(top), origin, bin_m, (ny, nx), first, members,
        np.concatenate(eta), np.concatenate(thickness),
    )  # fmt: skip


def convex_corners(footprints: Sequence[Footprint]) -> NDArray[np.float64]:
    """Convex corners, at which waves diffract, slightly outside their buildings: (n, 8).

    Columns: x, y, base, top, and the unit vectors (x, y) along both walls, away from the corner.
    """
    corners: list[tuple[float, ...]] = []
    for footprint in footprints:
        polygon = shapely.orient_polygons(footprint.polygon)
        for ring in (polygon.exterior, *polygon.interiors):
            points = np.asarray(ring.coords)[:-1, :2]
            before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
            before /= np.linalg.norm(before, axis=1, keepdims=True)
            after /= np.linalg.norm(after, axis=1, keepdims=True)
            turn = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
            outward = before - after
            bent = turn > 0.02
            for point, direction, one, two in zip(points[bent], outward[bent], -before[bent], after[bent], strict=True):
                x, y = point + _CLEARANCE_M * direction / np.linalg.norm(direction)
                corners.append((float(x), float(y), footprint.base_m, footprint.top_m, *one.tolist(), *two.tolist()))
    return np.array(corners).reshape(-1, 8)


@numba.njit(cache=True, nogil=True)
def crossings(walls: Any, px: float, py: float, qx: float, qy: float, at: Any, which: Any) -> int:
    """Find where the line from p to q crosses walls; returns the number of crossings.

    Fractions of the distance are written to `at`, ascending, and indices of walls to `which`.
    """
    found = 0
    for t0, t1, bin_index in _bins_along(walls, px, py, qx, qy):
        begin = found
        for k in range(walls.first[bin_index], walls.first[bin_index + 1]):
            wall = walls.members[k]
            t = _crossing(walls.ends[wall], px, py, qx, qy)
            if t0 <= t < t1 and found < len(at):
                place = found
                while place > begin and at[place - 1] > t:
                    at[place], which[place] = at[place - 1], which[place - 1]
                    place -= 1
                at[place], which[place] = t, wall
                found += 1
    return found


@numba.njit(cache=True, nogil=True)
def blocked_in_plan(walls: Any, px: float, py: float, qx: float, qy: float, height: float) -> bool:
    """Return True if a wall with its top above `height` crosses the line from p to q."""
    for t0, t1, bin_index in _bins_along(walls, px, py, qx, qy):
        for k in range(walls.first[bin_index], walls.first[bin_index + 1]):
            wall = walls.members[k]
            if walls.top[wall] > height and t0 <= _crossing(walls.ends[wall], px, py, qx, qy) < t1:
                return True
    return False


@numba.njit(cache=True, nogil=True)
def first_wall(walls: Any, px: float, py: float, qx: float, qy: float, height: float, last: int) -> tuple[float, int]:
    """Find the first wall between p and q with its top above `height`.

    Returns its fraction of the distance from p to q, and its index; 1 and -1 if there is none. Walls through p are
    ignored up to index `last`, so that coincident walls are found one after the other.
    """
    near = 1e-6 / max(math.hypot(qx - px, qy - py), 1e-6)
    for t0, t1, bin_index in _bins_along(walls, px, py, qx, qy):
        least, found = t1, -1
        for k in range(walls.first[bin_index], walls.first[bin_index + 1]):
            wall = walls.members[k]
            if walls.top[wall] > height:
                t = _crossing(walls.ends[wall], px, py, qx, qy)
                if t0 <= t < least - 1e-12 and (t > near or wall > last):
                    least, found = t, wall
        if found >= 0:
            return least, found
    return 1.0, -1


@numba.njit(cache=True, nogil=True)
def _crossing(wall: Any, px: float, py: float, qx: float, qy: float) -> float:
    """Fraction of the distance from p to q at which the line crosses the wall, or -1."""
    dx, dy = qx - px, qy - py
    ex, ey = wall[2] - wall[0], wall[3] - wall[1]
    cross = dx * ey - dy * ex
    if cross == 0.0:
        return -1.0
    wx, wy = wall[0] - px, wall[1] - py
    along = (wx * dy - wy * dx) / cross
    if along < 0.0 or along >= 1.0:
        return -1.0
    t = (wx * ey - wy * ex) / cross
    return t if 0.0 <= t <= 1.0 else -1.0


@numba.njit(nogil=True)  # a generator from Numba's cache cannot be compiled into another function
def _bins_along(walls: Any, px: float, py: float, qx: float, qy: float) -> Any:
    """Bins along the line, in order, with the half-open interval of fractions in each."""
    ny, nx = walls.shape
    size = walls.size
    ux, uy = (px - walls.origin[0]) / size, (py - walls.origin[1]) / size
    dx, dy = (qx - px) / size, (qy - py) / size
    enter, leave = 0.0, 1.0
    for u, d, n in ((ux, dx, nx), (uy, dy, ny)):
        if d == 0.0:
            if u < 0 or u >= n:
                return
        else:
            a, b = (0.0 - u) / d, (n - u) / d
            enter, leave = max(enter, min(a, b)), min(leave, max(a, b))
    if enter >= leave:
        return
    i = min(max(int(np.floor(ux + enter * dx)), 0), nx - 1)
    j = min(max(int(np.floor(uy + enter * dy)), 0), ny - 1)
    t = enter
    while True:
        tx = ((i + (1 if dx > 0 else 0)) - ux) / dx if dx != 0.0 else np.inf
        ty = ((j + (1 if dy > 0 else 0)) - uy) / dy if dy != 0.0 else np.inf
        nearest = max(min(tx, ty), t)
        last = nearest >= leave
        yield t, (2.0 if last else nearest), j * nx + i
        if last:
            return
        t = nearest
        if tx <= ty:
            i += 1 if dx > 0 else -1
        else:
            j += 1 if dy > 0 else -1
        if i < 0 or j < 0 or i >= nx or j >= ny:
            return
