"""Paths around vertical edges: the corners that the transmitter reaches, and the best corner for each column.

The loss of a path along streets follows Berg, "A recursive method for street microcell path loss calculations", PIMRC
1995, pp. 140-143. With legs s₁ … sₙ and turns θ₁ … θₙ₋₁ between them, k₁ = 1, d₁ = s₁ and

    kⱼ₊₁ = kⱼ + q(θⱼ) dⱼ,    dⱼ₊₁ = dⱼ + kⱼ₊₁ sⱼ₊₁,    q(θ) = q₉₀ (θ / 90°)^ν

give an apparent length dₙ, at least the length of the path, and the loss is that of free space over dₙ. The recursion
is a product of shears in s and q, so that the loss is reciprocal.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from radiomaps.dominant.walls import blocked_in_plan

__all__ = ["best_corner", "reach_corners"]

#: Paths of a larger apparent length (m) are ignored.
_FARTHEST_M = 1e7


@numba.njit(cache=True, nogil=True, inline="always")
def _wraps(corner: Any, ux: float, uy: float, vx: float, vy: float) -> bool:
    """Whether a path that arrives along u and leaves along v bends around the corner."""
    one, two = ux * corner[5] - uy * corner[4], ux * corner[7] - uy * corner[6]
    side = one + two
    if one * two < -1e-6 or (ux * vy - uy * vx) * side < 0.0:
        return False
    return (vx * corner[5] - vy * corner[4]) * (vx * corner[7] - vy * corner[6]) >= -1e-6


@numba.njit(cache=True, nogil=True, inline="always")
def _bend(ux: float, uy: float, vx: float, vy: float, right: float, power: float) -> float:
    """Berg's coefficient q (1/m) of a turn from direction u to v, both unit vectors."""
    angle = math.atan2(abs(ux * vy - uy * vx), ux * vx + uy * vy)
    return right * (angle / (0.5 * math.pi)) ** power


@numba.njit(cache=True, nogil=True)
def reach_corners(
    walls: Any, corners: Any, x: float, y: float, height: float, right: float, power: float, turns: int
) -> Any:
    """Paths from (x, y) to corners in plan, past walls above `height`, sorted by apparent length: rows of

    corner, direction of arrival at it (x, y), length, apparent length d and its slope k. For each corner and number of
    turns, the path of the smallest d is kept if it is shorter than with fewer turns.
    """
    number = len(corners)
    least = np.full(number, _FARTHEST_M)
    found = np.empty((number * max(turns, 1), 6))
    count = 0
    for k in range(number):
        cx, cy, top = corners[k, 0], corners[k, 1], corners[k, 3]
        leg = math.hypot(cx - x, cy - y)
        if top > height and leg > 1e-6 and not blocked_in_plan(walls, x, y, cx, cy, height):
            found[count] = (float(k), (cx - x) / leg, (cy - y) / leg, leg, leg, 1.0)
            least[k] = leg
            count += 1
    begin = 0
    row = np.empty(number, np.int64)
    for _ in range(1, turns):
        end = count
        row[:] = -1
        for w in begin + np.argsort(found[begin:end, 4]):
            start = int(found[w, 0])
            fx, fy, d, ux, uy = corners[start, 0], corners[start, 1], found[w, 4], found[w, 1], found[w, 2]
            for k in range(number):
                cx, cy = corners[k, 0], corners[k, 1]
                leg = math.hypot(cx - fx, cy - fy)
                if corners[k, 3] <= height or leg < 1e-3 or d + leg * found[w, 5] >= least[k]:
                    continue
                vx, vy = (cx - fx) / leg, (cy - fy) / leg
                if not _wraps(corners[start], ux, uy, vx, vy):
                    continue
                slope = found[w, 5] + d * _bend(ux, uy, vx, vy, right, power)
                if d + slope * leg >= least[k] or blocked_in_plan(walls, fx, fy, cx, cy, height):
                    continue
                least[k] = d + slope * leg
                if row[k] < 0:
                    row[k] = count
                    count += 1
                found[row[k]] = (float(k), vx, vy, found[w, 3] + leg, least[k], slope)
        begin = end
        if count == end:
            break
    ways = found[:count]
    return ways[np.argsort(ways[:, 4])]


@numba.njit(cache=True, nogil=True)
def best_corner(
    walls: Any, corners: Any, ways: Any, x: float, y: float, height: float, right: float, power: float, limit: float
) -> tuple[int, float, float]:
    """Find the path to (x, y) with the smallest apparent length (metres, with the losses at corners as further length).

    Returns the row of its last corner in `ways`, its length and its apparent length; row -1 if no apparent length is
    below `limit`.
    """
    best, row, length = limit, -1, 0.0
    for w in range(len(ways)):
        way = ways[w]
        if way[4] >= best:
            break
        corner = corners[int(way[0])]
        leg = math.hypot(x - corner[0], y - corner[1])
        if way[4] + way[5] * leg >= best or leg < 1e-6:
            continue
        vx, vy = (x - corner[0]) / leg, (y - corner[1]) / leg
        if not _wraps(corner, way[1], way[2], vx, vy):
            continue
        apparent = way[4] + leg * (way[5] + way[4] * _bend(way[1], way[2], vx, vy, right, power))
        if apparent < best and not blocked_in_plan(walls, corner[0], corner[1], x, y, height):
            best, row, length = apparent, w, way[3] + leg
    return row, length, best
