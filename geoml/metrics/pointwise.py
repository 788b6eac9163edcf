"""Scores of the ensemble mean, cell by cell."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from geoml.metrics.base import CellStatistic, Direction, Means, Metric, Statistic, ratio

__all__ = ["MAE", "RMSE", "Bias", "Correlation", "MeanRatio"]

ABSOLUTE_ERROR = CellStatistic("absolute_error_of_mean", lambda f: np.abs(f.error))
SQUARED_ERROR = CellStatistic("squared_error_of_mean", lambda f: np.square(f.error))
ERROR = CellStatistic("error_of_mean", lambda f: f.error)
PREDICTED = CellStatistic("predicted", lambda f: f.mean)
OBSERVED = CellStatistic("observed", lambda f: f.truth)
PREDICTED_SQUARE = CellStatistic("predicted_square", lambda f: np.square(f.mean))
OBSERVED_SQUARE = CellStatistic("observed_square", lambda f: np.square(f.truth, dtype=np.float64))
PRODUCT = CellStatistic("predicted_times_observed", lambda f: f.mean * f.truth)


class MAE(Metric):
    """Mean absolute error of the ensemble mean, `mean |x̄ − y|`."""

    name, unit, perfect = "mae", "field", 0.0
    statistics: tuple[Statistic, ...] = (ABSOLUTE_ERROR,)


class RMSE(Metric):
    """Root of the mean squared error of the ensemble mean, `√ mean (x̄ − y)²`: the root comes after the mean."""

    name, unit, perfect = "rmse", "field", 0.0
    statistics: tuple[Statistic, ...] = (SQUARED_ERROR,)

    def compute(self, means: Means) -> Any:
        """Square root of the averaged squared error."""
        return np.sqrt(means[SQUARED_ERROR.name])


class Bias(Metric):
    """Mean error of the ensemble mean, `mean (x̄ − y)`; positive where too much is predicted."""

    name, unit, perfect = "bias", "field", 0.0
    direction: ClassVar[Direction] = "nearer"
    statistics: tuple[Statistic, ...] = (ERROR,)


class MeanRatio(Metric):
    """Predicted over observed mean, `mean x̄ / mean y`; undefined where nothing is observed."""

    name, unit, perfect = "mean_ratio", "1", 1.0
    direction: ClassVar[Direction] = "nearer"
    statistics: tuple[Statistic, ...] = (PREDICTED, OBSERVED)

    def compute(self, means: Means) -> Any:
        """Ratio of the averages."""
        return ratio(means[PREDICTED.name], means[OBSERVED.name])


class Correlation(Metric):
    """Pearson correlation of ensemble mean and truth, `cov(x̄, y) / √(var x̄ · var y)`, over all cells and samples.

    Undefined where either is constant.
    """

    name, unit, perfect = "correlation", "1", 1.0
    direction: ClassVar[Direction] = "higher"
    statistics: tuple[Statistic, ...] = (PREDICTED, OBSERVED, PREDICTED_SQUARE, OBSERVED_SQUARE, PRODUCT)

    def compute(self, means: Means) -> Any:
        """Correlation from the averaged first and second moments."""
        x, y = means[PREDICTED.name], means[OBSERVED.name]
        spread = np.sqrt(_variance(means[PREDICTED_SQUARE.name], x) * _variance(means[OBSERVED_SQUARE.name], y))
        return ratio(means[PRODUCT.name] - x * y, spread)


def _variance(square: Any, mean: Any) -> Any:
    """Variance as mean square minus squared mean; 0 if the difference is within rounding."""
    variance = square - np.square(mean)
    return np.where(variance > 1e-12 * square, variance, 0.0)
