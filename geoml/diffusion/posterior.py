"""Samples of a diffusion given noisy values at some cells: the denoiser's estimate conditioned on them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from geoml.diffusion.denoiser import expand

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from geoml.diffusion.denoiser import Denoiser

__all__ = ["Observed", "given"]

#: Largest number of gradients per evaluation of the denoiser.
DIRECTIONS = 12
#: Relative residual of the weighted misfit at which the iteration stops.
TOLERANCE = 0.03


@dataclass(frozen=True)
class Observed:
    """Values `y = x[index] + error · noise` of flattened clean fields `x`; NaN values are unknown."""

    index: Int[Tensor, " point"]
    values: Float[Tensor, "batch point"]
    errors: Float[Tensor, "batch point"]

    def repeated(self, count: int) -> Observed:
        """Repeat every row consecutively."""
        return Observed(self.index, *(part.repeat_interleave(count, dim=0) for part in (self.values, self.errors)))


def given(
    denoiser: Denoiser,
    observed: Observed,
    *,
    noisiest: float = math.inf,
    limit: float = math.inf,
    directions: int = DIRECTIONS,
    tolerance: float = TOLERANCE,
) -> Denoiser:
    """The denoiser of the posterior given observed values: E[clean | x, y] for Gaussian noise in the observations.

    By Tweedie's formulas the clean field given x has the mean D(x, σ) and the covariance C = σ² ∂D/∂x. If it is taken
    as Gaussian, the mean given `y = H clean + e`, e of covariance S, is

        D + C Hᵀ (H C Hᵀ + S)⁻¹ (y − H D)

    (Boys et al. 2023, arXiv 2310.06721, eq. 9). This is exact for Gaussian priors. Columns of C Hᵀ are products of the
    network's Jacobian with vectors, one gradient each. Instead of one gradient per observation, the system is solved by
    Lanczos iterations in the space of observations, weighted by their errors: they need few gradients where
    observations are few, far apart, or no more certain than the estimate. At most `directions` gradients are taken, and
    fewer if a share of no more than `tolerance` of the misfit is left. Negative variances of an imperfect network count
    as 0.

    Above the noise level `noisiest` the covariance is computed at that level, with the noise scaled down. There the
    noisy field has no information about the clean field, so that the covariance is constant, while errors of the
    network's Jacobian would be multiplied by σ². For the same reason no cell changes by more than `limit` times the
    largest misfit.
    """

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        level, clean = sigma.clamp(max=noisiest), None
        if bool((sigma > noisiest).any()):
            clean = denoiser(x, sigma)
            x = clean + expand(level / sigma, x) * (x - clean)
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            made = denoiser(x, level)
            there = made.flatten(1)[:, observed.index]
        clean = made.detach() if clean is None else clean
        known = observed.values.isfinite()
        weights = torch.where(known, 1 / observed.errors, 0.0).to(clean.dtype)
        away = observed.values - clean.flatten(1)[:, observed.index]
        misfit = weights * torch.where(known, away, 0.0).to(clean.dtype)
        variance = expand(level.square(), x)

        def column(vector: Tensor) -> Tensor:
            (slope,) = torch.autograd.grad(there, x, weights * vector, retain_graph=True)
            return variance * slope

        moved = _solved(column, weights, misfit, observed.index, min(directions, len(observed.index)), tolerance)
        if moved is None:
            return clean
        # An imperfect Jacobian has large entries far from the observations.
        most = limit * torch.where(known, away, 0.0).abs().amax(1).to(clean.dtype)
        most = expand(most, x)
        return clean + torch.minimum(torch.maximum(moved, -most), most)

    return denoise


def _solved(
    column: Callable[[Tensor], Tensor],
    weights: Tensor,
    misfit: Tensor,
    index: Tensor,
    directions: int,
    tolerance: float,
) -> Tensor | None:
    """C Hᵀ W z with (1 + W H C Hᵀ W) z = misfit, by Lanczos iterations from the misfit; W are the weights."""
    size = misfit.norm(dim=1, keepdim=True)
    if not bool((size > 0).any()):
        return None
    vector = misfit / size.clamp(min=1e-30)
    basis, images, columns = [], [], []
    while True:
        field = column(vector)
        basis.append(vector)
        columns.append(field)
        images.append(weights * field.flatten(1)[:, index])
        space, image = torch.stack(basis, 2), torch.stack(images, 2)
        shares = size * _coefficients(space.mT @ image)
        left = misfit - ((space + image) @ shares.unsqueeze(2))[..., 0]
        if len(basis) == directions or bool((left.norm(dim=1, keepdim=True) <= tolerance * size).all()):
            return torch.einsum("bd,bd...->b...", shares, torch.stack(columns, 1))
        rest = images[-1]
        for _ in range(2):  # twice, since rounding leaves parts of earlier vectors
            rest = rest - (space @ (space.mT @ rest.unsqueeze(2)))[..., 0]
        length = rest.norm(dim=1, keepdim=True)
        scale = images[-1].norm(dim=1, keepdim=True)
        vector = torch.where(length > 1e-5 * scale, rest / length.clamp(min=1e-30), 0.0)


def _coefficients(projected: Tensor) -> Tensor:
    """The first column of (1 + T)⁻¹, T the symmetric part of `projected` without negative eigenvalues."""
    values, vectors = torch.linalg.eigh((projected + projected.mT) / 2)
    return ((vectors / (1 + values.clamp(min=0)).unsqueeze(1)) @ vectors[:, 0, :].unsqueeze(2))[..., 0]
