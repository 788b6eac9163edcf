"""Rays shot from a transmitter and followed from surface to surface, and the same rays found again by their names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import drjit as dr
import mitsuba as mi
import numpy as np
from numpy.typing import NDArray
from sionna.rt.constants import InteractionType
from sionna.rt.utils import spectrum_to_matrix_4f

from radiomaps.raytrace.lattice import Lattice, uniforms
from radiomaps.raytrace.options import TraceOptions
from radiomaps.raytrace.table import PathTable, mix
from radiomaps.raytrace.voxels import Crossing, Sums, Voxels
from radiomaps.raytrace.world import Source, World

__all__ = ["Images", "field_power", "find_images", "identity_of", "ray_names", "shoot"]

#: The low bits of a path's name hold its bounces; 0 stands for diffraction.
BOUNCE_BITS = 3


class _State:
    """Rays between two surfaces.

    `image` is the apparent source: the transmitter mirrored in the walls met since the last diffuse reflection, or the
    point of that, `offset` metres along the whole way.
    `chance` is the probability of the interactions drawn so far; the field is divided by its square root.
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

    # Loops take a state apart by this, and put it together from a call without arguments.
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


def ray_names(lane: mi.UInt, lattice: Lattice) -> mi.UInt:
    """Numbers of rays over all batches."""
    return lane + dr.opaque(mi.UInt, lattice.batch * lattice.lanes)


def _flags(options: TraceOptions) -> int:
    return (
        InteractionType.SPECULAR * options.specular
        | InteractionType.DIFFUSE * options.diffuse
        | InteractionType.REFRACTION * options.refraction
    )


def _start(source: Source, direction: mi.Vector3f, solid_angle: float, active: mi.Bool) -> _State:
    width = dr.width(direction)
    ray = mi.Ray3f(o=dr.repeat(source.point(), width), d=direction)
    ray.time = dr.zeros(mi.Float, width)
    return _State(
        ray=ray,
        field=source.field(direction),
        solid_angle=dr.repeat(dr.opaque(mi.Float, solid_angle), width),
        image=dr.repeat(source.point(), width),
        offset=dr.zeros(mi.Float, width),
        chance=dr.ones(mi.Float, width),
        specular=dr.full(mi.Bool, True, width),
        depth=dr.zeros(mi.UInt, width),
        active=mi.Bool(active),
    )


def _rays(lattice: Lattice, lane: mi.UInt) -> tuple[mi.Vector3f, float, mi.Bool]:
    """Directions of lanes, the solid angle of each, and which lanes have one."""
    direction, active = lattice.directions(lane)
    return direction, 4 * np.pi / lattice.count, active


def _interact(state: _State, si: mi.SurfaceInteraction3f, ray_name: mi.UInt, flags: mi.UInt, seed: mi.UInt) -> _State:
    """The rays after the surface they met: mirrored, scattered or let through, as the material draws."""
    active = mi.Bool(state.active)
    normal = si.n * dr.sign(dr.dot(si.n, -state.ray.d))
    si.sh_frame.n = normal
    si.initialize_sh_frame()
    si.n = normal
    # The radio materials read their input from these fields of the interaction.
    si.wi = si.to_local(state.ray.d)
    si.dp_du = mi.Vector3f(0.0, 0.0, dr.reinterpret_array(mi.Float, flags))
    si.duv_dx = mi.Vector2f(state.field.x, state.field.y)
    si.duv_dy = mi.Vector2f(state.field.z, state.field.w)
    si.t = mi.Float(state.solid_angle)
    context = mi.BSDFContext(mode=mi.TransportMode.Importance, type_mask=0, component=0)
    one, two = uniforms(ray_name, state.depth, seed)
    sample, jones = si.bsdf().sample(context, si, one, two, active)
    kind = dr.select(active, sample.sampled_component, InteractionType.NONE)
    diffuse = kind == InteractionType.DIFFUSE
    ray = si.spawn_ray(d=sample.wo)
    ray.time = dr.zeros(mi.Float, dr.width(ray_name))
    # Mirrored from the plane itself: origins of rays lie a little off their walls.
    mirrored = state.image - normal * (2 * dr.dot(state.image - si.p, normal))
    before = dr.norm(si.p - state.image)
    image = dr.select(kind == InteractionType.SPECULAR, mirrored, dr.select(diffuse, si.p, state.image))
    return _State(
        ray=ray,
        field=mi.Vector4f(spectrum_to_matrix_4f(jones) @ state.field),
        solid_angle=dr.select(diffuse, dr.two_pi, state.solid_angle),
        image=mi.Point3f(image),
        offset=dr.select(diffuse, state.offset + before, state.offset),
        chance=state.chance * sample.pdf,
        specular=state.specular & ~diffuse,
        depth=state.depth + 1,
        active=active & (kind != InteractionType.NONE),
    )


