"""Lit edges as sources of diffracted waves: the rays that leave them, and the diffracted field of a wedge.

First order: at one edge (Kouyoumjian and Pathak 1974, with the reflection coefficients of both faces as in Sionna RT)
that the transmitter lights directly or by reflections.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import drjit as dr
import mitsuba as mi
import numpy as np
from numpy.typing import NDArray
from sionna.rt.constants import InteractionType
from sionna.rt.utils import spectrum_to_matrix_4f

from radiomaps.raytrace.arrays import floats, integers
from radiomaps.raytrace.backwards import arrive
from radiomaps.raytrace.lattice import Lattice
from radiomaps.raytrace.lighting import OFFSET_M, lit_edges
from radiomaps.raytrace.options import TraceOptions
from radiomaps.raytrace.world import Edges, Source, World

__all__ = ["LEAST_M", "Bend", "Cone", "Wedges", "diffracted", "keller_point", "lifted"]

#: Width of a ring of the lattice: with a small one, a vector's rays leave neighbouring points of one edge.
_ROWS = 0.2
#: Rays start at this distance (m) from an edge.
LEAST_M = 0.01
#: Smallest number of an edge's rays per metre, relative to the strongest edge.
_FEWEST = 0.05


@dataclass
class Cone:
    """Rays on Keller's cones, one per lane: each represents `measure` of edge length times angle.

    They leave `point` of the edge of lit pair `pair` along `outgoing`. The incident wave of `field` arrives there along
    `incoming`, `before` metres from the image source `start`. `number` identifies a ray within the trace.
    """

    pair: mi.UInt
    bend: Bend
    start: mi.Point3f
    point: mi.Point3f
    incoming: mi.Vector3f
    outgoing: mi.Vector3f
    before: mi.Float
    field: mi.Vector4f
    number: mi.UInt
    phase: mi.UInt
    measure: mi.Float
    mirrors: mi.UInt
    active: mi.Bool


@dataclass(frozen=True)
class _Group:
    """Lit pairs of one material, consecutive from `first`, and their rays, numbered from `number` in every batch."""

    shape: int
    first: int
    reach: NDArray[np.float64]
    lattice: Lattice
    number: int


class Wedges:
    """The edges that the transmitter lights, as pairs of an edge and an image source."""

    def __init__(self, world: World, source: Source, options: TraceOptions) -> None:
        self.world, self.source, self.options = world, source, options
        self.edges = world.edges(free=options.edge_diffraction)
        self.lit = lit_edges(world, source, options, self.edges)
        if not len(self.lit):
            return
        self.shape = self.edges.shape[self.lit.edge]
        self.columns = _Columns(self.edges)
        self.edge, self.mirrors = integers(self.lit.edge), integers(self.lit.mirrors)
        self.start = floats(self.lit.start)
        # Edges with more power get more rays per metre.
        density = np.sqrt(self.lit.power / self.lit.power.max())
        self.density = np.maximum(density, _FEWEST)
        self.share = floats(self.density)
        dr.make_opaque(self.edge, self.mirrors, self.start, self.share)

    def __len__(self) -> int:
        return len(self.lit)

    def get(self, pair: mi.UInt) -> Bend:
        """The edges of lit pairs."""
        return self.columns.gather(dr.gather(mi.UInt, self.edge, pair))

    def lights(self, pair: mi.UInt) -> tuple[mi.Point3f, mi.UInt]:
        """The image sources of lit pairs, and their numbers of reflections."""
        return dr.gather(mi.Point3f, self.start, pair), dr.gather(mi.UInt, self.mirrors, pair)

    def groups(self, batch: int) -> list[_Group]:
        """Split the lit pairs and their rays of a batch into one group per material of the edge."""
        reach = self.edges.length[self.lit.edge] * self.density
        total, number, found = float(reach.sum()), 0, []
        for shape in np.unique(self.shape):
            mine = np.flatnonzero(self.shape == shape)
            part = np.cumsum(reach[mine])
            count = max(64, round(self.options.rays_a_batch * float(part[-1]) / total))
            lattice = Lattice(count, batch, self.options.seed, _ROWS)
            found.append(_Group(int(shape), int(mine[0]), part, lattice, number))
            number += lattice.lanes
        return [replace(group, number=group.number + batch * number) for group in found]

    def cones(self, batch: int) -> Iterator[tuple[mi.BSDF, Cone]]:
        """A batch of rays, evenly distributed over all lit edges and the open angle about them, by material."""
        for group in self.groups(batch):
            for begin in range(0, group.lattice.lanes, self.options.chunk_rays):
                lanes = min(self.options.chunk_rays, group.lattice.lanes - begin)
                lane = dr.arange(mi.UInt, lanes) + dr.opaque(mi.UInt, begin)
                yield self.world.materials[group.shape], self.cone(group, lane)

    def cone(self, group: _Group, lane: mi.UInt) -> Cone:
        """Rays from consecutive pairs; `reach` is the cumulative sum of their lengths weighted by shares of rays."""
        turn, where, active = group.lattice.shifted(lane)
        ends, total = floats(group.reach), dr.opaque(mi.Float, float(group.reach[-1]))
        dr.make_opaque(ends)
        place = where * total
        index = mi.UInt(dr.binary_search(0, len(group.reach) - 1, lambda i: dr.gather(mi.Float, ends, i) < place))
        pair = index + dr.opaque(mi.UInt, group.first)
        bend, share = self.get(pair), dr.gather(mi.Float, self.share, pair)
        start, mirrors = self.lights(pair)
        short = (dr.gather(mi.Float, ends, index) - place) / share
        point = bend.origin + bend.along * dr.clip(bend.length - short, 0.0, bend.length)
        before = dr.norm(point - start)
        incoming = (point - start) * dr.rcp(dr.maximum(before, 1e-6))
        bend.face(incoming)
        # Keller's cone: the outgoing ray has the incident ray's angle to the edge, and any azimuth in the open angle.
        forward = dr.select(dr.dot(bend.along, incoming) > 0, bend.along, -bend.along)
        cosine = dr.dot(incoming, forward)
        sine = dr.safe_sqrt(1 - dr.square(cosine))
        opening = bend.exterior()
        sin_turn, cos_turn = dr.sincos(turn * opening)
        across = dr.normalize(dr.cross(bend.first, bend.along))
        outgoing = sine * (cos_turn * across + sin_turn * bend.first) + cosine * forward
        field, arrived = arrive(self.world, self.source, lifted(bend, point), start, mirrors)
        active &= arrived & (before > LEAST_M) & (sine > 1e-3)
        measure = total * opening * dr.opaque(mi.Float, 1 / group.lattice.count) / share
        number = lane + dr.opaque(mi.UInt, group.number)
        phase = group.lattice.index(lane)
        return Cone(
            pair, bend, start, point, incoming, outgoing, before, field, number, phase, measure, mirrors, active
        )  # fmt: skip


class Bend:
    """Edges for kernels, one per lane."""

    def __init__(
        self, origin: mi.Point3f, along: mi.Vector3f, length: mi.Float, first: mi.Vector3f, second: mi.Vector3f
    ) -> None:
        self.origin, self.along, self.length, self.first, self.second = origin, along, length, first, second
        middle = first + second
        # A free edge has no outward direction: its normals cancel.
        self.outward = dr.select(dr.norm(middle) > 1e-3, dr.normalize(middle), mi.Vector3f(0.0))

    def exterior(self) -> mi.Float:
        """The angle of open space about the edge."""
        return dr.two_pi - dr.safe_acos(-dr.dot(self.first, self.second))

    def face(self, incoming: mi.Vector3f) -> None:
        """Swap the faces where the incident wave does not reach the first, and reverse the edge with them."""
        swap = dr.dot(incoming, self.first) > 0
        self.first, self.second = dr.select(swap, self.second, self.first), dr.select(swap, self.first, self.second)
        self.origin = dr.select(swap, self.origin + self.along * self.length, self.origin)
        self.along = dr.select(swap, -self.along, self.along)


class _Columns:
    """Columns of `Edges` on the device."""

    def __init__(self, edges: Edges) -> None:
        columns = (edges.origin, edges.along, edges.normals[:, 0], edges.normals[:, 1])
        self.vectors = [floats(column) for column in columns]
        self.length = floats(edges.length)
        dr.make_opaque(self.length, *self.vectors)

    def gather(self, edge: mi.UInt) -> Bend:
        origin, along, first, second = (dr.gather(mi.Vector3f, column, edge) for column in self.vectors)
        return Bend(mi.Point3f(origin), along, dr.gather(mi.Float, self.length, edge), first, second)


def lifted(bend: Bend, point: mi.Point3f) -> mi.Point3f:
    """Points of edges, moved slightly away from the solid."""
    return point + OFFSET_M * bend.outward


def diffracted(
    field: mi.Vector4f,
    bend: Bend,
    bsdf: mi.BSDF,
    incoming: mi.Vector3f,
    outgoing: mi.Vector3f,
    before: mi.Float,
    after: mi.Float,
) -> mi.Vector4f:
    """The field at the edge times the material's diffraction coefficients, without the spreading factor."""
    si = dr.zeros(mi.SurfaceInteraction3f, dr.width(incoming))
    normal = bend.first * dr.sign(dr.dot(bend.first, -incoming))
    si.n = mi.Normal3f(normal)
    si.sh_frame.n = mi.Normal3f(normal)
    si.initialize_sh_frame()
    # Sionna's radio materials read their input from these fields of the interaction.
    si.wi = si.to_local(incoming)
    si.dn_du, si.dn_dv = si.to_local(bend.along), si.to_local(bend.second)
    kind = dr.reinterpret_array(mi.Float, mi.UInt(InteractionType.DIFFRACTION))
    si.dp_du = mi.Vector3f(after, before, kind)
    si.duv_dx, si.duv_dy = mi.Vector2f(field.x, field.y), mi.Vector2f(field.z, field.w)
    context = mi.BSDFContext(mode=mi.TransportMode.Importance, type_mask=0, component=0)
    context.component |= InteractionType.DIFFRACTION
    jones = spectrum_to_matrix_4f(bsdf.eval(context, si, outgoing, mi.Bool(True)))
    return mi.Vector4f(jones @ field)


def keller_point(origin: mi.Point3f, along: mi.Vector3f, start: mi.Point3f, end: mi.Point3f) -> mi.Float:
    """Position along an edge of the point of the shortest path from start to end over the edge's line.

    The distances of start and end from the line divide the segment between their feet.
    """
    to_start, to_end = start - origin, end - origin
    a, b = dr.dot(to_start, along), dr.dot(to_end, along)
    da, db = dr.norm(to_start - along * a), dr.norm(to_end - along * b)
    return a + (b - a) * da * dr.rcp(dr.maximum(da + db, 1e-9))
