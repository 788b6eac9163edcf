"""Directions of rays: Fibonacci lattices, randomly rotated in every batch, and counter-based random numbers."""

from __future__ import annotations

from dataclasses import dataclass

import drjit as dr
import mitsuba as mi
import numpy as np
from numpy.typing import NDArray

__all__ = ["Cap", "Lattice", "uniforms"]

_GOLDEN = (1 + np.sqrt(5)) / 2


@dataclass(frozen=True)
class Cap:
    """A spherical cap of directions: the unit vector to its middle, and 1 minus the cosine of its half-angle."""

    toward: tuple[float, float, float]
    height: float


@dataclass(frozen=True)
class Lattice:
    """`count` evenly spread points of the unit square, ordered so that neighbouring lanes hold neighbouring points.

    The natural order of a Fibonacci lattice ascends in the second coordinate and advances the first by 0.618 turns per
    point. A ring is a Fibonacci number F of consecutive points. Its order around the circle is known: point j is
    followed by j + F' modulo F, with F' the preceding Fibonacci number. Lanes visit ring after ring, each around the
    circle, so that rays of a vector and of the next vectors meet the same walls and voxels. A ring is about `rows`
    points wide. Lanes beyond `count` (`lanes` is a multiple of F) are idle. `batch` and `seed` determine the rotation.
    As directions the points fill the sphere, or a `cap` of it.
    """

    count: int
    batch: int
    seed: int
    rows: float = 2.0
    cap: Cap | None = None

    @property
    def solid_angle(self) -> float:
        """Solid angle per point in steradian, where points are directions."""
        return 2 * np.pi * (2.0 if self.cap is None else self.cap.height) / self.count

    @property
    def ring(self) -> tuple[int, int]:
        """Points per ring, a Fibonacci number, and the preceding Fibonacci number."""
        before, ring = 1, 2
        while ring < self.rows * np.sqrt(np.pi * self.count) and ring < self.count:
            before, ring = ring, before + ring
        return ring, before

    @property
    def lanes(self) -> int:
        ring, _ = self.ring
        return -(-self.count // ring) * ring

    def _generator(self) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.batch])

    @property
    def rotation(self) -> NDArray[np.float64]:
        """A random rotation matrix: uniform (Shoemake 1992), or among those that map z to the cap's middle."""
        if self.cap is not None:
            return _turned(np.asarray(self.cap.toward), 2 * np.pi * self._generator().random())
        w, x, y, z = (part := self._generator().normal(size=4)) / np.linalg.norm(part)
        return np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
                [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
                [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
            ]
        )

    def index(self, lane: mi.UInt) -> mi.UInt:
        """Indices of the points in the natural order; `count` or more for idle lanes."""
        ring, before = (dr.opaque(mi.Float64, value) for value in self.ring)
        part = dr.rcp(ring)  # there is no vectorised integer division

        def rest(number: mi.Float64) -> mi.Float64:
            return number - dr.floor((number + 0.5) * part) * ring

        place = rest(mi.Float64(lane))
        return mi.UInt(mi.Float64(lane) - place + rest(place * before))

    def square(self, lane: mi.UInt) -> tuple[mi.Float, mi.Float, mi.Bool]:
        """The points of lanes in the unit square, not rotated, and which lanes have one."""
        index = self.index(lane)
        golden = mi.Float64(index) / _GOLDEN
        first = mi.Float(golden - dr.floor(golden))
        second = mi.Float((mi.Float64(index) + 0.5) / dr.opaque(mi.Float64, self.count))
        return first, second, index < dr.opaque(mi.UInt, self.count)

    def directions(self, lane: mi.UInt) -> tuple[mi.Vector3f, mi.Bool]:
        """Unit vectors of lanes, each for an equal part of the sphere, and which lanes have one."""
        turn, height, active = self.square(lane)
        # Measured from the pole, so that small caps keep their precision.
        height *= dr.opaque(mi.Float, 2.0 if self.cap is None else self.cap.height)
        sine, cosine = dr.sincos(dr.two_pi * turn)
        flat = dr.safe_sqrt(height * (2 - height))
        unit = mi.Vector3f(flat * cosine, flat * sine, 1 - height)
        rows = [mi.Vector3f(*(dr.opaque(mi.Float, float(value)) for value in row)) for row in self.rotation]
        return dr.normalize(mi.Vector3f(*(dr.dot(row, unit) for row in rows))), active

    def shifted(self, lane: mi.UInt) -> tuple[mi.Float, mi.Float, mi.Bool]:
        """Points of the unit square shifted by a random vector modulo 1 (Cranley and Patterson 1976)."""
        first, second, active = self.square(lane)
        shift = self._generator().random(6)[4:]  # independent of the numbers that `rotation` uses
        first += dr.opaque(mi.Float, float(shift[0]))
        second += dr.opaque(mi.Float, float(shift[1]))
        return first - dr.floor(first), second - dr.floor(second), active


def _turned(toward: NDArray[np.float64], angle: float) -> NDArray[np.float64]:
    """A rotation about the z axis, followed by one that maps z to a unit vector."""
    aside = np.eye(3)[int(np.argmin(np.abs(toward)))]
    x = np.cross(aside, toward) / np.linalg.norm(np.cross(aside, toward))
    y = np.cross(toward, x)
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.column_stack([cosine * x + sine * y, cosine * y - sine * x, toward])


def uniforms(ray: mi.UInt, bounce: mi.UInt, seed: mi.UInt) -> tuple[mi.Float, mi.Point2f]:
    """Three uniform numbers of a ray at a bounce: a hash of both and the seed, independent of the chunks."""
    first, second = mi.sample_tea_32(ray, bounce * 2 + seed * 64)
    third, _ = mi.sample_tea_32(ray, bounce * 2 + 1 + seed * 64)
    scale = 2.0**-24  # 24 bits, so that rounding never gives 1
    return mi.Float(first >> 8) * scale, mi.Point2f(mi.Float(second >> 8) * scale, mi.Float(third >> 8) * scale)
