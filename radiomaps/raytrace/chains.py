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
from sionna.rt.constants import InteractionType

from radiomaps.raytrace.arrays import integers
from radiomaps.raytrace.bounce import BOUNCE_BITS, find_images, meet
from radiomaps.raytrace.options import TraceOptions
from radiomaps.raytrace.path_slots import ImageTable, PathTable
from radiomaps.raytrace.voxels import Voxels
from radiomaps.raytrace.world import Source, World

__all__ = ["CentrePaths", "grow", "join", "mirrored_paths"]

#: What the scene's flaws need, in metres, and what rounding needs a metre: 64 units in the last place of a float.
_TOLERANCE_M, _TOLERANCE = 0.05, 64 * 2.0**-24
_CHUNK = 1 << 21
#: How often paths are offered to neighbours; each round finds fewer.
_ROUNDS = 2


@dataclass(frozen=True)
class CentrePaths:
    """Paths at voxels' centres: voxel, what tells the voxel's paths apart, |a|² (4π/λ)², vector towards the source.

    The vector's direction is that of arrival, its length that of the whole way.
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
    """Paths of several kinds in one list."""
    return CentrePaths(*(np.concatenate([getattr(part, name) for part in parts]) for name in CentrePaths.COLUMNS))


def grow(table: PathTable, exact: Callable[[PathTable], CentrePaths], voxels: Voxels, rounds: int) -> CentrePaths:
    """The exact paths of a table, and those that they turn out to be in neighbouring voxels, round after round."""
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
    """The mirrored paths that rays found, where they reach the voxels' centres, and those that reach neighbours."""
    table, images = found
    if not dr.any(images.names != 0):
        return CentrePaths.none()
    images.resolve(lambda names: find_images(world, source, names, options))
    return grow(table, lambda one: _exact(world, voxels, source, one, images), voxels, _ROUNDS)


def _exact(world: World, voxels: Voxels, source: Source, table: PathTable, images: ImageTable) -> CentrePaths:
    """Mirrored paths of a table at the voxels' centres."""
    cells, identities = table.paths()
    # Neighbours' ways to one apparent source meet the same walls.
    order = np.argsort(identities, kind="stable")
    cells, identities = cells[order], identities[order]
    parts = [CentrePaths.none()]
    for begin in range(0, len(cells), _CHUNK):
        cell, identity = (integers(column[begin : begin + _CHUNK]) for column in (cells, identities))
        dr.make_opaque(cell, identity)
        image, name = images.get(identity)
        centre = voxels.centres(cell)
        away = image - centre
        power = _power_of(world, source, centre, image, name & ((1 << BOUNCE_BITS) - 1))
        strength = power * dr.rcp(dr.squared_norm(away))
        dr.eval(strength, away)
        kept = dr.compress(strength > 0)
        if dr.width(kept):
            columns = (dr.gather(type(column), column, kept) for column in (cell, identity, strength, away))
            parts.append(CentrePaths(*(np.ascontiguousarray(column.numpy().T) for column in columns)))
    return join(parts)


def _power_of(world: World, source: Source, centre: mi.Point3f, image: mi.Point3f, bounces: mi.UInt) -> mi.Float:
    """|E|² of paths that come to `centre` from an apparent source by `bounces` mirrors; 0 where there is no such path.

    A ray sent back along the path has to meet as many walls, and the apparent source, mirrored back in each, has to be
    the transmitter, which the ray then reaches unobstructed. From every wall it is aimed anew, so that no error grows
    on the way. What the walls do to a wave is the product of their Jones matrices, of which the last one comes first.
    """
    width = dr.width(centre)
    away = image - centre
    ray = mi.Ray3f(o=centre, d=dr.normalize(away))
    ray.time = dr.zeros(mi.Float, width)
    home = source.point()
    within = tolerance_m(dr.norm(away))
    flags = dr.repeat(dr.opaque(mi.UInt, int(InteractionType.SPECULAR)), width)
    certain = (dr.zeros(mi.Float, width), dr.zeros(mi.Point2f, width))

    def step(
        ray: mi.Ray3f, target: mi.Point3f, walls: mi.UInt, active: mi.Bool, arrived: mi.Bool, jones: mi.Matrix4f
    ) -> tuple[mi.Ray3f, mi.Point3f, mi.UInt, mi.Bool, mi.Bool, mi.Matrix4f]:
        si = world.mi_scene.ray_intersect(ray, ray_flags=mi.RayFlags.Minimal, coherent=True, active=active)
        met = active & si.is_valid() & (si.t < dr.norm(target - ray.o) - within)
        last = active & (walls == 0)
        arrived |= last & ~met & (dr.norm(target - home) < within)
        going = active & met & (walls > 0)
        beyond = mi.Point3f(target - si.n * (2 * dr.dot(target - si.p, si.n)))
        mirrored = dr.normalize(beyond - si.p)
        start = world.leaving(si, mirrored)
        _, wall = meet(si, -mirrored, mi.Vector4f(1.0, 0.0, 0.0, 0.0), mi.Float(1.0), flags, certain, going)
        following = mi.Ray3f(o=start, d=dr.normalize(beyond - start))
        following.time = dr.zeros(mi.Float, width)
        jones = dr.select(going, jones @ wall, jones)
        return dr.select(going, following, ray), dr.select(going, beyond, target), walls - 1, going, arrived, jones

    all_, no = dr.full(mi.Bool, True, width), dr.full(mi.Bool, False, width)
    identity = dr.repeat(dr.identity(mi.Matrix4f), width)
    state = (ray, mi.Point3f(image), mi.UInt(bounces), all_, no, identity)
    with dr.scoped_set_flag(dr.JitFlag.OptimizeLoops, False):
        ray, _, _, _, arrived, jones = dr.while_loop(
            state, lambda ray, target, walls, active, arrived, jones: active, step, mode="symbolic"
        )
    return dr.select(arrived, dr.squared_norm(jones @ source.field(-ray.d)), 0.0)


def tolerance_m(reach: Any) -> Any:
    """Where a path `reach` metres long may miss the transmitter, and how near two apparent sources are one."""
    return _TOLERANCE_M + _TOLERANCE * reach


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
            apart = reach = 0.0
            for axis in range(3):
                apart = max(apart, abs(toward[here, axis] - toward[before, axis]))
                reach = max(reach, abs(toward[here, axis]))
            if keep[before] and apart < _TOLERANCE_M + _TOLERANCE * reach:
                keep[here] = False
                break
            before -= 1
