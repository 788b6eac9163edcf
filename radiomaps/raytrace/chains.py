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
    """Paths at voxel centres: voxel, identity of the path within it, |a|² (4π/λ)², vector towards the source.

    The vector has the direction of arrival and the length of the path.
    """

    cell: NDArray[np.uint32]
    identity: NDArray[np.uint32]
    strength: NDArray[np.float32]
    toward: NDArray[np.float32]

    COLUMNS: ClassVar = ("cell", "identity", "strength", "toward")

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
    return CentrePaths(*(np.concatenate([getattr(part, name) for part in parts]) for name in CentrePaths.COLUMNS))


def grow(table: PathTable, exact: Callable[[PathTable], CentrePaths], voxels: Voxels, rounds: int) -> CentrePaths:
    """The exact paths of a table, and those found in neighbouring voxels from them, in several rounds."""
    found = newest = exact(table)
    for _ in range(rounds):
        if not len(newest):
            break
        neighbours = PathTable(voxels.size)
        offered = (newest.cell, newest.identity, newest.strength)
        neighbours.spread((found.cell, found.identity), offered, voxels.shape)
        newest = exact(neighbours)
        found = join([found, newest])
    found = found[np.argsort(found.cell, kind="stable")]
    return found[_first_of_equals(found)]


def mirrored_paths(
    world: World, voxels: Voxels, source: Source, found: tuple[PathTable, ImageTable], options: TraceOptions
) -> CentrePaths:
    """Specular paths that rays found and that reach voxel centres, and those found from them in neighbouring voxels."""
    table, images = found
    names = images.resolve()
    if not dr.width(names):
        return CentrePaths.none()
    places = find_images(world, source, names, options)
    return grow(table, lambda one: _exact(world, voxels, source, one, (images, places)), voxels, _ROUNDS)


def _exact(
    world: World, voxels: Voxels, source: Source, table: PathTable, seen: tuple[ImageTable, mi.Point3f]
) -> CentrePaths:
    """Specular paths of a table at the voxel centres."""
    images, places = seen
    cells, identities = table.paths()
    # Rays from neighbouring voxels to one image source meet the same walls.
    order = np.argsort(identities, kind="stable")
    cells, identities = cells[order], identities[order]
    parts = [CentrePaths.none()]
    for begin in range(0, len(cells), _CHUNK):
        cell, identity = (integers(column[begin : begin + _CHUNK]) for column in (cells, identities))
        dr.make_opaque(cell, identity)
        row = images.row(identity)
        image, name = dr.gather(mi.Point3f, places, row), dr.gather(mi.UInt, images.kept, row)
        centre = voxels.centres(cell)
        away = image - centre
        field, arrived = arrive(world, source, centre, image, name & ((1 << BOUNCE_BITS) - 1))
        strength = dr.select(arrived, dr.squared_norm(field) * dr.rcp(dr.squared_norm(away)), 0.0)
        dr.eval(strength, away)
        kept = dr.compress(strength > 0)
        if dr.width(kept):
            columns = (dr.gather(type(column), column, kept) for column in (cell, identity, strength, away))
            parts.append(CentrePaths(*(np.ascontiguousarray(column.numpy().T) for column in columns)))
    return join(parts)


def _first_of_equals(paths: CentrePaths) -> NDArray[np.bool_]:
    """Which paths to keep so that none is counted twice: two triangles of a wall have one image source."""
    keep = np.ones(len(paths.cell), bool)
    _drop_equals(paths.cell, paths.toward, keep)
    return keep


@numba.njit(cache=True, nogil=True)
def _drop_equals(cell: Any, toward: Any, keep: Any) -> None:
    for here in range(len(cell)):
        before = here - 1
        while before >= 0 and cell[before] == cell[here]:
            apart = reach = 0.0
            for axis in range(3):
                apart = max(apart, abs(toward[here, axis] - toward[before, axis]))
                reach = max(reach, abs(toward[here, axis]))
            if keep[before] and apart < TOLERANCE_M + TOLERANCE * reach:
                keep[here] = False
                break
            before -= 1