def _follow(
    world: World,
    state: _State,
    ray_name: mi.UInt,
    options: TraceOptions,
    depth: int,
    on_segment: Callable[[_State, mi.Float], None],
) -> None:
    """Follow rays over `depth` bounces; `on_segment(state, end)` sees every segment, once within the symbolic loop."""
    flags = dr.opaque(mi.UInt, int(_flags(options)))
    seed = dr.opaque(mi.UInt, options.seed)
    width = dr.width(ray_name)
    flags = dr.repeat(flags, width)
    limit = dr.opaque(mi.UInt, depth)

    def step(state: _State) -> tuple[_State]:
        si = world.mi_scene.ray_intersect(state.ray, ray_flags=mi.RayFlags.Minimal, coherent=False, active=state.active)
        hit = state.active & si.is_valid()
        on_segment(state, dr.select(hit, si.t, dr.inf))
        state.active = hit & (state.depth < limit)
        return (_interact(state, si, ray_name, flags, seed),)

    # Dr.Jit would trace the body twice to drop constant state: more time on the host than it saves on the device.
    with dr.scoped_set_flag(dr.JitFlag.OptimizeLoops, False):
        dr.while_loop((state,), lambda state: state.active, step, mode="symbolic")


def shoot(
    world: World,
    voxels: Voxels,
    source: Source,
    lattice: Lattice,
    first_lane: int,
    lanes: int,
    options: TraceOptions,
    sums: Sums,
    table: PathTable | None,
) -> None:
    """Add a chunk of a batch's rays, all that is not line of sight: mirrored ones to `table`, where given, as paths.

    Without a table all rays add to `sums`, which then also keep each voxel's strongest path.
    """
    lane = dr.arange(mi.UInt, lanes) + dr.opaque(mi.UInt, first_lane)
    ray_name = ray_names(lane, lattice)
    straight = source.point()

    def deposit(state: _State, end: mi.Float) -> None:
        power = state.solid_angle * dr.squared_norm(state.field)
        origin = state.image
        own = dr.squared_norm(state.field) * state.chance
        name = (ray_name << BOUNCE_BITS) | state.depth
        identity = identity_of(origin)

        def visit(crossing: Crossing) -> None:
            reach = dr.norm(origin - crossing.centre)
            strength = own * dr.rcp(dr.square(reach))
            blurred = crossing.active & ~state.specular
            if table is not None:
                table.put(crossing.cell, identity, strength, name, crossing.active & state.specular)
                if options.diffuse:
                    sums.add(crossing, blurred, power, origin, state.offset, straight)
            else:
                sums.add(crossing, crossing.active, power, origin, state.offset, straight)
                sums.rank(crossing, strength, name, crossing.active & state.specular)

        worth = state.active & (state.depth > 0) & (power > 0)
        voxels.march(state.ray.o, state.ray.d, end, worth, visit)

    start = _start(source, *_rays(lattice, lane))
    _follow(world, start, ray_name, options, options.depth, deposit)
    sums.eval()
    if table is not None:
        dr.eval(table.slots)


