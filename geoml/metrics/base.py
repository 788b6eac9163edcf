"""A statistic is averaged; a metric is what is done with the averages.

Kept apart, the root of a mean and a mean of roots cannot be confused, and any grouping of samples (by season, by
intensity, into the blocks of a bootstrap) needs no second look at the fields. The idea is that of WeatherBench-X
(Google Research).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["CellStatistic", "Direction", "Forecast", "Means", "Metric", "Statistic", "ratio"]

#: Which way a score improves: down, up, or towards its perfect value from both sides.
Direction = Literal["lower", "higher", "nearer"]
#: Averages by the name of their statistic: numbers, or arrays with one entry a group or bootstrap replicate.
Means = Mapping[str, Any]
Array = NDArray[Any]


@dataclass(frozen=True)
class Forecast:
    """An ensemble and what was observed, on samples whose cells are valid or not.

    `prediction` is `(sample, member, *space)`; `truth` and `valid` are `(sample, *space)`; `weights`, not negative,
    has the shape of `truth` too (broadcast, not copied). All values are finite: cells that are not valid hold zeros.
    What several statistics need is computed once, when first asked for.
    """

    prediction: Array
    truth: Array
    valid: Array
    weights: Array
    _events: dict[float, tuple[Array, Array]] = field(default_factory=dict, init=False, repr=False)

    @property
    def members(self) -> int:
        """Number of members, M."""
        return int(self.prediction.shape[1])

    @cached_property
    def _terms(self) -> Array:
        """Mean, variance, mean absolute error and mean absolute difference of the members: `(4, sample, *space)`."""
        samples, members = self.prediction.shape[:2]
        truth = np.asarray(self.truth, np.float64)
        if members == 1:
            only = np.asarray(self.prediction[:, 0], np.float64)
            zeros = np.zeros_like(only)
            return np.stack([only, zeros, np.abs(only - truth), zeros])
        from geoml.metrics.kernels import ensemble_terms  # numba takes half a second to import

        parts = [ensemble_terms(self.prediction[i].reshape(members, -1), truth[i].reshape(-1)) for i in range(samples)]
        return np.stack(parts, axis=1).reshape(4, *self.truth.shape)

    @property
    def mean(self) -> Array:
        """Ensemble mean."""
        return self._terms[0]

    @property
    def variance(self) -> Array:
        """Unbiased ensemble variance, divisor M − 1; 0 for one member, a point forecast."""
        return self._terms[1]

    @property
    def absolute_error(self) -> Array:
        """Mean over the members of the absolute error, `Σ |xᵢ − y| / M`."""
        return self._terms[2]

    @property
    def mean_difference(self) -> Array:
        """Gini mean difference with itself included, `Σᵢⱼ |xᵢ − xⱼ| / M²`."""
        return self._terms[3]

    @cached_property
    def error(self) -> Array:
        """Ensemble mean less truth."""
        return self.mean - self.truth

    def events(self, threshold: float) -> tuple[Array, Array]:
        """Share of members, and whether the truth, at or above a threshold; both of the shape of `truth`."""
        if threshold not in self._events:
            count = (self.prediction >= threshold).sum(axis=1, dtype=np.int32)
            self._events[threshold] = count / self.members, self.truth >= threshold
        return self._events[threshold]

    @cached_property
    def cell_weights(self) -> Array:
        """The weight of every cell, 0 where it is not valid: `(sample, cell)`."""
        return np.ascontiguousarray(np.where(self.valid, self.weights, 0.0).reshape(len(self.truth), -1))

    @cached_property
    def total_weight(self) -> Array:
        """Sum of the weights of every sample's valid cells."""
        return self.cell_weights.sum(axis=1)


class Statistic(ABC):
    """A quantity whose weighted sum over a sample, and the weight to divide by, may be added up over samples."""

    name: str

    @abstractmethod
    def evaluate(self, forecast: Forecast) -> tuple[Array, Array]:
        """Weighted sum and weight of each sample, both `(sample,)` in float64."""


@dataclass(frozen=True)
class CellStatistic(Statistic):
    """The average over valid cells of a field that `cells` computes from a forecast, `(sample, *space)`."""

    name: str
    cells: Callable[[Forecast], Array]

    def evaluate(self, forecast: Forecast) -> tuple[Array, Array]:
        """Weighted sum over each sample's valid cells, and the sum of their weights."""
        field = np.asarray(self.cells(forecast), np.float64).reshape(len(forecast.truth), -1)
        # Laid out and summed row by row: the sum of a sample is the same to the bit whatever stands beside it.
        return np.multiply(field, forecast.cell_weights, order="C").sum(axis=1), forecast.total_weight


class Metric(ABC):
    """What is done with averages: its name, unit, perfect value and direction, and the statistics it needs.

    `unit` is "field" for the unit of the fields scored and "1" for a pure number.
    """

    name: ClassVar[str]
    unit: ClassVar[Literal["field", "1"]]
    perfect: ClassVar[float]
    direction: ClassVar[Direction]
    #: True where the metric is one of a family with a threshold in the unit of the fields.
    takes_threshold: ClassVar[bool] = False

    def __init__(self, threshold: float | None = None) -> None:
        if self.takes_threshold != (threshold is not None):
            raise ValueError(f"metric {self.name} takes {'a' if self.takes_threshold else 'no'} threshold")
        if threshold is not None and not math.isfinite(threshold):
            raise ValueError(f"threshold {threshold} of {self.name} is not finite")
        self.threshold = threshold

    @property
    def label(self) -> str:
        """Its name in tables, with the threshold: `csi_5`."""
        return self.name if self.threshold is None else f"{self.name}_{self.threshold:g}"

    @property
    @abstractmethod
    def statistics(self) -> tuple[Statistic, ...]:
        """What it averages."""

    @abstractmethod
    def compute(self, means: Means) -> Any:
        """Its value from the averages, element by element; NaN where it is undefined."""

    def worse(self, value: float, than: float) -> bool:
        """True where `value` is a worse score than `than`."""
        if self.direction == "nearer":
            return abs(value - self.perfect) > abs(than - self.perfect)
        return value > than if self.direction == "lower" else value < than


def ratio(numerator: Any, denominator: Any) -> Any:
    """`numerator / denominator`, NaN where the denominator is 0: undefined is neither perfect nor bad."""
    numerator, denominator = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator == 0, np.nan, numerator / denominator)
