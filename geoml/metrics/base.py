"""Statistics are averaged; metrics are functions of the averages.

With this separation the root of a mean and the mean of roots cannot be confused, and samples can be grouped (by season,
by intensity, into bootstrap blocks) without reading the fields again. The idea is that of WeatherBench-X
(Google Research).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from geoml.errors import DataError

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "CellStatistic",
    "CurveMetric",
    "Direction",
    "Forecast",
    "Means",
    "Metric",
    "Statistic",
    "ratio",
    "reached",
    "vector",
]

#: Direction in which a score improves: down, up, or towards its perfect value.
Direction = Literal["lower", "higher", "nearer"]
#: Averages by name of the statistic: numbers, or arrays with one entry per group or bootstrap replicate.
Means = Mapping[str, Any]
Array = NDArray[Any]
T = TypeVar("T")


def reached(threshold: float) -> float:
    """Return the smallest number that counts as reaching `threshold`: a millionth below it, for float32 rounding.

    >>> bool(np.float32(10) * np.float32(0.01) >= 0.1), bool(np.float32(10) * np.float32(0.01) >= reached(0.1))
    (False, True)
    """
    return threshold - 1e-6 * abs(threshold)


@dataclass(frozen=True)
class Forecast:
    """An ensemble and the truth, on samples whose cells are valid or not.

    `prediction` is `(sample, member, *space)`; `truth` and `valid` are `(sample, *space)`; `weights`, not negative,
    has the shape of `truth` too (broadcast, not copied); `ids` is `(sample,)`. All values are finite: cells that are
    not valid hold zeros. Intermediate results are computed once, on first use.
    """

    prediction: Array
    truth: Array
    valid: Array
    weights: Array
    ids: Array
    _kept: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

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
        """Gini mean difference of the members over all M² ordered pairs, `Σᵢⱼ |xᵢ − xⱼ| / M²`."""
        return self._terms[3]

    @cached_property
    def error(self) -> Array:
        """Ensemble mean minus truth."""
        return self.mean - self.truth

    def events(self, threshold: float) -> tuple[Array, Array]:
        """Share of members at or above a threshold, and True where the truth is; both in the shape of `truth`."""

        def make() -> tuple[Array, Array]:
            least = reached(threshold)
            count = (self.prediction >= least).sum(axis=1, dtype=np.int32)
            return count / self.members, self.truth >= least

        return self.keep(("events", threshold), make)

    def keep(self, key: Any, make: Callable[[], T]) -> T:
        """Return the result of `make`; it is cached under `key` and shared by all statistics."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    @cached_property
    def cell_weights(self) -> Array:
        """The weight of every cell, 0 where it is not valid: `(sample, cell)`."""
        return np.ascontiguousarray(np.where(self.valid, self.weights, 0.0).reshape(len(self.truth), -1))

    @cached_property
    def total_weight(self) -> Array:
        """Sum of the weights of every sample's valid cells."""
        return self.cell_weights.sum(axis=1)

    @cached_property
    def planes(self) -> tuple[Array, Array, Array]:
        """Fields as planes `(y, x)`: all other spatial axes are flattened to `plane`; values that are not valid are 0.

        Prediction `(sample, member, plane, y, x)`, truth and weights `(sample, plane, y, x)`. Raises `DataError`
        if samples have one axis only.
        """
        if self.truth.ndim < 3:
            raise DataError(f"samples of shape {self.truth.shape[1:]} are not fields; expected (…, y, x)")
        shape = (*self.truth.shape[:1], math.prod(self.truth.shape[1:-2]), *self.truth.shape[-2:])
        weights = self.cell_weights.reshape(shape)
        prediction = self.prediction.reshape(shape[0], self.members, *shape[1:])
        truth = self.truth.reshape(shape)
        counts = weights > 0
        if not counts.all():
            prediction = np.where(counts[:, None], prediction, prediction.dtype.type(0))
            truth = np.where(counts, truth, truth.dtype.type(0))
        return prediction, truth, weights


