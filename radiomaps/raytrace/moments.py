"""Accumulators of rays in voxels: sums of moments, the first arrival, the strongest path."""

from __future__ import annotations

from dataclasses import dataclass

import drjit as dr
import mitsuba as mi
import numpy as np
from numpy.typing import NDArray

from radiomaps.raytrace.arrays import integers
from radiomaps.raytrace.path_slots import highest
from radiomaps.raytrace.voxels import Crossing, Voxels

__all__ = ["ENOUGH", "Rays", "Sums"]

#: Rays of one beam that a voxel needs; denser beams are counted on fewer planes.
ENOUGH = 8
#: Columns of `Sums.moments`, padded to one packet: Σw, Σw·(direction of arrival), Σw·e, Σw·e² (e: excess length in
#: metres over the straight distance).
_COLUMNS = 8


@dataclass
class Rays:
    """Rays on a segment: `power` |E|² dΩ, their image `source`, and the length `offset` in metres before it.

    `strength` is |a|² (4π/λ)² of their path at one metre from the source, 0 for rays that form no discrete path; `name`
    encodes ray number and bounces. `straight` is the transmitter's position.
    """

    power: mi.Float
    source: mi.Point3f
    offset: mi.Float
    strength: mi.Float
    name: mi.UInt
    straight: mi.Point3f


class Sums:
    """Sums over all rays so far, and the spread of gain between batches.

    `contested` voxels are those where a path may arrive before, or be stronger than, line of sight. For these
    `extremes` holds two 64-bit numbers in one cache line, each updated by one atomic maximum: the inverted bits of the
    smallest excess length; and the strongest path, with its |a|² (4π/λ)² at the voxel's centre as the bits of a float
    in the upper half and the name of the ray in the lower. As integers these are ordered like the floats.
    """

    def __init__(self, voxels: Voxels, contested: NDArray[np.bool_]) -> None:
        self.size = voxels.size
        self.batches = 0
        self.moments = dr.zeros(mi.Float, _COLUMNS * self.size)
        self.contested = integers(_bits(contested))
        self.extremes = dr.zeros(mi.UInt64, 2 * self.size)
        self.before = dr.zeros(mi.Float, self.size)
        self.squares = dr.zeros(mi.Float, self.size)
        # One private copy per thread is faster than atomics while all copies are small; many cores use atomics.
        host = dr.backend_v(mi.Float) == dr.JitBackend.LLVM
        private = host and dr.thread_count() * 4 * _COLUMNS * self.size < 512e6
        self.adding = dr.ReduceMode.Expand if private else dr.ReduceMode.Auto
        dr.make_opaque(self.moments, self.extremes, self.before, self.squares)

    @staticmethod
    def bytes_a_voxel() -> int:
        """Memory per voxel while tracing: sums, the threads' copies, and temporaries of the output."""
        threads = dr.thread_count() if dr.backend_v(mi.Float) == dr.JitBackend.LLVM else 1
        return 4 * _COLUMNS * (1 + min(threads, 4)) + 20 + 160

    def add(self, crossing: Crossing, active: mi.Bool, rays: Rays) -> None:
        """Add rays where they cross planes; those with `strength` above 0 compete for the strongest path too."""
        centre = crossing.centre
        back = rays.source - centre
        distance2 = dr.squared_norm(back)
        distance = dr.sqrt(distance2)
        excess = dr.maximum(rays.offset + distance - dr.norm(rays.straight - centre), 0.0)
        weight = rays.power * crossing.density
        arrival = back * (weight * dr.rcp(dr.maximum(distance, 1e-6)))
        late, none = weight * excess, dr.zeros(mi.Float, 1)
        packet = mi.ArrayXf([weight, arrival.x, arrival.y, arrival.z, late, late * excess, none, none])
        dr.scatter_add(self.moments, packet, crossing.cell, active, mode=self.adding)
        word = dr.gather(mi.UInt, self.contested, crossing.cell >> 5, active)
        active = active & ((word >> (crossing.cell & 31)) & 1 == 1)
        early = mi.UInt64(~dr.reinterpret_array(mi.UInt, excess))
        dr.scatter_reduce(dr.ReduceOp.Max, self.extremes, early, 2 * crossing.cell, active, mode=highest())
        strength = rays.strength * dr.rcp(distance2)
        key = (mi.UInt64(dr.reinterpret_array(mi.UInt, strength)) << 32) | mi.UInt64(rays.name)
        active &= strength > 0
        dr.scatter_reduce(dr.ReduceOp.Max, self.extremes, key, 2 * crossing.cell + 1, active, mode=highest())

    def eval(self) -> None:
        dr.eval(self.moments, self.extremes)

    def _column(self, index: int) -> mi.Float:
        return dr.gather(mi.Float, self.moments, _COLUMNS * dr.arange(mi.UInt, self.size) + index)

    def close_batch(self) -> None:
        """End a batch: its contribution to the gain enters the spread between batches."""
        gain = self._column(0)
        self.squares += dr.square(gain - self.before)
        self.before = gain
        dr.eval(self.squares, self.before)
        self.batches += 1

    def relative_error(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean gain over batches, and its standard error relative to it (NaN where there is no gain)."""
        count = self.batches
        mean = self.before / count
        spread = dr.maximum(self.squares / count - dr.square(mean), 0.0) / (count - 1)
        relative = dr.select(mean > 0, dr.sqrt(spread) / mean, dr.nan)
        return mean.numpy(), relative.numpy()

    def means(self) -> tuple[mi.Float, mi.Vector3f, mi.Float, mi.Float]:
        """Means over batches of gain, gain times direction of arrival, times excess length, and times its square."""
        part = 1 / max(self.batches, 1)
        gain, x, y, z, late, late2 = (self._column(index) * part for index in range(6))
        return gain, mi.Vector3f(x, y, z), late, late2

    def first_excess_m(self) -> mi.Float:
        """Smallest excess length, infinite where no ray arrived."""
        early = mi.UInt(self._extreme(0))
        return dr.select(early > 0, dr.reinterpret_array(mi.Float, ~early), dr.inf)

    def strongest(self) -> tuple[mi.Float, mi.UInt]:
        """Strength and name of the strongest path of every voxel; 0 where there is none."""
        best = self._extreme(1)
        return dr.reinterpret_array(mi.Float, mi.UInt(best >> 32)), mi.UInt(best)

    def _extreme(self, index: int) -> mi.UInt64:
        return dr.gather(mi.UInt64, self.extremes, 2 * dr.arange(mi.UInt, self.size) + index)


def _bits(mask: NDArray[np.bool_]) -> NDArray[np.uint32]:
    """A mask in 32-bit words, lowest bits first: small enough for the cache of a core."""
    filled = np.pad(mask, (0, -len(mask) % 32))
    return np.packbits(filled, bitorder="little").view(np.uint32)
