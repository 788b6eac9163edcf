"""Samplers by name, one file each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from geoml.cli.config import build
from geoml.diffusion.samplers.base import NoiseSource, Sampler, SamplerStep
from geoml.diffusion.samplers.ddim import DDIM
from geoml.diffusion.samplers.dpm_solver import DPMSolver2M
from geoml.diffusion.samplers.euler import Euler
from geoml.diffusion.samplers.heun import Heun
from geoml.diffusion.samplers.stochastic import StochasticHeun
from geoml.errors import UserError, unknown

__all__ = [
    "DDIM",
    "SAMPLERS",
    "DPMSolver2M",
    "Euler",
    "Heun",
    "NoiseSource",
    "Sampler",
    "SamplerStep",
    "StochasticHeun",
    "sampler_of",
]

SAMPLERS: dict[str, type[Sampler]] = {
    "euler": Euler,
    "heun": Heun,
    "stochastic_heun": StochasticHeun,
    "ddim": DDIM,
    "dpm_solver_2m": DPMSolver2M,
}


def sampler_of(entry: str | Mapping[str, Any]) -> Sampler:
    """Build a sampler from its name, or from a mapping of `name` and options.

    >>> sampler_of({"name": "ddim", "eta": 1.0})
    DDIM(eta=1.0)
    """
    options = {"name": entry} if isinstance(entry, str) else dict(entry)
    name = options.pop("name", None)
    if name not in SAMPLERS:
        raise unknown("sampler", name, SAMPLERS)
    try:
        return build(SAMPLERS[name], options, where="sampler")
    except ValueError as error:
        raise UserError(f"sampler {name}: {error}") from error
