"""Transforms of rain rates for anchored models: compressed amounts, and a separate value for dry cells."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["DRY", "LEAST_MM_H", "compressed", "from_latent", "from_root", "to_latent", "to_root"]

#: Smallest wet rate of a prediction; in training, half of it already counts as wet because observations are rounded.
LEAST_MM_H = 0.1
#: Value of a dry cell: as far below 0 as the smallest wet rate is above it.
DRY = -0.3


def compressed(rain: Tensor) -> Tensor:
    """Transform rain in mm/h to `log10(1 + rain / 0.1)`: 0 for dry, 0.3 at 0.1 mm/h, 2 at 10 mm/h.

    >>> [round(float(value), 2) for value in compressed(torch.tensor([0.0, 0.1, 9.9]))]
    [0.0, 0.3, 2.0]
    """
    return torch.log10(1 + rain / LEAST_MM_H)


def to_latent(rain: Tensor) -> Tensor:
    """Transform rain in mm/h to latent values: `compressed` for wet cells, `DRY` for dry cells."""
    return torch.where(rain >= LEAST_MM_H / 2, compressed(rain.clamp(min=0)), DRY)


def from_latent(latent: Tensor, wet: Tensor | None = None) -> Tensor:
    """Transform latent values to rain in mm/h: at least `LEAST_MM_H` in wet cells, else 0.

    `wet` marks wet cells; by default, cells with a latent value above 0 are wet.

    >>> [round(float(value), 2) for value in from_latent(torch.tensor([-0.2, 0.1, 2.0]))]
    [0.0, 0.1, 9.9]
    """
    rain = LEAST_MM_H * (torch.pow(10.0, latent.clamp(max=4.0)) - 1)
    return torch.where(latent > 0 if wet is None else wet, rain.clamp(min=LEAST_MM_H), 0.0)


def to_root(rain: Tensor) -> Tensor:
    """Return the fourth root of rain in mm/h; 0 for dry cells. The diffusion operates on these values.

    An error in the logarithm is a constant relative error, which is large for heavy rain. A root reduces it.
    """
    return torch.where(rain >= LEAST_MM_H / 2, rain.clamp(min=0), 0.0).pow(0.25)


def from_root(root: Tensor) -> Tensor:
    """Transform fourth roots to rain in mm/h: 0, or at least `LEAST_MM_H`.

    A cell is wet if its root is nearer to the root of `LEAST_MM_H` than to 0.

    >>> [round(float(value), 2) for value in from_root(torch.tensor([0.2, 0.4, 1.0, 2.0]))]
    [0.0, 0.1, 1.0, 16.0]
    """
    rain = root.clamp(0, 5).pow(4).clamp(min=LEAST_MM_H)
    return torch.where(root > 0.5 * LEAST_MM_H**0.25, rain, 0.0)
