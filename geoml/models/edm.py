"""Conditional diffusion as Karras et al. 2022 set it up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from geoml.diffusion import preconditioning
from geoml.diffusion.levels import LogNormalLevels
from geoml.diffusion.spacing import spaced
from geoml.models.base import Channels
from geoml.models.diffusion import Diffusion
from geoml.nn.blocks import Norm
from geoml.nn.context import Conditioning
from geoml.nn.ops import Operator

__all__ = ["EDM"]


class EDM(Diffusion):
    """Members by an EDM: a preconditioned network, trained on log-normal noise levels (`p_mean`, `p_std`).

    Karras et al. 2022, arXiv 2206.00364, table 1. `sigma_data` is the unit of the noise levels: the residual is scaled
    to that standard deviation, so that the paper's numbers keep their meaning for any data. The default sampler,
    `spacing` and `sigma_min` need half the evaluations of Heun's method on the paper's levels for one error, as
    `benchmarks/sampling.py` measures.
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
        sigma_data: float = 0.5,
        p_mean: float = -1.2,
        p_std: float = 1.2,
        sampler: str | Mapping[str, Any] = "dpm_solver_2m",
        steps: int = 16,
        spacing: str = "log_snr",
        sigma_min: float = 0.02,
        sigma_max: float = 80.0,
    ) -> None:
        super().__init__(
            channels,
            dims,
            preconditioning=preconditioning.Karras(sigma_data),
            levels=LogNormalLevels(p_mean, p_std),
            unit=sigma_data,
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
        self.path = spaced(spacing, steps, smallest=sigma_min, largest=sigma_max)

    def sigmas(self) -> Sequence[float]:
        return self.path
