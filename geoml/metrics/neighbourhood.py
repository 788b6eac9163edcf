"""Scores of neighbourhoods: the CRPS of pooled fields, and the fractions skill score.

Scores that compare cell by cell penalise a displaced forecast twice; these compare within windows of several sizes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from geoml.metrics.base import Direction, Forecast, Means, Metric, Statistic, ratio, vector
from geoml.metrics.probabilistic import CRPS_FAIR_CELLS

__all__ = ["FSS", "CRPSFairMax", "CRPSFairMean", "fss"]

Array = NDArray[Any]


@dataclass(frozen=True)
class PooledCRPS(Statistic):
    """Fair CRPS of the weighted mean, or of the maximum, of the known cells in adjacent windows.

    Windows at the edge of the field may have fewer cells. A window is weighted by the total weight of its known cells.
    """

    window: int
    how: Literal["mean", "max"]

    @property
    def name(self) -> str:  # type: ignore[override]
        """Name of the statistic's column."""
        return f"crps_fair_{self.how}_{self.window}"

    def evaluate(self, forecast: Forecast) -> tuple[Array, Array]:
        """Weighted sum of the CRPS over windows, and the sum of their weights."""
        prediction, truth, weights = forecast.planes
        total = _pool(np.add, weights, self.window)
        known = total > 0
        if self.how == "mean":
            divisor = np.where(known, total, 1.0)
            members = _pool(np.add, prediction * weights[:, None], self.window) / divisor[:, None]
            observed = _pool(np.add, truth * weights, self.window) / divisor
        else:
            counts, least = weights > 0, -np.inf
            members = _pool(np.maximum, np.where(counts[:, None], prediction, least), self.window)
            observed = _pool(np.maximum, np.where(counts, truth, least), self.window)
            members, observed = np.where(known[:, None], members, 0.0), np.where(known, observed, 0.0)
        pooled = Forecast(members, observed, known, total, forecast.ids)
        return CRPS_FAIR_CELLS.evaluate(pooled)


def _pool(reduce: np.ufunc, fields: Array, window: int) -> Array:
    """Reduce fields `(…, y, x)` in adjacent windows by `reduce`."""
    for axis in (-2, -1):
        fields = reduce.reduceat(fields, np.arange(0, fields.shape[axis], window), axis=axis)
    return fields


class _Pooled(Metric):
    unit, perfect = "field", 0.0
    takes_window = True
    how: ClassVar[Literal["mean", "max"]]

    @property
    def statistics(self) -> tuple[Statistic, ...]:
        """The statistic of this window."""
        assert self.window is not None
        return (PooledCRPS(self.window, self.how),)


class CRPSFairMean(_Pooled):
    """Fair CRPS after averaging over k × k cells, `CRPS(mean of x in window, mean of y in window)`."""

    name, how = "crps_fair_mean", "mean"


class CRPSFairMax(_Pooled):
    """Fair CRPS of the maximum of k × k cells, `CRPS(max of x in window, max of y in window)`."""

    name, how = "crps_fair_max", "max"


@dataclass(frozen=True)
class Fractions(Statistic):
    """Mean squared difference of the fractions of events in windows, and its value without overlap."""

    threshold: float
    window: int

    @property
    def name(self) -> str:  # type: ignore[override]
        """Name of the statistic's columns."""
        return f"fractions_{self.threshold:g}_{self.window}"

    def evaluate(self, forecast: Forecast) -> tuple[Array, Array]:
        """Both sums over cells as two columns, and the weight of the cells."""
        from geoml.metrics.window_kernels import event_integrals, fraction_sums  # numba takes half a second to import

        prediction, truth, weights = forecast.planes

        def integrals() -> list[tuple[int, Array, Array, Array]]:
            made = []
            for i, plane in np.ndindex(truth.shape[:2]):
                area = np.ascontiguousarray(weights[i, plane])
                fields = (prediction[i, :, plane], truth[i, plane][None])
                members, observed = (event_integrals(field, area > 0, self.threshold) for field in fields)
                made.append((i, members, observed[0], area))
            return made

        sums = np.zeros((len(truth), 2))
        for i, members, observed, area in forecast.keep(("integrals", self.threshold), integrals):
            sums[i] += fraction_sums(members, observed, area, self.window)
        return sums, forecast.total_weight


class FSS(Metric):
    """Fractions skill score, `1 − Σ (f − o)² / Σ (f² + o²)`, f and o the fractions of events in windows of n × n.

    Each member is one forecast; sums over cells, members and samples are taken before the ratio. Cells
    outside the field or with unknown truth count as no events on both sides. Undefined if there is no event at all.
    Source: Roberts & Lean 2008, eq. 5–7.
    """

    name, unit, perfect = "fss", "1", 1.0
    direction: ClassVar[Direction] = "higher"
    takes_threshold = takes_window = True

    @property
    def statistics(self) -> tuple[Statistic, ...]:
        """The statistic of this threshold and window."""
        assert self.threshold is not None
        assert self.window is not None
        return (Fractions(self.threshold, self.window),)

    def compute(self, means: Means) -> Any:
        """Compute the score from the two averages."""
        error, reference = np.moveaxis(vector(means, self.statistics[0].name), -1, 0)
        return 1 - ratio(error, reference)


def fss(prediction: Array, truth: Array, threshold: float, window: int) -> float:
    """Fractions skill score of one field `(y, x)`; see `FSS`.

    >>> fss(np.eye(4)[:, ::-1], np.eye(4), 0.5, 1), round(fss(np.eye(4)[:, ::-1], np.eye(4), 0.5, 3), 2)
    (0.0, 0.74)
    """
    ones = np.ones(truth.shape)
    made = Fractions(float(threshold), int(window))
    forecast = Forecast(prediction[None, None], truth[None], ones[None] > 0, ones[None], np.zeros(1))
    error, reference = made.evaluate(forecast)[0][0]
    return float(1 - ratio(error, reference))
