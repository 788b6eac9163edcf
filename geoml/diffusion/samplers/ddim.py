"""DDIM, from deterministic to ancestral."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from geoml.diffusion.samplers.base import Sampler, SamplerStep

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DDIM"]


@dataclass(frozen=True)
class DDIM(Sampler):
    """DDIM of first order, with a share `eta` of the noise of DDPM at each step (Song et al. 2021, arXiv 2010.02502).

    Eq. 12 and 16 in terms of σ: the fresh noise has standard deviation η σ' √(1 − σ'²/σ²). With η = 0 it is Euler's
    step, with η = 1 the ancestral sampling of Ho et al. 2020.
    """

    eta: float = 0.0
    order: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta {self.eta} has to be in 0 … 1")

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    def step(self, x: Tensor, at: SamplerStep) -> tuple[Tensor, Tensor]:
        denoised = at.denoise(x, at.sigma)
        fresh = self.eta * at.after * math.sqrt(1 - (at.after / at.sigma) ** 2)
        kept = math.sqrt(at.after**2 - fresh**2)
        x = denoised + kept / at.sigma * (x - denoised)
        return (x + fresh * at.noise() if fresh else x), denoised
