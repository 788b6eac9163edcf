"""Diffracted waves on the grid: the means that rays from edges deposit, or the exact paths over edges they find."""

from __future__ import annotations

import drjit as dr
import mitsuba as mi
import numpy as np
from numpy.typing import NDArray

from radiomaps.raytrace.arrays import integers
from radiomaps.raytrace.bounce import BOUNCE_BITS
from radiomaps.raytrace.chains import CentrePaths, grow, join
from radiomaps.raytrace.lattice import Lattice
from radiomaps.raytrace.moments import ENOUGH, Rays, Sums
from radiomaps.raytrace.path_slots import PathTable
from radiomaps.raytrace.voxels import Beam, Crossing, Voxels
from radiomaps.raytrace.wedges import LEAST_M, Cone, Wedges, clear, diffracted, keller_point, lifted
from radiomaps.raytrace.world import Source

__all__ = ["Bender", "deposit", "toward_edges"]

_CHUNK = 1 << 20
_LEAST = 1e-4
#: How often paths are offered to neighbours: what an edge serves is wide, and rays on its cone are few.
_ROUNDS = 12
#: Metres after an edge at which its coefficient is evaluated.
_NODES = (2.0, 16.0, 128.0)


def deposit(wedges: Wedges, voxels: Voxels, lattice: Lattice, sums: Sums) -> None:
    """Add a batch of diffracted rays to `sums`, by edges as names: means over voxels.

    A piece dℓ of an edge sends into the angle dφ about it a tube of cross-section s (s + s')/s' sin²β dℓ dφ, s metres
    on, with power |D E|²/(s s' (s + s')); so it carries |D E|² sin²β / s'² dℓ dφ, however far.
    """
    straight = wedges.source.point()
    for bsdf, cone in wedges.cones(lattice) if len(wedges) else ():
        power = _Power(wedges.source, cone, bsdf)
        sine2 = 1 - dr.square(dr.dot(cone.incoming, cone.bend.along))
        before2 = dr.rcp(dr.square(cone.before))
        name = cone.edge << BOUNCE_BITS
        dense = cone.before * dr.rcp(sine2 * cone.measure * ENOUGH * dr.opaque(mi.Float, 1 / wedges.options.batches))
        beam = Beam(cone.phase, (mi.Float(0.0), cone.before), dense)

        def visit(
            crossing: Crossing,
            cone: Cone = cone,
            power: _Power = power,
            weight: mi.Float = sine2 * before2 * cone.measure,
            name: mi.UInt = name,
        ) -> None:
            left = power.at(crossing.along)
            distance = dr.norm(crossing.centre - cone.point)
            own = left * distance * dr.rcp(cone.before * (cone.before + distance))
            rays = Rays(left * weight, cone.point, cone.before, own, name, straight)
            sums.add(crossing, crossing.active, rays)

        voxels.march(cone.point, cone.outgoing, cone.end, cone.active, visit, beam=beam)
    sums.eval()  # at once: every evaluation adds up the threads' copies


def toward_edges(wedges: Wedges, edge: mi.UInt, centre: mi.Point3f) -> mi.Vector3f:
    """Directions from places to where waves turn about edges towards them, as long as the whole way."""
    start, bend = wedges.source.point(), wedges.get(edge)
    away = bend.origin + bend.along * dr.clip(keller_point(bend, start, centre), 0.0, bend.length) - centre
    after = dr.norm(away)
    return away * ((dr.norm(centre + away - start) + after) * dr.rcp(dr.maximum(after, 1e-6)))


class _Power:
    """|D E|² along rays.

    The coefficient depends on the distances s before and s' after the edge by s s'/(s + s') alone (Kouyoumjian and
    Pathak 1974, equation 28), and slowly: it is evaluated at three distances, and a power of this length between them.
    """

    def __init__(self, source: Source, cone: Cone, bsdf: mi.BSDF) -> None:
        self.before = cone.before

        def level(after: float) -> mi.Float:
            away = dr.opaque(mi.Float, after)
            field = diffracted(source, cone.bend, bsdf, cone.incoming, cone.outgoing, cone.before, away)
            power = dr.squared_norm(field)
            return dr.log2(dr.select(dr.isfinite(power), dr.maximum(power, 1e-20), 1e-20))

        low, self.middle, high = (level(node) for node in _NODES)
        first, self.place, last = (self._length(mi.Float(node)) for node in _NODES)
        self.rise = (self.middle - low) * dr.rcp(self.place - first)
        self.further = (high - self.middle) * dr.rcp(last - self.place)

    def _length(self, after: mi.Float) -> mi.Float:
        return dr.log2(self.before * after * dr.rcp(self.before + after))

    def at(self, along: mi.Float) -> mi.Float:
        """Its value `along` metres after the edge."""
        away = self._length(dr.maximum(along, LEAST_M)) - self.place
        return dr.exp2(self.middle + away * dr.select(away < 0, self.rise, self.further))


