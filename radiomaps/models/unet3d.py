"""The 3D-UNet that the benchmark of arXiv 2507.12166 compares with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from geoml.data.fields import Batch
from geoml.diffusion.guidance import Keep
from geoml.models.base import Channels
from geoml.models.regression import Loss
from geoml.models.unet import UNetRegression
from geoml.nn.options import NETWORK, UNetOptions
from radiomaps.models.observed import observed_values

__all__ = ["UNet3D"]


class UNet3D(UNetRegression):
    """Encoder and decoder with skip connections over a volume; predicts all targets of the task.

    Çiçek et al. 2016, arXiv 1606.06650. Observed voxels keep their values with `keep` "end", are predicted as all
    others with "never". With `operator` "planar" of the network every height is mapped for itself, as RadioUNet does
    (Levie et al. 2021, arXiv 1911.09002).
    """

    supported_dims: ClassVar[tuple[int, ...]] = (3,)

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
        keep: Keep = "end",
    ) -> None:
        super().__init__(
            channels,
            dims,
            network=network,
            loss=loss,
            quantile=quantile,
            huber_delta=huber_delta,
            residual=residual,
        )
        self.keep: Keep = keep

    @torch.no_grad()
    def predict(self, batch: Batch, *, members: int = 1, seed: int = 0) -> Tensor:
        """The deterministic prediction, repeated for all members."""
        prediction = super().predict(batch, members=1, seed=seed)[:, 0]
        interpolated = self.to_target(batch.condition, batch.condition_grid, batch.target_grid)
        known = observed_values(self.channels, interpolated, keep=self.keep)
        if known is not None and self.keep != "never":
            prediction = known.put_in(prediction)
        return prediction.unsqueeze(1).expand(-1, members, *prediction.shape[1:])
