"""A regression of the mean, and a diffusion of the residual."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from geoml.data.fields import Batch
from geoml.diffusion.process import SAMPLING, Process, Sampling
from geoml.models.base import Channels
from geoml.models.diffusion import Diffusion
from geoml.models.regression import masked_loss
from geoml.models.unet import UNetRegression
from geoml.nn.context import Conditioning
from geoml.nn.options import NETWORK, UNetOptions

__all__ = ["CorrDiff"]


class CorrDiff(Diffusion):
    """Members are the mean of a U-Net plus residuals of a diffusion, which has the mean as an additional predictor.

    Mardani et al. 2023, arXiv 2309.15214, in one training, not two: the mean is trained on its mean squared error
    only, the diffusion on the residuals of the current mean (without gradient to the mean), and their scale adapts as
    the mean improves. The loss is the sum of the two.
    """

    def __init__(
        self,
        channels: Channels,
        dims: int,
        *,
        process: Process | str | Mapping[str, Any] = "edm",
        network: UNetOptions | Mapping[str, Any] = NETWORK,
        conditioning: Sequence[Conditioning] = ("concat",),
        residual: bool = True,
        sampling: Sampling | Mapping[str, Any] = SAMPLING,
    ) -> None:
        super().__init__(
            channels,
            dims,
            process=process,
            network=network,
            conditioning=conditioning,
            residual=residual,
            sampling=sampling,
            more_predictors=len(channels.target),
        )
        self.mean = UNetRegression(channels, dims, network=network, residual=residual)

    def loss(self, batch: Batch, *, phase: str = "main", generator: torch.Generator | None = None) -> Tensor:
        """The mean's squared error + the diffusion's loss."""
        if batch.target is None:
            raise ValueError("a loss needs a batch with a target")
        mean = self.mean(batch).float()
        predictors, centre = self._around(batch, mean.detach())
        return masked_loss(mean, batch.target, batch.mask) + self.denoising_loss(batch, predictors, centre, generator)

    @torch.no_grad()
    def predict(self, batch: Batch, *, members: int = 1, seed: int = 0) -> Tensor:
        """Sample members around the common mean."""
        return self.sample(batch, *self._around(batch, self.mean(batch).float()), members=members, seed=seed)

    def _around(self, batch: Batch, mean: Tensor) -> tuple[Tensor, Tensor]:
        """Return the predictors, which include the mean, and the mean."""
        return torch.cat((self.predictors(batch), mean), dim=1), mean
