"""Weights between two axes: the source cells that contribute to each target cell, and their shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from geoml.errors import DataError
from geoml.grids.axes import TOLERANCE, Axis

__all__ = ["Band", "Rim", "interpolation_weights", "overlap_weights"]

Rim = Literal["nearest", "linear", "missing", "error"]

#: Overlaps smaller than this share of a cell are rounding, not geometry.
ROUNDING = 1e-9
#: Distance in steps within which a position is set to the nearest source coordinate.
SNAP = 1e-6


@dataclass(frozen=True)
class Band:
    """A sparse matrix with the same number of entries in each row: `out[t] = sum_k weight[t, k] * x[index[t, k]]`.

    `index` and `weight` are `(target size, entries)`; rows of `weight` sum to one. `covered` is the share of each
    target cell that the source covers (1 in the interior), `outside` marks the rows that are missing by the rim rule.
    """

    index: NDArray[np.intp]
    weight: NDArray[np.float64]
    source_size: int
    covered: NDArray[np.float64]
    outside: NDArray[np.bool_]

    def dense(self) -> NDArray[np.float64]:
        """The matrix, `(target size, source size)`."""
        matrix = np.zeros((len(self.index), self.source_size))
        np.add.at(matrix, (np.arange(len(self.index))[:, None], self.index), self.weight)
        return matrix

    @property
    def is_identity(self) -> bool:
        size, entries = self.index.shape
        same = size == self.source_size and entries == 1 and not self.outside.any()
        return bool(same and (self.index[:, 0] == np.arange(size)).all())


def _check(source: Axis, target: Axis, rim: str) -> None:
    if rim not in get_args(Rim):
        raise ValueError(f"rim is {rim!r}; expected one of {get_args(Rim)}")
    if source.units != target.units:
        raise DataError(f"axis {source.name!r} is in {source.units}, axis {target.name!r} in {target.units}")


def _refuse_outside(source: Axis, target: Axis, outside: NDArray[np.bool_], rim: Rim) -> None:
    if rim == "error" and outside.any():
        at = int(np.flatnonzero(outside)[0])
        raise DataError(
            f"{target.name} = {target.coordinates[at]:g} lies outside the source's {source.extent[0]:g} … "
            f"{source.extent[1]:g} ({int(outside.sum())} of {target.size}); choose another rim rule or a smaller target"
        )


def _turned(source: Axis, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Longitudes shifted by multiples of 360° to be nearest to the middle of the source."""
    if not source.is_longitude:
        return values
    middle = (source.start + source.stop) / 2
    return values - 360.0 * np.round((values - middle) / 360.0)


def overlap_weights(source: Axis, target: Axis, *, rim: Rim = "nearest") -> Band:
    """Area-conservative weights: the mean of the source over each target cell; the field is constant in a source cell.

    On a sphere the area of a cell is the difference of sin(lat) of its edges. Cells that the source covers in part
    take the mean of that part. `rim` is the rule for other cells: "nearest" gives cells outside the value of the
    nearest source cell, "missing" sets cells that are less than half covered to NaN, "error" raises an error. Both
    conventions of longitudes are accepted.
    """
    _check(source, target, rim)
    if rim == "linear":
        raise ValueError("an area mean cannot be extrapolated: rim 'linear' is for interpolation only")
    flip = source.step < 0
    edges = source.edges[::-1] if flip else source.edges
    ends = np.sort(np.stack([target.edges[:-1], target.edges[1:]]), axis=0)
    middle = target.coordinates
    low, high = ends + (_turned(source, middle) - middle)
    turns = (0.0, -360.0, 360.0) if source.is_longitude else (0.0,)
    parts = [_overlaps(source, edges, low + turn, high + turn) for turn in turns]
    index, overlap = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
    overlap[overlap <= ROUNDING * overlap.sum(axis=1, keepdims=True)] = 0.0
    entries = max(1, int((overlap > 0).sum(axis=1).max()))
    used = np.sort(np.argsort(overlap <= 0, axis=1, kind="stable")[:, :entries], axis=1)
    index, overlap = np.take_along_axis(index, used, axis=1), np.take_along_axis(overlap, used, axis=1)
    largest = np.take_along_axis(index, overlap.argmax(axis=1)[:, None], axis=1)
    index = np.where(overlap > 0, index, largest)  # padding entries have weight 0 and read a valid cell

    total = overlap.sum(axis=1)
    width = source.measure(high) - source.measure(low)
    covered = np.minimum(total / np.where(width > 0, width, 1.0), 1.0)
    covered[covered > 1 - ROUNDING] = 1.0
    empty = covered < ROUNDING
    nearest = _nearest(np.clip((_turned(source, middle) - source.start) / source.step, 0, source.size - 1))
    index = source.size - 1 - index if flip else index
    index[empty] = nearest[empty, None]
    overlap[empty] = np.eye(1, entries)
    share = np.clip((np.minimum(high, edges[-1]) - np.maximum(low, edges[0])) / (high - low), 0, 1)
    if source.is_longitude:  # there the length is the area, over all turns
        share = covered
    outside = share < 0.5 - SNAP if rim in ("missing", "error") else np.zeros(target.size, dtype=bool)
    _refuse_outside(source, target, outside, rim)
    weight = overlap / overlap.sum(axis=1, keepdims=True)
    return Band(index.astype(np.intp), weight, source.size, np.where(empty, 0.0, covered), outside)


