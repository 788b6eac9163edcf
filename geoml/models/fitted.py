"""Predictors that are fitted without gradients, such as simple baselines."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from geoml.data.fields import Batch
from geoml.errors import DataError

__all__ = ["Fitted"]


class Fitted:
    """A predictor without weights: its fitted state is kept as plain values."""

    #: True if `fit` must be called with training batches first.
    learns: ClassVar[bool] = False
    #: False if all members are equal.
    stochastic: ClassVar[bool] = False

    def fit(self, batches: Iterable[Batch]) -> None:
        """Fit to training batches; subclasses with `learns` override this method, `state` and `load_state`."""
        raise TypeError(f"{type(self).__name__} has nothing to fit; use it without training")

    def state(self) -> dict[str, Any]:
        """The fitted state as plain values for JSON."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore a state."""
        if state:
            raise DataError(f"{type(self).__name__} has no state, but the file holds {sorted(state)}")
