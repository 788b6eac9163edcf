"""Exact line of sight: one shadow ray per voxel, and eight more at shadow boundaries."""

from __future__ import annotations

from dataclasses import dataclass

import drjit as dr
import mitsuba as mi
import numpy as np
from numpy.typing import NDArray

from radiomaps.raytrace.arrays import integers
from radiomaps.raytrace.voxels import Voxels
from radiomaps.raytrace.world import Source, World

__all__ = ["Sight", "line_of_sight", "no_sight"]

_CHUNK = 1 << 22


@dataclass(frozen=True)
class Sight:
    """Per voxel in C order: whether its centre is in sight, the fraction in sight, and |a|² (4π/λ)² in free space."""

    seen: NDArray[np.bool_]
    fraction: NDArray[np.float32]
    gain: NDArray[np.float32]


def line_of_sight(world: World, voxels: Voxels, source: Source) -> Sight:
    """Shadow rays from the transmitter to voxels.

    A voxel whose state differs from a neighbour's is tested at eight points half-way to its corners; its fraction is
    the share of these in sight. The distance is at least one wavelength, below which there is no far field.
    """
    seen = np.empty(voxels.size, bool)
    gain = np.empty(voxels.size, np.float32)
    for begin in range(0, voxels.size, _CHUNK):
        count = min(_CHUNK, voxels.size - begin)
        cell = dr.arange(mi.UInt, count) + dr.opaque(mi.UInt, begin)
        centre = voxels.centres(cell)
        lit = _lit(world, source, centre)
        away = centre - source.point()
        distance = dr.maximum(dr.norm(away), dr.opaque(mi.Float, world.wavelength_m))
        # For a transmitter exactly at a centre any direction is valid: use one that can be normalised.
        somewhere = dr.select(dr.squared_norm(away) > 1e-8, away, mi.Vector3f(1.0, 0.0, 0.0))
        power = dr.squared_norm(source.field(dr.normalize(somewhere))) * dr.rcp(dr.square(distance))
        dr.eval(lit, power)
        seen[begin : begin + count] = lit.numpy()
        gain[begin : begin + count] = power.numpy()
    fraction = seen.astype(np.float32)
    border = np.flatnonzero(_borders(seen.reshape(voxels.shape)))
    if len(border):
        cell = integers(border)
        part = np.zeros(len(border), np.float32)
        for corner in np.ndindex(2, 2, 2):
            shift = voxels.step * mi.Vector3f(*((side - 0.5) / 2 for side in corner))
            part += _lit(world, source, voxels.centres(cell) + shift).numpy()
        fraction[border] = part / 8
    return Sight(seen, fraction, gain)


def no_sight(world: World, voxels: Voxels, source: Source) -> Sight:
    """No voxel in sight: for traces without line of sight."""
    nothing = np.zeros(voxels.size, np.float32)
    return Sight(nothing.astype(bool), nothing, nothing)


def _lit(world: World, source: Source, target: mi.Point3f) -> mi.Bool:
    """Whether the segments between the transmitter and the points are unobstructed."""
    away = target - source.point()
    distance = dr.norm(away)
    width = dr.width(target)
    ray = mi.Ray3f(o=dr.repeat(source.point(), width), d=away * dr.rcp(dr.maximum(distance, 1e-6)))
    ray.maxt = distance - dr.minimum(1e-5 * distance, 0.01 + 1e-6 * distance)
    ray.time = dr.zeros(mi.Float, width)
    return ~world.mi_scene.ray_test(ray, coherent=True, active=distance > 1e-3)


def _borders(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Cells that differ from one of their six neighbours."""
    border = np.zeros_like(mask)
    for axis in range(mask.ndim):
        ahead = [slice(None)] * mask.ndim
        behind = [slice(None)] * mask.ndim
        ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
        differs = mask[tuple(ahead)] != mask[tuple(behind)]
        border[tuple(ahead)] |= differs
        border[tuple(behind)] |= differs
    return border
