"""A regression of the mean, and a diffusion of the residual."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from geoml.data.fields import Batch
from geoml.diffusion import preconditioning
from geoml.diffusion.levels import LogNormalLevels
from geoml.diffusion.spacing import spaced
from geoml.models.base import Channels
from geoml.models.diffusion import Diffusion
from geoml.models.regression import masked_loss
from geoml.models.unet import UNetRegression
from geoml.nn.blocks import Norm
from geoml.nn.context import Conditioning
from geoml.nn.ops import Operator

__all__ = ["CorrDiff"]


class CorrDiff(Diffusion):
    """Members = a U-Net's conditional mean + an EDM of the residual, which sees the mean among its predictors.

    Mardani et al. 2023, arXiv 2309.15214, in one training instead of two: the mean is trained on its mean squared error
    only, the diffusion on the residuals of the current mean (without gradient to the mean), and their scale adapts as
    the mean improves. The loss is the sum of the two.
    """

    def __init__(
        self,
        channels: Channels,
        dims: int,
        *,
        base: int = 16,
        multipliers: Sequence[int] = (1, 2, 2),
        blocks: int = 1,
        attention: Sequence[int] = (),
        norm: Norm = "group",
        dropout: float = 0.0,
        operator: Operator = "full",
        first_axis_halvings: int | None = None,
        conditioning: Sequence[Conditioning] = ("concat",),
        recompute: bool = False,
        residual: bool = True,
        sigma_data: float = 0.5,
        p_mean: float = -1.2,
        p_std: float = 1.2,
        sampler: str | Mapping[str, Any] = "dpm_solver_2m",
        steps: int = 16,
        spacing: str = "log_snr",
        sigma_min: float = 0.02,
        sigma_max: float = 80.0,
    ) -> None:
        network: dict[str, Any] = {
            "base": base,
            "multipliers": multipliers,
            "blocks": blocks,
            "attention": attention,
            "norm": norm,
            "dropout": dropout,
            "operator": operator,
            "first_axis_halvings": first_axis_halvings,
            "recompute": recompute,
        }
        super().__init__(
            channels,
            dims,
            preconditioning=preconditioning.Karras(sigma_data),
            levels=LogNormalLevels(p_mean, p_std),
            unit=sigma_data,
            residual=residual,
            sampler=sampler,
            more_predictors=len(channels.target),
            conditioning=conditioning,
            **network,
        )
        self.mean = UNetRegression(channels, dims, residual=residual, **network)
        self.path = spaced(spacing, steps, smallest=sigma_min, largest=sigma_max)

    def sigmas(self) -> Sequence[float]:
        return self.path

    def loss(self, batch: Batch, *, phase: str = "main", generator: torch.Generator | None = None) -> Tensor:
        """The mean's squared error + the diffusion's loss."""
        if batch.target is None:
            raise ValueError("a loss needs a batch with a target")
        mean = self.mean(batch).float()
        predictors, centre = self._around(batch, mean.detach())
        return masked_loss(mean, batch.target, batch.mask) + self.denoising_loss(batch, predictors, centre, generator)

    @torch.no_grad()
    def predict(self, batch: Batch, *, members: int = 1, seed: int = 0) -> Tensor:
        """Members around the one mean."""
        return self.sample(batch, *self._around(batch, self.mean(batch).float()), members=members, seed=seed)

    def _around(self, batch: Batch, mean: Tensor) -> tuple[Tensor, Tensor]:
        """Predictors, the mean among them, and the mean."""
        return torch.cat((self.predictors(batch), mean), dim=1), mean
