"""Rays shot from a transmitter and followed from surface to surface, and the same rays found again by their names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import drjit as dr
import mitsuba as mi
import numpy as np
from numpy.typing import NDArray
from sionna.rt.constants import InteractionType
from sionna.rt.utils import spectrum_to_matrix_4f

from radiomaps.raytrace.lattice import Lattice, uniforms
from radiomaps.raytrace.options import TraceOptions
from radiomaps.raytrace.voxels import Crossing, Sums, Voxels
from radiomaps.raytrace.world import Source, World

__all__ = ["Images", "find_images", "ray_names", "shoot"]

#: The low bits of a path's name hold its bounces; 0 stands for diffraction.
BOUNCE_BITS = 3


class _State:
    """Rays between two surfaces.

    `travel` is the distance from the apparent source to the ray's origin: that source is the transmitter mirrored in
    the walls met since the last diffuse reflection, or the point of that, `offset` metres along the whole way.
    `chance` is the probability of the interactions drawn so far; the field is divided by its square root.
    """

    ray: mi.Ray3f
    field: mi.Vector4f
    solid_angle: mi.Float
    travel: mi.Float
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
        "travel": mi.Float,
        "offset": mi.Float,
        "chance": mi.Float,
        "specular": mi.Bool,
        "depth": mi.UInt,
        "active": mi.Bool,
    }

    def __init__(self, **parts: Any) -> None:
        for name, value in parts.items():
            setattr(self, name, value)

    def apparent_source(self) -> mi.Point3f:
        return self.ray.o - self.ray.d * self.travel


def ray_names(lane: mi.UInt, lattice: Lattice) -> mi.UInt:
    """Numbers of rays over all batches."""
    return lane + dr.opaque(mi.UInt, lattice.batch * lattice.lanes)


def _flags(options: TraceOptions) -> int:
    return (
        InteractionType.SPECULAR * options.specular
        | InteractionType.DIFFUSE * options.diffuse
        | InteractionType.REFRACTION * options.refraction
    )


def _start(source: Source, lattice: Lattice, lane: mi.UInt) -> _State:
    direction, active = lattice.directions(lane)
    width = dr.width(lane)
    ray = mi.Ray3f(o=dr.repeat(source.point(), width), d=direction)
    ray.time = dr.zeros(mi.Float, width)
    return _State(
        ray=ray,
        field=source.field(direction),
        solid_angle=dr.repeat(dr.opaque(mi.Float, 4 * np.pi / lattice.count), width),
        travel=dr.zeros(mi.Float, width),
        offset=dr.zeros(mi.Float, width),
        chance=dr.ones(mi.Float, width),
        specular=dr.full(mi.Bool, True, width),
        depth=dr.zeros(mi.UInt, width),
        active=mi.Bool(active),
    )


def _interact(state: _State, si: mi.SurfaceInteraction3f, ray_name: mi.UInt, flags: mi.UInt, seed: mi.UInt) -> _State:
    """The rays after the surface they met: mirrored, scattered or let through, as the material draws."""
    active = mi.Bool(state.active)
    normal = si.n * dr.sign(dr.dot(si.n, -state.ray.d))
    si.sh_frame.n = normal
    si.initialize_sh_frame()
    si.n = normal
    met_after = state.travel + si.t
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
    return _State(
        ray=ray,
        field=mi.Vector4f(spectrum_to_matrix_4f(jones) @ state.field),
        solid_angle=dr.select(diffuse, dr.two_pi, state.solid_angle),
        travel=dr.select(diffuse, 0.0, met_after),
        offset=dr.select(diffuse, state.offset + met_after, state.offset),
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
) -> None:
    """Add a chunk of a batch's rays, all that is not line of sight, to `sums`."""
    lane = dr.arange(mi.UInt, lanes) + dr.opaque(mi.UInt, first_lane)
    ray_name = ray_names(lane, lattice)
    straight = source.point()

    def deposit(state: _State, end: mi.Float) -> None:
        power = state.solid_angle * dr.squared_norm(state.field)
        origin = state.apparent_source()
        own = dr.select(state.specular, dr.squared_norm(state.field) * state.chance, 0.0)
        name = (ray_name << BOUNCE_BITS) | state.depth

        def visit(crossing: Crossing) -> None:
            reach = state.offset + dr.norm(origin - crossing.centre)
            sums.add(crossing, power, origin, state.offset, straight, own * dr.rcp(dr.square(reach)), name)

        worth = state.active & (state.depth > 0) & (power > 0)
        voxels.march(state.ray.o, state.ray.d, end, worth, visit)

    _follow(world, _start(source, lattice, lane), ray_name, options, options.depth, deposit)
    dr.eval(sums.moments, sums.best, sums.first)


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
        unique, place = np.unique(numbers[chosen] - np.uint32(int(index) * lanes), return_inverse=True)
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
        origin = state.apparent_source()
        row = state.depth * count + index
        values = mi.Vector4f(origin.x, origin.y, origin.z, state.offset)
        dr.scatter(kept, values, row, state.active)

    _follow(world, _start(source, lattice, lane), ray_names(lane, lattice), options, options.depth, keep)
    dr.eval(kept)
    return kept.numpy().reshape(-1, 4)
