"""Loss of diffracted paths over roofs and around corners: single and multiple knife edges."""

from __future__ import annotations

import math
from typing import Any

import numba

__all__ = ["fresnel_parameter", "knife_edge_loss_db", "over_the_top"]


@numba.njit(cache=True, nogil=True)
def knife_edge_loss_db(nu: float) -> float:
    """Loss behind a knife edge at Fresnel parameter `nu`, in dB (ITU-R P.526-15, equation 31); 0 below -0.78.

    >>> round(knife_edge_loss_db(0.0), 2), round(knife_edge_loss_db(2.4), 2)
    (6.03, 20.54)
    """
    if nu <= -0.78:
        return 0.0
    return 6.9 + 20.0 * math.log10(math.sqrt((nu - 0.1) ** 2 + 1.0) + nu - 0.1)


@numba.njit(cache=True, nogil=True)
def fresnel_parameter(detour_m: float, wavelength_m: float) -> float:
    """ν of an edge that lengthens the path by `detour_m`: 2 √(Δ/λ) (ITU-R P.526-15, equation 27)."""
    return 2.0 * math.sqrt(max(detour_m, 0.0) / wavelength_m)


@numba.njit(cache=True, nogil=True)
def over_the_top(
    distance: Any, height: Any, count: int, z0: float, reach: float, z1: float, wavelength_m: float, several: bool
) -> tuple[float, float, float, int]:
    """Length, loss (dB), slope at the receiver and number of edges of the shortest path over edges between two ends.

    Edges at `distance[:count]` (ascending, between 0 and `reach`) and `height[:count]`; the ends are at (0, z0) and
    (reach, z1). The loss is that of Bullington's equivalent edge, where the horizon lines of both ends meet. With
    `several`, it is the larger of this and the sum over the path's edges (Epstein and Peterson): the first is accurate
    for edges close together, the second for edges far from each other.
    """
    here, z, length, sum_db, before_d, before_z = 0.0, z0, 0.0, 0.0, 0.0, z0
    index, edges, slope_t = -1, 0, 0.0
    while True:
        best, follow = (z1 - z) / max(reach - here, 1e-9), count
        for k in range(index + 1, count):
            if distance[k] > here + 1e-9:
                slope = (height[k] - z) / (distance[k] - here)
                if slope > best:
                    best, follow = slope, k
        next_d, next_z = (reach, z1) if follow == count else (distance[follow], height[follow])
        if index >= 0:
            straight = math.hypot(next_d - before_d, next_z - before_z)
            detour = math.hypot(here - before_d, z - before_z) + math.hypot(next_d - here, next_z - z) - straight
            sum_db += knife_edge_loss_db(fresnel_parameter(detour, wavelength_m))
        else:
            slope_t = best
        length += math.hypot(next_d - here, next_z - z)
        if follow == count:
            break
        before_d, before_z, here, z, index = here, z, next_d, next_z, follow
        edges += 1
    if index < 0:
        return length, 0.0, (z0 - z1) / reach, 0
    slope_r = (z - z1) / max(reach - here, 1e-9)
    meet = (z1 - z0 + slope_r * reach) / (slope_t + slope_r)
    top = z0 + slope_t * meet
    detour = math.hypot(meet, top - z0) + math.hypot(reach - meet, top - z1) - math.hypot(reach, z1 - z0)
    single_db = knife_edge_loss_db(fresnel_parameter(detour, wavelength_m))
    return length, max(single_db, sum_db) if several else single_db, slope_r, edges
