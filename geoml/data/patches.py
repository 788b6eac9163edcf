"""Positions of patches on a pair of grids, chosen so that all patches have the same relative geometry."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from geoml.errors import DataError
from geoml.grids.grid import Axis, Grid

__all__ = ["PatchPlacement", "PatchSpec", "place"]

#: Largest mismatch in coarse cells over the axis at which two spacings count as commensurable.
DRIFT = 0.01
LARGEST_PERIOD = 1000


@dataclass(frozen=True)
class PatchSpec:
    """Patches of `size` target cells, at random places or every `stride` cells.

    `size` and `stride` are one number for all axes or one per axis. The condition covers the patch and `halo` further
    condition cells on every side, which interpolation at the edge needs. At the edge of the field it extends up to
    `halo + 1` cells beyond the condition; these cells repeat the outermost values, so that interpolation gives a patch
    the same values as the full field. Positions are multiples of the common period of the two grids, so that
    fewer cells than one period may be in no patch at one end of an axis.
    """

    size: int | tuple[int, ...]
    stride: int | tuple[int, ...] | None = None
    halo: int = 1

    def __post_init__(self) -> None:
        for name in ("size", "stride"):
            value = getattr(self, name)
            if value is not None and min(value if isinstance(value, Sequence) else (value,)) < 1:
                raise ValueError(f"patch {name} {value} has to be 1 or more")
        if self.halo < 0:
            raise ValueError(f"patch halo {self.halo} has to be 0 or more")


@dataclass(frozen=True)
class AxisPlacement:
    """Positions `k` in `range(count)`: target from cell `first + k * step`, condition likewise."""

    size: int
    first: int
    step: int
    condition_size: int
    condition_first: int
    condition_step: int
    positions: tuple[int, ...] | None
    count: int


@dataclass(frozen=True)
class PatchPlacement:
    """All positions of a patch on a pair of grids; `size` and `condition_size` are the same at each position."""

    condition_grid: Grid
    target_grid: Grid
    axes: tuple[AxisPlacement, ...]

    @property
    def size(self) -> tuple[int, ...]:
        return tuple(axis.size for axis in self.axes)

    @property
    def condition_size(self) -> tuple[int, ...]:
        return tuple(axis.condition_size for axis in self.axes)

    @property
    def count(self) -> int:
        """Number of positions."""
        return math.prod(axis.count for axis in self.axes)

    def offsets(self, places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Target and condition offsets of the positions numbered `0 … count - 1`, each `(len(places), axes)`."""
        steps = np.unravel_index(places, tuple(axis.count for axis in self.axes))
        target, condition = [], []
        for axis, step in zip(self.axes, steps, strict=True):
            k = np.asarray(axis.positions)[step] if axis.positions is not None else step
            target.append(axis.first + k * axis.step)
            condition.append(axis.condition_first + k * axis.condition_step)
        return np.stack(target, axis=-1), np.stack(condition, axis=-1)

    def grids(self, place: int) -> tuple[Grid, Grid]:
        """Condition grid and target grid at one position."""
        return _grids(self, place)

    def _cut_grids(self, place: int) -> tuple[Grid, Grid]:
        target, condition = (row[0] for row in self.offsets(np.array([place])))
        return (
            _crop(self.condition_grid, condition, self.condition_size),
            _crop(self.target_grid, target, self.size),
        )


@lru_cache(maxsize=4096)
def _grids(placement: PatchPlacement, place: int) -> tuple[Grid, Grid]:
    return placement._cut_grids(place)


def _crop(grid: Grid, offsets: NDArray[np.int64], sizes: tuple[int, ...]) -> Grid:
    if grid.shape == sizes and not offsets.any():
        return grid
    pads, parts = {}, {}
    for axis, start, size in zip(grid.axes, offsets.tolist(), sizes, strict=True):
        before, after = max(0, -start), max(0, start + size - axis.size)
        pads[axis.name] = (before, after)
        parts[axis.name] = slice(start + before, start + before + size)
    return (grid.pad(pads) if any(map(any, pads.values())) else grid).crop(**parts)


