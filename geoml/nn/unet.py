"""One U-Net for regression and diffusion, in 2-D and 3-D, for inputs of any size."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoml.nn.blocks import Attention, Norm, ResidualBlock, norm_layer
from geoml.nn.ops import Conv, crop, downsample, pad, upsample

if TYPE_CHECKING:
    from jaxtyping import Float

__all__ = ["UNet"]


class _Level(nn.Module):
    """Residual blocks at one resolution, the last followed by attention where it is asked for."""

    def __init__(self, sizes: Sequence[int], attention: bool, *, dims: int, norm: Norm, **options: object) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            ResidualBlock(a, b, dims=dims, norm=norm, **options)  # type: ignore[arg-type]
            for a, b in pairwise(sizes)
        )
        self.attention = Attention(sizes[-1], dims=dims, norm=norm) if attention else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor | None) -> Tensor:
        for block in self.blocks:
            x = block(x, emb)
        return self.attention(x)


class UNet(nn.Module):
    """`(batch, in_channels, *space)` to `(batch, out_channels, *space)`; starts as zero unless `out_gain` is set.

    Level `i` has `base * multipliers[i]` channels at `1 / 2**i` of the resolution. Space of any size is mirrored up
    to the next multiple of `2**(levels - 1)` and cropped again.

    Args:
        blocks: residual blocks a level and side.
        embedding_dim: width of the embedding that `forward` takes (of a noise level, say); None for none.
        attention: levels, counted from 0 at full resolution, that attend among all their cells.
        norm: "group", or "none", which keeps the value of a far cell from reaching everywhere.
        out_gain: scale of the last layer's initial weights.

    >>> UNet(3, 1, dims=2, base=8)(torch.ones(2, 3, 13, 7)).shape
    torch.Size([2, 1, 13, 7])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        dims: int,
        base: int = 32,
        multipliers: Sequence[int] = (1, 2, 4),
        blocks: int = 1,
        embedding_dim: int | None = None,
        attention: Sequence[int] = (),
        norm: Norm = "group",
        dropout: float = 0.0,
        out_gain: float = 0.0,
    ) -> None:
        super().__init__()
        if not multipliers or blocks < 1 or any(not 0 <= level < len(multipliers) for level in attention):
            raise ValueError(f"multipliers {multipliers}, blocks {blocks}, attention {attention}: see UNet")
        width = [base * factor for factor in multipliers]
        bottom = len(width) - 1
        options = {"dims": dims, "embedding_dim": embedding_dim, "norm": norm, "dropout": dropout}

        def level(i: int, first: int) -> _Level:
            return _Level([first, *[width[i]] * blocks], i in attention, **options)  # type: ignore[arg-type]

        self.levels = len(width)
        self.embedding_dim = embedding_dim
        self.stem = Conv(in_channels, width[0], dims=dims, gain=0.5**0.5)
        self.encoder = nn.ModuleList(level(i, width[max(i - 1, 0)]) for i in range(self.levels))
        self.middle = level(bottom, width[bottom])
        self.decoder = nn.ModuleList(level(i, width[i + 1] + width[i]) for i in reversed(range(bottom)))
        self.norm = norm_layer(norm, width[0])
        self.head = Conv(width[0], out_channels, dims=dims, kernel=1, gain=out_gain)

    def forward(
        self, x: Float[Tensor, "batch channel *space"], emb: Float[Tensor, "batch embedding"] | None = None
    ) -> Float[Tensor, "batch out *space"]:
        multiple = 2 ** (self.levels - 1)
        spare = [-size % multiple for size in x.shape[2:]]
        widths = [(n // 2, n - n // 2) for n in spare]
        h = self.stem(pad(x, widths))
        skips: list[Tensor] = []
        for i, level in enumerate(self.encoder):
            h = level(downsample(h) if i else h, emb)
            skips.append(h)
        h = self.middle(skips.pop(), emb)
        for level in self.decoder:
            h = level(torch.cat((upsample(h), skips.pop()), dim=1), emb)
        return crop(self.head(F.silu(self.norm(h))), widths)
