"""One U-Net for regression and diffusion, in 2-D and 3-D, for inputs of any size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from geoml.errors import UserError, unknown
from geoml.nn.attention import AxisAttention, CrossAttention
from geoml.nn.blocks import Attention, Norm, ResidualBlock, norm_layer
from geoml.nn.context import CONDITIONINGS, Conditioning, ContextEncoder
from geoml.nn.ops import Conv, Operator, crop, downsample, kernel_of, pad, upsample

if TYPE_CHECKING:
    from jaxtyping import Float

__all__ = ["UNet"]


class _Level(nn.Module):
    """Residual blocks at one resolution, followed by optional attention: global, along columns, or to a context.

    With `recompute` activations are recomputed in the backward pass instead of stored.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        attention: bool,
        *,
        dims: int,
        norm: Norm,
        columns: bool,
        context: int,
        recompute: bool,
        **options: object,
    ) -> None:
        super().__init__()
        self.recompute = recompute
        self.blocks = nn.ModuleList(
            ResidualBlock(a, b, dims=dims, norm=norm, **options)  # type: ignore[arg-type]
            for a, b in pairwise(sizes)
        )
        self.attention = Attention(sizes[-1], dims=dims, norm=norm) if attention else nn.Identity()
        self.columns = AxisAttention(sizes[-1], dims=dims, norm=norm) if columns else None
        self.cross = CrossAttention(sizes[-1], context, dims=dims, norm=norm) if context else None

    def forward(self, x: Tensor, emb: Tensor | None, context: Tensor | None = None) -> Tensor:
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(self.run, x, emb, context, use_reentrant=False)
        return self.run(x, emb, context)

    def run(self, x: Tensor, emb: Tensor | None, context: Tensor | None) -> Tensor:
        for block in self.blocks:
            x = block(x, emb)
        x = self.attention(x)
        if self.columns is not None:
            x = self.columns(x)
        return x if self.cross is None or context is None else self.cross(x, context)


