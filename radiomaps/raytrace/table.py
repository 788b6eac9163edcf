"""The strongest paths of every voxel, kept while rays are traced, told apart by where they seem to come from."""

from __future__ import annotations

import drjit as dr
import mitsuba as mi
import numpy as np
from numpy.typing import NDArray

__all__ = ["SLOTS", "TABLES", "PathTable", "mix"]

#: Slots of a table a voxel, and tables: a path is lost only where stronger ones take its slot in both.
SLOTS = 8
TABLES = 2


def mix(value: mi.UInt) -> mi.UInt:
    """The bits of integers, well mixed (the finaliser of MurmurHash3)."""
    value = (value ^ (value >> 16)) * mi.UInt(0x85EBCA6B)
    value = (value ^ (value >> 13)) * mi.UInt(0xC2B2AE35)
    return value ^ (value >> 16)


class PathTable:
    """For every voxel a few slots of 64 bits: a path's strength as the bits of a float above the 32 bits of its name.

    As integers these order like the strengths, so that one atomic maximum keeps both. A path's slot follows from its
    identity (a hash of its apparent source, or of its edge): of equal paths the strongest sample stays.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.slots = dr.zeros(mi.UInt64, size * SLOTS * TABLES)
        dr.make_opaque(self.slots)

    def put(self, cell: mi.UInt, identity: mi.UInt, strength: mi.Float, name: mi.UInt, active: mi.Bool) -> None:
        """Offer paths to voxels; those weaker than what is in their slots are dropped."""
        key = (mi.UInt64(dr.reinterpret_array(mi.UInt, strength)) << 32) | mi.UInt64(name)
        active = active & (strength > 0)
        for table in range(TABLES):
            dr.scatter_reduce(dr.ReduceOp.Max, self.slots, key, self._slot(cell, identity, table), active)

    @staticmethod
    def _slot(cell: mi.UInt, identity: mi.UInt, table: int) -> mi.UInt:
        # Which paths share a slot differs from voxel to voxel, so that what one loses its neighbour can give back.
        bits = (identity ^ (cell * mi.UInt(0x9E3779B1))) * mi.UInt(0x85EBCA6B)
        bits = bits ^ (bits >> 15)
        return (cell * TABLES + table) * SLOTS + ((bits >> (8 * table)) & (SLOTS - 1))

    def spread(
        self,
        known: tuple[NDArray[np.int64], NDArray[np.uint32]],
        offered: tuple[NDArray[np.int64], NDArray[np.uint32], NDArray[np.float32], NDArray[np.uint32]],
        shape: tuple[int, ...],
    ) -> None:
        """Offer paths (voxel, identity, strength, name) to the six neighbours, unless `known` (voxel, identity) there.

        Rays are few where beams are wide; a beam that served most of its voxels is found whole this way.
        """
        nz, ny, nx = shape
        have = dr.zeros(mi.UInt, self.size * TABLES * SLOTS)
        cell, identity = mi.UInt(known[0].astype(np.uint32)), mi.UInt(known[1])
        dr.make_opaque(have, cell, identity)
        for table in range(TABLES):
            dr.scatter(have, identity, self._slot(cell, identity, table))
        dr.eval(have)
        cell, identity = mi.UInt(offered[0].astype(np.uint32)), mi.UInt(offered[1])
        strength, name = mi.Float(offered[2]), mi.UInt(offered[3])
        dr.make_opaque(cell, identity, strength, name)
        place = (cell // (nx * ny), cell // nx % ny, cell % nx)
        for position, count, stride in zip(place, (nz, ny, nx), (nx * ny, nx, 1), strict=True):
            for there, step in ((position > 0, -stride), (position < count - 1, stride)):
                target = mi.UInt(mi.Int(cell) + step)
                fresh = mi.Bool(there)
                for table in range(TABLES):
                    fresh &= dr.gather(mi.UInt, have, self._slot(target, identity, table), there) != identity
                self.put(target, identity, strength, name, fresh)
        dr.eval(self.slots)

    def strength(self) -> NDArray[np.float32]:
        """Sum of strengths in the first table's slots, a voxel each: what rays have found so far."""
        keys = self.slots.numpy().reshape(-1, TABLES, SLOTS)[:, 0]
        return (keys >> np.uint64(32)).astype(np.uint32).view(np.float32).sum(axis=1)

    def paths(self) -> tuple[NDArray[np.int64], NDArray[np.uint32], NDArray[np.float32]]:
        """Voxels (ascending), names and strengths of all paths kept, each once."""
        keys = self.slots.numpy().reshape(-1, TABLES * SLOTS)
        once = keys != 0
        for column in range(SLOTS, TABLES * SLOTS):
            once[:, column] &= (keys[:, column : column + 1] != keys[:, :SLOTS]).all(axis=1)
        cell, _ = np.nonzero(once)
        kept = keys[once]
        return cell, kept.astype(np.uint32), (kept >> np.uint64(32)).astype(np.uint32).view(np.float32)
