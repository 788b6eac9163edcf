"""The interface between trained networks and samplers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

__all__ = ["Denoiser", "expand"]


class Denoiser(Protocol):
    """An estimate of the clean field, E[clean | x], from `x = clean + σ · noise`; each sample has its own σ > 0."""

    def __call__(
        self, x: Float[Tensor, "batch channel *space"], sigma: Float[Tensor, " batch"], /
    ) -> Float[Tensor, "batch channel *space"]: ...


def expand(values: Float[Tensor, " batch"], like: Float[Tensor, "batch channel *space"]) -> Tensor:
    """One value per sample, shaped to broadcast against `like`."""
    return values.reshape(-1, *[1] * (like.ndim - 1))
