"""Edges that bend waves: which of them the transmitter sees, rays from them, and what a wedge leaves of a wave.

First order, from the transmitter over one edge (Kouyoumjian and Pathak 1974, with the material's reflection at both
faces as Sionna RT evaluates it).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import drjit as dr
import mitsuba as mi
import numpy as np
from numpy.typing import NDArray
from sionna.rt.constants import InteractionType
from sionna.rt.utils import spectrum_to_matrix_4f

from radiomaps.raytrace.arrays import floats
from radiomaps.raytrace.lattice import Lattice
from radiomaps.raytrace.options import TraceOptions
from radiomaps.raytrace.world import Edges, Source, World

__all__ = ["LEAST_M", "Bend", "Cone", "Wedges", "clear", "diffracted", "keller_point", "lifted"]

#: Rays to and from a solid edge are tested this far outside it too, so that none slips along a face into the solid.
_OFFSET_M = 0.05
#: Edges are asked for sight of the transmitter at points this far apart.
_PROBE_M = 2.0
#: Rows of rays visited side by side: of few, a vector's rays leave neighbouring points of one edge.
_ROWS = 0.2
#: Nearer to an edge than this there is no ray.
LEAST_M = 0.01


@dataclass
class Cone:
    """Rays on Keller's cones, one a lane: each stands for `measure` of edge length times angle.

    They leave `point` of `edge` along `outgoing`, whither the wave came along `incoming` over `before` metres, and end
    after `end` metres.
    """

    edge: mi.UInt
    bend: Bend
    point: mi.Point3f
    incoming: mi.Vector3f
    outgoing: mi.Vector3f
    before: mi.Float
    end: mi.Float
    phase: mi.UInt
    measure: mi.Float
    active: mi.Bool


class Wedges:
    """The edges that the transmitter sees."""

    def __init__(self, world: World, source: Source, options: TraceOptions) -> None:
        self.world, self.source, self.options = world, source, options
        self.edges = _facing(world.edges(free=options.edge_diffraction), source.position)
        if len(self.edges):
            self.edges = self.edges[self._seen(*_probes(self.edges))]
        self.columns = _Columns(self.edges) if len(self.edges) else None

    def __len__(self) -> int:
        return len(self.edges)

    def _seen(self, edge: NDArray[np.int64], place: NDArray[np.float64]) -> NDArray[np.int64]:
        """Edges with a probe that the transmitter sees."""
        outside = _outward(self.edges)
        points = self.edges.origin[edge] + place[:, None] * self.edges.along[edge] + _OFFSET_M * outside[edge]
        target = mi.Point3f(*(floats(points[:, k]) for k in range(3)))
        dr.make_opaque(target)
        return np.unique(edge[clear(self.world, self.source.point(), target).numpy()])

    def get(self, edge: mi.UInt) -> Bend:
        """Edges by number."""
        assert self.columns is not None
        return self.columns.gather(edge)

    def cones(self, batch: Lattice) -> Iterator[tuple[mi.BSDF, Cone]]:
        """A batch of rays, evenly spread over all edges and the open space about them, material by material."""
        total = float(self.edges.length.sum())
        for shape in np.unique(self.edges.shape):
            mine = np.flatnonzero(self.edges.shape == shape)
            reach = np.cumsum(self.edges.length[mine])
            lattice = Lattice(max(64, round(batch.count * float(reach[-1]) / total)), batch.batch, batch.seed, _ROWS)
            for begin in range(0, lattice.lanes, self.options.chunk_rays):
                lanes = min(self.options.chunk_rays, lattice.lanes - begin)
                lane = dr.arange(mi.UInt, lanes) + dr.opaque(mi.UInt, begin)
                yield self.world.materials[shape], self._cone(lattice, lane, int(mine[0]), reach)

    def _cone(self, lattice: Lattice, lane: mi.UInt, first: int, reach: NDArray[np.float64]) -> Cone:
        """Rays from consecutive edges, `first` and those after it, whose lengths add up to `reach`."""
        turn, where, active = lattice.shifted(lane)
        ends, total = floats(reach), dr.opaque(mi.Float, float(reach[-1]))
        dr.make_opaque(ends)
        place = where * total
        index = mi.UInt(dr.binary_search(0, len(reach) - 1, lambda i: dr.gather(mi.Float, ends, i) < place))
        edge = index + dr.opaque(mi.UInt, first)
        bend = self.get(edge)
        short = dr.gather(mi.Float, ends, index) - place
        point = bend.origin + bend.along * dr.clip(bend.length - short, 0.0, bend.length)
        start = self.source.point()
        before = dr.norm(point - start)
        incoming = (point - start) * dr.rcp(dr.maximum(before, 1e-6))
        bend.face(incoming)
        # Keller's cone: the outgoing ray keeps its angle to the edge, and turns about it through the open space.
        forward = dr.select(dr.dot(bend.along, incoming) > 0, bend.along, -bend.along)
        cosine = dr.dot(incoming, forward)
        sine = dr.safe_sqrt(1 - dr.square(cosine))
        opening = bend.exterior()
        sin_turn, cos_turn = dr.sincos(turn * opening)
        across = dr.normalize(dr.cross(bend.first, bend.along))
        outgoing = sine * (cos_turn * across + sin_turn * bend.first) + cosine * forward
        outside = lifted(bend, point)
        active &= clear(self.world, start, outside) & (before > LEAST_M) & (sine > 1e-3)
        ray = mi.Ray3f(o=outside + outgoing * LEAST_M, d=outgoing)  # off the sheet whose free edge this is
        ray.time = dr.zeros(mi.Float, dr.width(lane))
        si = self.world.mi_scene.ray_intersect(ray, ray_flags=mi.RayFlags.Minimal, coherent=True, active=active)
        end = dr.select(si.is_valid(), si.t, dr.inf)
        measure = total * opening * dr.opaque(mi.Float, 1 / lattice.count)
        phase = lattice.index(lane)
        return Cone(edge, bend, point, incoming, outgoing, before, end, phase, measure, active)


class Bend:
    """Edges as kernels see them, one a lane."""

    def __init__(
        self, origin: mi.Point3f, along: mi.Vector3f, length: mi.Float, first: mi.Vector3f, second: mi.Vector3f
    ) -> None:
        self.origin, self.along, self.length, self.first, self.second = origin, along, length, first, second
        middle = first + second
        # A free edge has no outside: its normals cancel.
        self.outward = dr.select(dr.norm(middle) > 1e-3, dr.normalize(middle), mi.Vector3f(0.0))

    def exterior(self) -> mi.Float:
        """The angle of open space about the edge."""
        return dr.two_pi - dr.safe_acos(-dr.dot(self.first, self.second))

    def face(self, incoming: mi.Vector3f) -> None:
        """Swap the faces where the first does not see the wave come, and turn the edge with them."""
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
    """Points of edges, moved a little away from the solid."""
    return point + _OFFSET_M * bend.outward


def diffracted(
    source: Source,
    bend: Bend,
    bsdf: mi.BSDF,
    incoming: mi.Vector3f,
    outgoing: mi.Vector3f,
    before: mi.Float,
    after: mi.Float,
) -> mi.Vector4f:
    """The source's field times the material's diffraction coefficients, without the spreading of the wave."""
    si = dr.zeros(mi.SurfaceInteraction3f, dr.width(incoming))
    normal = bend.first * dr.sign(dr.dot(bend.first, -incoming))
    si.n = mi.Normal3f(normal)
    si.sh_frame.n = mi.Normal3f(normal)
    si.initialize_sh_frame()
    # The radio materials read their input from these fields of the interaction.
    si.wi = si.to_local(incoming)
    si.dn_du, si.dn_dv = si.to_local(bend.along), si.to_local(bend.second)
    kind = dr.reinterpret_array(mi.Float, mi.UInt(InteractionType.DIFFRACTION))
    si.dp_du = mi.Vector3f(after, before, kind)
    field = source.field(incoming)
    si.duv_dx, si.duv_dy = mi.Vector2f(field.x, field.y), mi.Vector2f(field.z, field.w)
    context = mi.BSDFContext(mode=mi.TransportMode.Importance, type_mask=0, component=0)
    context.component |= InteractionType.DIFFRACTION
    jones = spectrum_to_matrix_4f(bsdf.eval(context, si, outgoing, mi.Bool(True)))
    return mi.Vector4f(jones @ field)


def keller_point(bend: Bend, start: mi.Point3f, end: mi.Point3f) -> mi.Float:
    """Where along the edge the shortest way from start to end touches its line: distances divide it."""
    to_start, to_end = start - bend.origin, end - bend.origin
    a, b = dr.dot(to_start, bend.along), dr.dot(to_end, bend.along)
    da, db = dr.norm(to_start - bend.along * a), dr.norm(to_end - bend.along * b)
    return a + (b - a) * da * dr.rcp(dr.maximum(da + db, 1e-9))


def clear(world: World, start: mi.Point3f, end: mi.Point3f) -> mi.Bool:
    """Whether nothing stands between points, up to a hair before the end."""
    away = end - start
    distance = dr.norm(away)
    width = dr.width(away)
    ray = mi.Ray3f(o=start + mi.Vector3f(dr.zeros(mi.Float, width)), d=away * dr.rcp(dr.maximum(distance, 1e-6)))
    ray.maxt = dr.maximum(distance * (1 - 1e-5) - 1e-4, 0.0)
    ray.time = dr.zeros(mi.Float, width)
    return ~world.mi_scene.ray_test(ray, coherent=False, active=distance > 1e-3)


def _facing(edges: Edges, position: NDArray[np.float64]) -> Edges:
    """Edges with a face that looks at the transmitter."""
    toward = position - edges.origin
    looks = np.einsum("ekj,ej->ek", edges.normals, toward) > 1e-6
    return edges[np.flatnonzero(looks.any(axis=1))]


def _outward(edges: Edges) -> NDArray[np.float64]:
    """Unit vectors away from the solid; zero for free edges."""
    middle = edges.normals.sum(axis=1)
    length = np.linalg.norm(middle, axis=1, keepdims=True)
    return np.where(length > 1e-3, middle / np.maximum(length, 1e-3), 0.0)


def _probes(edges: Edges) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Evenly spaced points of edges: the edge, and the distance along it."""
    count = np.ceil(edges.length / _PROBE_M).astype(np.int64)
    edge = np.repeat(np.arange(len(edges)), count)
    step = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
    return edge, (step + 0.5) * (edges.length / count)[edge]
