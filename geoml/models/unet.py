"""U-Net regression on the target grid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from geoml.data.fields import Batch
from geoml.models.base import Channels
from geoml.models.regression import Loss, Regression
from geoml.nn.options import NETWORK, UNetOptions
from geoml.nn.unet import UNet

__all__ = ["UNetRegression"]


class UNetRegression(Regression):
    """A U-Net that corrects the interpolated condition, with static fields as inputs (Ronneberger et al. 2015)."""

    def __init__(
        self,
        channels: Channels,
        dims: int,
        *,
        network: UNetOptions | Mapping[str, Any] = NETWORK,
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
            **vars(UNetOptions.of(network)),
        )

    def residual(self, batch: Batch, guess: Tensor) -> Tensor:
        return self.network(self.predictors(batch, guess))
