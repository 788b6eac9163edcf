"""Paths that rays found near a voxel, made exact at its centre by image theory, or dropped where they do not reach it.

Flat mirrors show the transmitter at one apparent place S' to every voxel they serve, so a chain of walls found by one
ray gives length |c - S'| and direction to S' at the centre c. Whether the chain holds there is asked backwards: a ray
from c towards S' has to meet as many walls as the path did and end at the transmitter.
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

from radiomaps.raytrace.bounce import BOUNCE_BITS, field_power, find_images, identity_of
from radiomaps.raytrace.options import TraceOptions
from radiomaps.raytrace.table import PathTable
from radiomaps.raytrace.voxels import Voxels
from radiomaps.raytrace.world import Source, World

__all__ = ["CentrePaths", "Found", "grow", "join", "mirrored_paths"]

#: Where a path may miss the transmitter, and how near two apparent sources are one, in metres.
_TOLERANCE_M = 0.05
_CHUNK = 1 << 21
#: How often paths are offered to neighbours; each round finds fewer.
_ROUNDS = 2


@dataclass(frozen=True)
class CentrePaths:
    """Paths at voxels' centres: voxel (ascending), |a|² (4π/λ)², vector towards the apparent source, length."""

    cell: NDArray[np.int64]
    strength: NDArray[np.float32]
    toward: NDArray[np.float32]
    length_m: NDArray[np.float32]

    COLUMNS: ClassVar = ("cell", "strength", "toward", "length_m")

    @classmethod
    def none(cls) -> CentrePaths:
        empty = np.zeros(0, np.float32)
        return cls(empty.astype(np.int64), empty, np.zeros((0, 3), np.float32), empty)

    def __getitem__(self, chosen: NDArray[np.bool_]) -> CentrePaths:
        return CentrePaths(self.cell[chosen], self.strength[chosen], self.toward[chosen], self.length_m[chosen])


def join(parts: list[CentrePaths]) -> CentrePaths:
    """Paths of several kinds in one list, ordered by voxel."""
    order = np.argsort(np.concatenate([part.cell for part in parts]), kind="stable")
    return CentrePaths(
        *(np.concatenate([getattr(part, name) for part in parts])[order] for name in CentrePaths.COLUMNS)
    )


@dataclass(frozen=True)
class Found:
    """Exact paths with what makes them again elsewhere: a hash of what tells them apart, and their names."""

    paths: CentrePaths
    identity: NDArray[np.uint32]
    names: NDArray[np.uint32]


def grow(table: PathTable, exact: Callable[[PathTable], Found], voxels: Voxels, rounds: int) -> CentrePaths:
    """The exact paths of a table, and those that they turn out to be in neighbouring voxels, round after round."""
    found = [exact(table)]
    for _ in range(rounds):
        newest = found[-1]
        if not len(newest.names):
            break
        known = (
            np.concatenate([part.paths.cell for part in found]),
            np.concatenate([part.identity for part in found]),
        )
        neighbours = PathTable(voxels.size)
        offered = (newest.paths.cell, newest.identity, newest.paths.strength, newest.names)
        neighbours.spread(known, offered, voxels.shape)
        found.append(exact(neighbours))
    paths = join([part.paths for part in found])
    return paths[_first_of_equals(paths)]


def mirrored_paths(
    world: World, voxels: Voxels, source: Source, table: PathTable, options: TraceOptions
) -> CentrePaths:
    """The mirrored paths of a table that reach the voxels' centres, and those of them that reach their neighbours."""
    return grow(table, lambda one: _exact(world, voxels, source, one, options), voxels, _ROUNDS)


