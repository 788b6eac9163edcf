"""Observed voxels among the conditions of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from geoml.diffusion.guidance import Keep, Known
from geoml.models.base import Channels

__all__ = ["observed_values"]


def observed_values(
    channels: Channels,
    predictors: Float[Tensor, "batch predictor *space"],
    *,
    guidance: float = 0.0,
    keep: Keep = "end",
) -> Known | None:
    """The observations among the predictors of a task (`NAME_observed` and `observed`), or None."""
    names: Sequence[str] = [f"{target}_observed" for target in channels.target]
    if not {*names, "observed"} <= set(channels.condition):
        return None
    values = torch.stack([predictors[:, channels.condition.index(name)] for name in names], dim=1)
    here = predictors[:, channels.condition.index("observed")] > 0.5
    return Known(values, here.unsqueeze(1).expand_as(values), guidance, keep)
