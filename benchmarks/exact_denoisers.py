"""Denoisers in closed form, for tests of samplers and networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from geoml.diffusion.denoiser import expand

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

__all__ = ["GaussianDenoiser", "MixtureDenoiser"]


@dataclass(frozen=True)
class GaussianDenoiser:
    """The posterior mean of clean ~ N(mean, variance), cell by cell; both broadcast against the fields.

    With x a field's Fourier coefficients and the variance its spectrum, this is a stationary Gaussian field.
    """

    mean: Tensor
    variance: Tensor

    def __call__(
        self, x: Float[Tensor, "batch channel *space"], sigma: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch channel *space"]:
        gain = self.variance / (self.variance + expand(sigma, x).square())
        return self.mean + gain * (x - self.mean)

    def flow(
        self, x: Float[Tensor, "batch channel *space"], sigma: float, to: float = 0.0
    ) -> Float[Tensor, "batch channel *space"]:
        """Return the exact solution of the probability-flow ODE from one noise level to another."""
        shrink = ((self.variance + to**2) / (self.variance + sigma**2)) ** 0.5
        return self.mean + shrink * (x - self.mean)


@dataclass(frozen=True)
class MixtureDenoiser:
    """The posterior mean of a mixture of Gaussians, each with independent cells.

    `means` is `(component, channel, *space)`, `variances` broadcasts against it, `weights` is `(component,)`.
    """

    means: Tensor
    variances: Tensor
    weights: Tensor

    def __call__(
        self, x: Float[Tensor, "batch channel *space"], sigma: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch channel *space"]:
        away = x[:, None] - self.means
        total = (self.variances + expand(sigma, away).square()).expand_as(away)
        surprise = (away.square() / total + total.log()).flatten(2).sum(2) / 2
        share = torch.softmax(self.weights.log() - surprise, dim=1)
        posterior = x[:, None] - expand(sigma, away).square() / total * away
        return (share.view(*share.shape, *[1] * (x.ndim - 1)) * posterior).sum(1)
