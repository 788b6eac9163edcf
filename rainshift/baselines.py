"""What a downscaler has to beat: interpolation of the coarse rain, and climatology.

A baseline works in physical units and answers like a trained model's predictor:
`predict(batch, members, seed) -> ((batch, member, channel, *space), clipped share)`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np
import torch

from geoml.errors import DataError, UserError, unknown
from geoml.fields import Batch
from geoml.models.base import Channels
from geoml.regrid import operator_for

__all__ = ["Baseline", "Climatology", "Interpolation"]


class Baseline(ABC):
    """A predictor without a network."""

    #: True where `fit` has to see training batches first.
    learns: ClassVar[bool]
    #: False where all members are equal.
    stochastic: ClassVar[bool] = False

    def __init__(self, channels: Channels, dims: int = 2) -> None:
        self.channels, self.dims = channels, dims

    def fit(self, batches: Iterable[Batch]) -> None:
        """Learn from training batches in physical units; a baseline that learns overrides this and the state."""
        raise TypeError(f"{type(self).__name__} learns nothing")

    def state(self) -> dict[str, Any]:
        """What was learnt, as plain values for JSON."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave."""
        if state:
            raise DataError(f"{type(self).__name__} keeps no state; {sorted(state)} came")

    @abstractmethod
    def predict(self, batch: Batch, *, members: int = 1, seed: int = 0) -> tuple[torch.Tensor, float]:
        """`(batch, member, channel, *space)` in physical units on the target grid, and the share of clipped cells."""


class Interpolation(Baseline):
    """The coarse rain brought to the fine grid by coordinate: bilinear, nearest or area-conservative.

    All members are equal. Fine cells outside the hull of the coarse nodes take the nearest coarse value.
    """

    learns = False

    def __init__(self, channels: Channels, dims: int = 2, *, method: str = "bilinear") -> None:
        super().__init__(channels, dims)
        if method not in ("bilinear", "nearest", "conservative"):
            raise unknown("interpolation method", method, ("bilinear", "nearest", "conservative"))
        self.method = method
        self._guesses = []
        for target in channels.target:
            index = channels.guess_index(target)
            if index is None:
                raise UserError(
                    f"interpolation needs the coarse version of {target!r} among the predictors; "
                    f"there are {', '.join(channels.condition)}. Name it in data.first_guess"
                )
            self._guesses.append(index)

    def predict(self, batch: Batch, *, members: int = 1, seed: int = 0) -> tuple[torch.Tensor, float]:
        """The interpolated rain, `members` times over."""
        regrid = operator_for(batch.condition_grid, batch.target_grid, self.method, rim="nearest")
        fine = regrid(batch.condition[:, self._guesses])
        return fine.unsqueeze(1).expand(-1, members, *(-1,) * (fine.ndim - 1)), 0.0


class Climatology(Baseline):
    """The distribution of the training rain, the same for every cell and hour.

    Member m of M is the quantile at (m + ½)/M of all training cells pooled, which makes the ensemble the M-point
    approximation of the pooled distribution that is best in CRPS (Bröcker 2012, Q. J. R. Meteorol. Soc. 138, 1611).
    It knows nothing of the weather: a model that does not beat it has learnt nothing.
    """

    learns = True
    stochastic = True
    #: Quantiles are read off a histogram of this many cells to each octave of the rate: 0.5 % of the value.
    BINS_PER_OCTAVE: ClassVar[int] = 128
    _LOWEST, _HIGHEST = 2.0**-10, 2.0**12

    def __init__(self, channels: Channels, dims: int = 2) -> None:
        super().__init__(channels, dims)
        octaves = int(np.log2(self._HIGHEST / self._LOWEST))
        self._edges = self._LOWEST * 2 ** (np.arange(octaves * self.BINS_PER_OCTAVE + 1) / self.BINS_PER_OCTAVE)
        # bin 0 holds what is below the lowest edge, dry cells above all
        self.counts = np.zeros((len(channels.target), len(self._edges) + 1), dtype=np.int64)

    def fit(self, batches: Iterable[Batch]) -> None:
        """Count the known cells of the training targets."""
        for batch in batches:
            if batch.target is None:
                raise ValueError("climatology is fitted on targets; the batch has none")
            target = batch.target.numpy()
            known = np.ones(target.shape, bool) if batch.mask is None else batch.mask.numpy()
            for channel in range(target.shape[1]):
                values = target[:, channel][known[:, channel]]
                place = np.searchsorted(self._edges, values, side="right")
                self.counts[channel] += np.bincount(place, minlength=self.counts.shape[1])

    def state(self) -> dict[str, Any]:
        """Counts of the training cells by rate, zeros left out."""
        return {"counts": [{int(i): int(row[i]) for i in np.flatnonzero(row)} for row in self.counts]}

    def load_state(self, state: dict[str, Any]) -> None:
        """The counts that `state` gave."""
        if len(state.get("counts", ())) != len(self.counts):
            raise DataError(f"climatology of {len(self.channels.target)} targets cannot take over {list(state)}")
        self.counts[:] = 0
        for row, counts in zip(self.counts, state["counts"], strict=True):
            for place, count in counts.items():
                row[int(place)] = count

    def quantiles(self, levels: np.ndarray) -> np.ndarray:
        """`(channel, level)` quantiles of the pooled training values; 0 where the level falls on dry cells."""
        if not self.counts.any(axis=1).all():
            raise ValueError("climatology has seen no training cell; call fit first")
        middles = np.concatenate(([0.0], np.sqrt(self._edges[:-1] * self._edges[1:]), self._edges[-1:]))
        cumulated = np.cumsum(self.counts, axis=1)
        ranks = levels * cumulated[:, -1:]
        return np.stack([middles[np.searchsorted(row, rank)] for row, rank in zip(cumulated, ranks, strict=True)])

    def predict(self, batch: Batch, *, members: int = 1, seed: int = 0) -> tuple[torch.Tensor, float]:
        """The same ensemble of quantiles at every cell."""
        values = self.quantiles((np.arange(members) + 0.5) / members).T  # (member, channel)
        space = (1,) * batch.dims
        tensor = torch.as_tensor(values, dtype=batch.condition.dtype, device=batch.condition.device)
        tensor = tensor.reshape(1, members, -1, *space)
        return tensor.expand(len(batch), -1, -1, *batch.target_grid.shape), 0.0
