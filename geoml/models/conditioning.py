"""The inputs of a network from a batch: predictors on the target grid, and the first guess."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from geoml.data.fields import Batch
from geoml.models.base import Channels

__all__ = ["first_guess", "with_static"]


def with_static(
    channels: Channels, batch: Batch, interpolated: Float[Tensor, "batch condition *space"]
) -> Float[Tensor, "batch predictor *space"]:
    """Conditions, interpolated to the target grid, followed by the batch's static fields."""
    if len(channels.static) != (0 if batch.static is None else batch.static.shape[1]):
        count = 0 if batch.static is None else batch.static.shape[1]
        raise ValueError(f"the batch has {count} static fields; expected {len(channels.static)}: {channels.static}")
    return interpolated if batch.static is None else torch.cat((interpolated, batch.static), dim=1)


def first_guess(
    guesses: Sequence[int | None], predictors: Float[Tensor, "batch predictor *space"]
) -> Float[Tensor, "batch target *space"]:
    """Return the first guess of each target from the interpolated predictors; 0 for a target without a first guess."""
    zero = torch.zeros_like(predictors[:, 0])
    return torch.stack([zero if index is None else predictors[:, index] for index in guesses], dim=1)
