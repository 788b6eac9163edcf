"""Residual and attention blocks, in 2-D and 3-D."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoml.errors import unknown
from geoml.nn.ops import CellNorm, Conv, GroupNorm

if TYPE_CHECKING:
    from jaxtyping import Float

__all__ = ["Attention", "Norm", "ResidualBlock", "heads_of", "norm_layer"]

Norm = Literal["group", "cell", "none"]
_NORMS: dict[str, Callable[[int], nn.Module]] = {"group": GroupNorm, "cell": CellNorm, "none": lambda _: nn.Identity()}


def norm_layer(kind: Norm, channels: int) -> nn.Module:
    """The normalisation layer of a kind: over the domain, over the channels of each cell, or none."""
    if kind not in _NORMS:
        raise unknown("norm", kind, _NORMS)
    return _NORMS[kind](channels)


class ResidualBlock(nn.Module):
    """Two convolutions with a skip connection; an optional embedding scales and shifts the features between them.

    `(batch, in_channels, *space)` to `(batch, out_channels, *space)`. The second convolution is initialised with
    small weights, so that a deep stack starts near the identity. FiLM: Perez et al. 2018, arXiv 1709.07871, eq. 2.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        dims: int,
        kernel: int | Sequence[int] = 3,
        embedding_dim: int | None = None,
        norm: Norm = "group",
        dropout: float = 0.0,
        activation: Callable[[Tensor], Tensor] = F.silu,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.norm1 = norm_layer(norm, in_channels)
        self.conv1 = Conv(in_channels, out_channels, dims=dims, kernel=kernel)
        self.norm2 = norm_layer(norm, out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = Conv(out_channels, out_channels, dims=dims, kernel=kernel, gain=0.1)
        self.skip = (
            Conv(in_channels, out_channels, dims=dims, kernel=1, gain=0.5**0.5)
            if in_channels != out_channels
            else nn.Identity()
        )
        self.film = nn.Linear(embedding_dim, 2 * out_channels) if embedding_dim is not None else None

    def forward(
        self, x: Float[Tensor, "batch channel *space"], emb: Float[Tensor, "batch embedding"] | None = None
    ) -> Float[Tensor, "batch out *space"]:
        if (emb is None) is not (self.film is None):
            raise ValueError("an embedding is required if and only if the block was built with embedding_dim")
        h = self.norm2(self.conv1(self.activation(self.norm1(x))))
        if emb is not None and self.film is not None:
            film = self.film(emb).unflatten(1, (2, -1))[(..., *[None] * (x.ndim - 2))]
            h = h * (1 + film[:, 0]) + film[:, 1]
        return self.skip(x) + self.conv2(self.dropout(self.activation(h)))


def heads_of(channels: int, head_channels: int) -> int:
    """The smallest number of equal heads with at most `head_channels` channels each."""
    return next(n for n in range(max(1, -(-channels // head_channels)), channels + 1) if channels % n == 0)


class Attention(nn.Module):
    """Self-attention among all cells, in heads of at most `head_channels`; initialised to the identity.

    Memory and time grow with the square of the number of cells: meant for the coarse levels of a U-Net.
    """

    def __init__(self, channels: int, *, dims: int, head_channels: int = 64, norm: Norm = "group") -> None:
        super().__init__()
        self.heads = heads_of(channels, head_channels)
        self.norm = norm_layer(norm, channels)
        self.qkv = Conv(channels, 3 * channels, dims=dims, kernel=1, gain=0.5**0.5)
        self.out = Conv(channels, channels, dims=dims, kernel=1, gain=0.0)

    def forward(self, x: Float[Tensor, "batch channel *space"]) -> Float[Tensor, "batch channel *space"]:
        qkv = self.qkv(self.norm(x)).flatten(2).unflatten(1, (3, self.heads, -1)).transpose(-1, -2)
        query, key, value = torch.unbind(qkv, dim=1)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return x + self.out(mixed.transpose(-1, -2).reshape(x.shape))
