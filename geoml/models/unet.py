"""U-Net regression on the target grid."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from geoml.data.fields import Batch
from geoml.models.base import Channels
from geoml.models.regression import Loss, Regression
from geoml.nn.blocks import Norm
from geoml.nn.ops import Operator
from geoml.nn.unet import UNet

__all__ = ["UNetRegression"]


class UNetRegression(Regression):
    """A U-Net that corrects the interpolated condition, with static fields as inputs (Ronneberger et al. 2015)."""

    def __init__(
        self,
        channels: Channels,
        dims: int,
        *,
        base: int = 16,
        multipliers: Sequence[int] = (1, 2, 4),
        blocks: int = 1,
        attention: Sequence[int] = (),
        norm: Norm = "group",
        dropout: float = 0.0,
        operator: Operator = "full",
        first_axis_halvings: int | None = None,
        recompute: bool = False,
        loss: Loss = "mse",
        quantile: float = 0.5,
        huber_delta: float = 1.0,
        residual: bool = True,
    ) -> None:
        super().__init__(channels, dims, loss=loss, quantile=quantile, huber_delta=huber_delta, residual=residual)
        self.network = UNet(
            len(channels.condition) + len(channels.static),
            len(channels.target),
            dims=dims,
            base=base,
            multipliers=multipliers,
            blocks=blocks,
            attention=attention,
            norm=norm,
            dropout=dropout,
            operator=operator,
            first_axis_halvings=first_axis_halvings,
            recompute=recompute,
        )

    def residual(self, batch: Batch, guess: Tensor) -> Tensor:
        return self.network(self.predictors(batch, guess))
