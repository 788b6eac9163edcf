"""Predictions of large domains by overlapping tiles: memory of one tile, no seams."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from geoml.data.fields import Batch
from geoml.errors import UserError
from geoml.grids.grid import Axis, Grid
from geoml.models.noise import WindowId

__all__ = ["Tiled", "Tiling"]

#: Tiles begin at multiples of this many cells, so that networks of up to four levels pool the same cells.
LEVELS = 8


class Predicts(Protocol):
    """The protocol of a predictor: a trained model with its transforms, or an equivalent."""

    def predict(self, batch: Batch, *, members: int = 1, seed: int = 0) -> tuple[Tensor, float]:
        """`(batch, member, channel, *space)` in physical units, and the share of values that were clipped."""


@dataclass(frozen=True)
class TileSpan:
    """A tile along one axis: cells to write, weights of the cells, and cells to read from both grids."""

    read: slice
    coarse: slice
    #: Weight of each cell that is read: 0 in the halo, between 0 and 1 in the overlap, 1 inside.
    weight: np.ndarray


@dataclass(frozen=True)
class Tiling:
    """Tiling of the last two axes of a domain. All counts are in cells of the target grid.

    A tile is `tile` cells wide. It overlaps its neighbours by `blend` cells on either side, where tiles are mixed with
    weights that sum to 1, and reads `halo` more cells. With a halo as wide as the receptive field of a network tiles
    equal the untiled prediction up to rounding; with global layers (attention, group norm) blending hides the seams.

    Domains of at most `limit` cells per side are not tiled.
    """

    tile: int = 240
    blend: int = 8
    halo: int = 32
    limit: int = 320

    def __post_init__(self) -> None:
        if self.tile < 1 or self.blend < 0 or self.halo < 0 or self.tile < 2 * self.blend:
            raise UserError(
                f"tiles of {self.tile} cells, blend {self.blend}, halo {self.halo}; expected counts of cells with "
                "blend at most half a tile"
            )

    def spans(self, fine: Axis, coarse: Axis) -> list[TileSpan]:
        """The tiles along an axis. Widths are rounded up to whole numbers of cells of both grids."""
        if fine.size <= max(self.limit, self.tile):
            return [TileSpan(slice(0, fine.size), slice(0, coarse.size), np.ones(fine.size))]
        # So many fine cells are a whole number of coarse ones: tiles are alike, and share one operator.
        unit = math.lcm(Fraction(coarse.step / fine.step).limit_denominator(64).numerator, LEVELS)
        tile, margin = (-(-width // unit) * unit for width in (self.tile, self.halo + self.blend))
        starts = range(0, max(fine.size - tile // 2, 1), tile)
        return [
            self._span(fine, coarse, start, fine.size if start == starts[-1] else start + tile, margin)
            for start in starts
        ]

    def _span(self, fine: Axis, coarse: Axis, start: int, stop: int, margin: int) -> TileSpan:
        low, high = max(start - margin, 0), min(stop + margin, fine.size)
        cells = np.arange(low, high) + 0.5
        weight = np.ones(high - low)
        width = max(2 * self.blend, 1e-9)
        if start > 0:
            weight *= np.clip((cells - start) / width + 0.5, 0, 1)
        if stop < fine.size:
            weight *= np.clip((stop - cells) / width + 0.5, 0, 1)
        # The coarse cells that the centres of the fine ones lie between, and one more.
        at = (fine.coordinates[[low, high - 1]] - coarse.start) / coarse.step
        first, last = math.floor(at.min() + 1e-6) - 1, math.ceil(at.max() - 1e-6) + 1
        inside = slice(max(first, 0) if low > 0 else 0, min(last + 1, coarse.size) if high < fine.size else coarse.size)
        return TileSpan(slice(low, high), inside, weight)


@dataclass(frozen=True)
class Tiled:
    """A predictor that works on one tile of a large domain at a time; all tiles share one noise field.

    In addition to the result, memory holds one tile and one noise field of the domain.
    """

    predictor: Predicts
    tiling: Tiling

    def predict(self, batch: Batch, *, members: int = 1, seed: int = 0) -> tuple[Tensor, float]:
        """Return the blended tiles, and the mean share of clipped values."""
        rows, columns = (
            self.tiling.spans(fine, coarse)
            for fine, coarse in zip(batch.target_grid.axes[-2:], batch.condition_grid.axes[-2:], strict=True)
        )
        if len(rows) == len(columns) == 1:
            return self.predictor.predict(batch, members=members, seed=seed)
        whole: Tensor | None = None
        clipped = 0.0
        for row, column in itertools.product(rows, columns):
            part, share = self.predictor.predict(_cut(batch, row, column), members=members, seed=seed)
            if whole is None:
                whole = part.new_zeros(*part.shape[:3], *batch.target_grid.shape)
            weight = torch.as_tensor(np.outer(row.weight, column.weight), dtype=part.dtype, device=part.device)
            whole[..., row.read, column.read] += part * weight
            clipped += share * float(weight.sum()) / math.prod(batch.target_grid.shape[-2:])
        assert whole is not None
        return whole, clipped


def _cut(batch: Batch, row: TileSpan, column: TileSpan) -> Batch:
    """The part of a batch that a tile reads, with ids that select its part of the noise."""
    fine = _crop(batch.target_grid, row.read, column.read)
    coarse = _crop(batch.condition_grid, row.coarse, column.coarse)
    windows = dict(_windows(batch, row, column))

    def cut(fields: Tensor | None, rows: slice, columns: slice) -> Tensor | None:
        return None if fields is None else fields[..., rows, columns]

    return Batch(
        batch.condition[..., row.coarse, column.coarse],
        coarse,
        fine,
        static=cut(batch.static, row.read, column.read),
        ids=tuple(
            sample.part(windows) if isinstance(sample, WindowId) else WindowId(sample, windows) for sample in batch.ids
        ),
        points=None if batch.points is None else batch.points.crop((row.read, column.read)),
    )


def _windows(
    batch: Batch, row: TileSpan, column: TileSpan
) -> Iterator[tuple[tuple[int, ...], tuple[tuple[int, ...], tuple[slice, ...]]]]:
    """For the shape of the tile on either grid: the shape of the domain and the position of the tile."""
    for grid, rows, columns in (
        (batch.condition_grid, row.coarse, column.coarse),
        (batch.target_grid, row.read, column.read),
    ):
        before = grid.shape[:-2]
        place = (*(slice(0, size) for size in before), rows, columns)
        yield (*before, rows.stop - rows.start, columns.stop - columns.start), (grid.shape, place)


def _crop(grid: Grid, rows: slice, columns: slice) -> Grid:
    return grid.crop(**dict(zip(grid.names[-2:], (rows, columns), strict=True)))
