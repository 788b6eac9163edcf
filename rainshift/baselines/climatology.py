"""Climatology: the distribution of the training rain over all cells and hours."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from geoml.data.fields import Batch
from geoml.errors import DataError
from geoml.models.base import Channels
from geoml.models.noise import member_noise
from rainshift.baselines.base import Baseline
from rainshift.baselines.histogram import RateHistogram

__all__ = ["Climatology", "known_values"]


def known_values(batch: Batch, channel: int) -> np.ndarray:
    """Return the values of one target at cells where it is known, flattened."""
    if batch.target is None:
        raise ValueError("a baseline is fitted on targets; the batch has none")
    values = batch.target[:, channel]
    return (values if batch.mask is None else values[batch.mask[:, channel]]).numpy().ravel()


class Climatology(Baseline):
    """Random draws from the training rain, with the same distribution at every cell and hour.

    Members are independent draws at each cell, as the fair CRPS assumes. Evenly spaced quantiles, which minimise the
    CRPS (Bröcker 2012, Q. J. R. Meteorol. Soc. 138, 1611), would score better than the distribution itself. The
    predictors are not used: a model that does not beat climatology has no skill.
    """

    learns = True
    stochastic = True

    def __init__(self, channels: Channels, dims: int = 2) -> None:
        super().__init__(channels, dims)
        self.histograms = [RateHistogram() for _ in channels.target]

    def fit(self, batches: Iterable[Batch]) -> None:
        """Add the known cells of the training targets to the histograms."""
        for batch in batches:
            for channel, histogram in enumerate(self.histograms):
                histogram.add(known_values(batch, channel))

    def state(self) -> dict[str, Any]:
        """Return the histograms as plain values."""
        return {"counts": [histogram.state() for histogram in self.histograms]}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore the histograms from the result of `state`."""
        if len(state.get("counts", ())) != len(self.histograms):
            raise DataError(
                f"the saved state of climatology has {len(state.get('counts', ()))} histograms; "
                f"expected {len(self.histograms)}, one per target"
            )
        for histogram, counts in zip(self.histograms, state["counts"], strict=True):
            histogram.load_state(counts)

    def quantiles(self, levels: np.ndarray) -> np.ndarray:
        """Return quantiles `(channel, level)` of all training values; 0 for levels within the share of dry cells."""
        return np.stack([histogram.quantiles(levels) for histogram in self.histograms])

    def predict(self, batch: Batch, *, members: int = 1, seed: int = 0) -> tuple[torch.Tensor, float]:
        """Draw members. The random numbers depend on seed, sample id and member only."""
        shape = (len(self.histograms), *batch.target_grid.shape)
        chance = torch.special.ndtr(member_noise(shape, batch.ids, members=members, seed=seed).double()).numpy()
        drawn = [histogram.quantiles(chance[:, :, i]) for i, histogram in enumerate(self.histograms)]
        values = torch.from_numpy(np.stack(drawn, axis=2))
        return values.to(batch.condition.device, batch.condition.dtype), 0.0
