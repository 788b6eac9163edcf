"""Where a fine and a coarse axis meet: boxes that all have the same relative geometry, whatever file they are from."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

from geoml.errors import DataError
from geoml.grids.axes import Axis, Registration

__all__ = ["JointAxis", "joint_axis", "meets"]


@dataclass(frozen=True)
class JointAxis:
    """The stretch of a fine axis between two points of the joint lattice, and the coarse axis that goes with it.

    `fine` is a slice of the fine axis. With node registration the coarse nodes run from one end of the stretch to the
    other, both included, so that no fine cell lies outside their hull, and the cells of the end nodes reach
    `margin` fine cells beyond it; with centre registration coarse cells fill the stretch.
    """

    fine: slice
    coarse: Axis
    period: int  # fine cells between two points of the joint lattice
    margin: int

    def part(self, periods: slice) -> JointAxis:
        """The stretch from one period to another."""
        fine = slice(self.fine.start + periods.start * self.period, self.fine.start + periods.stop * self.period)
        count = (self.fine.stop - self.fine.start) // self.period
        wide = self.coarse.size // count  # a node axis has one more than whole periods of them
        extra = self.coarse.size - wide * count
        coarse = self.coarse.crop(slice(periods.start * wide, periods.stop * wide + extra))
        return replace(self, fine=fine, coarse=coarse)


#: Limits come from boxes in degrees, kept to this.
SLACK = 1e-6
#: How far edges may lie apart and still be one place, in fine cells.
OFF = Fraction(1, 1000)


def _fraction(value: float) -> Fraction:
    return Fraction(value).limit_denominator(10_000)


def _rational(fine: Axis, step: float) -> tuple[Fraction, Fraction, Fraction]:
    """The fine step, the coarse one in a simple ratio to it, and the first edge, as exact numbers."""
    narrow = _fraction(fine.step)
    return narrow, narrow * Fraction(step / fine.step).limit_denominator(64), _fraction(fine.start) - narrow / 2


def _first(fine: Axis, step: float, origin: float) -> int | None:
    """The first edge of a fine cell on the coarse lattice; None where none is."""
    narrow, wide, edge = _rational(fine, step)
    period = Fraction(math.lcm(narrow.numerator, wide.numerator), math.gcd(narrow.denominator, wide.denominator))

    def off(k: int) -> Fraction:
        far = (edge + k * narrow - _fraction(origin)) % wide
        return min(far, wide - far)

    return next((k for k in range(int(period / narrow)) if off(k) <= OFF * narrow), None)


def meets(fine: Axis, step: float, origin: float) -> bool:
    """Whether an edge of a fine cell falls on `origin` plus a multiple of `step`."""
    return _first(fine, step, origin) is not None


def joint_axis(
    fine: Axis,
    step: float,
    registration: Registration = "node",
    *,
    origin: float = 0.0,
    limits: tuple[float, float] = (-math.inf, math.inf),
) -> JointAxis:
    """The longest stretch of `fine` within `limits` that starts and ends on the joint lattice.

    The lattice is where edges of fine cells fall on coarse nodes (registration "node") or on edges of coarse cells
    ("centre"); `origin` is one of these coarse positions. Coarse cells lie wholly on fine ones. Raises `DataError`
    where there is no such stretch.

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
            f"axis {fine.name!r} starts at {fine.start:g} with step {fine.step:g}: no edge of its cells falls on "
            f"{origin:g} plus a multiple of {step:g}; choose data.coarse_step and data.coarse_registration that meet it"
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
            f"coarse step of {step:g}: it needs {cells} cells from one meeting point to the next and {margin} on "
            "either side"
        )
    low, high = points[0], points[-1]
    south, span = edge + low * narrow, int((high - low) * narrow / wide)
    start, size = (south, span + 1) if registration == "node" else (south + wide / 2, span)
    coarse = replace(fine, start=float(start), step=float(wide), size=size, registration=registration, period=None)
    return JointAxis(slice(low, high), coarse, cells, margin)
