"""Conditional flow matching: straight paths from noise to fields, walked in few steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from geoml.diffusion import preconditioning
from geoml.diffusion.levels import UniformTimeLevels
from geoml.diffusion.spacing import uniform_time
from geoml.models.base import Channels
from geoml.models.diffusion import Diffusion
from geoml.nn.blocks import Norm
from geoml.nn.context import Conditioning
from geoml.nn.ops import Operator

__all__ = ["FlowMatching"]


class FlowMatching(Diffusion):
    """Members by a rectified flow: x_t = (1−t) clean + t noise, its velocity learned at t uniform in 0 … 1.

    Lipman et al. 2023, arXiv 2210.02747; Liu et al. 2023, arXiv 2209.03003. Steps are even in t.
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
        sampler: str | Mapping[str, Any] = "dpm_solver_2m",
        steps: int = 8,
    ) -> None:
        super().__init__(
            channels,
            dims,
            preconditioning=preconditioning.Flow(),
            levels=UniformTimeLevels(),
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
        self.path = uniform_time(steps)

    def sigmas(self) -> Sequence[float]:
        return self.path
