"""The network of a denoiser: a U-Net conditioned on the noise level and the predictors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from geoml.errors import UserError, unknown
from geoml.nn.context import CONDITIONINGS, Conditioning
from geoml.nn.embedding import ScalarEmbedding
from geoml.nn.unet import UNet

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from geoml.nn.options import UNetOptions

__all__ = ["DenoisingUNet"]


class DenoisingUNet(nn.Module):
    """Maps noisy fields, predictors on the same grid and a noise label to the output of the parameterisation.

    The label scales and shifts the features of every block. Predictors enter in one or more ways: "concat", as
    additional input channels; "cross_attention", by attention at the coarsest level; "film", as the mean of their
    encoding, added to the label's embedding. Initialised to zero.
    """

    def __init__(
        self,
        fields: int,
        predictors: int,
        *,
        dims: int,
        network: UNetOptions,
        conditioning: Sequence[Conditioning] = ("concat",),
    ) -> None:
        super().__init__()
        for way in conditioning:
            if way not in CONDITIONINGS:
                raise unknown("conditioning", way, CONDITIONINGS)
        if predictors and not conditioning:
            raise UserError(f"conditioning is empty; expected some of {', '.join(CONDITIONINGS)}")
        self.joined = "concat" in conditioning
        others = tuple(way for way in conditioning if way != "concat") if predictors else ()
        self.embedding = ScalarEmbedding(4 * network.base)
        self.unet = UNet(
            fields + predictors if self.joined else fields,
            fields,
            dims=dims,
            embedding_dim=4 * network.base,
            context=predictors if others else 0,
            context_by=others,
            **vars(network),
        )

    def forward(
        self,
        x: Float[Tensor, "batch field *space"],
        predictors: Float[Tensor, "batch predictor *space"],
        label: Float[Tensor, " batch"],
    ) -> Float[Tensor, "batch field *space"]:
        into = torch.cat((x, predictors), dim=1) if self.joined else x
        return self.unet(into, self.embedding(label), predictors if self.unet.context is not None else None)
