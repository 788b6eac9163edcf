"""One axis of a grid: evenly spaced coordinates, their cells and their registration."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["TOLERANCE", "Axis", "Registration", "nice_number"]

Registration = Literal["centre", "node"]

#: Tolerance, in steps, within which two coordinates are equal: float32 files are noisy.
TOLERANCE = 1e-3

LATITUDE_UNITS, LONGITUDE_UNITS, TIME_UNITS = "degrees_north", "degrees_east", "seconds since 1970-01-01"


def nice_number(value: float, tolerance: float) -> float:
    """The simplest fraction within `tolerance` of `value`, or `value`: removes the rounding of float32 files.

    >>> nice_number(float(np.float32(0.1)), 1e-6), nice_number(0.00833333, 1e-6) == 1 / 120
    (0.1, True)
    """
    for denominator in (1, 10, 100, 1_000, 10_000):
        fraction = Fraction(value).limit_denominator(denominator)
        if abs(float(fraction) - value) <= tolerance:
            return float(fraction)
    return value


@dataclass(frozen=True)
class Axis:
    """`size` coordinates `start + step * i` in `units`; `step` may be negative, never zero.

    A coordinate is the middle of its cell, `[c - step/2, c + step/2]`, in both registrations. On a "node" axis values
    are samples at points, and the data end at the first and last coordinate. On a "centre" axis values are cell means,
    and the data extend to the outer edges. `period` (360 for longitudes around the globe) connects the two ends.

    >>> axis = Axis("lat", 40.25, 0.25, 80, units="degrees_north", registration="node")
    >>> axis.stop, axis.extent, axis.edges[0]
    (60.0, (40.25, 60.0), np.float64(40.125))
    """

    name: str
    start: float
    step: float
    size: int
    units: str = "m"
    registration: Registration = "centre"
    period: float | None = None

    def __post_init__(self) -> None:
        for name in ("start", "step"):
            object.__setattr__(self, name, float(getattr(self, name)))
        object.__setattr__(self, "size", int(self.size))
        if not (math.isfinite(self.start) and math.isfinite(self.step)) or self.step == 0:
            raise ValueError(
                f"axis {self.name!r}: start {self.start} and step {self.step} must be finite, and step must not be 0"
            )
        if self.size < 1:
            raise ValueError(f"axis {self.name!r}: size {self.size} has to be 1 or more")
        if self.registration not in ("centre", "node"):
            raise ValueError(f"axis {self.name!r}: registration {self.registration!r} is neither 'centre' nor 'node'")
        slack = TOLERANCE * abs(self.step)
        if self.period is not None and self.size * abs(self.step) > self.period + slack:
            raise ValueError(f"axis {self.name!r}: {self.size} × {self.step} overlaps in a period of {self.period}")
        if self.is_latitude and max(abs(self.start), abs(self.stop)) > 90 + slack:
            raise ValueError(f"axis {self.name!r}: {self.start} … {self.stop} leaves the latitudes -90 … 90")

    @property
    def coordinates(self) -> NDArray[np.float64]:
        """Cell centres, `(size,)`, without rounding noise, so that 14.75 is 14.75."""
        return np.round(self.start + self.step * np.arange(self.size, dtype=np.float64), self._decimals)

    @property
    def _decimals(self) -> int:
        return 10 - math.floor(math.log10(abs(self.step)))

    @property
    def labels(self) -> NDArray[Any]:
        """The coordinates as xarray labels: datetimes for time, else numbers."""
        if self.units != TIME_UNITS:
            return self.coordinates
        nanoseconds = np.round(self.coordinates * 1e9).astype("timedelta64[ns]")
        return np.datetime64("1970-01-01", "ns") + nanoseconds

    @property
    def edges(self) -> NDArray[np.float64]:
        """Cell edges, `(size + 1,)`; latitudes are limited to the poles."""
        edges = np.round(self.start + self.step * (np.arange(self.size + 1, dtype=np.float64) - 0.5), self._decimals)
        return np.clip(edges, -90.0, 90.0) if self.is_latitude else edges

    @property
    def stop(self) -> float:
        """The last coordinate (included)."""
        return round(self.start + self.step * (self.size - 1), self._decimals)

    @property
    def extent(self) -> tuple[float, float]:
        """Lower and upper limit of the data: outermost nodes, or outermost edges of centre cells."""
        ends = (self.start, self.stop) if self.registration == "node" else (float(self.edges[0]), float(self.edges[-1]))
        return min(ends), max(ends)

    @property
    def is_latitude(self) -> bool:
        return self.units == LATITUDE_UNITS

    @property
    def is_longitude(self) -> bool:
        return self.units == LONGITUDE_UNITS

    @property
    def attrs(self) -> dict[str, Any]:
        """CF attributes of the coordinate variable."""
        known = {
            LATITUDE_UNITS: {"standard_name": "latitude", "axis": "Y"},
            LONGITUDE_UNITS: {"standard_name": "longitude", "axis": "X"},
        }
        if self.units == TIME_UNITS:  # xarray writes the units of datetimes itself
            return {"standard_name": "time", "axis": "T"}
        letter = {"x": "X", "y": "Y", "z": "Z"}.get(self.name)
        attrs = known.get(self.units) or ({"axis": letter} if letter else {})
        return {**attrs, "units": self.units, "registration": self.registration}

    def measure(self, coordinates: NDArray[np.float64]) -> NDArray[np.float64]:
        """Coordinates in which cell widths are proportional to area: sin(latitude), else the coordinates."""
        return np.sin(np.radians(np.clip(coordinates, -90, 90))) if self.is_latitude else np.asarray(coordinates)

    @property
    def widths(self) -> NDArray[np.float64]:
        """Positive cell widths in `measure`, `(size,)`."""
        return np.abs(np.diff(self.measure(self.edges)))

    def crop(self, indices: slice) -> Axis:
        """The part of the axis at `indices` (any step); an empty part raises an error."""
        first, stop, stride = indices.indices(self.size)
        count = len(range(first, stop, stride))
        if not count:
            raise ValueError(f"axis {self.name!r}: {indices} selects none of its {self.size} cells")
        whole = count == self.size and abs(stride) == 1
        period = self.period if whole else None
        return replace(self, start=self.start + self.step * first, step=self.step * stride, size=count, period=period)

    def select(self, low: float, high: float) -> slice:
        """Indices of the coordinates within `[low, high]`; longitudes may be given in either convention."""
        slack = TOLERANCE * abs(self.step)
        if self.period is not None and high - low > self.period - abs(self.step) - slack:
            return slice(0, self.size)
        turns = (0.0, -360.0, 360.0) if self.is_longitude else (0.0,)
        found = [
            np.flatnonzero((self.coordinates >= low + turn - slack) & (self.coordinates <= high + turn + slack))
            for turn in turns
        ]
        parts = [indices for indices in found if indices.size]
        if not parts:
            raise ValueError(
                f"axis {self.name!r} has no coordinate in {low} … {high}; it runs {self.start} … {self.stop}"
            )
        if len(parts) > 1:
            raise ValueError(f"axis {self.name!r}: {low} … {high} crosses the seam of {self.start} … {self.stop}")
        return slice(int(parts[0][0]), int(parts[0][-1]) + 1)

    def coarsen(self, factor: float) -> Axis:
        """Return cells `factor` times as wide (2.5 is allowed): groups of centre cells, or every `factor`-th node."""
        if not factor > 0:
            raise ValueError(f"axis {self.name!r}: factor {factor} has to be positive")
        if self.registration == "node" and self.period is None:
            size, start = math.floor((self.size - 1) / factor + 1e-9) + 1, self.start
        else:
            size = round(self.size / factor)
            if size < 1 or abs(size * factor - self.size) > 1e-6 * self.size:
                raise ValueError(f"axis {self.name!r}: {self.size} cells do not divide into groups of {factor}")
            node = self.registration == "node"
            start = self.start if node else self.start + (factor - 1) / 2 * self.step
        return replace(self, start=start, step=self.step * factor, size=size)

    def pad(self, before: int, after: int) -> Axis:
        """The axis with cells added at its ends; a periodic axis cannot be padded."""
        if before < 0 or after < 0:
            raise ValueError(
                f"axis {self.name!r}: padding {before}, {after} must be 0 or more; use crop to remove cells"
            )
        if (before or after) and self.period is not None:
            raise ValueError(f"axis {self.name!r} closes on itself and cannot be padded")
        return replace(self, start=self.start - before * self.step, size=self.size + before + after)

    @property
    def _kind(self) -> tuple[str, int, str, str]:
        return self.name, self.size, self.units, self.registration

    def matches(self, other: Axis) -> bool:
        """True if both axes have equal cells (to 0.001 steps) and registration; longitudes are compared modulo 360."""
        slack = TOLERANCE * abs(self.step)
        first, last = self.start - other.start, self.stop - other.stop
        if self.is_longitude:
            turn = 360.0 * round(first / 360.0)
            first, last = first - turn, last - turn
        return self._kind == other._kind and abs(first) <= slack and abs(last) <= slack
