"""Diffusion processes: the preconditioning of the network and the noise levels of training and sampling."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from geoml.cli.config import build
from geoml.diffusion.levels import Levels, LogNormalLevels, UniformTimeLevels, schedule
from geoml.diffusion.preconditioning import Flow, Karras, Preconditioning, parameterisation
from geoml.diffusion.spacing import spaced, strided, uniform_time
from geoml.errors import UserError, unknown

if TYPE_CHECKING:
    from geoml.diffusion.guidance import Keep

__all__ = ["DDPM", "EDM", "PROCESSES", "SAMPLING", "FlowMatching", "Process", "Sampling", "process_of"]


@dataclass(frozen=True)
class Sampling:
    """Options of sampling.

    - `sampler`: name, or mapping of name and options (`{name: ddim, eta: 1.0}`).
    - `steps`: number of sampling steps.
    - `spacing`, `sigma_min`: spacing and smallest of the noise levels of an EDM.
    - `sigma_max`: largest noise level of any process.
    - `bound`: denoised scaled fields are clipped to ±`bound`, as is usual for DDPM, whose estimates at high noise are
      often too large; None for no clipping.
    - `guidance`, `keep`: see `geoml.diffusion.guidance.Known`.
    """

    sampler: str | Mapping[str, Any] = "dpm_solver_2m"
    steps: int = 16
    spacing: str = "log_snr"
    sigma_min: float = 0.02
    sigma_max: float = 80.0
    bound: float | None = None
    guidance: float = 0.0
    keep: Keep = "end"

    def __post_init__(self) -> None:
        if self.bound is not None and not self.bound > 0:
            raise UserError(f"bound is {self.bound}; expected more than 0, or null for none")

    @classmethod
    def of(cls, entry: Sampling | Mapping[str, Any]) -> Sampling:
        """Build sampling options from a configuration; an unknown setting raises `UserError`."""
        return entry if isinstance(entry, Sampling) else build(cls, dict(entry), where="sampling")


#: Default sampling options of a model.
SAMPLING = Sampling()


class Process(ABC):
    """Diffusion process: noise levels of training and sampling, and the quantity that the network predicts."""

    #: Standard deviation of clean fields to which the noise levels refer.
    unit: float = 1.0

    @property
    @abstractmethod
    def preconditioning(self) -> Preconditioning:
        """Preconditioning of the network, which defines the quantity that it predicts."""

    @property
    @abstractmethod
    def levels(self) -> Levels:
        """Distribution of noise levels in training."""

    @abstractmethod
    def path(self, sampling: Sampling) -> tuple[float, ...]:
        """Noise levels of the sampling steps, descending to 0."""


@dataclass(frozen=True)
class EDM(Process):
    """A preconditioned network, trained on log-normal noise levels (Karras et al. 2022, arXiv 2206.00364, table 1).

    `sigma_data` is the unit of the noise levels: the residual is scaled to that standard deviation, so that the paper's
    numbers keep their meaning for any data. With `wiener`, strong noise is damped in the network's input.
    """

    sigma_data: float = 0.5
    p_mean: float = -1.2
    p_std: float = 1.2
    wiener: bool = False

    @property
    def unit(self) -> float:  # type: ignore[override]
        return self.sigma_data

    @property
    def preconditioning(self) -> Preconditioning:
        return Karras(self.sigma_data, self.wiener)

    @property
    def levels(self) -> Levels:
        return LogNormalLevels(self.p_mean, self.p_std)

    def path(self, sampling: Sampling) -> tuple[float, ...]:
        return spaced(sampling.spacing, sampling.steps, smallest=sampling.sigma_min, largest=sampling.sigma_max)


@dataclass(frozen=True)
class FlowMatching(Process):
    """A rectified flow: x_t = (1−t) clean + t noise, its velocity learned at t uniform in 0 … 1; steps are even in t.

    Lipman et al. 2023, arXiv 2210.02747; Liu et al. 2023, arXiv 2209.03003.
    """

    @property
    def preconditioning(self) -> Preconditioning:
        return Flow()

    @property
    def levels(self) -> Levels:
        return UniformTimeLevels()

    def path(self, sampling: Sampling) -> tuple[float, ...]:
        return uniform_time(sampling.steps, largest=sampling.sigma_max)


@dataclass(frozen=True)
class DDPM(Process):
    """Discrete steps of a schedule ("linear", "cosine"); the network predicts "epsilon", "x0" or "v".

    Ho et al. 2020, arXiv 2006.11239; Nichol & Dhariwal 2021 ("cosine"); Salimans & Ho 2022 ("v"). The sampler
    `{name: ddim, eta: 1.0}` with all the steps is the original ancestral sampling. Errors of an "epsilon" network are
    multiplied by σ, up to 80: such a network needs longer training than the others.
    """

    parameterisation: str = "v"
    schedule: str = "cosine"
    diffusion_steps: int = 1000

    @property
    def preconditioning(self) -> Preconditioning:
        return parameterisation(self.parameterisation)

    @property
    def levels(self) -> Levels:
        return schedule(self.schedule, self.diffusion_steps)

    def path(self, sampling: Sampling) -> tuple[float, ...]:
        table = schedule(self.schedule, self.diffusion_steps).table
        return strided(table, sampling.steps, largest=sampling.sigma_max)


PROCESSES: dict[str, Any] = {"edm": EDM, "flow": FlowMatching, "ddpm": DDPM}


def process_of(entry: Process | str | Mapping[str, Any]) -> Process:
    """Build a process from its name, or from a mapping with `name` and options.

    Options that belong to other processes are ignored, so a preset may contain options of several.

    >>> process_of({"name": "edm", "p_mean": 0.5}).unit
    0.5
    """
    if isinstance(entry, Process):
        return entry
    options = {"name": entry} if isinstance(entry, str) else dict(entry)
    name = options.pop("name", None)
    if name not in PROCESSES:
        raise unknown("process", name, PROCESSES)
    others = {field for kind in PROCESSES.values() for field in kind.__dataclass_fields__}
    own = PROCESSES[name].__dataclass_fields__
    options = {key: value for key, value in options.items() if key in own or key not in others}
    return build(PROCESSES[name], options, where="process")