class UNet(nn.Module):
    """`(batch, in_channels, *space)` to `(batch, out_channels, *space)`; initialised to zero unless `out_gain` is set.

    Level `i` has `base * multipliers[i]` channels at `1 / 2**i` of the resolution. Space of any size is mirrored up
    to the next multiple of `2**(levels - 1)` and cropped again.

    Args:
        blocks: number of residual blocks per level in encoder and decoder.
        embedding_dim: width of the embedding passed to `forward` (for example of a noise level); None for none.
        attention: levels with self-attention among all cells; level 0 has full resolution.
        norm: "group" or "none"; without normalisation distant cells do not influence each other.
        out_gain: scale of the last layer's initial weights.
        operator: treatment of volumes: "full" convolves along all three axes; "factorised" convolves along the last two
            and attends along the first at every level (as in video diffusion, Ho et al. 2022, arXiv 2204.03458,
            section 3, along time); "planar" convolves along the last two only.
        first_axis_halvings: number of halvings, counted from the first, that also halve the first axis; None for all
            `levels - 1`. Choose a small number for thin volumes.
        context: number of channels of a context, on the grid of `x`, passed to `forward`; 0 for none.
        context_by: "cross_attention", at the coarsest level, to the context encoded at that resolution; "film", by the
            mean of that encoding, added to the embedding (which it needs).
        recompute: trade time for memory: only the inputs of levels are stored, the rest is recomputed.

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
        operator: Operator = "full",
        first_axis_halvings: int | None = None,
        context: int = 0,
        context_by: Sequence[Conditioning] = (),
        recompute: bool = False,
    ) -> None:
        super().__init__()
        levels = range(len(multipliers))
        if min(base, blocks, len(multipliers), *multipliers) < 1 or any(level not in levels for level in attention):
            raise UserError(
                f"base {base}, multipliers {list(multipliers)}, blocks {blocks}, attention {list(attention)}: "
                "expected numbers of at least 1, at least one multiplier, and attention on levels from 0 to one less "
                "than the number of multipliers"
            )
        width = [base * factor for factor in multipliers]
        bottom = len(width) - 1
        thin = bottom if first_axis_halvings is None else first_axis_halvings
        if not 0 <= thin <= bottom:
            raise UserError(f"first_axis_halvings is {thin}; expected 0 to {bottom}, one less than the multipliers")
        #: Factors by which each axis shrinks from one level to the next.
        self.factors = [((2,) if i < thin else (1,)) + (2,) * (dims - 1) for i in range(bottom)]
        kernel = kernel_of(operator, dims)
        options = {
            "dims": dims, "embedding_dim": embedding_dim, "norm": norm, "dropout": dropout, "kernel": kernel,
            "columns": operator == "factorised", "recompute": recompute,
        }  # fmt: skip
        crossed = width[bottom] if "cross_attention" in context_by else 0

        def level(i: int, first: int, context: int = 0) -> _Level:
            sizes = [first, *[width[i]] * blocks]
            return _Level(sizes, i in attention, context=context, **options)  # type: ignore[arg-type]

        self.levels = len(width)
        self.embedding_dim = embedding_dim
        self.stem = Conv(in_channels, width[0], dims=dims, kernel=kernel, gain=0.5**0.5)
        self.encoder = nn.ModuleList(
            level(i, width[max(i - 1, 0)], crossed if i == bottom else 0) for i in range(self.levels)
        )
        self.middle = level(bottom, width[bottom], crossed)
        self.decoder = nn.ModuleList(level(i, width[i + 1] + width[i]) for i in reversed(range(bottom)))
        self.norm = norm_layer(norm, width[0])
        self.head = Conv(width[0], out_channels, dims=dims, kernel=1, gain=out_gain)
        self._take_context(context, context_by, width[bottom], dims=dims, kernel=kernel, norm=norm)

    def _take_context(
        self, context: int, by: Sequence[Conditioning], width: int, *, dims: int, kernel: Sequence[int], norm: Norm
    ) -> None:
        """Build the layers for the context, if there is one."""
        for way in by:
            if way not in CONDITIONINGS[1:]:
                raise unknown("context_by", way, CONDITIONINGS[1:])
        if bool(by) is not bool(context) or ("film" in by and self.embedding_dim is None):
            raise ValueError(
                f"context {context}, context_by {list(by)}, embedding_dim {self.embedding_dim}: expected a context "
                'with context_by or neither, and embedding_dim for "film"'
            )
        self.context = ContextEncoder(context, width, self.factors, dims=dims, kernel=kernel, norm=norm) if by else None
        self.context_film = nn.Linear(width, self.embedding_dim) if "film" in by and self.embedding_dim else None

    def forward(
        self,
        x: Float[Tensor, "batch channel *space"],
        emb: Float[Tensor, "batch embedding"] | None = None,
        context: Float[Tensor, "batch context *space"] | None = None,
    ) -> Float[Tensor, "batch out *space"]:
        if (context is None) is not (self.context is None):
            raise ValueError("a context is required if and only if the network was built with one")
        multiples = [math.prod(along) for along in zip(*self.factors, strict=True)] or [1] * (x.ndim - 2)
        spare = [-size % multiple for size, multiple in zip(x.shape[2:], multiples, strict=True)]
        widths = [(n // 2, n - n // 2) for n in spare]
        if context is not None and self.context is not None:
            context = self.context(pad(context, widths))
            if self.context_film is not None and emb is not None:
                emb = emb + self.context_film(context.flatten(2).mean(-1))
        h = self.stem(pad(x, widths))
        skips: list[Tensor] = []
        for i, level in enumerate(self.encoder):
            h = level(downsample(h, self.factors[i - 1]) if i else h, emb, context)
            skips.append(h)
        h = self.middle(skips.pop(), emb, context)
        for level, factors in zip(self.decoder, reversed(self.factors), strict=True):
            h = level(torch.cat((upsample(h, factors), skips.pop()), dim=1), emb)
        return crop(self.head(F.silu(self.norm(h))), widths)
