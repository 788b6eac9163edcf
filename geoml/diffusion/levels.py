"""Distributions of the noise levels σ that a network is trained on, drawn by their quantiles."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from geoml.errors import unknown

if TYPE_CHECKING:
    from jaxtyping import Float
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = [
    "SCHEDULES",
    "DiscreteLevels",
    "Levels",
    "LogNormalLevels",
    "UniformTimeLevels",
    "cosine",
    "linear",
    "schedule",
]

#: Smallest distance of uniform draws from 0 and 1, where quantiles are infinite.
MARGIN = 1e-6


class Levels(ABC):
    """A distribution of noise levels."""

    @abstractmethod
    def quantile(self, uniform: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """The quantile function of σ at `uniform` (0 to 1); uniform draws give draws of σ."""


@dataclass(frozen=True)
class LogNormalLevels(Levels):
    """ln σ ~ N(mean, std²): Karras et al. 2022, table 1.

    With σ = t/(1−t) this is the logit-normal distribution of t (Esser et al. 2024, arXiv 2403.03206, eq. 19).
    """

    mean: float = -1.2
    std: float = 1.2

    def quantile(self, uniform: Tensor) -> Tensor:
        return torch.exp(self.mean + self.std * torch.special.ndtri(uniform.clamp(MARGIN, 1 - MARGIN)))


@dataclass(frozen=True)
class UniformTimeLevels(Levels):
    """Uniform in the time of a flow, t = σ/(1+σ)."""

    def quantile(self, uniform: Tensor) -> Tensor:
        time = uniform.clamp(MARGIN, 1 - MARGIN)
        return time / (1 - time)


@dataclass(frozen=True)
class DiscreteLevels(Levels):
    """Each level of an ascending table with equal probability, as in a diffusion with discrete steps."""

    table: tuple[float, ...]

    def quantile(self, uniform: Tensor) -> Tensor:
        index = (uniform * len(self.table)).long().clamp(max=len(self.table) - 1)
        return torch.tensor(self.table, dtype=uniform.dtype, device=uniform.device)[index]


def linear(steps: int = 1000) -> NDArray[np.float64]:
    """ᾱ after each step with β rising linearly, from 10⁻⁴ to 0.02 at 1000 steps (Ho et al. 2020, section 4)."""
    return np.cumprod(1 - np.linspace(1e-4, 0.02, steps) * (1000 / steps), dtype=np.float64)


def cosine(steps: int = 1000) -> NDArray[np.float64]:
    """ᾱ after each step, a squared cosine with β at most 0.999 (Nichol & Dhariwal 2021, arXiv 2102.09672, eq. 17)."""
    offset = 0.008
    angle = (np.arange(steps + 1) / steps + offset) / (1 + offset) * math.pi / 2
    kept = np.cos(angle) ** 2
    return np.cumprod(1 - np.minimum(1 - kept[1:] / kept[:-1], 0.999), dtype=np.float64)


SCHEDULES: dict[str, Callable[[int], NDArray[np.float64]]] = {"linear": linear, "cosine": cosine}


def schedule(name: str, steps: int = 1000) -> DiscreteLevels:
    """The levels σ = √((1−ᾱ)/ᾱ) of a named discrete schedule, for which x/√ᾱ is clean + σ · noise.

    >>> levels = schedule("linear").table
    >>> round(levels[0], 4), round(levels[-1])
    (0.01, 157)
    """
    if name not in SCHEDULES:
        raise unknown("schedule", name, SCHEDULES)
    kept = SCHEDULES[name](steps)
    return DiscreteLevels(tuple(float(sigma) for sigma in np.sqrt((1 - kept) / kept)))
