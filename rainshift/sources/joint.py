"""Joint edges of a fine and a coarse axis, which give boxes from any file the same relative geometry."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

from geoml.errors import DataError
from geoml.grids.axes import Axis, Registration

__all__ = ["JointAxis", "joint_axis", "meets"]


@dataclass(frozen=True)
class JointAxis:
    """A section of a fine axis between two common edges of both grids, and the matching coarse axis.

    `fine` is a slice of the fine axis. With node registration, the first and last coarse nodes are the ends of the
    section, so all fine cells lie within the hull of the nodes. The cells of these end nodes extend `margin` fine cells
    beyond the section. With centre registration, coarse cells fill the section.
    """

    fine: slice
    coarse: Axis
    period: int  # fine cells between two common edges
    margin: int

    def part(self, periods: slice) -> JointAxis:
        """Return the section of some periods."""
        fine = slice(self.fine.start + periods.start * self.period, self.fine.start + periods.stop * self.period)
        count = (self.fine.stop - self.fine.start) // self.period
        wide = self.coarse.size // count  # a node axis has one node more than its periods
        extra = self.coarse.size - wide * count
        coarse = self.coarse.crop(slice(periods.start * wide, periods.stop * wide + extra))
        return replace(self, fine=fine, coarse=coarse)


#: Tolerance of the limits, which come from boxes in degrees.
SLACK = 1e-6
#: Largest distance in fine cells between two edges that count as equal.
OFF = Fraction(1, 1000)


def _fraction(value: float) -> Fraction:
    return Fraction(value).limit_denominator(10_000)


def _rational(fine: Axis, step: float) -> tuple[Fraction, Fraction, Fraction]:
    """Return the fine step, the coarse step (a simple multiple of it) and the first edge as exact fractions."""
    narrow = _fraction(fine.step)
    return narrow, narrow * Fraction(step / fine.step).limit_denominator(64), _fraction(fine.start) - narrow / 2


def _first(fine: Axis, step: float, origin: float) -> int | None:
    """Return the index of the first fine edge that is also a coarse edge; None if there is none."""
    narrow, wide, edge = _rational(fine, step)
    period = Fraction(math.lcm(narrow.numerator, wide.numerator), math.gcd(narrow.denominator, wide.denominator))

    def off(k: int) -> Fraction:
        far = (edge + k * narrow - _fraction(origin)) % wide
        return min(far, wide - far)

    return next((k for k in range(int(period / narrow)) if off(k) <= OFF * narrow), None)


def meets(fine: Axis, step: float, origin: float) -> bool:
    """Return whether an edge of a fine cell coincides with `origin` plus a multiple of `step`."""
    return _first(fine, step, origin) is not None


def joint_axis(
    fine: Axis,
    step: float,
    registration: Registration = "node",
    *,
    origin: float = 0.0,
    limits: tuple[float, float] = (-math.inf, math.inf),
) -> JointAxis:
    """Find the longest section of `fine` within `limits` that starts and ends at common edges of both grids.

    Common edges are fine cell edges that coincide with coarse nodes (registration "node") or with coarse cell edges
    ("centre"). `origin` is one of these coarse positions. Fine cells cover every coarse cell of the section completely.
    Raises `DataError` if there is no such section.

    >>> found = joint_axis(Axis("lat", 50.05, 0.1, 50, "degrees_north", "centre"), 0.25)
    >>> found.fine, found.coarse.extent, found.coarse.size
    (slice(5, 45, None), (50.5, 54.5), 17)
    """
    narrow, wide, edge = _rational(fine, step)
    period = Fraction(math.lcm(narrow.numerator, wide.numerator), math.gcd(narrow.denominator, wide.denominator))
    cells = int(period / narrow)
    reach = wide / 2 if registration == "node" else Fraction(0)
    if (first := _first(fine, step, origin)) is None:
        raise DataError(
            f"axis {fine.name!r} starts at {fine.start:g} with step {fine.step:g}: no edge of its cells coincides with "
            f"{origin:g} plus a multiple of {step:g}; choose a matching data.coarse_step and data.coarse_registration"
        )

    def inside(k: int) -> bool:
        whole = reach <= k * narrow <= fine.size * narrow - reach
        return whole and limits[0] - SLACK <= edge + k * narrow <= limits[1] + SLACK

    points = [k for k in range(first, fine.size + 1, cells) if inside(k)]
    margin = math.ceil(reach / narrow)
    if len(points) < 2:
        between = f" between {limits[0]:g} and {limits[1]:g}" if math.inf not in map(abs, limits) else ""
        raise DataError(
            f"axis {fine.name!r} ({fine.size} cells of {fine.step:g} from {fine.start:g}) is too short{between} for a "
            f"coarse step of {step:g}: it needs {cells} cells from one common edge to the next and {margin} on "
            "either side"
        )
    low, high = points[0], points[-1]
    south, span = edge + low * narrow, int((high - low) * narrow / wide)
    start, size = (south, span + 1) if registration == "node" else (south + wide / 2, span)
    coarse = replace(fine, start=float(start), step=float(wide), size=size, registration=registration, period=None)
    return JointAxis(slice(low, high), coarse, cells, margin)
