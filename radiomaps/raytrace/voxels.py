"""Accumulators on a voxel grid, and the march of straight segments through it.

A ray of solid angle dΩ and field E carries |E|² dΩ through any surface. Where it crosses a plane of a voxel, of area A
and at an angle θ to its normal, it adds |E|² dΩ / (A |cos θ|) to that voxel's Σ|a|² (4π/λ)²: the sum over rays
estimates the mean over the plane. With planes across the ray's dominant axis (in voxels) the weight is bounded; with
horizontal planes it is not, and rays along a layer are missed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import drjit as dr
import mitsuba as mi
import numpy as np
from numpy.typing import NDArray

from geoml.grids import Grid
from radiomaps.raytrace.options import Estimator
from radiomaps.raytrace.world import opaque_point

__all__ = ["MOMENTS", "Crossing", "Sums", "Voxels"]

#: Columns of `Sums.moments`: Σw, Σw·(direction of arrival), Σw·e, Σw·e² (e: metres beyond the straight way), hits.
MOMENTS = ("gain", "x", "y", "z", "excess", "excess2", "hits", "unused")

_FAR = 1e9


@dataclass
class Crossing:
    """Where segments cross planes: the voxel, its centre, the distance along the segment, 1/(A |cos θ|), which do."""

    cell: mi.UInt
    centre: mi.Point3f
    along: mi.Float
    density: mi.Float
    active: mi.Bool


class Voxels:
    """A metric grid `(z, y, x)` for kernels: opaque numbers, so that one kernel serves all grids of one shape.

    Over a ground `(y, x)`, columns are shifted by its height; rays march through the box around all of them, and each
    column is still crossed by one plane a voxel.
    """

    def __init__(self, grid: Grid, estimator: Estimator, ground_m: NDArray[np.float64] | None = None) -> None:
        self.shape = grid.shape
        self.size = grid.size
        self.estimator = estimator
        steps = np.array([grid[name].step for name in "xyz"])
        first = np.array([grid[name].start for name in "xyz"])
        self.step = mi.Vector3f(opaque_point(steps))
        self.lower = opaque_point(first - steps / 2)
        self.count = mi.Vector3f(opaque_point(np.array(self.shape[::-1], float)))
        self.density = dr.opaque(mi.Float, float(1 / np.prod(steps)))
        self.planes = self.shape[0]
        self.rise: mi.Float | None = None
        if ground_m is not None:
            low = float(ground_m.min())
            rise = ((ground_m - low) / steps[2]).astype(np.float32)
            self.rise = mi.Float(rise.ravel())
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
    ) -> None:
        """Call `visit` (in a symbolic loop) where `origin + t direction`, 0 < t < `end`, crosses planes of the grid."""
        nz, ny, nx = self.shape
        q = (origin - self.lower) / self.step  # in voxels
        u = direction / self.step
        u = mi.Vector3f(*(dr.select(dr.abs(v) > 1e-9, v, dr.copysign(mi.Float(1e-9), v)) for v in u))
        enter, leave = -q / u, (self.count - q) / u
        near = dr.maximum(0.0, dr.max(dr.minimum(enter, leave)))
        far = dr.minimum(end, dr.min(dr.maximum(enter, leave)))
        if self.estimator != "plane":
            size = dr.abs(u)
            along_x = (size.x >= size.y) & (size.x >= size.z)
            along_y = ~along_x & (size.y >= size.z)
        else:
            along_x = along_y = mi.Bool(False)
        qa = dr.select(along_x, q.x, dr.select(along_y, q.y, q.z))
        ua = dr.select(along_x, u.x, dr.select(along_y, u.y, u.z))
        last = dr.select(along_x, mi.Int(nx), dr.select(along_y, mi.Int(ny), mi.Int(self.planes))) - 1
        c0, c1 = qa + near * ua, qa + far * ua  # centre planes lie at whole numbers and a half
        plane = dr.maximum(mi.Int(dr.floor(dr.minimum(c0, c1) - 0.501)), 0)
        last = dr.minimum(last, mi.Int(dr.ceil(dr.maximum(c0, c1) - 0.499)))
        density = self.density * dr.rcp(dr.abs(ua))
        inverse = dr.rcp(ua)

        def cross(plane: mi.Int, run: mi.Bool) -> tuple[mi.Int, mi.Bool]:
            t = (mi.Float(plane) + 0.5 - qa) * inverse
            v = q + t * u
            ix, iy, iz = (mi.Int(dr.floor(part)) for part in v)
            ix = dr.select(along_x, plane, ix)
            iy = dr.select(along_y, plane, iy)
            iz = dr.select(along_x | along_y, iz, plane)
            inside = run & (t > 0) & (t < end)
            inside &= (ix >= 0) & (ix < nx) & (iy >= 0) & (iy < ny)
            layer = mi.Float(iz)
            if self.rise is not None:
                rise = dr.gather(mi.Float, self.rise, mi.UInt(iy * nx + ix), inside)
                iz = mi.Int(dr.floor(dr.select(along_x | along_y, v.z, mi.Float(plane) + 0.5) - rise))
                layer = mi.Float(iz) + rise
            inside &= (iz >= 0) & (iz < nz)
            cell = mi.UInt((iz * ny + iy) * nx + ix)
            centre = self.lower + self.step * (mi.Vector3f(mi.Float(ix), mi.Float(iy), layer) + 0.5)
            visit(Crossing(cell, centre, t, density, inside))
            return plane + 1, run & (plane < last)

        run = active & (near < far) & (plane <= last)
        dr.while_loop((plane, run), lambda plane, run: run, cross, mode="symbolic")


class Sums:
    """What rays add to voxels within one batch, and the sums of batches.

    `best` holds for every voxel the strongest path found: its |a|² (4π/λ)² at the voxel's centre as the bits of a
    float above 32 bits that name the ray and its bounce; as integers these order like the strengths, so that one
    atomic maximum keeps both.
    """

    def __init__(self, voxels: Voxels) -> None:
        self.voxels = voxels
        self.batches = 0
        self.total = dr.zeros(mi.Float, 8 * voxels.size)
        self.squares = dr.zeros(mi.Float, voxels.size)
        self.best = dr.zeros(mi.UInt64, voxels.size)
        self.first = dr.full(mi.UInt, int(np.float32(_FAR).view(np.uint32)), voxels.size)
        self.moments = dr.zeros(mi.Float, 8 * voxels.size)
        # One private copy a thread beats atomics while all copies are small; many-core machines take atomics.
        copies = dr.thread_count() * 32 * voxels.size
        private = dr.backend_v(mi.Float) == dr.JitBackend.LLVM and copies < 512e6
        self.mode = dr.ReduceMode.Expand if private else dr.ReduceMode.Auto
        dr.make_opaque(self.total, self.squares, self.best, self.first, self.moments)

    @staticmethod
    def bytes_a_voxel() -> int:
        """Memory a voxel takes while tracing: sums, the batch's copies, and temporaries on the way out."""
        threads = dr.thread_count() if dr.backend_v(mi.Float) == dr.JitBackend.LLVM else 1
        return 32 * (2 + min(threads, 4)) + 4 + 8 + 4 + 160

    def add(
        self,
        crossing: Crossing,
        active: mi.Bool,
        power: mi.Float,
        source: mi.Point3f,
        offset: mi.Float,
        straight: mi.Point3f,
    ) -> None:
        """Add rays of `power` (|E|² dΩ) that seem to come from `source`, `offset` metres along already.

        `straight` is the transmitter's place.
        """
        cell = crossing.cell
        back = source - crossing.centre
        distance = dr.norm(back)
        arrival = back * dr.rcp(dr.maximum(distance, 1e-6))
        excess = dr.maximum(offset + distance - dr.norm(straight - crossing.centre), 0.0)
        weight = power * crossing.density
        lower = mi.Vector4f(weight, arrival.x * weight, arrival.y * weight, arrival.z * weight)
        upper = mi.Vector4f(weight * excess, weight * excess * excess, 1.0, 0.0)
        dr.scatter_add(self.moments, lower, 2 * cell, active, mode=self.mode)
        dr.scatter_add(self.moments, upper, 2 * cell + 1, active, mode=self.mode)
        dr.scatter_reduce(dr.ReduceOp.Min, self.first, dr.reinterpret_array(mi.UInt, excess), cell, active)

    def rank(self, crossing: Crossing, strength: mi.Float, name: mi.UInt, active: mi.Bool) -> None:
        """Offer paths of `strength`, |a|² (4π/λ)² at the voxel's centre, as strongest; `name` tells ray and bounce."""
        key = (mi.UInt64(dr.reinterpret_array(mi.UInt, strength)) << 32) | mi.UInt64(name)
        dr.scatter_reduce(dr.ReduceOp.Max, self.best, key, crossing.cell, active & (strength > 0))

    def eval(self) -> None:
        dr.eval(self.moments, self.best, self.first)

    def close_batch(self) -> None:
        """End a batch: its sums join the total, and its squared gains tell the spread between batches."""
        gain = dr.gather(mi.Float, self.moments, 8 * dr.arange(mi.UInt, self.voxels.size))
        self.total = self.total + self.moments
        self.squares = self.squares + gain * gain
        dr.eval(self.total, self.squares)
        self.moments = dr.zeros(mi.Float, 8 * self.voxels.size)
        dr.make_opaque(self.moments)
        self.batches += 1

    def relative_error(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean gain over batches, and its standard error relative to it (NaN where there is no gain)."""
        count = np.float32(self.batches)
        mean = self.total.numpy()[::8] / count
        spread = np.maximum(self.squares.numpy() / count - mean**2, 0.0) / (count - 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return mean, np.where(mean > 0, np.sqrt(spread) / mean, np.float32(np.nan))

    def means(self) -> NDArray[np.float32]:
        """Means over batches of `MOMENTS`, `(voxels, 8)`."""
        return self.total.numpy().reshape(-1, 8) / np.float32(max(self.batches, 1))

    def first_excess_m(self) -> NDArray[np.float32]:
        """Least excess length, infinite where no ray came."""
        excess = self.first.numpy().view(np.float32)
        return np.where(excess < _FAR / 2, excess, np.float32(math.inf))

    def strongest(self) -> tuple[NDArray[np.float32], NDArray[np.uint32]]:
        """Strength and name of the strongest path of every voxel; 0 where there is none."""
        best = self.best.numpy()
        return (best >> np.uint64(32)).astype(np.uint32).view(np.float32), best.astype(np.uint32)
