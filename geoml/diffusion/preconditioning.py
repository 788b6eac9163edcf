"""Parameterisations: the training target of a network, and the denoised field from its output.

For every parameterisation `D(x, σ) = c_skip(σ) x + c_out(σ) F(c_in(σ) x, ln σ / 4)`, and the network `F` is trained
on the mean square of `F − target`: the choice of the target is the choice of the weight of each noise level.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from geoml.diffusion.denoiser import expand
from geoml.errors import unknown

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

__all__ = [
    "PARAMETERISATIONS",
    "Clean",
    "Coefficients",
    "Flow",
    "Karras",
    "Noise",
    "Preconditioning",
    "Velocity",
    "noise_label",
    "parameterisation",
]


class Coefficients(NamedTuple):
    """The factors of a preconditioning at each sample's noise level, `(batch,)`."""

    skip: Tensor
    out: Tensor
    into: Tensor


class Preconditioning(ABC):
    """The coefficients of a parameterisation, its training target and weight, as functions of σ.

    All but `Karras` are meant for clean fields of unit variance.
    """

    @abstractmethod
    def coefficients(self, sigma: Float[Tensor, " batch"]) -> Coefficients:
        """`c_skip`, `c_out` and `c_in`."""

    @abstractmethod
    def target(
        self,
        clean: Float[Tensor, "batch channel *space"],
        noise: Float[Tensor, "batch channel *space"],
        sigma: Float[Tensor, " batch"],
    ) -> Float[Tensor, "batch channel *space"]:
        """The training target of the network for `x = clean + σ · noise`, without division by a small σ."""

    def weight(self, sigma: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """The weight of a noise level in the mean square of `F − target`."""
        return torch.ones_like(sigma)

    def denoise(
        self,
        network: Callable[[Tensor, Tensor], Tensor],
        x: Float[Tensor, "batch channel *space"],
        sigma: Float[Tensor, " batch"],
    ) -> Float[Tensor, "batch channel *space"]:
        """Estimate the clean field with `network(c_in · x, ln σ / 4)`; sums are computed in the precision of `x`."""
        skip, out, into = (expand(factor, x) for factor in self.coefficients(sigma))
        return skip * x + out * network(into * x, noise_label(sigma)).to(x.dtype)


def noise_label(sigma: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """The noise label of the network: ln σ / 4."""
    return sigma.log() / 4


@dataclass(frozen=True)
class Karras(Preconditioning):
    """Unit variance of the network's target at every σ, for clean fields of standard deviation `sigma_data`.

    Karras et al. 2022, arXiv 2206.00364, table 1, with the weight λ(σ) = 1 / c_out². There the input has unit variance
    too. With `wiener` the input is the linear estimate of the clean field, `σ_data² x / (σ² + σ_data²)`, over `σ_data`:
    it vanishes for large σ, where the network acts as a regression.
    """

    sigma_data: float = 0.5
    wiener: bool = False

    def coefficients(self, sigma: Tensor) -> Coefficients:
        total = sigma.square() + self.sigma_data**2
        into = self.sigma_data / total if self.wiener else total.rsqrt()
        return Coefficients(self.sigma_data**2 / total, sigma * self.sigma_data * total.rsqrt(), into)

    def target(self, clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        norm = (sigma.square() + self.sigma_data**2).rsqrt()
        return expand(norm * sigma / self.sigma_data, clean) * clean - expand(norm * self.sigma_data, clean) * noise


@dataclass(frozen=True)
class Noise(Preconditioning):
    """The network predicts the noise ε (Ho et al. 2020, arXiv 2006.11239, eq. 14)."""

    def coefficients(self, sigma: Tensor) -> Coefficients:
        return Coefficients(torch.ones_like(sigma), -sigma, (1 + sigma.square()).rsqrt())

    def target(self, clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        return noise


@dataclass(frozen=True)
class Clean(Preconditioning):
    """The network predicts the clean field x₀, weighted by max(1, 1/σ²).

    Salimans & Ho 2022, arXiv 2202.00512, section 4 ("truncated SNR"): without weights, fine detail, which is
    determined at small σ, would not count. The weight is at most 10⁴.
    """

    def coefficients(self, sigma: Tensor) -> Coefficients:
        return Coefficients(torch.zeros_like(sigma), torch.ones_like(sigma), (1 + sigma.square()).rsqrt())

    def target(self, clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        return clean

    def weight(self, sigma: Tensor) -> Tensor:
        return sigma.square().reciprocal().clamp(1.0, 1e4)


@dataclass(frozen=True)
class Velocity(Preconditioning):
    """The network predicts v = α ε − s x₀ with α = 1/√(1+σ²), s = σ/√(1+σ²) (Salimans & Ho 2022, section 4).

    Except for the sign of the target this is `Karras` for data of unit variance.
    """

    def coefficients(self, sigma: Tensor) -> Coefficients:
        norm = (1 + sigma.square()).rsqrt()
        return Coefficients(norm.square(), -sigma * norm, norm)

    def target(self, clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        norm = (1 + sigma.square()).rsqrt()
        return expand(norm, clean) * noise - expand(sigma * norm, clean) * clean


@dataclass(frozen=True)
class Flow(Preconditioning):
    """The network predicts the flow u = ε − x₀ along x_t = (1−t) x₀ + t ε, that is σ = t/(1−t), x = x_t/(1−t).

    Lipman et al. 2023, arXiv 2210.02747; Liu et al. 2023, arXiv 2209.03003 (rectified flow).
    """

    def coefficients(self, sigma: Tensor) -> Coefficients:
        rest = (1 + sigma).reciprocal()  # 1 − t
        return Coefficients(rest, -sigma * rest, rest)

    def target(self, clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        return noise - clean


PARAMETERISATIONS: dict[str, Callable[[], Preconditioning]] = {"epsilon": Noise, "x0": Clean, "v": Velocity}


def parameterisation(name: str) -> Preconditioning:
    """Return the preconditioning of a discrete diffusion by the name of the predicted quantity."""
    if name not in PARAMETERISATIONS:
        raise unknown("parameterisation", name, PARAMETERISATIONS)
    return PARAMETERISATIONS[name]()
