"""Hash tables of the strongest paths of every voxel, filled while rays are traced, with image sources as identities."""

from __future__ import annotations

import drjit as dr
import mitsuba as mi
import numpy as np
from numpy.typing import NDArray

from radiomaps.raytrace.arrays import integers

__all__ = ["SLOTS", "TABLES", "ImageTable", "PathTable", "highest", "mix"]

#: Slots per voxel and table, and number of tables: a path is lost only if stronger ones take its slots in all tables.
SLOTS = 16
TABLES = 2


def mix(value: mi.UInt) -> mi.UInt:
    """A hash of integers (the finaliser of MurmurHash3)."""
    value = (value ^ (value >> 16)) * mi.UInt(0x85EBCA6B)
    value = (value ^ (value >> 13)) * mi.UInt(0xC2B2AE35)
    return value ^ (value >> 16)


def highest() -> dr.ReduceMode:
    """The fastest mode of atomic maxima: on a CPU, too few lanes collide for sorting them first to pay off."""
    return dr.ReduceMode.Direct if dr.backend_v(mi.Float) == dr.JitBackend.LLVM else dr.ReduceMode.Auto


class ImageTable:
    """Hash table with one ray per image source. If several rays share one of `size` slots, the highest name is kept."""

    def __init__(self, size: int = 1 << 22) -> None:
        self.size = size
        self.names = dr.zeros(mi.UInt, size)
        dr.make_opaque(self.names)

    def put(self, identity: mi.UInt, name: mi.UInt, active: mi.Bool) -> None:
        """Enter rays by the identities of their image sources."""
        dr.scatter_reduce(dr.ReduceOp.Max, self.names, name, identity % self.size, active, mode=highest())

    def resolve(self, only: NDArray[np.uint32] | None = None) -> mi.UInt:
        """The names that were entered (only of identities `only`, if given), by row."""
        names = self.names
        if only is not None:
            wanted, identity = dr.zeros(mi.Bool, self.size), integers(only)
            dr.make_opaque(identity)
            dr.scatter(wanted, mi.Bool(True), identity % self.size)
            names = dr.select(wanted, names, 0)
        used = dr.compress(names != 0)
        self.kept = dr.gather(mi.UInt, names, used)
        self._row = dr.zeros(mi.UInt, self.size)
        dr.scatter(self._row, dr.arange(mi.UInt, dr.width(used)), used)
        dr.eval(self._row, self.kept)
        return self.kept

    def rows(self, identity: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """Rows of identities; call `resolve` first."""
        return np.asarray(self._row.numpy()[identity % self.size])


class PathTable:
    """A few 64-bit slots per voxel: the strength of a path as the bits of a float above the bits of its identity.

    As integers these are ordered like the strengths, so that one atomic maximum updates both. The slot of a path
    follows from its identity (a hash of its image source, or the number of its edge), so that of several samples of a
    path the strongest is kept.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.slots = dr.zeros(mi.UInt64, size * SLOTS * TABLES)
        dr.make_opaque(self.slots)

    def put(self, cell: mi.UInt, identity: mi.UInt, strength: mi.Float, active: mi.Bool) -> None:
        """Enter paths of voxels; paths weaker than the content of their slots are dropped."""
        key = (mi.UInt64(dr.reinterpret_array(mi.UInt, strength)) << 32) | mi.UInt64(identity)
        active = active & (strength > 0)
        for table in range(TABLES):
            slot = self._slot(cell, identity, table)
            dr.scatter_reduce(dr.ReduceOp.Max, self.slots, key, slot, active, mode=highest())

    @staticmethod
    def _slot(cell: mi.UInt, identity: mi.UInt, table: int) -> mi.UInt:
        # Collisions differ from voxel to voxel, so that a path that one voxel loses is recovered from its neighbour.
        bits = (identity ^ (cell * mi.UInt(0x9E3779B1))) * mi.UInt(0x85EBCA6B)
        bits = bits ^ (bits >> 15)
        return (cell * TABLES + table) * SLOTS + ((bits >> (8 * table)) & (SLOTS - 1))

    def strength(self) -> NDArray[np.float32]:
        """Sum of strengths in the first table's slots, per voxel: the power that rays have found so far."""
        total = dr.zeros(mi.Float, self.size)
        for slot in range(SLOTS):
            key = dr.gather(mi.UInt64, self.slots, dr.arange(mi.UInt, self.size) * (TABLES * SLOTS) + slot)
            total += dr.reinterpret_array(mi.Float, mi.UInt(key >> 32))
        return total.numpy()

    def paths(self) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        """Voxels (ascending) and identities of all stored paths, without duplicates."""
        cell = dr.arange(mi.UInt, self.size * TABLES * SLOTS) // (TABLES * SLOTS)
        first = self._slot(cell, mi.UInt(self.slots), 0)
        index = dr.arange(mi.UInt, dr.width(cell))
        again = (index != first) & (dr.gather(mi.UInt64, self.slots, first) == self.slots)
        kept = dr.compress((self.slots != 0) & ~again)
        if not dr.width(kept):
            return np.zeros(0, np.uint32), np.zeros(0, np.uint32)
        return (kept // (TABLES * SLOTS)).numpy(), mi.UInt(dr.gather(mi.UInt64, self.slots, kept)).numpy()
