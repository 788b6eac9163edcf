"""What learns from data without gradients, such as the rivals that a network has to beat."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from geoml.data.fields import Batch
from geoml.errors import DataError

__all__ = ["Fitted"]


class Fitted:
    """A predictor without weights: what it learns of batches, once, is kept as plain values."""

    #: True where `fit` has to see training batches first.
    learns: ClassVar[bool] = False
    #: False where all members are equal.
    stochastic: ClassVar[bool] = False

    def fit(self, batches: Iterable[Batch]) -> None:
        """Learn from training batches; what learns overrides this and the state."""
        raise TypeError(f"{type(self).__name__} learns nothing")

    def state(self) -> dict[str, Any]:
        """What was learnt, as plain values for JSON."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave."""
        if state:
            raise DataError(f"{type(self).__name__} keeps no state; {sorted(state)} came")
