"""Training options and the optimisers that they describe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from geoml.errors import UserError, unknown
from geoml.models.base import Phase
from geoml.train.device import PRECISIONS, Precision

__all__ = ["Trainer", "optimiser_of"]


PHASE_OPTIONS = ("learning_rate", "weight_decay", "betas")


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """Training options. All counts are in samples; a step is `accumulate` batches for each repeat of each phase.

    Attributes:
        samples: total number of samples to train on, including those of critics' repeats.
        warmup: share of `samples` over which the learning rate rises; it then falls by a cosine to `floor` × peak.
        clip: largest norm of a phase's gradient; 0 for no limit.
        ema_half_life: half-life in samples of the moving average of weights; 0 for no averaging.
        validate_every, checkpoint_every, log_every: interval in samples; 0 for only at the end.
        keep: number of newest checkpoints to keep, in addition to the best; 0 keeps all.
        patience: validations without improvement after which training stops; 0 for never.
        phases: options of a phase by its name, which override those above and those of the model (learning_rate,
            weight_decay, betas).
    """

    samples: int = 100_000
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    warmup: float = 0.02
    floor: float = 0.01
    clip: float = 1.0
    ema_half_life: float = 2_000
    precision: Precision = "fp32"
    validate_every: int = 0
    checkpoint_every: int = 0
    log_every: int = 1_000
    keep: int = 2
    accumulate: int = 1
    patience: int = 0
    seed: int = 0
    device: str = "auto"
    channels_last: bool = False
    fused: bool = False
    compile: bool = False
    phases: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas))
        for name in ("samples", "accumulate", "learning_rate"):
            if not getattr(self, name) > 0:
                raise UserError(f"trainer.{name} is {getattr(self, name)}; expected more than 0")
        for name in ("warmup", "floor"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"trainer.{name} is {getattr(self, name)}; expected a share, 0 … 1")

        if self.precision not in PRECISIONS:
            raise unknown("precision", self.precision, PRECISIONS)
        for phase, options in self.phases.items():
            for name in options:
                if name not in PHASE_OPTIONS:
                    raise unknown(f"option of phase {phase!r}", name, PHASE_OPTIONS)

    def option(self, phase: Phase, name: str) -> Any:
        """Value of an option for a phase: from `phases`, else from the model, else the common value."""
        return {name: getattr(self, name), **phase.options, **self.phases.get(phase.name, {})}[name]


def optimiser_of(phase: Phase, config: Trainer) -> torch.optim.Optimizer:
    """AdamW on the phase's parameters; biases and norms (one axis) are not decayed."""
    moving = [parameter for parameter in phase.parameters if parameter.requires_grad]
    if not moving:
        raise UserError(f"phase {phase.name!r} has no parameter that requires a gradient")
    decay = config.option(phase, "weight_decay")
    groups = [
        {"params": [p for p in moving if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in moving if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.option(phase, "learning_rate"),
        betas=tuple(config.option(phase, "betas")),
        fused=config.fused,
    )
