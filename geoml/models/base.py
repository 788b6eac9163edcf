"""The base class of models: a network, a loss on a batch, and predictions of any number of members."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn

from geoml.data.fields import Batch

__all__ = ["Channels", "Model", "Phase"]


@dataclass(frozen=True)
class Channels:
    """Names of the channels a model is built for, in the order of the tensors' channel axis.

    `first_guess` has pairs of a target and the condition channel that is its coarse version, if their names differ:
    `(("precipitation", "tp"),)`.
    """

    condition: tuple[str, ...]
    target: tuple[str, ...]
    static: tuple[str, ...] = ()
    first_guess: tuple[tuple[str, str], ...] = ()

    def guess_index(self, target: str) -> int | None:
        """Index of the condition channel that is the coarse version of `target`, None where there is none.

        >>> Channels(("cape", "tp"), ("precipitation",), first_guess=(("precipitation", "tp"),)).guess_index(
        ...     "precipitation"
        ... )
        1
        """
        name = dict(self.first_guess).get(target, target)
        return self.condition.index(name) if name in self.condition else None


@dataclass(frozen=True)
class Phase:
    """One phase of a training step: the parameters that one optimiser updates, and the number of repeats.

    A regression has one phase. An adversarial model has two; the critic's has several `repeats`, each on a new batch.
    `options` (`betas`, `weight_decay`, `learning_rate`) override those of the trainer and are overridden by its
    `phases`.
    """

    name: str
    parameters: tuple[nn.Parameter, ...]
    repeats: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)


class Model(nn.Module, ABC):
    """A conditional model of fields, in the *transformed* space of the data's transforms.

    Tensors are `(batch, channel, *space)`; `dims` axes of space. The condition is on `batch.condition_grid`; target,
    static and mask are on `batch.target_grid`. The model regrids with the exact operator of `geoml.regrid`, so that any
    factor works, integer or not.
    """

    #: Values of `dims` for which the model can be built; the conformance test builds each.
    supported_dims: ClassVar[tuple[int, ...]] = (2, 3)
    #: False if all members of a prediction are equal.
    stochastic: ClassVar[bool] = True
    #: True if members agree with `batch.points`.
    takes_points: ClassVar[bool] = False
    #: `_target_` and arguments, set by `geoml.models.registry.build`, from which a checkpoint rebuilds the model.
    config: dict[str, Any] | None = None

    def __init__(self, channels: Channels, dims: int) -> None:
        super().__init__()
        if dims not in self.supported_dims:
            raise ValueError(f"{type(self).__name__} is built for dims in {self.supported_dims}, not {dims}")
        self.channels, self.dims = channels, dims

    @abstractmethod
    def loss(self, batch: Batch, *, phase: str = "main", generator: torch.Generator | None = None) -> torch.Tensor:
        """The scalar to be minimised in `phase`, averaged over the True cells of `batch.mask`.

        Random numbers come from `geoml.models.noise.sample_noise(shape, batch.ids, generator)`, so that they are
        the same for a sample in any batch or process.
        """

    @abstractmethod
    def predict(self, batch: Batch, *, members: int = 1, seed: int = 0) -> torch.Tensor:
        """`(batch, member, channel, *space)` on the target grid, in transformed space; does not read `batch.target`.

        The noise of a member is keyed on (seed, sample id, member) and does not depend on batching.
        """

    def phases(self) -> Iterable[Phase]:
        """The phases of a training step, in order."""
        return (Phase("main", tuple(self.parameters())),)