class Statistic(ABC):
    """A quantity whose weighted sum and weight can be added over samples.

    The weight depends on mask and weights only, not on the prediction, so that tables of two models are paired.
    """

    name: str

    @abstractmethod
    def evaluate(self, forecast: Forecast) -> tuple[Array, Array]:
        """Weighted sum and weight of each sample in float64: `(sample,)`, or `(sample, n)` for n parts.

        The parts are columns `name[0]`, `name[1]`, … of the table; `vector` combines them.
        """


@dataclass(frozen=True)
class CellStatistic(Statistic):
    """The average over valid cells of a field that `cells` computes from a forecast, `(sample, *space)`."""

    name: str
    cells: Callable[[Forecast], Array]

    def evaluate(self, forecast: Forecast) -> tuple[Array, Array]:
        """Weighted sum over each sample's valid cells, and the sum of their weights."""
        field = np.asarray(self.cells(forecast), np.float64).reshape(len(forecast.truth), -1)
        # Summed row by row, so that the sum of a sample does not depend on other samples, to the last bit.
        return np.multiply(field, forecast.cell_weights, order="C").sum(axis=1), forecast.total_weight


class Metric(ABC):
    """A function of averages, with its name, unit, perfect value, direction and statistics.

    `unit` is "field" for the unit of the fields scored and "1" for a pure number.
    """

    name: ClassVar[str]
    unit: ClassVar[Literal["field", "1"]]
    perfect: ClassVar[float]
    direction: ClassVar[Direction] = "lower"
    #: True if the metric takes a threshold in the unit of the fields.
    takes_threshold: ClassVar[bool] = False
    #: True if the metric takes a window in cells per side.
    takes_window: ClassVar[bool] = False

    def __init__(self, threshold: float | None = None, window: int | None = None) -> None:
        takings = (("threshold", self.takes_threshold, threshold), ("window", self.takes_window, window))
        for what, takes, value in takings:
            if takes != (value is not None):
                raise ValueError(f"metric {self.name} takes {'a' if takes else 'no'} {what}")
        if threshold is not None and not math.isfinite(threshold):
            raise ValueError(f"threshold {threshold} of {self.name} is not finite")
        if window is not None and not (isinstance(window, int) and window >= 1):
            raise ValueError(f"window of {self.name} is {window}; expected a number of cells of at least 1")
        self.threshold, self.window = threshold, window

    @property
    def label(self) -> str:
        """The name in tables, with threshold and window: `csi_5`, `fss_5_16`."""
        return "_".join([self.name, *(f"{value:g}" for value in (self.threshold, self.window) if value is not None)])

    @property
    @abstractmethod
    def statistics(self) -> tuple[Statistic, ...]:
        """Statistics whose averages the metric uses."""

    def compute(self, means: Means) -> Any:
        """Compute the metric from averages, element by element; NaN if undefined. Default: the first average."""
        return means[self.statistics[0].name]

    def worse(self, value: float, than: float) -> bool:
        """True where `value` is a worse score than `than`."""
        if self.direction == "nearer":
            return abs(value - self.perfect) > abs(than - self.perfect)
        return value > than if self.direction == "lower" else value < than


class CurveMetric(Metric):
    """A metric with a curve: a histogram, a spectrum, a reliability diagram."""

    @abstractmethod
    def curve(self, means: Mapping[str, float]) -> xr.Dataset:
        """Return the curve as variables on one dimension, whose coordinate is the abscissa."""


def vector(means: Means, name: str) -> Array:
    """The averages of a statistic's parts side by side on a last axis."""
    parts: list[Array] = []
    while (key := f"{name}[{len(parts)}]") in means:
        parts.append(means[key])
    return np.stack(np.broadcast_arrays(*parts), axis=-1).astype(np.float64)


def ratio(numerator: Any, denominator: Any) -> Any:
    """`numerator / denominator`, NaN where the denominator is 0: undefined is neither perfect nor bad."""
    numerator, denominator = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator == 0, np.nan, numerator / denominator)
