"""Convolution, pooling and padding in 2-D and 3-D alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from jaxtyping import Float

__all__ = ["CellNorm", "Conv", "GroupNorm", "crop", "downsample", "pad", "upsample"]

_CONVOLUTIONS = {2: nn.Conv2d, 3: nn.Conv3d}


def pad(x: Float[Tensor, "batch channel *space"], widths: Sequence[tuple[int, int]]) -> Tensor:
    """`x` mirrored about its rim by `(before, after)` cells an axis, the rim itself not repeated.

    An axis too short to be mirrored that far (torch wants the width below the size) repeats its rim instead, so that
    any size works, 1 included.
    """
    sizes = x.shape[2:]
    short = [max(width) >= size for width, size in zip(widths, sizes, strict=True)]
    for mode, wanted in (("reflect", False), ("replicate", True)):
        flat: list[int] = []
        for width, is_short in zip(reversed(widths), reversed(short), strict=True):
            flat += width if is_short is wanted else (0, 0)
        if any(flat):
            x = F.pad(x, flat, mode=mode)
    return x


def crop(x: Float[Tensor, "batch channel *space"], widths: Sequence[tuple[int, int]]) -> Tensor:
    """The inverse of `pad`: `x` without `(before, after)` cells an axis."""
    for axis, (before, after) in enumerate(widths, start=2):
        x = x.narrow(axis, before, x.shape[axis] - before - after)
    return x


def downsample(x: Float[Tensor, "batch channel *space"]) -> Tensor:
    """Means over 2 × 2 (× 2) cells; sizes must be even."""
    return F.avg_pool2d(x, 2) if x.ndim == 4 else F.avg_pool3d(x, 2)


def upsample(x: Float[Tensor, "batch channel *space"]) -> Tensor:
    """Every cell repeated 2 × 2 (× 2) times."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class Conv(nn.Module):
    """A convolution with an odd kernel that keeps the size of space; rims are mirrored, never filled with zeros.

    `gain` scales the initial weights (0: the layer starts as zero), `bias` starts at zero.
    """

    def __init__(self, in_channels: int, out_channels: int, *, dims: int, kernel: int = 3, gain: float = 1.0) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"kernel {kernel} is even; the size of space would change")
        self.conv = _CONVOLUTIONS[dims](in_channels, out_channels, kernel)
        self._widths = [(kernel // 2, kernel // 2)] * dims
        with torch.no_grad():
            nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")
            self.conv.weight *= gain
            nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Float[Tensor, "batch channel *space"]) -> Float[Tensor, "batch out *space"]:
        return self.conv(pad(x, self._widths))


class GroupNorm(nn.GroupNorm):
    """Group normalisation with at most 32 groups of at least 4 channels each, any channel count."""

    def __init__(self, channels: int) -> None:
        most = max(1, min(32, channels // 4))
        super().__init__(next(n for n in range(most, 0, -1) if channels % n == 0), channels)


class CellNorm(nn.Module):
    """Channels of each cell divided by their root mean square: local, so that the size of the domain has no say.

    Zhang & Sennrich 2019, arXiv 1910.07467, eq. 4, over the channels of a cell.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Float[Tensor, "batch channel *space"]) -> Float[Tensor, "batch channel *space"]:
        shape = (-1, *[1] * (x.ndim - 2))
        scale = torch.rsqrt(x.float().square().mean(dim=1, keepdim=True) + 1e-4).to(x.dtype)
        return x * scale * self.weight.view(shape) + self.bias.view(shape)
