"""Quantile mapping of the predictors, and of the prediction back."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from geoml.data.fields import Batch
from geoml.errors import DataError, UserError, unknown
from geoml.grids.grid import Grid
from geoml.models.base import Channels
from geoml.regrid import operator_for
from rainshift.alignment.base import Alignment, Inputs, chosen_channels
from rainshift.baselines.quantile_map import Kind, QuantileMap, Tail
from rainshift.models.spec import Around, Downscaler
from rainshift.sources.variables import VARIABLES

__all__ = ["QuantileMapping"]

Values = NDArray[np.floating]


class QuantileMapping(Alignment):
    """Map predictors to the training distribution, and the predicted rain back to the target distribution.

    The map x̂ = F_source⁻¹(F_target(x)) is applied before normalisation.

    Args:
        channels: predictors to map: "tp", "tp+cp" or "all".
        kind: "multiplicative" or "additive" correction beyond the outermost quantiles, as in `QuantileMap`.
            Predictors with negative values are always corrected additively.
        tail: rule beyond the outermost quantiles, as in `QuantileMap`.
        per_pixel: whether to fit F_target at each coarse cell. F_source is always pooled over all cells, since cells
            of different regions do not correspond.
        wet_only: whether to fit the distributions of wet cells only; dry cells are then unchanged.
        wet_mm_h: rate in mm/h above which a cell is wet.
        inverse: whether to map the predicted rain back with the inverse map of the first guess. The first guess is
            coarse rain, so fine extremes can lie beyond all its quantiles; `tail` applies to them.
        quantiles: number of quantiles.
        hours: number of training hours of source and target.
    """

    def __init__(
        self,
        *,
        channels: str = "tp",
        kind: Kind = "multiplicative",
        tail: Tail = "correction",
        per_pixel: bool = False,
        wet_only: bool = False,
        wet_mm_h: float = 0.01,
        inverse: bool = True,
        quantiles: int = 1000,
        hours: int = 960,
    ) -> None:
        super().__init__(hours=hours)
        if kind not in ("multiplicative", "additive"):
            raise unknown("kind", kind, ("multiplicative", "additive"), hint="of quantile mapping")
        if tail not in ("correction", "clip"):
            raise unknown("tail", tail, ("correction", "clip"), hint="of quantile mapping")
        if quantiles < 2:
            raise UserError(f"quantile mapping with {quantiles} quantiles; expected at least 2")
        self.channels, self.per_pixel, self.inverse = channels, per_pixel, inverse
        self.kind, self.tail, self.quantiles = kind, tail, quantiles
        self.wet_only, self.wet_mm_h = wet_only, wet_mm_h

    def check(self, channels: Channels) -> None:
        names = chosen_channels(self.channels, channels)
        guess = channels.guess_index(channels.target[0])
        back = None if guess is None else channels.condition[guess]
        if self.inverse and back not in names:
            raise UserError(
                f"quantile mapping maps {', '.join(names)}, but mapping the prediction back needs the map of the first "
                f"guess of the rain ({back}); add it to the channels of the alignment, or set inverse=false"
            )

    def align(self, downscaler: Downscaler, source: Inputs, target: Inputs, channels: Channels) -> Downscaler:
        self.check(channels)
        names, guess = chosen_channels(self.channels, channels), channels.guess_index(channels.target[0])
        maps = {channels.condition.index(name): self._maps(name, source, target) for name in names}
        inverse = [one.inverse for one in maps[guess]] if self.inverse and guess is not None else []
        return _Mapped(downscaler, maps, inverse, _shape(target) if self.per_pixel else None)

    def _maps(self, name: str, source: Inputs, target: Inputs) -> list[QuantileMap]:
        """Fit the map from the target distribution to the source distribution: one map, or one per coarse cell."""
        to = source.pooled(name)
        rain = name in VARIABLES and VARIABLES[name].units == VARIABLES["precipitation"].units
        dry = self.wet_mm_h if self.wet_only and rain else -np.inf
        if not self.per_pixel:
            own = target.pooled(name)[None]
        else:
            (fields,) = target.fields
            own = fields[:, target.channels.index(name)].reshape(-1, int(np.prod(_shape(target)))).T
            to = _thinned(to[to > dry], 10 * self.quantiles)  # otherwise every cell would sort all of them
        kind: Kind = self.kind if min(float(to.min(initial=0)), float(own.min())) >= 0 else "additive"
        return [
            QuantileMap.fit(values, to, quantiles=self.quantiles, kind=kind, tail=self.tail, dry=dry) for values in own
        ]


def _thinned(values: Values, count: int) -> Values:
    """Replace more than `count` values by `count` evenly spaced quantiles."""
    return values if values.size <= count else np.quantile(values, (np.arange(count) + 0.5) / count)


def _shape(inputs: Inputs) -> tuple[int, int]:
    rows, columns = inputs.fields[0].shape[-2:]
    return int(rows), int(columns)


@dataclass(frozen=True)
class _Mapped(Around):
    """Downscaler that maps its predictors and maps the predicted rain back."""

    maps: dict[int, list[QuantileMap]]
    inverse: list[QuantileMap]
    cells: tuple[int, int] | None

    def predict(self, batch: Batch, members: int = 1, seed: int = 0) -> tuple[torch.Tensor, float]:
        """Predict from mapped predictors and map the rain back."""
        coarse, fine = batch.condition_grid, batch.target_grid
        condition = batch.condition.clone()
        own = self._cells_of(coarse, coarse)
        for channel, maps in self.maps.items():
            condition[:, channel] = _apply(maps, condition[:, channel], own)
        rain, clipped = self.downscaler.predict(batch.map(condition=condition), members=members, seed=seed)
        if self.inverse:
            rain = _apply(self.inverse, rain, self._cells_of(coarse, fine))
        return rain, clipped

    def _cells_of(self, coarse: Grid, grid: Grid) -> NDArray[np.int64] | None:
        """Return the flat index of the nearest coarse cell for each cell of `grid`, `(lat, lon)`.

        Returns None if one map is used for all cells.
        """
        if self.cells is None:
            return None
        if coarse.shape[-2:] != self.cells:
            raise DataError(
                f"quantile mapping was fitted on {self.cells} coarse cells; {coarse.shape[-2:]} were given. "
                "Predict complete regions, or set per_pixel=false"
            )
        return _nearest(Grid(coarse.axes[-2:], coarse.crs), Grid(grid.axes[-2:], grid.crs))


@functools.lru_cache(maxsize=8)
def _nearest(coarse: Grid, grid: Grid) -> NDArray[np.int64]:
    numbers = np.arange(coarse.size, dtype=np.float64).reshape(coarse.shape)
    return np.rint(operator_for(coarse, grid, "nearest")(numbers)).astype(np.int64)


def _apply(maps: list[QuantileMap], fields: torch.Tensor, cells: NDArray[np.int64] | None) -> torch.Tensor:
    """Apply to each cell of `fields` `(…, lat, lon)` the map of its coarse cell."""
    values = fields.cpu().numpy()
    if cells is None:
        return torch.as_tensor(maps[0](values), device=fields.device)
    flat = np.moveaxis(values.reshape(-1, cells.size), -1, 0)
    mapped = np.stack([maps[cell](column) for cell, column in zip(cells.ravel(), flat, strict=True)])
    return torch.as_tensor(np.moveaxis(mapped, 0, -1).reshape(values.shape), device=fields.device)
