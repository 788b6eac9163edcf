"""Known values at some cells, and guidance of samples towards these values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch

from geoml.diffusion.denoiser import expand
from geoml.errors import UserError, unknown

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

    from geoml.diffusion.denoiser import Denoiser

__all__ = ["KEEPS", "Known", "guided"]

#: When known values replace sampled values: at the end, at the end and in every denoised field, or never.
Keep = Literal["end", "always", "never"]
KEEPS: tuple[Keep, ...] = ("end", "always", "never")


@dataclass(frozen=True)
class Known:
    """`values` at the True cells of `mask`, both `(batch, channel, *space)`.

    `guidance` scales a gradient step towards the known values, which also changes other cells: 0 is no step, 1 the best
    fit. `keep` sets whether known cells get the exact values.
    """

    values: Float[Tensor, "batch channel *space"]
    mask: Bool[Tensor, "batch channel *space"]
    guidance: float = 0.0
    keep: Keep = "end"

    def __post_init__(self) -> None:
        if self.keep not in KEEPS:
            raise unknown("keep", self.keep, KEEPS)
        if self.guidance < 0:
            raise UserError(f"guidance is {self.guidance}; expected 0 or more")

    def scaled(self, centre: Tensor, factor: Tensor) -> Known:
        """Convert the known values to scaled fields `(values − centre) / factor`."""
        return replace(self, values=(self.values - centre) / factor)

    def repeated(self, count: int) -> Known:
        """Repeat every row consecutively."""
        parts = {name: getattr(self, name).repeat_interleave(count, dim=0) for name in ("values", "mask")}
        return replace(self, **parts)

    def put_in(self, fields: Tensor) -> Tensor:
        """Return `fields` with known cells replaced by their values; trailing axes as those of the values."""
        return torch.where(self.mask, self.values.to(fields.dtype), fields)


def guided(denoiser: Denoiser, known: Known) -> Denoiser:
    """The denoiser with its estimate D moved towards the known values y: D − λ s ∇ₓ ½‖D(x, σ) − y‖² over known cells.

    Eq. 14 of arXiv 2507.12166, which is diffusion posterior sampling (Chung et al. 2023, arXiv 2209.14687). The step
    length s fits the known cells best to first order, so that λ = `known.guidance` is dimensionless and independent of
    σ; no cell moves by more than the largest misfit. Each call takes one gradient of the network.
    """

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        clean = _pulled(denoiser, x, sigma, known) if known.guidance > 0 else denoiser(x, sigma)
        return known.put_in(clean) if known.keep == "always" else clean

    return denoise


def _pulled(denoiser: Denoiser, x: Tensor, sigma: Tensor, known: Known) -> Tensor:
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        clean = denoiser(x, sigma)
        error = torch.where(known.mask, clean - known.values, 0.0)
        (slope,) = torch.autograd.grad(error.square().sum() / 2, x)
    clean, error = clean.detach(), error.detach()
    seen = torch.where(known.mask, slope, 0.0)
    over = [values.flatten(1) for values in (error, slope, seen)]
    best = (over[2] * over[0]).sum(1) / over[2].square().sum(1).clamp(min=1e-20)
    most = over[0].abs().amax(1) / over[1].abs().amax(1).clamp(min=1e-20)
    return clean - known.guidance * expand(torch.minimum(best.clamp(min=0), most), slope) * slope
