"""The network of a denoiser: a U-Net that is told the noise level and the conditions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from geoml.nn.embedding import ScalarEmbedding
from geoml.nn.unet import UNet

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from geoml.nn.blocks import Norm

__all__ = ["DenoisingUNet"]


class DenoisingUNet(nn.Module):
    """Noisy fields, predictors on the same grid and a noise label to what the parameterisation asks for.

    Predictors are joined to the noisy fields as channels; the label scales and shifts the features of every block.
    Starts as zero. Options are those of `UNet`.
    """

    def __init__(
        self,
        fields: int,
        predictors: int,
        *,
        dims: int,
        base: int,
        multipliers: Sequence[int],
        blocks: int,
        attention: Sequence[int],
        norm: Norm,
        dropout: float,
    ) -> None:
        super().__init__()
        self.embedding = ScalarEmbedding(4 * base)
        self.unet = UNet(
            fields + predictors,
            fields,
            dims=dims,
            base=base,
            multipliers=multipliers,
            blocks=blocks,
            embedding_dim=4 * base,
            attention=attention,
            norm=norm,
            dropout=dropout,
        )

    def forward(
        self,
        x: Float[Tensor, "batch field *space"],
        predictors: Float[Tensor, "batch predictor *space"],
        label: Float[Tensor, " batch"],
    ) -> Float[Tensor, "batch field *space"]:
        return self.unet(torch.cat((x, predictors), dim=1), self.embedding(label))
