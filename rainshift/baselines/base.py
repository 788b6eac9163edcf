"""What every predictor without a network is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

import torch

from geoml.errors import DataError, UserError
from geoml.fields import Batch
from geoml.models.base import Channels

__all__ = ["Baseline", "first_guesses"]


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


def first_guesses(channels: Channels, what: str) -> list[int]:
    """Indices of the predictors that are the coarse versions of the targets; `UserError` where there is none."""
    found = []
    for target in channels.target:
        index = channels.guess_index(target)
        if index is None:
            raise UserError(
                f"{what} needs the coarse version of {target!r} among the predictors; "
                f"there are {', '.join(channels.condition)}. Name it in data.first_guess"
            )
        found.append(index)
    return found
