"""Attention with rotary positions: along the first axis of a volume, and to the cells of a coarse context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoml.nn.blocks import Norm, heads_of, norm_layer
from geoml.nn.ops import Conv

if TYPE_CHECKING:
    from jaxtyping import Float

__all__ = ["AxisAttention", "CrossAttention", "cell_positions", "rotate"]

#: Rotation angles range from 1 to about 1/BASE radians per cell, for axes that are tens of cells long.
BASE = 100.0
#: Largest number of columns per attention call, because CUDA kernels limit it.
AT_ONCE = 1 << 15


def rotate(
    x: Float[Tensor, "*lead cell channel"], positions: Float[Tensor, "cell axis"]
) -> Float[Tensor, "*lead cell channel"]:
    """Rotary position encoding: pairs of channels are rotated by angles proportional to the positions.

    Dot products then depend on differences of positions only. The pairs are divided among the axes; remaining channels
    are not rotated. Su et al. 2021, arXiv 2104.09864,
    eq. 15 and 34, for any number of axes.

    >>> a, b = torch.ones(2, 1, 8).split(1)
    >>> product = lambda i, j: float((rotate(a, torch.tensor([[i]])) * rotate(b, torch.tensor([[j]]))).sum())
    >>> abs(product(3.0, 1.0) - product(5.0, 3.0)) < 1e-5, abs(product(3.0, 1.0) - product(3.0, 2.0)) < 1e-5
    (True, False)
    """
    axes = positions.shape[1]
    pairs = x.shape[-1] // (2 * axes)
    if pairs == 0:
        return x
    powers = torch.arange(pairs, dtype=torch.float32, device=x.device) / pairs
    angles = (positions.to(x.device).float()[:, :, None] * BASE**-powers).flatten(1)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    turned, rest = x[..., : 2 * pairs * axes], x[..., 2 * pairs * axes :]
    first, second = turned.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, first * sin + second * cos, rest), dim=-1)


def cell_positions(shape: Sequence[int], device: torch.device | str = "cpu") -> Float[Tensor, "cell axis"]:
    """The index of each cell along each axis, in the order of a flattened field.

    >>> cell_positions((2, 2)).tolist()
    [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
    """
    axes = [torch.arange(size, dtype=torch.float32, device=device) for size in shape]
    return torch.stack([axis.flatten() for axis in torch.meshgrid(*axes, indexing="ij")], dim=1)


class AxisAttention(nn.Module):
    """Self-attention along the first spatial axis, separately for each column; initialised to the identity.

    Positions are rotary, so columns may have any length. Time
    and memory grow with the square of the column's length and in proportion to the number of columns.
    """

    def __init__(self, channels: int, *, dims: int, head_channels: int = 64, norm: Norm = "group") -> None:
        super().__init__()
        self.heads = heads_of(channels, head_channels)
        self.norm = norm_layer(norm, channels)
        self.qkv = Conv(channels, 3 * channels, dims=dims, kernel=1, gain=0.5**0.5)
        self.out = Conv(channels, channels, dims=dims, kernel=1, gain=0.0)

    def forward(self, x: Float[Tensor, "batch channel first *rest"]) -> Float[Tensor, "batch channel first *rest"]:
        qkv = (
            self.qkv(self.norm(x)).unflatten(1, (3, self.heads, -1)).flatten(5)
        )  # batch, 3, head, channel, first, rest
        columns = qkv.permute(1, 0, 5, 2, 4, 3).flatten(1, 2)  # 3, batch · rest, head, first, channel
        positions = cell_positions(x.shape[2:3], x.device)
        parts = []
        for some in columns.split(AT_ONCE, dim=1):
            query, key, value = torch.unbind(some, dim=0)
            parts.append(F.scaled_dot_product_attention(rotate(query, positions), rotate(key, positions), value))
        mixed = torch.cat(parts) if len(parts) > 1 else parts[0]
        mixed = mixed.unflatten(0, (len(x), -1)).permute(0, 2, 4, 3, 1)  # batch, head, channel, first, rest
        return x + self.out(mixed.reshape(x.shape))


class CrossAttention(nn.Module):
    """Attention of every cell to all cells of a context on the same grid; initialised to the identity.

    Rotary positions along every axis. Meant for coarse levels: memory and time grow with the squared number of cells.
    """

    def __init__(
        self, channels: int, context: int, *, dims: int, head_channels: int = 64, norm: Norm = "group"
    ) -> None:
        super().__init__()
        self.heads = heads_of(channels, head_channels)
        self.norm = norm_layer(norm, channels)
        self.context_norm = norm_layer(norm, context)
        self.query = Conv(channels, channels, dims=dims, kernel=1, gain=0.5**0.5)
        self.key_value = Conv(context, 2 * channels, dims=dims, kernel=1, gain=0.5**0.5)
        self.out = Conv(channels, channels, dims=dims, kernel=1, gain=0.0)

    def forward(
        self, x: Float[Tensor, "batch channel *space"], context: Float[Tensor, "batch context *space"]
    ) -> Float[Tensor, "batch channel *space"]:
        positions = cell_positions(x.shape[2:], x.device)
        query = self._in_heads(self.query(self.norm(x)))
        key, value = map(self._in_heads, self.key_value(self.context_norm(context)).chunk(2, dim=1))
        mixed = F.scaled_dot_product_attention(rotate(query, positions), rotate(key, positions), value)
        return x + self.out(mixed.transpose(-1, -2).reshape(x.shape))

    def _in_heads(self, x: Tensor) -> Float[Tensor, "batch head cell channel"]:
        return x.flatten(2).unflatten(1, (self.heads, -1)).transpose(-1, -2)