def _exact(world: World, voxels: Voxels, source: Source, table: PathTable, options: TraceOptions) -> Found:
    """Mirrored paths of a table at the voxels' centres."""
    cell, names, _ = table.paths()
    images = find_images(world, source, names, options).position
    bounces = names & np.uint32((1 << BOUNCE_BITS) - 1)
    strength = np.zeros(len(cell), np.float32)
    toward = np.empty((len(cell), 3), np.float32)
    for begin in range(0, len(cell), _CHUNK):
        part = slice(begin, begin + _CHUNK)
        index, count = mi.UInt(cell[part].astype(np.uint32)), mi.UInt(bounces[part])
        place = mi.Point3f(*(mi.Float(images[part, k]) for k in range(3)))
        dr.make_opaque(index, place, count)
        centre = voxels.centres(index)
        away = place - centre
        holds, departure = _reaches(world, source, centre, away, count)
        dr.eval(holds, departure, away)
        toward[part] = away.numpy().T
        kept = dr.compress(holds)
        if dr.width(kept):
            gather = (dr.gather(mi.Vector3f, departure, kept), dr.gather(mi.UInt, count, kept))
            power = field_power(world, source, *gather, options).numpy()
            row = kept.numpy() + begin
            strength[row] = power / (toward[row] ** 2).sum(axis=1)
    reaches = strength > 0
    length = np.linalg.norm(toward, axis=1)
    paths = CentrePaths(cell, strength, toward, length)[reaches]
    if not len(paths.cell):
        return Found(paths, np.zeros(0, np.uint32), np.zeros(0, np.uint32))
    place = mi.Point3f(*(mi.Float(images[reaches, k]) for k in range(3)))
    return Found(paths, identity_of(place).numpy(), names[reaches])


def _reaches(
    world: World, source: Source, centre: mi.Point3f, away: mi.Vector3f, bounces: mi.UInt
) -> tuple[mi.Bool, mi.Vector3f]:
    """Whether rays from `centre` along `away` meet `bounces` walls and then end at the transmitter, unobstructed.

    Also the direction in which the transmitter has to send a ray for it to come this way.
    """
    width = dr.width(centre)
    length = dr.norm(away)
    ray = mi.Ray3f(o=centre, d=away * dr.rcp(length))
    ray.time = dr.zeros(mi.Float, width)
    target = source.point()

    def step(
        ray: mi.Ray3f, left: mi.Float, walls: mi.UInt, active: mi.Bool, arrived: mi.Bool
    ) -> tuple[mi.Ray3f, mi.Float, mi.UInt, mi.Bool, mi.Bool]:
        si = world.mi_scene.ray_intersect(ray, ray_flags=mi.RayFlags.Minimal, coherent=True, active=active)
        met = active & si.is_valid() & (si.t < left - _TOLERANCE_M)
        last = active & (walls == 0)
        miss = dr.norm(ray.o + ray.d * left - target)
        arrived |= last & ~met & (miss < _TOLERANCE_M)
        going = active & met & (walls > 0)
        mirrored = dr.normalize(ray.d - si.n * (2 * dr.dot(ray.d, si.n)))
        left = dr.select(going, left - si.t, left)
        following = si.spawn_ray(d=mirrored)
        following.time = dr.zeros(mi.Float, width)
        return dr.select(going, following, ray), left, walls - 1, going, arrived

    state = (ray, mi.Float(length), mi.UInt(bounces), dr.full(mi.Bool, True, width), dr.full(mi.Bool, False, width))
    with dr.scoped_set_flag(dr.JitFlag.OptimizeLoops, False):
        state = dr.while_loop(state, lambda ray, left, walls, active, arrived: active, step, mode="symbolic")
    return state[4], -state[0].d


def _first_of_equals(paths: CentrePaths) -> NDArray[np.bool_]:
    """Which paths to keep so that none is there twice: two triangles of one wall show one apparent source."""
    keep = np.ones(len(paths.cell), bool)
    _drop_equals(paths.cell, paths.toward, keep)
    return keep


@numba.njit(cache=True, nogil=True)
def _drop_equals(cell: Any, toward: Any, keep: Any) -> None:
    for here in range(len(cell)):
        before = here - 1
        while before >= 0 and cell[before] == cell[here]:
            apart = 0.0
            for axis in range(3):
                apart = max(apart, abs(toward[here, axis] - toward[before, axis]))
            if keep[before] and apart < _TOLERANCE_M:
                keep[here] = False
                break
            before -= 1
