"""Paths along streets: reflected by walls or around corners, where they are stronger than those over the roofs."""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from radiomaps.dominant.corners import best_corner, reach_corners
from radiomaps.dominant.mirrors import mirror
from radiomaps.dominant.walls import Walls

__all__ = ["CORNER_M", "along_streets"]

#: Layers within this height (m) above the ground share their paths in plan.
_BAND_M = 5.0
#: Length in q₉₀ = √(CORNER_M / λ), fitted to traced streets by `python benchmarks/dominant.py --fit`. Berg's measured
#: value of 0.031 m includes reflected paths, which are computed separately here. The exponent is Berg's.
CORNER_M = 3.0
_POWER = 1.5


def right_angle(wavelength_m: float) -> float:
    """q of a turn by 90° in Berg's model, in 1/m; it is proportional to the square root of the frequency."""
    return math.sqrt(CORNER_M / wavelength_m)


def along_streets(
    walls: Walls, corners: NDArray[np.float64], source: tuple[float, float, float], heights: NDArray[np.float64],
    z: NDArray[np.float64], y: NDArray[np.float64], x: NDArray[np.float64], fields: tuple[NDArray[Any], ...], *,
    drop: float, open_air: NDArray[np.bool_], turns: int, bounces: int, wavelength_m: float,
) -> None:  # fmt: skip
    """Replace length, loss and direction in `fields` where a path along streets is stronger.

    Heights of walls, corners, `source` and `heights` (z, y, x) of the voxels are above the ground. `z` are the heights
    of the voxels in the scene, `drop` is the additional height of the transmitter there. `open_air` is the mask of
    voxels to compute.
    """
    right = right_angle(wavelength_m)
    bands = np.where(open_air, np.floor(heights / _BAND_M), np.nan)
    spans = [np.ptp([*axis[[0, -1]], own]) + 120.0 for axis, own in ((x, source[0]), (y, source[1]))]
    reach = 1.5 * float(np.hypot(*spans))
    step = float(min(abs(axis[1] - axis[0]) if len(axis) > 1 else np.inf for axis in (x, y)))
    for band in np.unique(bands[open_air]):
        here = bands == band
        height = float(heights[here].mean())
        images = mirror(walls, source, height, y, x, step if np.isfinite(step) else 1.0, bounces, reach)
        low = min(float(band) * _BAND_M, source[2])
        ways = reach_corners(walls, corners, source[0], source[1], low, right, _POWER, turns)
        _replace(walls, corners, ways, images, source, heights, z, y, x, here, low, right, drop, fields)


@numba.njit(cache=True, nogil=True)
def _replace(
    walls: Any, corners: Any, ways: Any, images: Any, source: Any, heights: Any, z: Any, y: Any, x: Any, here: Any,
    low: float, right: float, drop: float, fields: Any,
) -> None:  # fmt: skip
    """Compare paths by their apparent length, the free-space distance with the same loss."""
    length, loss, towards = fields
    apparent, image_x, image_y, power = images
    for j in range(len(y)):
        for i in range(len(x)):
            limit = 0.0
            for layer in range(len(heights)):
                if here[layer, j, i]:
                    limit = max(limit, length[layer, j, i] * 10.0 ** (loss[layer, j, i] / 20.0))
            if limit == 0.0:
                continue
            row, plan, bent = best_corner(walls, corners, ways, x[i], y[j], low, right, _POWER, limit)
            mirrored = math.hypot(image_x[j, i] - x[i], image_y[j, i] - y[j])
            for layer in range(len(heights)):
                if not here[layer, j, i]:
                    continue
                rise = z[layer, j, i]
                dz = source[2] + drop - rise
                best = length[layer, j, i] * 10.0 ** (loss[layer, j, i] / 20.0)
                if apparent[j, i] < np.inf:
                    total = math.sqrt(mirrored * mirrored + dz * dz)
                    # The powers of all reflected paths add up, limited by the power of free space.
                    free = math.sqrt((source[0] - x[i]) ** 2 + (source[1] - y[j]) ** 2 + dz * dz)
                    summed = max(total / mirrored / math.sqrt(power[j, i]), free)
                    if summed < best:
                        best = summed
                        length[layer, j, i], loss[layer, j, i] = total, 20.0 * math.log10(best / total)
                        towards[layer, j, i] = (image_x[j, i] - x[i], image_y[j, i] - y[j], dz)
                if row < 0 or math.hypot(bent, dz) >= best:
                    continue
                corner = corners[int(ways[row, 0])]
                leg = math.hypot(corner[0] - x[i], corner[1] - y[j])
                bend = heights[layer, j, i] + (source[2] - heights[layer, j, i]) * leg / plan
                if corner[2] <= bend <= corner[3]:
                    total = math.hypot(plan, dz)
                    length[layer, j, i], loss[layer, j, i] = total, 20.0 * math.log10(math.hypot(bent, dz) / total)
                    towards[layer, j, i] = (corner[0] - x[i], corner[1] - y[j], dz * leg / plan)
