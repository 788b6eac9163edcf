"""Version 1 of the corner model: successive ITU-R P.526 knife edges in plan, without reflections.

It is 20 to 50 dB too low in streets. Only networks that were trained with it as their prior need it.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from radiomaps.dominant.knife_edges import fresnel_parameter, knife_edge_loss_db
from radiomaps.dominant.walls import blocked_in_plan

__all__ = ["around_knife_edges"]

#: Layers within this height (m) share their paths around corners, computed at the lower end.
_BAND_M = 5.0


def around_knife_edges(
    walls: Any, corners: NDArray[np.float64], source: tuple[float, float, float], z: Any, y: Any, x: Any,
    fields: tuple[Any, ...], turns: int, wavelength: float,
) -> None:  # fmt: skip
    """Replace length, loss and direction in `fields` where a path around corners is stronger."""
    x0, y0, z0 = source
    building, los, length, loss, towards = fields
    heights = np.minimum(np.floor(z / _BAND_M) * _BAND_M, z0)
    for height in np.unique(heights):
        ways = _reach_corners(walls, corners, x0, y0, float(height), wavelength, turns)
        layers = np.flatnonzero(heights == height)
        _around(walls, corners, ways, source, z, y, x, layers, height, building, los, length, loss, towards, wavelength)


@numba.njit(cache=True, nogil=True)
def _reach_corners(walls: Any, corners: Any, x: float, y: float, height: float, wavelength_m: float, turns: int) -> Any:
    """Paths from (x, y) to corners in plan, past walls above `height`: rows of

    corner, x and y of the point before it, length to it, loss at the corners before it in dB, best first. A corner is
    reached with the fewest turns, and among those by the best path; a further turn starts from the best 64 of the last.
    """
    reached = np.zeros(len(corners), np.bool_)
    found = np.empty((len(corners) * turns, 5))
    count = 0
    for k in range(len(corners)):
        cx, cy, top = corners[k, 0], corners[k, 1], corners[k, 3]
        if top > height and not blocked_in_plan(walls, x, y, cx, cy, height):
            found[count] = (float(k), x, y, math.hypot(cx - x, cy - y), 0.0)
            reached[k] = True
            count += 1
    begin = 0
    for _ in range(1, turns):
        end = count
        starts = found[begin:end][np.argsort(20 * np.log10(found[begin:end, 3] + 1e-9) + found[begin:end, 4])][:64]
        for k in range(len(corners)):
            cx, cy, top = corners[k, 0], corners[k, 1], corners[k, 3]
            if top <= height or reached[k]:
                continue
            best = np.inf
            for way in starts:
                fx, fy = corners[int(way[0]), 0], corners[int(way[0]), 1]
                leg = math.hypot(cx - fx, cy - fy)
                if leg < 0.1:
                    continue
                detour = math.hypot(fx - way[1], fy - way[2]) + leg - math.hypot(cx - way[1], cy - way[2])
                loss = way[4] + knife_edge_loss_db(fresnel_parameter(detour, wavelength_m))
                cost = loss + 20 * math.log10(way[3] + leg)
                if cost < best and not blocked_in_plan(walls, fx, fy, cx, cy, height):
                    best = cost
                    found[count] = (float(k), fx, fy, way[3] + leg, loss)
            if best < np.inf:
                reached[k] = True
                count += 1
        begin = end
    ways = found[:count]
    return ways[np.argsort(20 * np.log10(ways[:, 3] + 1e-9) + ways[:, 4])]


@numba.njit(cache=True, nogil=True)
def _best_corner(
    walls: Any,
    corners: Any,
    ways: Any,
    x: float,
    y: float,
    sx: float,
    sy: float,
    height: float,
    wavelength_m: float,
    limit_db: float,
) -> tuple[int, float, float]:
    """Find the path from source (sx, sy) to (x, y) with the smallest loss.

    Returns its row in `ways`, its length in metres and its loss in dB. The row is -1 if no path has a sum of loss and
    20 log10 of the length below `limit_db`. The loss is the sum over the corners, and at least the loss of one edge
    with the same detour.
    """
    best, row, best_length, best_loss = limit_db, -1, 0.0, 0.0
    direct = math.hypot(x - sx, y - sy)
    for w in range(len(ways)):
        way = ways[w]
        if 20 * math.log10(way[3] + 1e-9) + way[4] >= best:
            break
        cx, cy = corners[int(way[0]), 0], corners[int(way[0]), 1]
        leg = math.hypot(x - cx, y - cy)
        length = way[3] + leg
        if 20 * math.log10(length) + way[4] >= best or leg < 1e-6:
            continue
        detour = math.hypot(cx - way[1], cy - way[2]) + leg - math.hypot(x - way[1], y - way[2])
        loss = way[4] + knife_edge_loss_db(fresnel_parameter(detour, wavelength_m))
        loss = max(loss, knife_edge_loss_db(fresnel_parameter(length - direct, wavelength_m)))
        cost = 20 * math.log10(length) + loss
        if cost < best and not blocked_in_plan(walls, cx, cy, x, y, height):
            best, row, best_length, best_loss = cost, w, length, loss
    return row, best_length, best_loss


@numba.njit(cache=True, nogil=True)
def _around(
    walls: Any, corners: Any, ways: Any, source: Any, z: Any, y: Any, x: Any, layers: Any, height: float, building: Any,
    los: Any, length: Any, loss: Any, towards: Any, wavelength: float,
) -> None:  # fmt: skip
    """Replace values where paths around corners are stronger; layers share the path in plan and differ in its slope."""
    sx, sy, sz = source
    for j in range(len(y)):
        for i in range(len(x)):
            limit = -np.inf
            for layer in layers:
                if not (building[layer, j, i] or los[layer, j, i]):
                    limit = max(limit, 20 * math.log10(length[layer, j, i]) + loss[layer, j, i])
            if limit == -np.inf:
                continue
            row, plan, corner_db = _best_corner(walls, corners, ways, x[i], y[j], sx, sy, height, wavelength, limit)
            if row < 0:
                continue
            corner = corners[int(ways[row, 0])]
            cx, cy, base, top = corner[0], corner[1], corner[2], corner[3]
            leg = math.hypot(cx - x[i], cy - y[j])
            for layer in layers:
                if building[layer, j, i] or los[layer, j, i]:
                    continue
                dz = sz - z[layer]
                bend = z[layer] + dz * leg / plan
                total = math.sqrt(plan * plan + dz * dz)
                cost = 20 * math.log10(total) + corner_db
                if base <= bend <= top and cost < 20 * math.log10(length[layer, j, i]) + loss[layer, j, i]:
                    length[layer, j, i], loss[layer, j, i] = total, corner_db
                    towards[layer, j, i] = (cx - x[i], cy - y[j], bend - z[layer])
