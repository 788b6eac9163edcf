"""The voxel grid for kernels, and the traversal of straight segments through it.

A ray of solid angle dΩ and field E carries |E|² dΩ through any surface. Where it crosses a centre plane of a voxel, of
area A and at an angle θ to the plane's normal, it adds |E|² dΩ / (A |cos θ|) to that voxel's Σ|a|² (4π/λ)². The sum
over rays estimates the mean over the plane. With planes across the ray's dominant axis (in voxels) the weight is
bounded. With horizontal planes it is not, and rays along a layer are missed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import drjit as dr
import mitsuba as mi
import numpy as np
from numpy.typing import NDArray

from geoml.grids.grid import Grid
from radiomaps.raytrace.arrays import floats
from radiomaps.raytrace.options import Estimator
from radiomaps.raytrace.world import opaque_point

__all__ = ["Beam", "Crossing", "Voxels"]


@dataclass
class Crossing:
    """Crossings of segments and planes: voxel, its centre, distance along the segment, 1/(A |cos θ|), and validity."""

    cell: mi.UInt
    centre: mi.Point3f
    along: mi.Float
    density: mi.Float
    active: mi.Bool


@dataclass
class Beam:
    """Rays of one lattice: their density, and the planes on which they are counted.

    The wavefront has radii of curvature `radii` at the segment's origin, and `radii` + t at t metres along it. The
    density is `rays` / (product of the radii), relative to the density that is needed. `phase`, a ray's number in the
    lattice, distributes rays over the planes.
    """

    phase: mi.UInt
    radii: tuple[mi.Float, mi.Float]
    rays: mi.Float

    def stride(self, along: mi.Float, density: mi.Float) -> mi.Float:
        """Stride, a power of two, between the planes on which a ray is counted at the distance `along`."""
        one, two = (radius + along for radius in self.radii)
        few = dr.clip(self.rays * dr.rcp(density * one * two), 1.0, 1 << 20)
        # The power of two is the float's exponent.
        return dr.reinterpret_array(mi.Float, dr.reinterpret_array(mi.UInt, few) & mi.UInt(0x7F800000))


@dataclass
class _Line:
    """A segment in units of voxels, `start` + t `speed`, and its component along the dominant axis.

    On that axis it starts at `at` and takes `pause` metres per voxel. Planes are counted against the ray's direction,
    as `back` times their number; their centres lie at half-integers. `phase` shifts the count to start at the voxels'
    `zero`.
    """

    start: mi.Vector3f
    speed: mi.Vector3f
    along_x: mi.Bool
    along_y: mi.Bool
    back: mi.Int
    end: mi.Float
    at: mi.Float
    pause: mi.Float
    phase: mi.Int


class Voxels:
    """A metric grid `(z, y, x)` for kernels, in opaque numbers, so that one kernel serves all grids of one shape.

    Grid, ground and `zero`, the origin of the numbers of planes, are in the coordinates of the world.

    Over a ground `(y, x)`, columns are shifted by its height. Rays traverse the box around all of them, and each column
    still has one plane per voxel.
    """

    def __init__(
        self,
        grid: Grid,
        estimator: Estimator,
        ground_m: NDArray[np.float64] | None = None,
        *,
        zero: NDArray[np.float64] | tuple[float, float, float] = (0.0, 0.0, 0.0),
    ) -> None:
        self.shape = grid.shape
        self.size = grid.size
        self.estimator = estimator
        steps = np.array([grid[name].step for name in "xyz"])
        first = np.array([grid[name].start for name in "xyz"])
        self.step = mi.Vector3f(opaque_point(steps))
        self.lower = opaque_point(first - steps / 2)
        self.count = mi.Vector3f(opaque_point(np.array(self.shape[::-1], float)))
        self.density = dr.opaque(mi.Float, float(1 / np.prod(steps)))
        # Planes are numbered from a fixed point of the scene, so that all pieces of a grid count rays on the same ones.
        number = np.floor((first - steps / 2 - zero) / steps + 1e-3)
        self.number = [dr.opaque(mi.Int, int(part)) for part in number]
        self.planes = self.shape[0]
        self.rise: mi.Float | None = None
        if ground_m is not None:
            low = float(ground_m.min())
            rise = ((ground_m - low) / steps[2]).astype(np.float32)
            self.rise = floats(rise)
            self.planes += int(np.ceil(rise.max()))
            self.lower.z += dr.opaque(mi.Float, low)
            self.count.z = dr.opaque(mi.Float, float(self.planes))
            dr.make_opaque(self.rise)

    def centres(self, cell: mi.UInt) -> mi.Point3f:
        """Centres of voxels by their index in C order."""
        _, ny, nx = self.shape
        layer = mi.Float(cell // (nx * ny))
        if self.rise is not None:
            layer += dr.gather(mi.Float, self.rise, cell % (nx * ny))
        index = mi.Vector3f(mi.Float(cell % nx), mi.Float(cell // nx % ny), layer)
        return self.lower + self.step * (index + 0.5)

    def march(
        self,
        origin: mi.Point3f,
        direction: mi.Vector3f,
        end: mi.Float,
        active: mi.Bool,
        visit: Callable[[Crossing], None],
        *,
        beam: Beam | None = None,
    ) -> None:
        """Call `visit` (in a symbolic loop) where `origin + t direction`, 0 < t < `end`, crosses planes of the grid.

        Where rays of a `beam` are dense, they are counted on one plane in `2ᵏ`, with the weight `2ᵏ`. Segments are
        traversed from the far end, so that strides only grow and each is a multiple of the previous one: which planes
        count depends on the position alone, and all count equally often.
        """
        line, step, last, meets = self._enter(origin, direction, end)
        density = self.density * dr.abs(line.pause)
        phase = line.phase if beam is None else line.phase + mi.Int(beam.phase)

        def cross(step: mi.Int, run: mi.Bool) -> tuple[mi.Int, mi.Bool]:
            crossing = self._cross(line, step, density, run)
            rest = mi.Int(0)
            if beam is not None:
                stride = beam.stride(crossing.along, density)
                rest = mi.Int(stride) - 1
                crossing.active &= ((step + phase) & rest) == 0
                crossing.density = density * stride
            visit(crossing)
            step = ((step + phase) | rest) + 1 - phase
            return step, run & (step <= last)

        run = active & meets & (step <= last)
        dr.while_loop((step, run), lambda step, run: run, cross, mode="symbolic")

    def _enter(
        self, origin: mi.Point3f, direction: mi.Vector3f, end: mi.Float
    ) -> tuple[_Line, mi.Int, mi.Int, mi.Bool]:
        """A segment, its first and last planes in the grid, counted backwards, and whether it crosses the grid."""
        _, ny, nx = self.shape
        start, speed = mi.Vector3f((origin - self.lower) / self.step), direction / self.step
        speed = mi.Vector3f(*(dr.select(dr.abs(v) > 1e-9, v, dr.copysign(mi.Float(1e-9), v)) for v in speed))
        enter, leave = -start / speed, (self.count - start) / speed
        near = dr.maximum(0.0, dr.max(dr.minimum(enter, leave)))
        far = dr.minimum(end, dr.min(dr.maximum(enter, leave)))
        if self.estimator != "plane":
            size = dr.abs(speed)
            along_x = (size.x >= size.y) & (size.x >= size.z)
            along_y = ~along_x & (size.y >= size.z)
        else:
            along_x = along_y = mi.Bool(False)

        def pick(x: Any, y: Any, z: Any) -> Any:
            return dr.select(along_x, x, dr.select(along_y, y, z))

        at, pace = pick(*start), pick(*speed)
        back = dr.select(pace > 0, mi.Int(-1), mi.Int(1))
        phase = back * pick(*self.number)
        top = pick(mi.Int(nx), mi.Int(ny), mi.Int(self.planes)) - 1
        ends = at + near * pace, at + far * pace
        low = dr.maximum(mi.Int(dr.floor(dr.minimum(*ends) - 0.501)), 0)
        high = dr.minimum(mi.Int(dr.ceil(dr.maximum(*ends) - 0.499)), top)
        first = dr.select(pace > 0, -high, low)
        last = dr.select(pace > 0, -low, high)
        line = _Line(start, speed, along_x, along_y, back, end, at, dr.rcp(pace), phase)
        return line, first, last, near < far

    def _cross(self, line: _Line, step: mi.Int, density: mi.Float, active: mi.Bool) -> Crossing:
        """Where lines cross one plane each."""
        nz, ny, nx = self.shape
        plane = step * line.back
        t = (mi.Float(plane) + 0.5 - line.at) * line.pause
        v = line.start + t * line.speed
        ix, iy, iz = (mi.Int(dr.floor(part)) for part in v)
        level = line.along_x | line.along_y
        ix = dr.select(line.along_x, plane, ix)
        iy = dr.select(line.along_y, plane, iy)
        iz = dr.select(level, iz, plane)
        inside = active & (t > 0) & (t < line.end) & (ix >= 0) & (ix < nx) & (iy >= 0) & (iy < ny)
        layer = mi.Float(iz)
        if self.rise is not None:
            rise = dr.gather(mi.Float, self.rise, mi.UInt(iy * nx + ix), inside)
            iz = mi.Int(dr.floor(dr.select(level, v.z, mi.Float(plane) + 0.5) - rise))
            layer = mi.Float(iz) + rise
        inside &= (iz >= 0) & (iz < nz)
        centre = self.lower + self.step * (mi.Vector3f(mi.Float(ix), mi.Float(iy), layer) + 0.5)
        return Crossing(mi.UInt((iz * ny + iy) * nx + ix), centre, t, density, inside)
