"""ResNet regression: residual blocks on the condition's grid, exact upsampling, residual blocks on the target's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoml.data.fields import Batch
from geoml.models.base import Channels
from geoml.models.regression import Loss, Regression
from geoml.nn.blocks import Norm, ResidualBlock
from geoml.nn.ops import Conv

__all__ = ["ResNetRegression"]


class ResNetRegression(Regression):
    """Residual blocks mostly on the coarse grid, after the generator of Harris et al. 2022, at any factor.

    Features of the condition pass `coarse_blocks` on its own grid, are interpolated by coordinate to the target grid,
    join the interpolated condition and the static fields, and pass `fine_blocks` there. Without normalisation by
    default, so that amounts are kept and no cell depends on cells beyond the receptive field.
    """

    def __init__(
        self,
        channels: Channels,
        dims: int,
        *,
        width: int = 32,
        coarse_blocks: int = 3,
        fine_blocks: int = 2,
        norm: Norm = "none",
        dropout: float = 0.0,
        loss: Loss = "mse",
        quantile: float = 0.5,
        huber_delta: float = 1.0,
        residual: bool = True,
    ) -> None:
        super().__init__(channels, dims, loss=loss, quantile=quantile, huber_delta=huber_delta, residual=residual)
        predictors = len(channels.condition) + len(channels.static)

        def stack(count: int) -> nn.ModuleList:
            return nn.ModuleList(
                ResidualBlock(width, width, dims=dims, norm=norm, dropout=dropout) for _ in range(count)
            )

        self.stem = Conv(len(channels.condition), width, dims=dims, gain=0.5**0.5)
        self.coarse = stack(coarse_blocks)
        self.join = Conv(width + predictors, width, dims=dims, gain=0.5**0.5)
        self.fine = stack(fine_blocks)
        self.head = Conv(width, len(channels.target), dims=dims, kernel=1, gain=0.0)

    def residual(self, batch: Batch, guess: Tensor) -> Tensor:
        h = self.stem(batch.condition)
        for block in self.coarse:
            h = block(h)
        h = self.to_target(h, batch.condition_grid, batch.target_grid)
        h = self.join(torch.cat((h, self.predictors(batch, guess)), dim=1))
        for block in self.fine:
            h = block(h)
        return self.head(F.silu(h))
