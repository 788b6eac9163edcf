"""Euler steps in σ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from geoml.diffusion.samplers.base import Sampler, SamplerStep

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Euler"]


@dataclass(frozen=True)
class Euler(Sampler):
    """Euler steps along the tangent of the probability flow: first order, one evaluation per step."""

    order: ClassVar[int] = 1

    def step(self, x: Tensor, at: SamplerStep) -> tuple[Tensor, Tensor]:
        denoised = at.denoise(x, at.sigma)
        return x + (at.after - at.sigma) / at.sigma * (x - denoised), denoised
