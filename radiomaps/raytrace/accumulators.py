"""Per-voxel sums over paths, and the fields of a map computed from them, for paths of every kind."""

from __future__ import annotations

from typing import Any

import drjit as dr
import mitsuba as mi
import numpy as np
from numpy.typing import NDArray

from geoml.constants import SPEED_OF_LIGHT
from radiomaps.raytrace.arrays import floats, integers
from radiomaps.raytrace.chains import CentrePaths
from radiomaps.raytrace.moments import Sums

__all__ = ["Parts"]

#: Ratios above this many dB are treated as infinite.
_MOST_DB = 100.0


class Parts:
    """Sums over paths of each voxel: gain, gain-weighted directions and excess lengths, and the strongest path.

    Gains are |a|² (4π/λ)²; excess lengths are metres beyond the straight distance. `direct` is the gain of the
    line-of-sight path, `away` the vector from the voxel's centre to the transmitter.
    """

    def __init__(self, direct: mi.Float, away: mi.Vector3f) -> None:
        self.direct = direct
        self.distance = dr.maximum(dr.norm(away), 1e-6)
        self.gain = mi.Float(direct)
        self.vector = away * (direct / self.distance)
        # A spread is a small difference of large sums, so sums are kept in double precision.
        self.excess, self.excess2 = mi.Float64(0.0), mi.Float64(0.0)
        self.first = dr.select(direct > 0, mi.Float(0.0), dr.inf)
        self.strongest = mi.Float(direct)
        self.toward = mi.Vector3f(away)

    def add_means(self, sums: Sums) -> None:
        """Add the means that rays deposited."""
        gain, vector, excess, excess2 = sums.means()
        self.gain += gain
        self.vector += vector
        self.excess += mi.Float64(excess)
        self.excess2 += mi.Float64(excess2)
        self.first = dr.minimum(self.first, sums.first_excess_m())

    def add_paths(self, paths: CentrePaths) -> None:
        """Add exact paths."""
        if not len(paths):
            return
        cell, strength = integers(paths.cell), floats(paths.strength)
        toward = mi.Vector3f(*(floats(paths.toward[:, axis]) for axis in range(3)))
        length = dr.norm(toward)
        excess = dr.maximum(length - dr.gather(mi.Float, self.distance, cell), 0.0)
        late = mi.Float64(strength) * mi.Float64(excess)
        size = dr.width(self.distance)
        gain, vector = dr.zeros(mi.Float, size), dr.zeros(mi.Vector3f, size)
        sums, squares = dr.zeros(mi.Float64, size), dr.zeros(mi.Float64, size)
        dr.scatter_add(gain, strength, cell)
        dr.scatter_add(vector, toward * (strength / dr.maximum(length, 1e-6)), cell)
        dr.scatter_add(sums, late, cell)
        dr.scatter_add(squares, late * mi.Float64(excess), cell)
        first = dr.full(mi.UInt, int(np.float32(np.inf).view(np.uint32)), size)
        dr.scatter_reduce(dr.ReduceOp.Min, first, dr.reinterpret_array(mi.UInt, excess), cell)
        self.gain += gain
        self.vector += vector
        self.excess += sums
        self.excess2 += squares
        self.first = dr.minimum(self.first, dr.reinterpret_array(mi.Float, first))
        self.rank(cell, strength, toward)

    def rank(self, cell: mi.UInt, strength: mi.Float, toward: mi.Vector3f) -> None:
        """Update the strongest path of each voxel with these paths."""
        size = dr.width(self.distance)
        best = dr.zeros(mi.UInt64, size)
        key = mi.UInt64(dr.reinterpret_array(mi.UInt, strength)) << 32
        row = dr.arange(mi.UInt, dr.width(cell))
        dr.scatter_reduce(dr.ReduceOp.Max, best, key | mi.UInt64(row), cell)
        row, most = mi.UInt(best), dr.reinterpret_array(mi.Float, mi.UInt(best >> 32))
        stronger = most > self.strongest
        self.toward = dr.select(stronger, dr.gather(mi.Vector3f, toward, row, stronger), self.toward)
        self.strongest = dr.select(stronger, most, self.strongest)

    def fields(self, scale: float) -> dict[str, NDArray[Any]]:
        """The fields of a map as float32, with gains multiplied by `scale`, and `gain` itself."""
        gain = self.gain
        rest = dr.rcp(gain)
        mean = self.vector * rest
        length = dr.minimum(dr.norm(mean), 1.0)
        unit = mean * dr.rcp(length)
        excess, excess2 = self.excess / mi.Float64(gain), self.excess2 / mi.Float64(gain)
        spread = mi.Float(dr.sqrt(dr.maximum(excess2 - dr.square(excess), 0.0)))
        late = self.distance + mi.Float(excess)
        # Scattered rays have no strongest path: their mean is used.
        blurred = (self.strongest == 0) & (gain > 0)
        toward = dr.select(blurred, unit, self.toward)
        reach = dr.select(blurred, late, dr.norm(self.toward))
        azimuth = dr.atan2(toward.y, toward.x)
        azimuth = dr.select(azimuth < 0, azimuth + dr.two_pi, azimuth)
        ratio = self.direct / dr.maximum(gain - self.direct, gain * 10 ** (-_MOST_DB / 10))
        fields = {
            "gain": gain,
            "path_gain_db": _decibels(gain * dr.opaque(mi.Float, scale)),
            "toa_s": reach / SPEED_OF_LIGHT,
            "doa_azimuth": dr.select(azimuth < np.float32(2 * np.pi), azimuth, 0.0),
            "doa_zenith": dr.atan2(dr.norm(mi.Vector2f(toward.x, toward.y)), toward.z),
            "first_arrival_s": (self.distance + self.first) / SPEED_OF_LIGHT,
            "mean_delay_s": late / SPEED_OF_LIGHT,
            "delay_spread_s": spread / SPEED_OF_LIGHT,
            "angular_spread": dr.sqrt(1 - dr.square(length)),
            "k_factor_db": dr.select(self.direct > 0, _decibels(ratio), dr.nan),
            "mean_direction_x": unit.x,
            "mean_direction_y": unit.y,
            "mean_direction_z": unit.z,
        }
        dr.eval(*fields.values())
        return {name: values.numpy() for name, values in fields.items()}


def _decibels(ratio: mi.Float) -> mi.Float:
    return dr.log2(ratio) * (10 * np.log10(2))
