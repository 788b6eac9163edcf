"""Diffraction at edges: rays on Keller's cones find which edges serve a voxel, the uniform theory gives its path.

First order, from the transmitter over one edge to the voxel's centre (Kouyoumjian and Pathak 1974, with the material's
reflection at both faces as Sionna RT evaluates it). An edge's path is exact at the centre whatever ray found it.
"""

from __future__ import annotations

from typing import Any

import drjit as dr
import mitsuba as mi
import numpy as np
from numpy.typing import NDArray
from sionna.rt.constants import InteractionType
from sionna.rt.utils import spectrum_to_matrix_4f

from geoml.errors import UserError
from radiomaps.raytrace.chains import CentrePaths, grow, join
from radiomaps.raytrace.lattice import Lattice
from radiomaps.raytrace.options import TraceOptions
from radiomaps.raytrace.table import PathTable
from radiomaps.raytrace.voxels import Crossing, Voxels
from radiomaps.raytrace.world import Edges, Source, World

__all__ = ["Bender"]

#: Rays to and from a solid edge are tested this far outside it too, so that none slips along a face into the solid.
_OFFSET_M = 0.05
#: Edges are asked for sight of the transmitter at points this far apart.
_PROBE_M = 2.0
_LEAST_M = 0.01
_CHUNK = 1 << 20
#: How often paths are offered to neighbours: what an edge serves is wide, and rays on its cone are few.
_ROUNDS = 12


