"""Heun's second-order steps in σ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from geoml.diffusion.samplers.base import Sampler, SamplerStep

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Heun", "heun_step"]


def heun_step(x: Tensor, at: SamplerStep, sigma: float) -> tuple[Tensor, Tensor]:
    """Step from `sigma` to `at.after` with the mean slope of both ends; a step to 0 uses the first slope only."""
    denoised = at.denoise(x, sigma)
    slope = (x - denoised) / sigma
    there = x + (at.after - sigma) * slope
    if at.after == 0:
        return there, denoised
    slope_there = (there - at.denoise(there, at.after)) / at.after
    return x + (at.after - sigma) / 2 * (slope + slope_there), denoised


@dataclass(frozen=True)
class Heun(Sampler):
    """Heun steps: second order, two evaluations per step, one for the last (Karras et al. 2022, algorithm 1)."""

    order: ClassVar[int] = 2

    def step(self, x: Tensor, at: SamplerStep) -> tuple[Tensor, Tensor]:
        return heun_step(x, at, at.sigma)

    def evaluations(self, sigmas: Sequence[float]) -> int:
        return 2 * (len(sigmas) - 1) - (sigmas[-1] == 0)
