"""The base class of samplers: one step between noise levels, and the integration over all levels."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, TypeAlias

import torch

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from geoml.diffusion.denoiser import Denoiser

__all__ = ["NoiseSource", "Sampler", "SamplerStep"]

#: A function from the index of a step to standard normal noise in the shape of the fields.
NoiseSource: TypeAlias = "Callable[[int], Tensor]"


class SamplerStep:
    """The state of an integration between two levels.

    `sigma` falls to `after` (perhaps 0) at step `index` of `count`; `before` is the level of the step before, and
    `denoised` its denoised field, None at the first step.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        sigmas: Sequence[float],
        index: int,
        denoised: Tensor | None,
        fresh: NoiseSource | None,
    ) -> None:
        self.index, self.count = index, len(sigmas) - 1
        self.sigma, self.after = sigmas[index], sigmas[index + 1]
        self.before = sigmas[index - 1] if index else None
        self.denoised = denoised
        self._denoiser, self._fresh = denoiser, fresh

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """The denoiser at one level for the whole batch."""
        return self._denoiser(x, torch.full(x.shape[:1], sigma, dtype=x.dtype, device=x.device))

    def noise(self) -> Tensor:
        """Fresh noise of this step."""
        if self._fresh is None:
            raise ValueError("this sampler draws noise at every step; pass `fresh`, a function from the step to noise")
        return self._fresh(self.index)


class Sampler(ABC):
    """Follows `x = clean + σ · noise` from pure noise down to σ = 0; the probability flow is dx/dσ = (x − D(x, σ))/σ.

    A class is abstract or final. Coefficients are computed in double precision, fields have the precision of `noise`.
    """

    #: Order of convergence of the deterministic part: the global error scales with this power of the step size.
    order: ClassVar[int]

    @property
    def stochastic(self) -> bool:
        """True if noise is drawn at each step."""
        return False

    def __call__(
        self,
        denoiser: Denoiser,
        noise: Float[Tensor, "batch channel *space"],
        sigmas: Sequence[float],
        fresh: NoiseSource | None = None,
    ) -> Float[Tensor, "batch channel *space"]:
        """Integrate from standard normal `noise` along descending `sigmas`; stochastic samplers need `fresh` noise.

        Each sample depends only on its own noise, so keyed noise gives the same samples for any batch split.
        """
        if len(sigmas) < 2 or any(a <= b for a, b in itertools.pairwise(sigmas)) or sigmas[-1] < 0:
            raise ValueError(f"noise levels {tuple(sigmas)} must descend, to 0 or a positive level")
        x, denoised = noise * sigmas[0], None
        for index in range(len(sigmas) - 1):
            x, denoised = self.step(x, SamplerStep(denoiser, sigmas, index, denoised, fresh))
        return x

    @abstractmethod
    def step(self, x: Tensor, at: SamplerStep) -> tuple[Tensor, Tensor]:
        """`x` at the level `at.after`, and the denoised field at `at.sigma`."""

    def evaluations(self, sigmas: Sequence[float]) -> int:
        """The number of denoiser calls along `sigmas`."""
        return len(sigmas) - 1
