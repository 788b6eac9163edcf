"""Paths reflected by walls: rays in plan from the transmitter, each in the middle of a wedge of directions.

A reflected path that is unfolded at its walls is a straight line to the receiver's height. A ray in plan represents
paths of many lengths. At each wall it is split: paths in an interval of lengths pass over the wall, and the others are
reflected.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from radiomaps.dominant.walls import first_wall

__all__ = ["mirror"]

#: Largest half-width of a ray's wedge in cells, so that only one ray contains the cell's centre.
_PART = 0.35
_STACK = 64
#: Distance (m) from its wall at which a reflected ray starts, so that it does not hit the wall again.
_CLEARANCE_M, _ANY = 1e-3, -1.0


@numba.njit(cache=True, nogil=True)
def _reflection(cosine: float, eta: complex, thickness: float) -> float:
    """Amplitude of the reflection of a vertically polarised wave by a vertical slab, by the cosine of incidence.

    ITU-R P.2040-3, equations 31 and 37 to 39; `eta` is the complex permittivity, the thickness is in wavelengths.
    """
    root = np.sqrt(eta - (1.0 - cosine * cosine))
    face = (cosine - root) / (cosine + root)
    back = np.exp(-4j * math.pi * thickness * root)
    return float(abs(face * (1.0 - back) / (1.0 - face * face * back)))


@numba.njit(cache=True, nogil=True, inline="always")
def _meet(top: float, distance: float, sz: float, height: float) -> tuple[float, float]:
    """Interval of lengths of the paths from height `sz` to `height` that are below `top` at `distance`."""
    if height <= sz:
        return 0.0, (np.inf if top >= sz else (sz - height) * distance / (sz - top))
    return (0.0 if top >= height else (height - sz) * distance / max(top - sz, 1e-9)), np.inf


@numba.njit(cache=True, nogil=True)
def mirror(walls: Any, source: Any, height: float, y: Any, x: Any, step: float, bounces: int, reach: float) -> Any:
    """Reflected paths to the cells of a plan at a height: apparent length, image (x, y) of the strongest, and power.

    The apparent length is the length over the amplitude after the reflections; inf where no path arrives within `reach`
    metres and `bounces`. The power is the sum of its inverse squares over all paths, in 1/m². Walls are vertical and
    extend to the ground.
    """
    sx, sy, sz = source
    shape = (len(y), len(x))
    apparent, power = np.full(shape, np.inf), np.zeros(shape)
    image_x, image_y = np.zeros(shape), np.zeros(shape)
    stack = np.empty((_STACK, 10))
    rays = 4 * math.ceil(math.pi * reach / (4 * _PART * step))  # the same directions after a quarter turn
    low = min(height, sz)
    for ray in range(rays):
        angle = 2.0 * math.pi * (ray + 0.5) / rays
        stack[0] = (sx, sy, math.cos(angle), math.sin(angle), 0.0, 1.0, _ANY, 0.0, 0.0, reach)
        waiting = 1
        while waiting:
            waiting -= 1
            px, py, ux, uy, length, amplitude, last, bounce, least, most = stack[waiting]
            rest = most - length
            t, wall = first_wall(walls, px, py, px + rest * ux, py + rest * uy, low, int(last))
            leg = rest * t
            if bounce > 0 and length + leg > least:
                part = (px, py, ux, uy, length, leg, amplitude, least, most)
                _mark(part, x, y, step, math.pi / rays, apparent, image_x, image_y, power)
            if wall < 0:
                continue
            ex, ey = walls.ends[wall, 2] - walls.ends[wall, 0], walls.ends[wall, 3] - walls.ends[wall, 1]
            size = math.hypot(ex, ey)
            nx, ny = ey / size, -ex / size
            cosine = ux * nx + uy * ny
            px, py, length = px + leg * ux, py + leg * uy, length + leg
            first, final = _meet(walls.top[wall], length, sz, height)
            # Paths longer than `final`, or shorter than `first`, pass above the wall.
            over_least, over_most = (max(least, final), most) if height <= sz else (least, min(most, first))
            if over_least < over_most and over_most > length and waiting < _STACK:
                stack[waiting] = (px, py, ux, uy, length, amplitude, float(wall), bounce, over_least, over_most)
                waiting += 1
            first, final = max(first, least), min(final, most)
            if cosine < 0.0 and bounce < bounces and first < final and final > length and waiting < _STACK:
                left = amplitude * _reflection(-cosine, walls.eta[wall], walls.thickness[wall])
                ux, uy = ux - 2.0 * cosine * nx, uy - 2.0 * cosine * ny
                at_x, at_y = px + _CLEARANCE_M * ux, py + _CLEARANCE_M * uy
                stack[waiting] = (at_x, at_y, ux, uy, length + _CLEARANCE_M, left, _ANY, bounce + 1.0, first, final)
                waiting += 1
    return apparent, image_x, image_y, power


@numba.njit(cache=True, nogil=True)
def _mark(
    part: Any, x: Any, y: Any, step: float, half: float, apparent: Any, image_x: Any, image_y: Any, power: Any
) -> None:
    """Add a leg of a path to the cells whose centres are in its wedge."""
    px, py, ux, uy, length, leg, amplitude, least, most = part
    ix, iy = px - length * ux, py - length * uy
    begin = max(0.0, least - length)
    last = (-1, -1)
    for k in range(int(begin / (0.5 * step)), int(leg / (0.5 * step)) + 2):
        i = round((px + 0.5 * step * k * ux - x[0]) / (x[1] - x[0])) if len(x) > 1 else 0
        j = round((py + 0.5 * step * k * uy - y[0]) / (y[1] - y[0])) if len(y) > 1 else 0
        if i < 0 or j < 0 or i >= len(x) or j >= len(y):
            continue
        cx, cy = x[i] - ix, y[j] - iy
        along, total = cx * ux + cy * uy, math.hypot(cx, cy)
        if along <= length or along > length + leg or total < least or total > most:
            continue
        if abs(cx * uy - cy * ux) <= total * half and (i, j) != last:
            last = (i, j)
            power[j, i] += (amplitude / total) ** 2
            if total / amplitude < apparent[j, i]:
                apparent[j, i], image_x[j, i], image_y[j, i] = total / amplitude, ix, iy