def place(spec: PatchSpec | None, condition_grid: Grid, target_grid: Grid) -> PatchPlacement:
    """Return the positions of `spec` on a pair of grids; None takes the complete fields.

    Offsets on the target are multiples of the common period of the two grids: 5 cells of 0.1° are 2 of 0.25°.

    >>> coarse = Grid.latlon(40, 60, -5, 15, 0.25, "node", half_open=True)
    >>> places = place(PatchSpec(64), coarse, Grid.latlon(40, 60, -5, 15, 0.1))
    >>> places.condition_size, places.count, places.axes[0].first, places.axes[0].step
    ((29, 29), 784, 0, 5)
    """
    if condition_grid.names != target_grid.names:
        raise DataError(f"condition and target lie on different axes: {condition_grid.names}, {target_grid.names}")
    rows = []
    for number, (coarse, fine) in enumerate(zip(condition_grid.axes, target_grid.axes, strict=True)):
        if spec is None:
            rows.append(AxisPlacement(fine.size, 0, 1, coarse.size, 0, 1, None, 1))
        else:
            size = _of_axis(spec.size, number, len(target_grid.axes))
            stride = None if spec.stride is None else _of_axis(spec.stride, number, len(target_grid.axes))
            rows.append(_place_axis(size, stride, spec.halo, coarse, fine))
    return PatchPlacement(condition_grid, target_grid, tuple(rows))


def _of_axis(value: int | tuple[int, ...], number: int, axes: int) -> int:
    if isinstance(value, Sequence):
        if len(value) != axes:
            raise ValueError(f"{value} gives {len(value)} numbers for {axes} axes of space")
        return int(value[number])
    return int(value)


def _place_axis(size: int, stride: int | None, halo: int, coarse: Axis, fine: Axis) -> AxisPlacement:
    ratio = fine.step / coarse.step
    fraction = Fraction(ratio).limit_denominator(LARGEST_PERIOD)
    if abs(ratio - fraction) * fine.size > DRIFT or fraction == 0:
        raise DataError(
            f"axis {fine.name!r}: steps {fine.step:g} and {coarse.step:g} have no common period; use whole fields"
        )
    period, condition_period = fraction.denominator, fraction.numerator
    fits: dict[int, list[tuple[int, int, int]]] = {}
    beyond = halo + 1
    for offset in range(fine.size - size + 1):
        low, high = _cover(offset, size, halo, coarse, fine)
        if low >= -beyond and high <= coarse.size + beyond and _exists(coarse, low, high):
            fits.setdefault(offset % period, []).append((offset, low, high))
    if not fits:
        raise DataError(
            f"axis {fine.name!r}: no patch of {size} cells with {halo} condition cells around it fits into "
            f"{fine.size} target and {coarse.size} condition cells; choose a smaller loader.patch, or "
            "whole fields with loader.patch=0"
        )
    # Offsets start at 0, unless the patch fits only at another phase.
    places = fits[0] if 0 in fits else max(fits.values(), key=len)
    (first, low, high), count = places[0], len(places)
    positions = _strided(stride, period, count, fine.name)
    return AxisPlacement(
        size, first, period, high - low, low, condition_period, positions, len(positions or range(count))
    )


def _exists(axis: Axis, low: int, high: int) -> bool:
    """Return True if cells `low … high - 1` lie within the poles and within a full circle."""
    if axis.period is not None:
        return low >= 0 and high <= axis.size
    ends = [axis.start + axis.step * cell for cell in (low, high - 1)]
    return not axis.is_latitude or max(map(abs, ends)) <= 90.0


def _cover(offset: int, size: int, halo: int, coarse: Axis, fine: Axis) -> tuple[int, int]:
    """Condition cells (first, one past the last) that cover target cells `offset … offset + size - 1` and the halo."""
    start = fine.start
    if coarse.is_longitude:
        middles = (fine.start + fine.stop) / 2, (coarse.start + coarse.stop) / 2
        start -= 360.0 * round((middles[0] - middles[1]) / 360.0)
    low = (start + fine.step * (offset - 0.5) - coarse.start) / coarse.step + 0.5
    high = (start + fine.step * (offset + size - 0.5) - coarse.start) / coarse.step + 0.5
    return math.floor(low + DRIFT) - halo, math.ceil(high - DRIFT) + halo


def _strided(stride: int | None, period: int, count: int, name: str) -> tuple[int, ...] | None:
    """Every `stride` cells, plus the last position, so that all reachable cells are covered."""
    if stride is None:
        return None
    if stride % period:
        near = max(period, round(stride / period) * period)
        raise DataError(f"axis {name!r}: stride {stride} is not a multiple of the common period {period}; try {near}")
    positions = list(range(0, count, stride // period))
    return tuple(positions if positions[-1] == count - 1 else [*positions, count - 1])
