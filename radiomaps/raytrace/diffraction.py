"""Diffracted waves on the grid: voxel means from rays that leave edges, or the exact paths that these rays find.

A path is diffracted once. Reflections before the edge are those of the lit pair (edge, image source) that a ray starts
from; after the edge the ray is reflected further, up to `depth` interactions in total.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import drjit as dr
import mitsuba as mi
import numpy as np
from numpy.typing import NDArray
from sionna.rt.constants import InteractionType

from radiomaps.raytrace.arrays import floats, integers
from radiomaps.raytrace.backwards import arrive, go_back, tolerance_m
from radiomaps.raytrace.bounce import BOUNCE_BITS, identity_of, meet
from radiomaps.raytrace.chains import CentrePaths, grow, join
from radiomaps.raytrace.lighting import clear
from radiomaps.raytrace.moments import ENOUGH, Rays, Sums
from radiomaps.raytrace.path_slots import ImageTable, PathTable, mix
from radiomaps.raytrace.voxels import Beam, Crossing, Voxels
from radiomaps.raytrace.wedges import LEAST_M, Cone, Wedges, diffracted, keller_point, lifted
from radiomaps.raytrace.world import Source

__all__ = ["BENT", "Bender", "deposit", "toward_edges"]

#: Flag in the names of diffracted rays.
BENT = 1 << 31
_LOW = (1 << BOUNCE_BITS) - 1
_CHUNK = 1 << 20
_LEAST = 1e-4
#: Number of chains (edge and walls) that are distinguished while rays are traced.
_CHAINS = 1 << 24
#: Rounds in which paths are tried in neighbouring voxels: an edge serves a wide area, and rays on its cone are few.
_ROUNDS = 12
#: Metres after an edge at which its coefficient is evaluated.
_NODES = (2.0, 16.0, 128.0)


class _Bent:
    """Rays after their edge: `field` as it was 16 m after the edge, and the edge as mirrored in later walls.

    The edge is `origin` and `along`, its image source `start`; `way` is the length travelled since the edge.
    """

    ray: mi.Ray3f
    field: mi.Vector4f
    way: mi.Float
    origin: mi.Point3f
    along: mi.Vector3f
    start: mi.Point3f
    depth: mi.UInt
    active: mi.Bool

    DRJIT_STRUCT: ClassVar = {
        "ray": mi.Ray3f,
        "field": mi.Vector4f,
        "way": mi.Float,
        "origin": mi.Point3f,
        "along": mi.Vector3f,
        "start": mi.Point3f,
        "depth": mi.UInt,
        "active": mi.Bool,
    }

    def __init__(self, **parts: Any) -> None:
        for name, value in parts.items():
            setattr(self, name, value)

    @property
    def source(self) -> mi.Point3f:
        """Apparent point at which the wave leaves the edge."""
        return self.ray.o - self.ray.d * self.way


def _follow(wedges: Wedges, cone: Cone, field: mi.Vector4f, on_segment: Callable[[_Bent, mi.Float], None]) -> None:
    """Follow rays from edges over their reflections; `on_segment(state, end)` gets every segment."""
    world, options = wedges.world, wedges.options
    width = dr.width(cone.number)
    flags = dr.repeat(dr.opaque(mi.UInt, int(InteractionType.SPECULAR)), width)
    certain = (dr.zeros(mi.Float, width), dr.zeros(mi.Point2f, width))
    limit = dr.opaque(mi.UInt, max(options.depth, 1) if options.specular else 1)

    def step(state: _Bent) -> tuple[_Bent]:
        si = world.mi_scene.ray_intersect(state.ray, ray_flags=mi.RayFlags.Minimal, coherent=True, active=state.active)
        hit = state.active & si.is_valid()
        on_segment(state, dr.select(hit, si.t, dr.inf))
        going = state.active & hit & (state.depth + cone.mirrors + 1 < limit)
        normal, place = mi.Vector3f(si.n), mi.Point3f(si.p)
        direction = dr.normalize(_mirrored(state.ray.d, normal))
        origin = world.leaving(si, direction)
        _, jones = meet(si, state.ray.d, state.field, mi.Float(1.0), flags, certain, going)
        ray = mi.Ray3f(o=origin, d=direction)
        ray.time = dr.zeros(mi.Float, width)
        return (
            _Bent(
                ray=ray,
                field=mi.Vector4f(jones @ state.field),
                way=state.way + si.t,
                origin=mi.Point3f(place + _mirrored(state.origin - place, normal)),
                along=mi.Vector3f(_mirrored(state.along, normal)),
                start=mi.Point3f(place + _mirrored(state.start - place, normal)),
                depth=state.depth + 1,
                active=going,
            ),
        )

    ray = mi.Ray3f(o=lifted(cone.bend, cone.point) + cone.outgoing * LEAST_M, d=cone.outgoing)
    ray.time = dr.zeros(mi.Float, width)
    edge = wedges.get(cone.pair)
    state = _Bent(
        ray=ray,
        field=mi.Vector4f(field),
        way=dr.full(mi.Float, LEAST_M, width),
        origin=mi.Point3f(edge.origin),
        along=mi.Vector3f(edge.along),
        start=mi.Point3f(cone.start),
        depth=dr.zeros(mi.UInt, width),
        active=mi.Bool(cone.active),
    )
    with dr.scoped_set_flag(dr.JitFlag.OptimizeLoops, False):
        dr.while_loop((state,), lambda state: state.active, step, mode="symbolic")


def _mirrored(vector: mi.Vector3f, normal: mi.Vector3f) -> mi.Vector3f:
    return vector - normal * (2 * dr.dot(vector, normal))


def _name(state: _Bent, cone: Cone) -> mi.UInt:
    return (cone.number << BOUNCE_BITS) | state.depth | mi.UInt(BENT)


def _field(cone: Cone, bsdf: mi.BSDF, after: float) -> mi.Vector4f:
    away = dr.opaque(mi.Float, after)
    return diffracted(cone.field, cone.bend, bsdf, cone.incoming, cone.outgoing, cone.before, away)


def deposit(wedges: Wedges, voxels: Voxels, batch: int, sums: Sums) -> None:
    """Add a batch of diffracted rays to `sums`: means over voxels.

    Rays from an element dℓ of an edge within the angle dφ about it form a tube. At the distance s its cross-section is
    s (s + s')/s' sin²β dℓ dφ and its power density |D E|²/(s s' (s + s')). So it carries |D E|² sin²β / s'² dℓ dφ,
    independently of s.
    """
    straight = wedges.source.point()
    for bsdf, cone in wedges.cones(batch) if len(wedges) else ():
        power, field = _Power(cone, bsdf), _field(cone, bsdf, _NODES[1])
        sine2 = 1 - dr.square(dr.dot(cone.incoming, cone.bend.along))
        weight = sine2 * dr.rcp(dr.square(cone.before)) * cone.measure
        whole = dr.rcp(dr.maximum(dr.squared_norm(field), 1e-20))
        few = dr.rcp(sine2 * cone.measure * ENOUGH * dr.opaque(mi.Float, 1 / wedges.options.batches))

        def segment(
            state: _Bent,
            end: mi.Float,
            cone: Cone = cone,
            power: _Power = power,
            parts: tuple[mi.Float, ...] = (weight, whole, few),
        ) -> None:
            weight, whole, few = parts
            source, left = state.source, dr.squared_norm(state.field) * whole
            name = _name(state, cone)

            def visit(crossing: Crossing) -> None:
                here = power.at(state.way + crossing.along) * left
                distance = dr.norm(crossing.centre - source)
                own = here * distance * dr.rcp(cone.before * (cone.before + distance))
                sums.add(crossing, crossing.active, Rays(here * weight, source, cone.before, own, name, straight))

            beam = Beam(cone.phase, (state.way, cone.before + state.way), cone.before * few)
            voxels.march(state.ray.o, state.ray.d, end, state.active, visit, beam=beam)

        _follow(wedges, cone, field, segment)
    sums.eval()  # now, because every evaluation adds the copies of the threads


class _Power:
    """|D E|² along rays.

    The coefficient depends on the distances s before and s' after the edge only through s s'/(s + s') (Kouyoumjian
    and Pathak 1974, equation 28), and slowly. It is evaluated at three distances and interpolated by a power law.
    """

    def __init__(self, cone: Cone, bsdf: mi.BSDF) -> None:
        self.before = cone.before

        def level(after: float) -> mi.Float:
            power = dr.squared_norm(_field(cone, bsdf, after))
            return dr.log2(dr.select(dr.isfinite(power), dr.maximum(power, 1e-20), 1e-20))

        low, self.middle, high = (level(node) for node in _NODES)
        first, self.place, last = (self._length(mi.Float(node)) for node in _NODES)
        self.rise = (self.middle - low) * dr.rcp(self.place - first)
        self.further = (high - self.middle) * dr.rcp(last - self.place)

    def _length(self, after: mi.Float) -> mi.Float:
        return dr.log2(self.before * after * dr.rcp(self.before + after))

    def at(self, along: mi.Float) -> mi.Float:
        """The value `along` metres after the edge."""
        away = self._length(dr.maximum(along, LEAST_M)) - self.place
        return dr.exp2(self.middle + away * dr.select(away < 0, self.rise, self.further))


class _Chains:
    """The lit pairs that named rays started from, with edges and sources mirrored in the walls after the edge."""

    def __init__(self, wedges: Wedges, names: mi.UInt) -> None:
        self.wedges, width = wedges, dr.width(names)
        self.mirrors = names & _LOW
        self.pair = dr.zeros(mi.UInt, width)
        self.start, self.origin = dr.zeros(mi.Point3f, width), dr.zeros(mi.Point3f, width)
        self.along = dr.zeros(mi.Vector3f, width)
        dr.make_opaque(self.mirrors, self.pair, self.start, self.origin, self.along)
        numbers = ((names & mi.UInt(BENT - 1)) >> BOUNCE_BITS).numpy()
        batch, most = 0, int(numbers.max()) if width else -1
        while width and (groups := wedges.groups(batch))[0].number <= most:
            for group in groups:
                here = (numbers >= group.number) & (numbers < group.number + group.lattice.lanes)
                rows = np.flatnonzero(here)[np.argsort(numbers[here], kind="stable")]
                if len(rows):
                    self._replay(group, integers(rows), integers(numbers[rows] - group.number))
            batch += 1

    def _replay(self, group: Any, row: mi.UInt, lane: mi.UInt) -> None:
        dr.make_opaque(row, lane)
        cone = self.wedges.cone(group, lane)
        mirrors = dr.gather(mi.UInt, self.mirrors, row)

        def keep(state: _Bent, _: mi.Float) -> None:
            last = state.active & (state.depth == mirrors)
            for column, value in ((self.start, state.start), (self.origin, state.origin), (self.along, state.along)):
                dr.scatter(column, value, row, last)
            dr.scatter(self.pair, cone.pair, row, last)
            state.active &= ~last

        _follow(self.wedges, cone, cone.field, keep)
        dr.eval(self.pair, self.start, self.origin, self.along)

    def rows(self, row: mi.UInt) -> tuple[mi.UInt, mi.Point3f, mi.Point3f, mi.Vector3f]:
        """Number of reflections after the edge, and the mirrored source, edge origin and edge direction."""
        columns = ((mi.UInt, self.mirrors), (mi.Point3f, self.start), (mi.Point3f, self.origin))
        mirrors, start, origin = (dr.gather(kind, column, row) for kind, column in columns)
        return mirrors, start, origin, dr.gather(mi.Vector3f, self.along, row)


def toward_edges(wedges: Wedges, names: mi.UInt, centre: mi.Point3f) -> mi.Vector3f:
    """Vectors from points to the points of diffraction on the edges of named rays, with the length of the path."""
    chains = _Chains(wedges, names)
    bend = wedges.get(chains.pair)
    place = keller_point(chains.origin, chains.along, chains.start, centre)
    point = chains.origin + chains.along * dr.clip(place, 0.0, bend.length)
    away = point - centre
    after = dr.norm(away)
    return away * ((dr.norm(point - chains.start) + after) * dr.rcp(dr.maximum(after, 1e-6)))


class Bender:
    """The table of diffracted paths of each voxel, and the exact paths from it.

    `direct` is every voxel's line-of-sight gain. Paths 40 dB weaker than it are dropped: in line of sight hundreds of
    edges reach a voxel and together add less than 0.1 dB.
    """

    def __init__(self, wedges: Wedges, voxels: Voxels, direct: NDArray[np.float32]) -> None:
        self.wedges, self.voxels, self.least = wedges, voxels, _LEAST * direct
        self.world, self.source = wedges.world, wedges.source
        self.table, self.names = PathTable(voxels.size), ImageTable(_CHAINS)

    def shoot(self, batch: int) -> None:
        """Enter the paths of a batch of rays into the table."""
        least = floats(self.least)
        dr.make_opaque(least)
        for bsdf, cone in self.wedges.cones(batch) if len(self.wedges) else ():

            def segment(state: _Bent, end: mi.Float, cone: Cone = cone) -> None:
                source, power = state.source, dr.squared_norm(state.field)
                identity = mix(mix(cone.pair + 1) + identity_of(state.start - cone.start))
                self.names.put(identity, _name(state, cone), state.active & (power > 0))

                def visit(crossing: Crossing) -> None:
                    after = dr.norm(crossing.centre - source)
                    strength = power * dr.rcp(cone.before * after * (cone.before + after))
                    worth = crossing.active & (strength > dr.gather(mi.Float, least, crossing.cell, crossing.active))
                    self.table.put(crossing.cell, identity, strength, worth)

                self.voxels.march(state.ray.o, state.ray.d, end, state.active, visit)

            _follow(self.wedges, cone, _field(cone, bsdf, _NODES[1]), segment)
            dr.eval(self.table.slots, self.names.names)

    def paths(self, gain: NDArray[np.float32]) -> CentrePaths:
        """Diffracted paths to voxel centres, without those 40 dB weaker than the voxel's `gain` from other paths."""
        if not len(self.wedges):
            return CentrePaths.none()
        self.least = _LEAST * gain
        _, identity = self.table.paths()
        if not len(identity):  # edges, none of which a voxel sees
            return CentrePaths.none()
        self.chains = _Chains(self.wedges, self.names.resolve(np.unique(identity)))
        self.pair = self.chains.pair.numpy()
        return grow(self.table, self.names, self._exact, self.voxels, _ROUNDS)

    def _exact(self, cell: NDArray[np.uint32], chain: NDArray[np.uint32]) -> CentrePaths:
        """The diffracted paths among these pairs of voxel and chain."""
        parts = [self._bent(cell[part], chain[part], bsdf) for part, bsdf in self._chunks(chain)]
        return join([CentrePaths.none(), *parts])

    def _chunks(self, chain: NDArray[np.uint32]) -> Iterator[tuple[NDArray[np.int64], mi.BSDF]]:
        """Numbers of paths by the material of their edge."""
        if not len(chain):
            return
        pair = self.pair[chain]
        # Paths from neighbouring voxels over one edge meet the same walls.
        order = np.argsort(pair, kind="stable")
        shape = self.wedges.shape[pair[order]]
        for index, bsdf in enumerate(self.world.materials):
            mine = order[shape == index]
            for begin in range(0, len(mine), _CHUNK):
                yield mine[begin : begin + _CHUNK], bsdf

    def waves(
        self, sources: Sequence[Source], paths: CentrePaths
    ) -> Iterator[tuple[NDArray[np.int64], list[mi.Vector4f], mi.Vector3f]]:
        """Indices of paths, their fields at the voxels for each of these sources, and vectors towards the source."""
        for part, bsdf in self._chunks(paths.chain):
            index, number = integers(paths.cell[part]), integers(paths.chain[part])
            dr.make_opaque(index, number)
            fields, toward = [], mi.Vector3f(0.0)
            for source in sources:
                _, bent, spread, toward = self._wave(source, index, number, bsdf)
                fields.append(mi.Vector4f(bent * dr.sqrt(spread)))
            yield part, fields, toward

    def _bent(self, cell: NDArray[np.uint32], chain: NDArray[np.uint32], bsdf: mi.BSDF) -> CentrePaths:
        """The existing paths among pairs of voxel and chain (over edges of one material)."""
        index, number = integers(cell), integers(chain)
        dr.make_opaque(index, number)
        valid, bent, spread, toward = self._wave(self.source, index, number, bsdf)
        strength = dr.squared_norm(bent) * spread
        valid &= dr.isfinite(strength) & (strength > 0)
        dr.eval(valid, strength, toward)
        kept = valid.numpy() & (strength.numpy() > self.least[cell])
        return CentrePaths(cell, chain, strength.numpy(), toward.numpy().T)[kept]

    def _wave(
        self, source: Source, index: mi.UInt, number: mi.UInt, bsdf: mi.BSDF
    ) -> tuple[mi.Bool, mi.Vector4f, mi.Float, mi.Vector3f]:
        """Whether pairs of voxel and chain have a path, its field, its spreading factor, the vector to its source."""
        mirrors, start, origin, along = self.chains.rows(number)
        pair = dr.gather(mi.UInt, self.chains.pair, number)
        bend, (light, before_mirrors) = self.wedges.get(pair), self.wedges.lights(pair)
        centre = self.voxels.centres(index)
        place = keller_point(origin, along, start, centre)
        point, seen = bend.origin + bend.along * place, origin + along * place
        before, after = dr.norm(point - light), dr.norm(centre - seen)
        valid = (place > 0) & (place < bend.length) & (before > LEAST_M) & (after > LEAST_M)
        back = go_back(self.world, centre, seen, mirrors)
        valid &= back.met & (dr.norm(back.target - point) < tolerance_m(after))
        incoming, outgoing = (point - light) / before, dr.normalize(back.origin - point)
        bend.face(incoming)
        outside = lifted(bend, point)
        valid &= clear(self.world, back.origin, point) & clear(self.world, back.origin, outside)
        field, arrived = arrive(self.world, source, outside, light, before_mirrors)
        valid &= arrived & ((before_mirrors > 0) | clear(self.world, source.point(), point))
        bent = back.jones @ diffracted(field, bend, bsdf, incoming, outgoing, before, after)
        # At the voxel the wave arrives from the edge; the vector has the length of the path.
        toward = (seen - centre) * ((before + after) / after)
        return valid, mi.Vector4f(bent), dr.rcp(before * after * (before + after)), mi.Vector3f(toward)