def _overlaps(
    source: Axis, edges: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return source cells (ascending `edges`) that may touch `[low, high]`, and the overlap widths in `measure`."""
    first = np.searchsorted(edges, low, side="right") - 1
    last = np.searchsorted(edges, high, side="left") - 1
    index = first[:, None] + np.arange(max(1, int((last - first).max()) + 1))
    inside = (index >= 0) & (index < source.size)
    index = np.clip(index, 0, source.size - 1)
    begin, end = np.maximum(edges[index], low[:, None]), np.minimum(edges[index + 1], high[:, None])
    overlap = source.measure(np.maximum(end, begin)) - source.measure(begin)
    return index, np.where(inside, overlap, 0.0)


def _nearest(position: NDArray[np.float64]) -> NDArray[np.intp]:
    """Integer indices nearest to fractional ones; ties round up."""
    return np.floor(position + 0.5 + SNAP).astype(np.intp)


def interpolation_weights(source: Axis, target: Axis, *, rim: Rim = "nearest", order: Literal[0, 1] = 1) -> Band:
    """Weights by coordinate: linear between neighbours (`order=1`) or the nearest one (`order=0`).

    `rim` is the rule for targets beyond the outermost coordinates: "nearest" keeps the outermost value, "linear"
    extrapolates the outermost slope, "missing" sets targets outside the source's extent to NaN, "error" raises an
    error. In the half cell between the outermost centre and the edge of a centre-registered source "missing" and
    "error" keep the outermost value. An axis with a period has no rim.
    """
    _check(source, target, rim)
    place = _turned(source, target.coordinates)
    position = (place - source.start) / source.step
    whole = np.round(position)
    position = np.where(np.abs(position - whole) < SNAP, whole, position)
    low, high = source.extent
    slack = TOLERANCE * abs(source.step)
    beyond = (place < low - slack) | (place > high + slack)
    outside = beyond if source.period is None and rim in ("missing", "error") else np.zeros(target.size, dtype=bool)
    _refuse_outside(source, target, outside, rim)
    covered = np.where(beyond, 0.0, 1.0) if source.period is None else np.ones(target.size)

    if source.period is None and not (rim == "linear" and order == 1):
        position = np.clip(position, 0, source.size - 1)
    if order == 0 or source.size == 1:
        index = _nearest(position)[:, None]
        index = index % source.size if source.period else np.clip(index, 0, source.size - 1)
        return Band(index, np.ones(index.shape), source.size, covered, outside)
    lower = np.floor(position)
    if source.period is None:
        lower = np.clip(lower, 0, source.size - 2)
    upper_share = position - lower
    index = lower.astype(np.intp)[:, None] + np.arange(2)
    weight = np.stack([1 - upper_share, upper_share], axis=1)
    if source.period is not None:
        index %= source.size
    if (np.abs(weight - np.round(weight)) < SNAP).all() and (weight >= 0).all():  # all on nodes: one entry each
        index, weight = np.take_along_axis(index, weight.argmax(axis=1)[:, None], axis=1), np.ones((target.size, 1))
    return Band(index, weight, source.size, covered, outside)
