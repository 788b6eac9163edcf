"""Base class of predictors without a network."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch

from geoml.data.fields import Batch
from geoml.errors import UserError
from geoml.models.base import Channels
from geoml.models.fitted import Fitted

__all__ = ["Baseline", "first_guesses"]


class Baseline(Fitted, ABC):
    """Base class of predictors without a network. Batches are in physical units."""

    def __init__(self, channels: Channels, dims: int = 2) -> None:
        self.channels, self.dims = channels, dims

    @abstractmethod
    def predict(self, batch: Batch, *, members: int = 1, seed: int = 0) -> tuple[torch.Tensor, float]:
        """Predict the targets of a batch.

        Returns values `(batch, member, channel, *space)` in physical units on the target grid, and the share of cells
        that were clipped.
        """


def first_guesses(channels: Channels, what: str) -> list[int]:
    """Return the index of the first guess (coarse version) of each target among the predictors.

    Raises `UserError` if a target has no first guess.
    """
    found = []
    for target in channels.target:
        index = channels.guess_index(target)
        if index is None:
            raise UserError(
                f"{what} needs the coarse version of {target!r} among the predictors; "
                f"there are {', '.join(channels.condition)}. Set it in data.first_guess"
            )
        found.append(index)
    return found
