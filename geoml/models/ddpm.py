"""Conditional diffusion in discrete steps: DDPM training, DDIM sampling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from geoml.diffusion.levels import schedule as levels_of
from geoml.diffusion.preconditioning import parameterisation as preconditioning_of
from geoml.diffusion.spacing import strided
from geoml.models.base import Channels
from geoml.models.diffusion import Diffusion
from geoml.nn.blocks import Norm
from geoml.nn.context import Conditioning
from geoml.nn.ops import Operator

__all__ = ["DDPM"]


class DDPM(Diffusion):
    """Members by a DDPM of `diffusion_steps`, whose network predicts `epsilon`, `x0` or `v`, sampled in fewer steps.

    Ho et al. 2020, arXiv 2006.11239; Nichol & Dhariwal 2021 (the "cosine" schedule); Salimans & Ho 2022 (v); DDIM:
    Song et al. 2021. The sampler `{name: ddim, eta: 1.0}` with all the steps is the original ancestral sampling. An
    `epsilon` network's errors count σ times, up to 80: it wants longer training than the others before members hold.
    """

    def __init__(
        self,
        channels: Channels,
        dims: int,
        *,
        base: int = 16,
        multipliers: Sequence[int] = (1, 2, 2),
        blocks: int = 1,
        attention: Sequence[int] = (),
        norm: Norm = "group",
        dropout: float = 0.0,
        operator: Operator = "full",
        first_axis_halvings: int | None = None,
        conditioning: Sequence[Conditioning] = ("concat",),
        recompute: bool = False,
        residual: bool = True,
        parameterisation: str = "v",
        schedule: str = "cosine",
        diffusion_steps: int = 1000,
        sampler: str | Mapping[str, Any] = "ddim",
        steps: int = 32,
    ) -> None:
        levels = levels_of(schedule, diffusion_steps)
        super().__init__(
            channels,
            dims,
            preconditioning=preconditioning_of(parameterisation),
            levels=levels,
            residual=residual,
            sampler=sampler,
            base=base,
            multipliers=multipliers,
            blocks=blocks,
            attention=attention,
            norm=norm,
            dropout=dropout,
            operator=operator,
            first_axis_halvings=first_axis_halvings,
            conditioning=conditioning,
            recompute=recompute,
        )
        self.path = strided(levels.table, steps)

    def sigmas(self) -> Sequence[float]:
        return self.path