class Bender:
    """The table of edges that serve each voxel, and their exact paths.

    `direct` is every voxel's gain in line of sight, beside which paths 40 dB weaker are let go: in the light hundreds
    of edges serve a voxel, and together add less than 0.1 dB.
    """

    def __init__(self, wedges: Wedges, voxels: Voxels, direct: NDArray[np.float32]) -> None:
        self.wedges, self.voxels, self.least = wedges, voxels, _LEAST * direct
        self.world, self.source = wedges.world, wedges.source
        self.table = PathTable(voxels.size)

    def shoot(self, lattice: Lattice) -> None:
        """Enter the edges that a batch of rays carries to voxels into the table."""
        start = self.source.point()
        wavelength = dr.opaque(mi.Float, self.world.wavelength_m)
        for _, cone in self.wedges.cones(lattice) if len(self.wedges) else ():

            def visit(crossing: Crossing, cone: Cone = cone) -> None:
                # A knife edge stands in for the wedge while paths compete: 0.05 / (0.2 + ν²) of free space.
                straight = dr.norm(crossing.centre - start)
                detour = dr.maximum(cone.before + dr.norm(crossing.centre - cone.point) - straight, 0.0)
                loss = 0.05 * dr.rcp(0.2 + 4 * detour / wavelength)
                self.table.put(crossing.cell, cone.edge + 1, loss * dr.rcp(dr.square(straight)), crossing.active)

            self.voxels.march(cone.point, cone.outgoing, cone.end, cone.active, visit)
            dr.eval(self.table.slots)

    def paths(self) -> CentrePaths:
        """Diffracted paths to voxels' centres, each edge once."""
        if not len(self.wedges):
            return CentrePaths.none()
        return grow(self.table, self._exact, self.voxels, _ROUNDS)

    def _exact(self, table: PathTable) -> CentrePaths:
        """Diffracted paths of a table at the voxels' centres."""
        cell, identity = table.paths()
        shape = self.wedges.edges.shape[identity - 1]
        parts = [CentrePaths.none()]
        for index, bsdf in enumerate(self.world.materials):
            mine = np.flatnonzero(shape == index)
            for begin in range(0, len(mine), _CHUNK):
                part = mine[begin : begin + _CHUNK]
                parts.append(self._bent(cell[part], identity[part], bsdf))
        return join(parts)

    def _bent(self, cell: NDArray[np.uint32], identity: NDArray[np.uint32], bsdf: mi.BSDF) -> CentrePaths:
        """The paths of those pairs of voxel and edge (of one material) that have one."""
        index, number = integers(cell), integers(identity)
        dr.make_opaque(index, number)
        bend = self.wedges.get(number - 1)
        start, centre = self.source.point(), self.voxels.centres(index)
        place = keller_point(bend, start, centre)
        point = bend.origin + bend.along * place
        before, after = dr.norm(point - start), dr.norm(centre - point)
        incoming, outgoing = (point - start) / before, (centre - point) / after
        bend.face(incoming)
        outside = lifted(bend, point)
        valid = (place > 0) & (place < bend.length) & (before > LEAST_M) & (after > LEAST_M)
        for target in (point, outside):
            valid &= clear(self.world, start, target) & clear(self.world, centre, target)
        field = diffracted(self.source, bend, bsdf, incoming, outgoing, before, after)
        strength = dr.squared_norm(field) * dr.rcp(before * after * (before + after))
        valid &= dr.isfinite(strength) & (strength > 0)
        # Seen from the voxel, the wave comes from the edge, as far away as the whole way is.
        toward = -outgoing * (before + after)
        dr.eval(valid, strength, toward)
        kept = valid.numpy() & (strength.numpy() > self.least[cell])
        return CentrePaths(cell, identity, strength.numpy(), toward.numpy().T)[kept]
