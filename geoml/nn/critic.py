"""The critic of an adversarial model: one number per sample."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from geoml.nn.blocks import ResidualBlock
from geoml.nn.ops import Conv

__all__ = ["Critic", "gradient_penalty", "leaky_relu"]


def leaky_relu(x: Tensor) -> Tensor:
    """Leaky ReLU of slope 0.2, as usual for critics (Radford et al. 2016, arXiv 1511.06434)."""
    return F.leaky_relu(x, 0.2)


class Critic(nn.Module):
    """`(batch, channels, *space)` to `(batch,)`: one residual block per level, followed by halving of the resolution.

    The mean over the remaining cells allows domains of any size. There is no normalisation, because the gradient
    penalty applies to single samples (Gulrajani et al. 2017, arXiv 1704.00028, sect. 4).

    >>> Critic(3, dims=2, width=8)(torch.zeros(2, 3, 13, 7)).shape
    torch.Size([2])
    """

    def __init__(self, channels: int, *, dims: int, width: int = 32, levels: int = 3) -> None:
        super().__init__()
        self.stem = Conv(channels, width, dims=dims)
        self.blocks = nn.ModuleList(
            ResidualBlock(width, width, dims=dims, norm="none", activation=leaky_relu) for _ in range(levels)
        )
        self.hidden = nn.Linear(width, width)
        self.score = nn.Linear(width, 1, bias=False)
        self.pool = F.avg_pool2d if dims == 2 else F.avg_pool3d

    def forward(self, x: Float[Tensor, "batch channel *space"]) -> Float[Tensor, " batch"]:
        h = self.stem(x)
        for block in self.blocks:
            h = self.pool(block(h), 2, ceil_mode=True)
        h = leaky_relu(h).flatten(2).mean(-1)
        return self.score(leaky_relu(self.hidden(h))).squeeze(-1)


def gradient_penalty(
    critic: nn.Module,
    condition: Float[Tensor, "batch condition *space"],
    real: Float[Tensor, "batch target *space"],
    fake: Float[Tensor, "batch target *space"],
    share: Float[Tensor, " batch"],
) -> Float[Tensor, ""]:
    """Mean of (‖∇ critic‖ − 1)² at `share`·real + (1 − share)·fake (Gulrajani et al. 2017, arXiv 1704.00028, eq. 3).

    The gradient is that with respect to the target; the critic reads `cat(condition, target)`. Computed in
    single precision: half precision is too coarse for second derivatives.
    """
    with torch.autocast(real.device.type, enabled=False):
        share = share.view(-1, *[1] * (real.ndim - 1)).to(real.dtype)
        between = torch.lerp(fake.to(real.dtype), real, share).requires_grad_(True)
        # `forward` itself: where the critic is compiled, the compiled one has no gradient of gradients.
        score = critic.forward(torch.cat((condition.to(real.dtype), between), dim=1)).sum()
        (slope,) = torch.autograd.grad(score, between, create_graph=True)
        # A tiny number under the root keeps the gradient finite where the critic is flat.
        return ((slope.flatten(1).square().sum(1) + 1e-12).sqrt() - 1).square().mean()
