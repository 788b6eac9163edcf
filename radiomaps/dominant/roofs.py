"""Paths in the vertical plane through transmitter and voxel: straight, through walls, or over roofs and hills."""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from radiomaps.dominant.knife_edges import over_the_top
from radiomaps.dominant.walls import crossings

__all__ = ["NO_PATH_DB", "straight_and_over"]

_MOST_CROSSINGS = 4096
#: Loss (dB) of a path over more edges than allowed: any other path is stronger.
NO_PATH_DB = 300.0


@numba.njit(cache=True, nogil=True)
def straight_and_over(
    walls: Any, source: Any, z: Any, y: Any, x: Any, building: Any, ground: Any, rise: Any, level: bool,
    several: bool, wall_loss_db: float, wavelength: float, most: int,
) -> Any:  # fmt: skip
    """Length, loss, direction, line of sight and hills of straight paths, or, if blocked, of paths over the roofs.

    All per voxel. Paths over more than `most` edges have a loss of `NO_PATH_DB`, if `most` is not 0. Heights are
    relative to `rise`. A voxel is behind a hill if the ground alone hides it.
    """
    shape = building.shape
    length, loss = np.ones(shape), np.zeros(shape)
    towards, los, hill = np.zeros((*shape, 3)), np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    at, which = np.empty(_MOST_CROSSINGS), np.empty(_MOST_CROSSINGS, np.int64)
    distance, height = np.empty(2 * _MOST_CROSSINGS), np.empty(2 * _MOST_CROSSINGS)
    sx, sy, sz = source
    for j in range(shape[1]):
        for i in range(shape[2]):
            dx, dy = sx - x[i], sy - y[j]
            reach = max(math.hypot(dx, dy), 1e-6)
            count = crossings(walls, sx, sy, x[i], y[j], at, which)
            tops = 0
            for k in range(count):
                distance[k], height[k] = at[k] * reach, walls.top[which[k]]
            tops = count
            if not level:
                tops = _add_ground(distance, height, count, ground, source, x, y, i, j, reach)
                for layer in range(shape[0]):
                    dz = sz - z[layer] - rise[j, i]
                    for k in range(count, tops):
                        hill[layer, j, i] |= sz - distance[k] / reach * dz < height[k]
                order = np.argsort(distance[:tops])
                distance[:tops], height[:tops] = distance[:tops][order], height[:tops][order]
            for layer in range(shape[0]):
                if building[layer, j, i]:
                    continue
                here_z = z[layer] + rise[j, i]
                dz = sz - here_z
                through = 0
                for k in range(count):
                    here = sz - at[k] * dz
                    through += walls.base[which[k]] < here < walls.top[which[k]]
                hidden = through > 0
                for k in range(tops if not level else 0):
                    hidden |= sz - distance[k] / reach * dz < height[k]
                straight = math.sqrt(reach * reach + dz * dz)
                towards[layer, j, i] = (dx, dy, dz)
                length[layer, j, i] = max(straight, wavelength)
                if not hidden:
                    los[layer, j, i] = True
                    continue
                over, over_db, slope, edges = over_the_top(
                    distance, height, tops, sz, reach, here_z, wavelength, several
                )
                if 0 < most < edges:
                    over_db = NO_PATH_DB
                if wall_loss_db > 0 and through > 0:
                    through_db = wall_loss_db * through
                    if through_db + 20 * math.log10(straight) < over_db + 20 * math.log10(over):
                        loss[layer, j, i] = through_db
                        continue
                length[layer, j, i], loss[layer, j, i] = over, over_db
                towards[layer, j, i, 2] = slope * reach
    return length, loss, towards, los, hill


@numba.njit(cache=True, nogil=True)
def _add_ground(
    distance: Any, height: Any, count: int, ground: Any, source: Any, x: Any, y: Any, i: int, j: int, reach: float
) -> int:
    """Append points of the ground under the line, one per cell, to the edges of the roofs."""
    step = abs(x[1] - x[0]) if len(x) > 1 else 1.0
    points = min(int(reach / step), len(distance) - count - 1)
    total = count
    for k in range(1, points):
        t = k / points
        px, py = source[0] + t * (x[i] - source[0]), source[1] + t * (y[j] - source[1])
        column = round((px - x[0]) / step)
        row = round((py - y[0]) / (y[1] - y[0])) if len(y) > 1 else 0
        if 0 <= column < ground.shape[1] and 0 <= row < ground.shape[0]:
            distance[total], height[total] = t * reach, ground[row, column]
            total += 1
    return total
