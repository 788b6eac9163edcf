"""DPM-Solver++ of second order with one evaluation per step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from geoml.diffusion.samplers.base import Sampler, SamplerStep

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DPMSolver2M"]


@dataclass(frozen=True)
class DPMSolver2M(Sampler):
    """DPM-Solver++ (2M): the denoised field is extrapolated linearly in −ln σ from the previous step.

    Lu et al. 2022, arXiv 2211.01095, algorithm 2 ("2M"): second order with one evaluation per step. The first step, and
    a last step to σ = 0, are of first order.
    """

    order: ClassVar[int] = 2

    def step(self, x: Tensor, at: SamplerStep) -> tuple[Tensor, Tensor]:
        denoised = at.denoise(x, at.sigma)
        if at.after == 0:
            return denoised, denoised
        estimate, length = denoised, math.log(at.sigma / at.after)
        if at.denoised is not None and at.before is not None:
            half_ratio = length / math.log(at.before / at.sigma) / 2
            estimate = (1 + half_ratio) * denoised - half_ratio * at.denoised
        shrink = at.after / at.sigma
        return shrink * x + (1 - shrink) * estimate, denoised
