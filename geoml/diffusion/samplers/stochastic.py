"""Heun steps with noise added before each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from geoml.diffusion.samplers.base import Sampler, SamplerStep
from geoml.diffusion.samplers.heun import heun_step

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["StochasticHeun"]


@dataclass(frozen=True)
class StochasticHeun(Sampler):
    """Each step first raises σ to σ (1 + γ) by fresh noise, γ = min(churn / steps, √2 − 1), then steps as Heun.

    Noise is added at levels from `smallest` to `largest` only, `inflation` times as strong. Karras et al. 2022,
    algorithm 2: the noise removes earlier errors of the denoiser at the cost of more steps.
    """

    churn: float = 40.0
    smallest: float = 0.05
    largest: float = 50.0
    inflation: float = 1.0
    order: ClassVar[int] = 2

    @property
    def stochastic(self) -> bool:
        return self.churn > 0

    def step(self, x: Tensor, at: SamplerStep) -> tuple[Tensor, Tensor]:
        inside = self.smallest <= at.sigma <= self.largest
        raised = at.sigma * (1 + (min(self.churn / at.count, math.sqrt(2) - 1) if inside else 0.0))
        if raised > at.sigma:
            x = x + math.sqrt(raised**2 - at.sigma**2) * self.inflation * at.noise()
        return heun_step(x, at, raised)

    def evaluations(self, sigmas: Sequence[float]) -> int:
        return 2 * (len(sigmas) - 1) - (sigmas[-1] == 0)
