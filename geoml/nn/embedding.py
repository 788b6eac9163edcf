"""Embeddings of scalars."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

__all__ = ["ScalarEmbedding"]

FREQUENCIES = 16


class ScalarEmbedding(nn.Module):
    """Embeds one number per sample of order 1, such as a noise label, as a vector of `width`: sines, then two layers.

    Their angular frequencies rise from 1 to 32 (Tancik et al. 2020, arXiv 2006.10739, with fixed frequencies).

    >>> ScalarEmbedding(8)(torch.zeros(3)).shape
    torch.Size([3, 8])
    """

    frequencies: torch.Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        # Plain torch arithmetic on the default device: a model may be built on "meta" for its count of parameters.
        self.register_buffer("frequencies", 2.0 ** torch.linspace(0, 5, FREQUENCIES), persistent=False)
        self.layers = nn.Sequential(nn.Linear(2 * FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())

    def forward(self, scalar: Float[Tensor, " batch"]) -> Float[Tensor, "batch width"]:
        angle = scalar[:, None] * self.frequencies
        return self.layers(torch.cat((angle.cos(), angle.sin()), dim=1))
