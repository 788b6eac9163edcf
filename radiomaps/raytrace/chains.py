"""Specular paths that rays found near a voxel: computed exactly at its centre, or dropped if they do not reach it.

A chain of flat walls has one image source S' for every voxel that it serves. So a chain found by one ray gives the
length |c - S'| and the direction to S' at the centre c. `backwards` tests whether the path exists there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import drjit as dr
import mitsuba as mi
import numba
import numpy as np
from numpy.typing import NDArray

from radiomaps.raytrace.arrays import integers
from radiomaps.raytrace.backwards import TOLERANCE, TOLERANCE_M, arrive
from radiomaps.raytrace.bounce import BOUNCE_BITS, find_images
from radiomaps.raytrace.frontier import Asked, order_of
from radiomaps.raytrace.options import TraceOptions
from radiomaps.raytrace.path_slots import ImageTable, PathTable
from radiomaps.raytrace.voxels import Voxels
from radiomaps.raytrace.world import Source, World

__all__ = ["CentrePaths", "grow", "join", "mirrored_paths"]

_CHUNK = 1 << 21
#: Rounds in which paths are tried in neighbouring voxels; each round finds fewer.
_ROUNDS = 2


@dataclass(frozen=True)
class CentrePaths:
    """Paths at voxel centres: voxel, number of the chain of surfaces, |a|² (4π/λ)², vector towards the source.

    The vector has the direction of arrival and the length of the path.
    """

    cell: NDArray[np.uint32]
    chain: NDArray[np.uint32]
    strength: NDArray[np.float32]
    toward: NDArray[np.float32]

    COLUMNS: ClassVar = ("cell", "chain", "strength", "toward")

    @classmethod
    def none(cls) -> CentrePaths:
        empty = np.zeros(0, np.uint32)
        return cls(empty, empty, empty.astype(np.float32), np.zeros((0, 3), np.float32))

    def __len__(self) -> int:
        return len(self.cell)

    def __getitem__(self, chosen: NDArray[Any]) -> CentrePaths:
        return CentrePaths(*(getattr(self, name)[chosen] for name in self.COLUMNS))


def join(parts: list[CentrePaths]) -> CentrePaths:
    """Concatenate paths of several kinds."""
    parts = [part for part in parts if len(part)] or parts[:1]
    if len(parts) == 1:
        return parts[0]
    return CentrePaths(*(np.concatenate([getattr(part, name) for part in parts]) for name in CentrePaths.COLUMNS))


def grow(
    table: PathTable,
    chains: ImageTable,
    exact: Callable[[NDArray[np.uint32], NDArray[np.uint32]], CentrePaths],
    voxels: Voxels,
    rounds: int,
) -> CentrePaths:
    """The exact paths of a table, and those found in neighbouring voxels from them, in several rounds.

    `exact` computes the paths of given pairs of a voxel and a row of `chains`.
    """
    asked = Asked(voxels.shape, dr.width(chains.kept))
    cell, identity = table.paths()
    newest = exact(*asked.first(cell, chains.rows(identity)))
    parts = [newest]
    for _ in range(rounds):
        if not len(newest):
            break
        newest = exact(*asked.neighbours(newest.cell, newest.chain))
        parts.append(newest)
    del asked  # as large as the paths
    found = join(parts)
    del parts, newest
    return found[_first_of_equals(found, order_of(found.cell, voxels.size))]


def mirrored_paths(
    world: World, voxels: Voxels, source: Source, found: tuple[PathTable, ImageTable], options: TraceOptions
) -> CentrePaths:
    """Specular paths that rays found and that reach voxel centres, and those found from them in neighbouring voxels."""
    table, images = found
    names = images.resolve()
    if not dr.width(names):
        return CentrePaths.none()
    places = find_images(world, source, names, options)

    def exact(cells: NDArray[np.uint32], chains: NDArray[np.uint32]) -> CentrePaths:
        return _exact(world, voxels, source, (cells, chains), (names, places))

    return grow(table, images, exact, voxels, _ROUNDS)


def _exact(
    world: World,
    voxels: Voxels,
    source: Source,
    asked: tuple[NDArray[np.uint32], NDArray[np.uint32]],
    seen: tuple[mi.UInt, mi.Point3f],
) -> CentrePaths:
    """The specular paths among these pairs of voxel and chain, ordered so that neighbours meet the same walls."""
    names, places = seen
    parts = [CentrePaths.none()]
    for begin in range(0, len(asked[0]), _CHUNK):
        cell, chain = (integers(column[begin : begin + _CHUNK]) for column in asked)
        dr.make_opaque(cell, chain)
        image, name = dr.gather(mi.Point3f, places, chain), dr.gather(mi.UInt, names, chain)
        centre = voxels.centres(cell)
        away = image - centre
        field, arrived = arrive(world, source, centre, image, name & ((1 << BOUNCE_BITS) - 1))
        strength = dr.select(arrived, dr.squared_norm(field) * dr.rcp(dr.squared_norm(away)), 0.0)
        dr.eval(strength, away)
        kept = dr.compress(strength > 0)
        if dr.width(kept):
            columns = (dr.gather(type(column), column, kept) for column in (cell, chain, strength, away))
            parts.append(CentrePaths(*(np.ascontiguousarray(column.numpy().T) for column in columns)))
    return join(parts)


def _first_of_equals(paths: CentrePaths, order: NDArray[np.int64]) -> NDArray[np.int64]:
    """The part of an order by voxels that counts no path twice: two triangles of a wall have one image source."""
    keep = np.ones(len(order), bool)
    _drop_equals(paths.cell, paths.toward, order, keep)
    return order[keep]


@numba.njit(cache=True, nogil=True)
def _drop_equals(cell: Any, toward: Any, order: Any, keep: Any) -> None:
    for place in range(len(order)):
        here, before = order[place], place - 1
        while before >= 0 and cell[order[before]] == cell[here]:
            other = order[before]
            apart = reach = 0.0
            for axis in range(3):
                apart = max(apart, abs(toward[here, axis] - toward[other, axis]))
                reach = max(reach, abs(toward[here, axis]))
            if keep[before] and apart < TOLERANCE_M + TOLERANCE * reach:
                keep[place] = False
                break
            before -= 1