def identity_of(origin: mi.Point3f) -> mi.UInt:
    """A hash of apparent sources, equal within a quarter of a metre save at the seams, which keep off round numbers."""
    x, y, z = (mi.UInt(mi.Int(dr.floor(part * 4.0 + 0.37))) for part in origin)
    return mix(mix(mix(x) + y) + z)


@dataclass(frozen=True)
class Images:
    """Apparent sources `(n, 3)` of paths, and metres travelled before them `(n,)`."""

    position: NDArray[np.float32]
    offset: NDArray[np.float32]


def find_images(
    world: World, source: Source, names: NDArray[np.uint32], options: TraceOptions, chunk: int = 1 << 20
) -> Images:
    """The apparent sources of named paths, by shooting these rays once more.

    Rays of a batch are drawn from its lattice by number, so that nothing has to be kept while tracing.
    """
    numbers = names >> np.uint32(BOUNCE_BITS)
    bounces = names & np.uint32((1 << BOUNCE_BITS) - 1)
    position = np.empty((len(names), 3), np.float32)
    offset = np.empty(len(names), np.float32)
    lanes = Lattice(options.rays_a_batch, 0, options.seed).lanes
    batch = numbers // np.uint32(lanes)
    for index in np.unique(batch):
        lattice = Lattice(options.rays_a_batch, int(index), options.seed)
        chosen = np.flatnonzero(batch == index)
        lane = numbers[chosen] - np.uint32(int(index) * lanes)
        asked = np.zeros(lanes, bool)
        asked[lane] = True
        unique = np.flatnonzero(asked).astype(np.uint32)
        place = (np.cumsum(asked, dtype=np.uint32) - np.uint32(1))[lane]
        for begin in range(0, len(unique), chunk):
            part = unique[begin : begin + chunk]
            kept = _images_of(world, source, lattice, part, options)
            mine = (place >= begin) & (place < begin + len(part))
            row = bounces[chosen[mine]] * np.uint32(len(part)) + (place[mine] - begin).astype(np.uint32)
            position[chosen[mine]] = kept[row, :3]
            offset[chosen[mine]] = kept[row, 3]
    return Images(position, offset)


def _images_of(
    world: World, source: Source, lattice: Lattice, lanes: NDArray[np.uint32], options: TraceOptions
) -> NDArray[np.float32]:
    """Apparent source and offset of rays at every depth, `((depth + 1) * rays, 4)`."""
    lane = mi.UInt(lanes)
    count = len(lanes)
    kept = dr.zeros(mi.Float, 4 * count * (options.depth + 1))
    dr.make_opaque(kept, lane)
    index = dr.arange(mi.UInt, count)

    def keep(state: _State, end: mi.Float) -> None:
        origin = state.image
        row = state.depth * count + index
        values = mi.Vector4f(origin.x, origin.y, origin.z, state.offset)
        dr.scatter(kept, values, row, state.active)

    start = _start(source, *_rays(lattice, lane))
    _follow(world, start, ray_names(lane, lattice), options, options.depth, keep)
    dr.eval(kept)
    return kept.numpy().reshape(-1, 4)


def field_power(
    world: World, source: Source, direction: mi.Vector3f, bounces: mi.UInt, options: TraceOptions
) -> mi.Float:
    """|E|² of rays sent along `direction` after `bounces` mirrors: what the materials leave of them."""
    width = dr.width(direction)
    power = dr.zeros(mi.Float, width)
    dr.make_opaque(power)
    index = dr.arange(mi.UInt, width)
    mirrors = replace(options, specular=True, diffuse=False, refraction=False)

    def keep(state: _State, end: mi.Float) -> None:
        left = dr.squared_norm(state.field)
        dr.scatter(power, left, index, state.active & (state.depth == bounces))

    start = _start(source, direction, 1.0, dr.full(mi.Bool, True, width))
    _follow(world, start, index, mirrors, options.depth, keep)
    dr.eval(power)
    return power