class Bender:
    """The edges that the transmitter sees, the table of those that serve each voxel, and their paths."""

    def __init__(self, world: World, source: Source, options: TraceOptions, voxels: Voxels) -> None:
        if options.estimator != "paths":
            raise UserError(f"diffraction needs estimator=paths, not {options.estimator}")
        self.world, self.source, self.options, self.voxels = world, source, options, voxels
        self.table = PathTable(voxels.size)
        self.edges = _facing(world.edges(free=options.edge_diffraction), source.position)
        if len(self.edges):
            self.edges = self.edges[self._seen(*_probes(self.edges))]
        self.reach = np.cumsum(self.edges.length)
        self.device: Any = _DeviceEdges(self.edges) if len(self.edges) else None

    def _seen(self, edge: NDArray[np.int64], place: NDArray[np.float64]) -> NDArray[np.int64]:
        """Edges with a probe that the transmitter sees."""
        outside = _outward(self.edges)
        points = self.edges.origin[edge] + place[:, None] * self.edges.along[edge] + _OFFSET_M * outside[edge]
        target = mi.Point3f(*(mi.Float(points[:, k].astype(np.float32)) for k in range(3)))
        dr.make_opaque(target)
        return np.unique(edge[_clear(self.world, self.source.point(), target).numpy()])

    def shoot(self, lattice: Lattice) -> None:
        """Enter the edges that a batch of rays carries to voxels into the table."""
        if self.device is None:
            return
        for begin in range(0, lattice.lanes, self.options.chunk_rays):
            lanes = min(self.options.chunk_rays, lattice.lanes - begin)
            self._shoot(lattice, dr.arange(mi.UInt, lanes) + dr.opaque(mi.UInt, begin))

    def _shoot(self, lattice: Lattice, lane: mi.UInt) -> None:
        where, turn, active = lattice.shifted(lane)
        total = float(self.reach[-1])
        ends = mi.Float(self.reach.astype(np.float32))
        dr.make_opaque(ends)
        place = where * dr.opaque(mi.Float, total)
        edge = dr.binary_search(0, len(self.edges) - 1, lambda i: dr.gather(mi.Float, ends, i) < place)
        edge = mi.UInt(edge)
        bend = self.device.gather(edge)
        point = bend.origin + bend.along * dr.clip(
            bend.length - (dr.gather(mi.Float, ends, edge) - place), 0.0, bend.length
        )
        start = self.source.point()
        incoming = dr.normalize(point - start)
        bend.face(incoming)
        # Keller's cone: the outgoing ray keeps its angle to the edge, and turns about it through the open space.
        forward = dr.select(dr.dot(bend.along, incoming) > 0, bend.along, -bend.along)
        cosine = dr.dot(incoming, forward)
        sine = dr.safe_sqrt(1 - dr.square(cosine))
        sin_turn, cos_turn = dr.sincos(turn * bend.exterior())
        across = dr.normalize(dr.cross(bend.first, bend.along))
        outgoing = sine * (cos_turn * across + sin_turn * bend.first) + cosine * forward
        shifted = point + _OFFSET_M * bend.outward
        active &= _clear(self.world, start, shifted)
        ray = mi.Ray3f(o=shifted + outgoing * _LEAST_M, d=outgoing)  # off the sheet whose free edge this is
        ray.time = dr.zeros(mi.Float, dr.width(lane))
        si = self.world.mi_scene.ray_intersect(ray, ray_flags=mi.RayFlags.Minimal, coherent=False, active=active)
        end = dr.select(si.is_valid(), si.t, dr.inf)
        before = dr.norm(point - start)
        wavelength = dr.opaque(mi.Float, self.world.wavelength_m)

        def visit(crossing: Crossing) -> None:
            # A knife edge stands in for the wedge while paths compete: 0.05 / (0.2 + ν²) of free space.
            straight = dr.norm(crossing.centre - start)
            detour = dr.maximum(before + dr.norm(crossing.centre - point) - straight, 0.0)
            loss = 0.05 * dr.rcp(0.2 + 4 * detour / wavelength)
            self.table.put(crossing.cell, edge + 1, loss * dr.rcp(dr.square(straight)), crossing.active)

        self.voxels.march(point, outgoing, end, active, visit)
        dr.eval(self.table.slots)

    def paths(self) -> CentrePaths:
        """Diffracted paths to voxels' centres, each edge once."""
        if self.device is None:
            return CentrePaths.none()
        return grow(self.table, self._exact, self.voxels, _ROUNDS)

    def _exact(self, table: PathTable) -> CentrePaths:
        """Diffracted paths of a table at the voxels' centres."""
        cell, identity = table.paths()
        shape = self.edges.shape[identity - 1]
        parts = [CentrePaths.none()]
        for index, bsdf in enumerate(self.world.materials):
            mine = np.flatnonzero(shape == index)
            for begin in range(0, len(mine), _CHUNK):
                part = mine[begin : begin + _CHUNK]
                parts.append(self._bent(cell[part], identity[part], bsdf))
        return join(parts)

    def _bent(self, cell: NDArray[np.uint32], identity: NDArray[np.uint32], bsdf: mi.BSDF) -> CentrePaths:
        """The paths of those pairs of voxel and edge (of one material) that have one."""
        index, number = mi.UInt(cell), mi.UInt(identity)
        dr.make_opaque(index, number)
        bend = self.device.gather(number - 1)
        start, centre = self.source.point(), self.voxels.centres(index)
        place = _keller_point(bend, start, centre)
        point = bend.origin + bend.along * place
        before, after = dr.norm(point - start), dr.norm(centre - point)
        incoming, outgoing = (point - start) / before, (centre - point) / after
        bend.face(incoming)
        shifted = point + _OFFSET_M * bend.outward
        valid = (place > 0) & (place < bend.length) & (before > _LEAST_M) & (after > _LEAST_M)
        for target in (point, shifted):
            valid &= _clear(self.world, start, target) & _clear(self.world, centre, target)
        field = self._diffracted(bend, bsdf, incoming, outgoing, before, after)
        strength = dr.squared_norm(field) * dr.rcp(before * after * (before + after))
        valid &= dr.isfinite(strength) & (strength > 0)
        # Seen from the voxel, the wave comes from the edge, as far away as the whole way is.
        toward = -outgoing * (before + after)
        dr.eval(valid, strength, toward)
        return CentrePaths(cell, identity, strength.numpy(), toward.numpy().T)[valid.numpy()]

    def _diffracted(
        self,
        bend: _Bend,
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
        field = self.source.field(incoming)
        si.duv_dx, si.duv_dy = mi.Vector2f(field.x, field.y), mi.Vector2f(field.z, field.w)
        context = mi.BSDFContext(mode=mi.TransportMode.Importance, type_mask=0, component=0)
        context.component |= InteractionType.DIFFRACTION
        jones = spectrum_to_matrix_4f(bsdf.eval(context, si, outgoing, mi.Bool(True)))
        return mi.Vector4f(jones @ field)


class _Bend:
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


class _DeviceEdges:
    """Columns of `Edges` on the device."""

    def __init__(self, edges: Edges) -> None:
        columns = (edges.origin, edges.along, edges.normals[:, 0], edges.normals[:, 1])
        self.vectors = [mi.Float(column.astype(np.float32).ravel()) for column in columns]
        self.length = mi.Float(edges.length.astype(np.float32))
        dr.make_opaque(self.length, *self.vectors)

    def gather(self, edge: mi.UInt) -> _Bend:
        origin, along, first, second = (dr.gather(mi.Vector3f, column, edge) for column in self.vectors)
        return _Bend(mi.Point3f(origin), along, dr.gather(mi.Float, self.length, edge), first, second)


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


def _keller_point(bend: _Bend, start: mi.Point3f, end: mi.Point3f) -> mi.Float:
    """Where along the edge the shortest way from start to end touches its line: distances divide it."""
    to_start, to_end = start - bend.origin, end - bend.origin
    a, b = dr.dot(to_start, bend.along), dr.dot(to_end, bend.along)
    da, db = dr.norm(to_start - bend.along * a), dr.norm(to_end - bend.along * b)
    return a + (b - a) * da * dr.rcp(dr.maximum(da + db, 1e-9))


def _clear(world: World, start: mi.Point3f, end: mi.Point3f) -> mi.Bool:
    """Whether nothing stands between points, up to a hair before the end."""
    away = end - start
    distance = dr.norm(away)
    width = dr.width(away)
    ray = mi.Ray3f(o=start + mi.Vector3f(dr.zeros(mi.Float, width)), d=away * dr.rcp(dr.maximum(distance, 1e-6)))
    ray.maxt = dr.maximum(distance * (1 - 1e-5) - 1e-4, 0.0)
    ray.time = dr.zeros(mi.Float, width)
    return ~world.mi_scene.ray_test(ray, coherent=False, active=distance > 1e-3)
