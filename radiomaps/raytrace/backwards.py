"""Specular paths traced backwards: whether a chain of walls connects two points, and how it changes the field.

A ray from a point towards an image source has to meet as many walls as the path did. The image source, mirrored back
in each wall, has to become the source itself, and the ray has to reach it without obstruction. At every wall the ray
is aimed again, so that errors do not accumulate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import drjit as dr
import mitsuba as mi
from sionna.rt.constants import InteractionType

from radiomaps.raytrace.bounce import meet
from radiomaps.raytrace.world import Source, World

__all__ = ["TOLERANCE", "TOLERANCE_M", "Return", "arrive", "go_back", "tolerance_m"]

#: Tolerance for flaws of the scene, in metres, and for rounding, per metre: 64 units in the last place of a float.
TOLERANCE_M, TOLERANCE = 0.05, 64 * 2.0**-24


def tolerance_m(reach: Any) -> Any:
    """Distance by which a path of length `reach` (m) may miss its source; image sources closer than this are equal."""
    return TOLERANCE_M + TOLERANCE * reach


@dataclass
class Return:
    """State of backward rays after their last wall: `origin` on that wall, the image source seen from there, `jones`.

    `jones` is the product of the walls' Jones matrices for the forward wave; its left factor is the wall nearest to
    the receiver. `met` is True if the ray met all its walls.
    """

    origin: mi.Point3f
    target: mi.Point3f
    jones: mi.Matrix4f
    met: mi.Bool


def go_back(world: World, place: mi.Point3f, image: mi.Point3f, walls: mi.UInt) -> Return:
    """Send rays from `place` towards `image` back over `walls` mirrors."""
    width = dr.width(place)
    within = tolerance_m(dr.norm(image - place))
    flags = dr.repeat(dr.opaque(mi.UInt, int(InteractionType.SPECULAR)), width)
    certain = (dr.zeros(mi.Float, width), dr.zeros(mi.Point2f, width))

    def step(
        origin: mi.Point3f, target: mi.Point3f, left: mi.UInt, active: mi.Bool, met: mi.Bool, jones: mi.Matrix4f
    ) -> tuple[mi.Point3f, mi.Point3f, mi.UInt, mi.Bool, mi.Bool, mi.Matrix4f]:
        away = target - origin
        ray = mi.Ray3f(o=origin, d=dr.normalize(away))
        ray.time = dr.zeros(mi.Float, width)
        si = world.mi_scene.ray_intersect(ray, ray_flags=mi.RayFlags.Minimal, coherent=True, active=active)
        going = active & si.is_valid() & (si.t < dr.norm(away) - within)
        met &= ~active | going
        beyond = mi.Point3f(target - si.n * (2 * dr.dot(target - si.p, si.n)))
        mirrored = dr.normalize(beyond - si.p)
        following = mi.Point3f(world.leaving(si, mirrored))
        _, wall = meet(si, -mirrored, mi.Vector4f(1.0, 0.0, 0.0, 0.0), mi.Float(1.0), flags, certain, going)
        jones = dr.select(going, jones @ wall, jones)
        left = left - 1
        origin, target = dr.select(going, following, origin), dr.select(going, beyond, target)
        return origin, target, left, going & (left > 0), met, jones

    met, identity = dr.full(mi.Bool, True, width), dr.repeat(dr.identity(mi.Matrix4f), width)
    origin, target, left = mi.Point3f(place), mi.Point3f(image), mi.UInt(walls)
    with dr.scoped_set_flag(dr.JitFlag.OptimizeLoops, False):
        origin, target, _, _, met, jones = dr.while_loop(
            (origin, target, left, left > 0, met, identity),
            lambda origin, target, left, active, met, jones: active, step, mode="symbolic",
        )  # fmt: skip
    return Return(origin, target, jones, met)


def arrive(
    world: World, source: Source, place: mi.Point3f, image: mi.Point3f, walls: mi.UInt
) -> tuple[mi.Vector4f, mi.Bool]:
    """The source's field at `place` after the walls, without spreading loss, and whether the path exists."""
    back = go_back(world, place, image, walls)
    home = source.point()
    within = tolerance_m(dr.norm(image - place))
    away = back.target - back.origin
    distance = dr.norm(away)
    ray = mi.Ray3f(o=back.origin, d=away * dr.rcp(dr.maximum(distance, 1e-6)))
    ray.maxt = dr.maximum(distance - within, 0.0)
    ray.time = dr.zeros(mi.Float, dr.width(place))
    arrived = back.met & (dr.norm(back.target - home) < within)
    arrived &= ~world.mi_scene.ray_test(ray, coherent=True, active=arrived)
    return mi.Vector4f(back.jones @ source.field(-ray.d)), arrived
