"""The context of a network: a coarse encoding of fields, used by attention or to scale features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from geoml.nn.blocks import Norm, norm_layer
from geoml.nn.ops import Conv, downsample

if TYPE_CHECKING:
    from jaxtyping import Float

__all__ = ["CONDITIONINGS", "Conditioning", "ContextEncoder"]

#: Ways of conditioning: as input channels, by attention at the coarsest level, or as a vector that scales and shifts
#: the features of every block.
Conditioning = Literal["concat", "cross_attention", "film"]
CONDITIONINGS: tuple[Conditioning, ...] = ("concat", "cross_attention", "film")


class ContextEncoder(nn.Module):
    """Encode fields `(batch, channels, *space)` as `(batch, width, *coarse space)`: a convolution before each halving.

    `halvings` lists the factors of each axis; sizes must be multiples of the products of the factors.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        halvings: Sequence[Sequence[int]],
        *,
        dims: int,
        kernel: Sequence[int],
        norm: Norm,
    ) -> None:
        super().__init__()
        self.halvings = tuple(tuple(factors) for factors in halvings)
        self.stem = Conv(channels, width, dims=dims, kernel=kernel, gain=0.5**0.5)
        self.convolutions = nn.ModuleList(Conv(width, width, dims=dims, kernel=kernel) for _ in self.halvings)
        self.norm = norm_layer(norm, width)

    def forward(self, x: Float[Tensor, "batch channel *space"]) -> Float[Tensor, "batch width *coarse"]:
        h = self.stem(x)
        for convolution, factors in zip(self.convolutions, self.halvings, strict=True):
            h = downsample(convolution(F.silu(h)), factors)
        return self.norm(h)
