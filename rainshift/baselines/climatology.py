"""The pooled distribution of the training rain."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from geoml.errors import DataError
from geoml.fields import Batch
from geoml.models.base import Channels
from rainshift.baselines.base import Baseline
from rainshift.baselines.histogram import RateHistogram

__all__ = ["Climatology", "known_values"]


def known_values(batch: Batch, channel: int) -> np.ndarray:
    """Values of a target where it is known."""
    if batch.target is None:
        raise ValueError("a baseline that learns is fitted on targets; the batch has none")
    values = batch.target[:, channel]
    return (values if batch.mask is None else values[batch.mask[:, channel]]).numpy().ravel()


class Climatology(Baseline):
    """The distribution of the training rain, the same for every cell and hour.

    Member m of M is the quantile at (m + ½)/M of all training cells pooled, which makes the ensemble the M-point
    approximation of the pooled distribution that is best in CRPS (Bröcker 2012, Q. J. R. Meteorol. Soc. 138, 1611).
    It knows nothing of the weather: a model that does not beat it has learnt nothing.
    """

    learns = True
    stochastic = True

    def __init__(self, channels: Channels, dims: int = 2) -> None:
        super().__init__(channels, dims)
        self.histograms = [RateHistogram() for _ in channels.target]

    def fit(self, batches: Iterable[Batch]) -> None:
        """Count the known cells of the training targets."""
        for batch in batches:
            for channel, histogram in enumerate(self.histograms):
                histogram.add(known_values(batch, channel))

    def state(self) -> dict[str, Any]:
        """Counts of the training cells by rate."""
        return {"counts": [histogram.state() for histogram in self.histograms]}

    def load_state(self, state: dict[str, Any]) -> None:
        """The counts that `state` gave."""
        if len(state.get("counts", ())) != len(self.histograms):
            raise DataError(f"climatology of {len(self.histograms)} targets cannot take over {list(state)}")
        for histogram, counts in zip(self.histograms, state["counts"], strict=True):
            histogram.load_state(counts)

    def quantiles(self, levels: np.ndarray) -> np.ndarray:
        """`(channel, level)` quantiles of the pooled training values; 0 where the level falls on dry cells."""
        return np.stack([histogram.quantiles(levels) for histogram in self.histograms])

    def predict(self, batch: Batch, *, members: int = 1, seed: int = 0) -> tuple[torch.Tensor, float]:
        """The same ensemble of quantiles at every cell."""
        values = self.quantiles((np.arange(members) + 0.5) / members).T  # (member, channel)
        space = (1,) * batch.dims
        tensor = torch.as_tensor(values, dtype=batch.condition.dtype, device=batch.condition.device)
        tensor = tensor.reshape(1, members, -1, *space)
        return tensor.expand(len(batch), -1, -1, *batch.target_grid.shape), 0.0
