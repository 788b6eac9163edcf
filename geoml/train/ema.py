"""Exponential moving averages of a model's weights, counted in samples."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

__all__ = ["EMA", "decay"]

M = TypeVar("M", bound=nn.Module)


def decay(batch: int, half_life: float) -> float:
    """The decay factor of an average over `batch` samples with a half-life; 0 if `half_life` is 0.

    >>> decay(100, 100), decay(50, 0)
    (0.5, 0.0)
    """
    return 0.5 ** (batch / half_life) if half_life > 0 else 0.0


class EMA(Generic[M]):
    """A copy of a model whose weights follow the original's, `θ̄ ← d·θ̄ + (1 − d)·θ`, `d = 2^(−batch / half_life)`.

    The half-life is at most `ramp` of the samples seen so far, so that a short run is not dominated by its start
    (Karras et al. 2022, arXiv 2206.00364, appendix F.2). Half-life 0 follows exactly. Buffers are copied.
    """

    def __init__(self, model: M, *, half_life: float, ramp: float = 0.05) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.half_life, self.ramp = half_life, ramp

    @torch.no_grad()
    def update(self, model: nn.Module, *, batch: int, samples: int) -> None:
        """Update after a step of `batch` samples, with `samples` seen in total."""
        keep = decay(batch, min(self.half_life, self.ramp * samples))
        for average, latest in zip(self.model.parameters(), model.parameters(), strict=True):
            average.lerp_(latest.to(average.dtype), 1 - keep)
        for kept, buffer in zip(self.model.buffers(), model.buffers(), strict=True):
            kept.copy_(buffer)
