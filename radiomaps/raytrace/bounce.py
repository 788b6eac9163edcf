"""Rays shot from a transmitter and followed from surface to surface, and replayed by their names (ray numbers)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import drjit as dr
import mitsuba as mi
import numpy as np
from sionna.rt.constants import InteractionType
from sionna.rt.utils import spectrum_to_matrix_4f

from radiomaps.raytrace.arrays import integers
from radiomaps.raytrace.lattice import Lattice, uniforms
from radiomaps.raytrace.moments import ENOUGH, Rays, Sums
from radiomaps.raytrace.options import TraceOptions
from radiomaps.raytrace.path_slots import ImageTable, PathTable, mix
from radiomaps.raytrace.voxels import Beam, Crossing, Voxels
from radiomaps.raytrace.world import Source, World

__all__ = [
    "Hit",
    "RayState",
    "aimed",
    "find_images",
    "follow",
    "identity_of",
    "meet",
    "ray_names",
    "replay",
    "shoot",
    "start_rays",
]

#: The low bits of a path's name hold its number of bounces; 0 means diffraction.
BOUNCE_BITS = 3


class RayState:
    """Rays between two surfaces.

    `image` is the image source: the transmitter mirrored in the walls met since the last diffuse reflection, or the
    point of that reflection, which lies `offset` metres along the path.
    `chance` is the probability of the interactions sampled so far; the field is divided by its square root.
    """

    ray: mi.Ray3f
    field: mi.Vector4f
    solid_angle: mi.Float
    image: mi.Point3f
    offset: mi.Float
    chance: mi.Float
    specular: mi.Bool
    depth: mi.UInt
    active: mi.Bool

    # Dr.Jit's loops traverse a state by these fields, and rebuild it with a call without arguments.
    DRJIT_STRUCT: ClassVar = {
        "ray": mi.Ray3f,
        "field": mi.Vector4f,
        "solid_angle": mi.Float,
        "image": mi.Point3f,
        "offset": mi.Float,
        "chance": mi.Float,
        "specular": mi.Bool,
        "depth": mi.UInt,
        "active": mi.Bool,
    }

    def __init__(self, **parts: Any) -> None:
        for name, value in parts.items():
            setattr(self, name, value)


@dataclass
class Hit:
    """End of segments: the surface, and whether there is one."""

    si: mi.SurfaceInteraction3f
    found: mi.Bool

    @property
    def end(self) -> mi.Float:
        return dr.select(self.found, self.si.t, dr.inf)


def ray_names(lane: mi.UInt, lattice: Lattice) -> mi.UInt:
    """Ray numbers, unique over all batches."""
    return lane + dr.opaque(mi.UInt, lattice.batch * lattice.lanes)


def _flags(options: TraceOptions) -> int:
    return (
        InteractionType.SPECULAR * options.specular
        | InteractionType.DIFFUSE * options.diffuse
        | InteractionType.REFRACTION * options.refraction
    )


def start_rays(source: Source, lattice: Lattice, lane: mi.UInt) -> RayState:
    """Rays of a lattice at the transmitter."""
    direction, active = lattice.directions(lane)
    width = dr.width(direction)
    ray = mi.Ray3f(o=dr.repeat(source.point(), width), d=direction)
    ray.time = dr.zeros(mi.Float, width)
    return RayState(
        ray=ray,
        field=source.field(direction),
        solid_angle=dr.repeat(dr.opaque(mi.Float, lattice.solid_angle), width),
        image=dr.repeat(source.point(), width),
        offset=dr.zeros(mi.Float, width),
        chance=dr.ones(mi.Float, width),
        specular=dr.full(mi.Bool, True, width),
        depth=dr.zeros(mi.UInt, width),
        active=mi.Bool(active),
    )


def meet(
    si: mi.SurfaceInteraction3f,
    incident: mi.Vector3f,
    field: mi.Vector4f,
    solid_angle: mi.Float,
    flags: mi.UInt,
    uniform: tuple[mi.Float, mi.Point2f],
    active: mi.Bool,
) -> tuple[mi.BSDFSample3f, mi.Matrix4f]:
    """Interaction of a surface with a wave along `incident`, and its Jones matrix; turns the normal to the wave."""
    normal = si.n * dr.sign(dr.dot(si.n, -incident))
    si.sh_frame.n = normal
    si.initialize_sh_frame()
    si.n = normal
    # Sionna's radio materials read their input from these fields of the interaction.
    si.wi = si.to_local(incident)
    si.dp_du = mi.Vector3f(0.0, 0.0, dr.reinterpret_array(mi.Float, flags))
    si.duv_dx, si.duv_dy = mi.Vector2f(field.x, field.y), mi.Vector2f(field.z, field.w)
    si.t = mi.Float(solid_angle)
    context = mi.BSDFContext(mode=mi.TransportMode.Importance, type_mask=0, component=0)
    sample, jones = si.bsdf().sample(context, si, *uniform, active)
    return sample, spectrum_to_matrix_4f(jones)


def _interact(
    world: World, state: RayState, si: mi.SurfaceInteraction3f, ray_name: mi.UInt, flags: mi.UInt, seed: mi.UInt
) -> RayState:
    """The rays after the surface they met: reflected, scattered or transmitted, as sampled by the material."""
    active = mi.Bool(state.active)
    uniform = uniforms(ray_name, state.depth, seed)
    sample, jones = meet(si, state.ray.d, state.field, state.solid_angle, flags, uniform, active)
    kind = dr.select(active, sample.sampled_component, InteractionType.NONE)
    diffuse = kind == InteractionType.DIFFUSE
    ray = mi.Ray3f(o=world.leaving(si, sample.wo), d=sample.wo)
    ray.time = dr.zeros(mi.Float, dr.width(ray_name))
    # The image is mirrored in the plane itself: ray origins lie slightly off their walls.
    mirrored = state.image - si.n * (2 * dr.dot(state.image - si.p, si.n))
    before = dr.norm(si.p - state.image)
    image = dr.select(kind == InteractionType.SPECULAR, mirrored, dr.select(diffuse, si.p, state.image))
    return RayState(
        ray=ray,
        field=mi.Vector4f(jones @ state.field),
        solid_angle=dr.select(diffuse, dr.two_pi, state.solid_angle),
        image=mi.Point3f(image),
        offset=dr.select(diffuse, state.offset + before, state.offset),
        chance=state.chance * sample.pdf,
        specular=state.specular & ~diffuse,
        depth=state.depth + 1,
        active=active & (kind != InteractionType.NONE),
    )


def follow(
    world: World,
    state: RayState,
    ray_name: mi.UInt,
    options: TraceOptions,
    depth: int,
    on_segment: Callable[[RayState, Hit], None],
) -> None:
    """Follow rays over `depth` bounces; `on_segment(state, hit)` is traced once, for every segment of the loop."""
    flags = dr.opaque(mi.UInt, int(_flags(options)))
    seed = dr.opaque(mi.UInt, options.seed)
    width = dr.width(ray_name)
    flags = dr.repeat(flags, width)
    limit = dr.opaque(mi.UInt, depth)

    def step(state: RayState) -> tuple[RayState]:
        si = world.mi_scene.ray_intersect(state.ray, ray_flags=mi.RayFlags.Minimal, coherent=True, active=state.active)
        hit = state.active & si.is_valid()
        on_segment(state, Hit(si, hit))
        state.active &= hit & (state.depth < limit)
        return (_interact(world, state, si, ray_name, flags, seed),)

    # Optimising the loop would trace its body twice: more time on the host than it saves on the device.
    with dr.scoped_set_flag(dr.JitFlag.OptimizeLoops, False):
        dr.while_loop((state,), lambda state: state.active, step, mode="symbolic")


def aimed(world: World, source: Source, options: TraceOptions, batch: int) -> Lattice:
    """Directions of a batch from the transmitter: all, or, from outside the scene, those that may hit it."""
    return Lattice(options.rays_a_batch, batch, options.seed, cap=world.cap(source.position))


def shoot(
    world: World,
    voxels: Voxels,
    source: Source,
    lattice: Lattice,
    first_lane: int,
    lanes: int,
    options: TraceOptions,
    sums: Sums,
    found: tuple[PathTable, ImageTable] | None,
) -> None:
    """Trace a chunk of a batch's rays and add their contributions, except for line of sight, to `sums`.

    With the tables `found`, specular contributions are recorded there as paths instead. Without them, `sums` also
    stores each voxel's strongest path.
    """
    lane = dr.arange(mi.UInt, lanes) + dr.opaque(mi.UInt, first_lane)
    ray_name = ray_names(lane, lattice)
    phase = lattice.index(lane)
    dense = dr.opaque(mi.Float, options.batches / (lattice.solid_angle * ENOUGH))
    straight = source.point()

    def deposit(state: RayState, hit: Hit) -> None:
        left = dr.squared_norm(state.field)
        power, own = state.solid_angle * left, left * state.chance
        origin = state.image
        worth = state.active & (state.depth > 0) & (power > 0)
        name = (ray_name << BOUNCE_BITS) | state.depth
        identity = identity_of(origin - straight)
        if found is not None:
            found[1].put(identity, name, worth & state.specular)

        # Scattered rays do not form a discrete path.
        apart = dr.select(state.specular, own, 0.0)
        rays = Rays(power, origin, state.offset, apart, name, straight)

        def visit(crossing: Crossing) -> None:
            if found is None:
                sums.add(crossing, crossing.active, rays)
                return
            strength = own * dr.rcp(dr.squared_norm(origin - crossing.centre))
            found[0].put(crossing.cell, identity, strength, crossing.active & state.specular)
            if options.diffuse:
                sums.add(crossing, crossing.active & ~state.specular, rays)

        # Rays scattered by a rough surface are too few to be thinned out.
        reach = dr.norm(state.ray.o - origin)
        beam = Beam(phase, (reach, reach), dr.select(state.specular, dense, 0.0))
        voxels.march(state.ray.o, state.ray.d, hit.end, worth, visit, beam=beam)

    follow(world, start_rays(source, lattice, lane), ray_name, options, options.depth, deposit)
    sums.eval()
    if found is not None:
        dr.eval(found[0].slots, found[1].names)


def identity_of(origin: mi.Vector3f) -> mi.UInt:
    """A hash of image sources relative to the transmitter, equal within 5 cm except at cell borders.

    Walls in nearly the same plane have image sources at such distances, each valid for one wall only. The cell borders
    avoid round numbers.
    """
    x, y, z = (mi.UInt(mi.Int(dr.floor(part * 20.0 + 0.37))) for part in origin)
    return mix(mix(mix(x) + y) + z)


def find_images(world: World, source: Source, names: mi.UInt, options: TraceOptions) -> mi.Point3f:
    """The image sources of named rays after their bounces."""
    images = dr.zeros(mi.Point3f, dr.width(names))
    if not dr.width(names):
        return images
    dr.make_opaque(images)
    replay(world, source, names, options, lambda state, _, row, last: dr.scatter(images, state.image, row, last))
    dr.eval(images)
    return images


def replay(
    world: World,
    source: Source,
    names: mi.UInt,
    options: TraceOptions,
    keep: Callable[[RayState, Hit, mi.UInt, mi.Bool], None],
    depth: int | None = None,
) -> None:
    """Shoot named rays again: `keep(state, hit, row, last)` gets, where `last`, the ray of `row` after its bounces.

    Rays of a batch follow from its lattice by number, so that nothing has to be stored while tracing.
    """
    # In the order of tracing, in which neighbouring lanes hold neighbouring rays.
    order = integers(np.argsort(names.numpy()))
    names = dr.gather(mi.UInt, names, order)
    lanes = aimed(world, source, options, 0).lanes
    batch = (names >> BOUNCE_BITS) // lanes
    for index in range(int(dr.max(batch)[0]) + 1):
        mine = dr.compress(batch == index)
        if not dr.width(mine):
            continue
        name = dr.gather(mi.UInt, names, mine)
        mine = dr.gather(mi.UInt, order, mine)
        number, bounces = name >> BOUNCE_BITS, name & ((1 << BOUNCE_BITS) - 1)

        def seen(state: RayState, hit: Hit, bounces: mi.UInt = bounces, mine: mi.UInt = mine) -> None:
            last = state.active & (state.depth == bounces)
            keep(state, hit, mine, last)
            state.active &= ~last

        start = start_rays(source, aimed(world, source, options, index), number - dr.opaque(mi.UInt, index * lanes))
        follow(world, start, number, options, options.depth if depth is None else depth, seen)
