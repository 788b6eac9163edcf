"""Convolution, pooling and padding in 2-D and 3-D alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoml.errors import UserError, unknown

if TYPE_CHECKING:
    from jaxtyping import Float

__all__ = [
    "OPERATORS",
    "CellNorm",
    "Conv",
    "GroupNorm",
    "Operator",
    "crop",
    "downsample",
    "kernel_of",
    "pad",
    "upsample",
]

_CONVOLUTIONS = {2: nn.Conv2d, 3: nn.Conv3d}

#: Treatment of the first of three axes: convolution as along the others, attention, or none.
Operator = Literal["full", "factorised", "planar"]
OPERATORS: tuple[Operator, ...] = ("full", "factorised", "planar")


def kernel_of(operator: Operator, dims: int) -> tuple[int, ...]:
    """Return the kernel size of convolutions: 3 along each axis, but 1 along the first unless `operator` is "full".

    >>> kernel_of("full", 3), kernel_of("factorised", 3)
    ((3, 3, 3), (1, 3, 3))
    """
    if operator not in OPERATORS:
        raise unknown("operator", operator, OPERATORS)
    if operator == "full":
        return (3,) * dims
    if dims != 3:
        raise UserError(
            f"operator {operator!r} treats the first of three axes differently; with {dims} axes use 'full'"
        )
    return (1, 3, 3)


def pad(x: Float[Tensor, "batch channel *space"], widths: Sequence[tuple[int, int]]) -> Tensor:
    """`x` padded by reflection with `(before, after)` cells per axis; the edge itself is not repeated.

    An axis too short for reflection repeats its edge instead, so that any size works, including 1.
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
    """The inverse of `pad`: remove `(before, after)` cells per axis."""
    for axis, (before, after) in enumerate(widths, start=2):
        x = x.narrow(axis, before, x.shape[axis] - before - after)
    return x


def downsample(x: Float[Tensor, "batch channel *space"], factors: Sequence[int] | None = None) -> Tensor:
    """Average over 2 × 2 (× 2) cells, or over `factors` cells per axis; sizes must be multiples."""
    shape = tuple(factors or (2,) * (x.ndim - 2))
    return F.avg_pool2d(x, shape) if x.ndim == 4 else F.avg_pool3d(x, shape)


def upsample(x: Float[Tensor, "batch channel *space"], factors: Sequence[int] | None = None) -> Tensor:
    """Repeat every cell 2 × 2 (× 2) times, or `factors` times per axis."""
    return F.interpolate(x, scale_factor=tuple(map(float, factors or (2,) * (x.ndim - 2))), mode="nearest")


class Conv(nn.Module):
    """A convolution with an odd kernel that keeps the spatial size, padded by reflection.

    `kernel` is one size for all axes or one per axis. `gain` scales the initial weights (0: the layer starts as zero),
    `bias` starts at zero.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, dims: int, kernel: int | Sequence[int] = 3, gain: float = 1.0
    ) -> None:
        super().__init__()
        sizes = (kernel,) * dims if isinstance(kernel, int) else tuple(kernel)
        if any(size % 2 == 0 for size in sizes):
            raise ValueError(f"kernel {kernel} is even; the size of space would change")
        self.conv = _CONVOLUTIONS[dims](in_channels, out_channels, sizes)  # type: ignore[arg-type]
        self._widths = [(size // 2, size // 2) for size in sizes]
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
    """Channels of each cell divided by their root mean square; local, hence independent of the domain size.

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
