"""Scores of an ensemble as a probability forecast.

A single member is read as a point forecast, a distribution with all its mass in one place. It has no spread, and both
estimators of its CRPS equal its absolute error, so that deterministic models and ensembles can be compared. (As a
sample of one from an unknown distribution its fair CRPS would be undefined: the estimator divides by M − 1.)
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from geoml.metrics.base import CellStatistic, Direction, Forecast, Means, Metric, Statistic, ratio
from geoml.metrics.pointwise import SQUARED_ERROR

__all__ = ["CRPS", "CRPSFair", "Spread", "SpreadSkill", "fair_crps"]

#: Number of cells that are computed at a time, so that their terms stay in the processor's cache.
CELLS_AT_A_TIME = 1 << 13


def fair_crps(prediction: NDArray[Any], truth: NDArray[Any], *, axis: int = 0) -> NDArray[np.float64]:
    """Fair CRPS of every cell, of the shape of `truth`; `axis` of `prediction` holds the members, two or more.

    Ferro 2014; NaN where a member or the truth is NaN. `CRPSFair` is its weighted average over known cells.

    >>> fair_crps(np.array([[0.0, 1.0], [3.0, 1.0]]), np.array([1.0, 1.0])).tolist()
    [0.0, 0.0]
    """
    from geoml.metrics.kernels import crps_terms

    x, y = np.moveaxis(np.asarray(prediction), axis, 0), np.asarray(truth)
    if x.shape[1:] != y.shape or len(x) < 2:
        raise ValueError(f"prediction {x.shape} must be (member, *space), two members or more, for a truth {y.shape}")
    # Reshaping would copy an array whose members are not first; its transpose is a view.
    flat = x.reshape(len(x), -1) if axis == 0 else np.moveaxis(x, 0, -1).reshape(-1, len(x)).T
    observed, out = y.reshape(-1), np.empty(y.size)
    for start in range(0, y.size, CELLS_AT_A_TIME):
        cells = slice(start, start + CELLS_AT_A_TIME)
        error, difference = crps_terms(flat[:, cells], observed[cells])
        out[cells] = error - difference * (0.5 * len(x) / (len(x) - 1))
    return out.reshape(y.shape)


def _crps(forecast: Forecast) -> Any:
    return forecast.absolute_error - 0.5 * forecast.mean_difference


def _crps_fair(forecast: Forecast) -> Any:
    members = forecast.members
    return forecast.absolute_error - 0.5 * forecast.mean_difference * (members / max(members - 1, 1))


def _expected_squared_error(forecast: Forecast) -> Any:
    members = forecast.members
    return forecast.variance * ((members + 1) / members)


CRPS_CELLS = CellStatistic("crps", _crps)
CRPS_FAIR_CELLS = CellStatistic("crps_fair", _crps_fair)
VARIANCE = CellStatistic("ensemble_variance", lambda f: f.variance)
EXPECTED_SQUARED_ERROR = CellStatistic("expected_squared_error", _expected_squared_error)


class CRPS(Metric):
    """Standard CRPS of the empirical distribution, `mean |xᵢ − y| − ½ Σᵢⱼ |xᵢ − xⱼ| / M²`.

    The members count as the complete distribution, not as draws from it. It exceeds the fair CRPS by GMD/(2M), where
    GMD is the mean absolute difference of two different members. Source: Gneiting & Raftery 2007, eq. 20–21.
    """

    name, unit, perfect = "crps", "field", 0.0
    statistics: tuple[Statistic, ...] = (CRPS_CELLS,)


class CRPSFair(Metric):
    """Fair CRPS, `mean |xᵢ − y| − ½ Σᵢⱼ |xᵢ − xⱼ| / (M (M − 1))`: its expectation does not depend on M.

    Its expectation is smallest if members and truth are drawn from one distribution; values of single cells may be < 0.
    Source: Ferro 2014, "Fair scores for ensemble forecasts", sect. 3; Zamo & Naveau 2018, eq. for the fair estimator.
    """

    name, unit, perfect = "crps_fair", "field", 0.0
    statistics: tuple[Statistic, ...] = (CRPS_FAIR_CELLS,)


class Spread(Metric):
    """Root of the mean ensemble variance, `√ mean var` (divisor M − 1).

    It does not depend on the truth, so no value is good or bad by itself. The nominal perfect value is 0.
    """

    name, unit, perfect = "spread", "field", 0.0
    direction: ClassVar[Direction] = "nearer"
    statistics: tuple[Statistic, ...] = (VARIANCE,)

    def compute(self, means: Means) -> Any:
        """Root of the average."""
        return np.sqrt(means[VARIANCE.name])


class SpreadSkill(Metric):
    """Spread–skill ratio `√((M+1)/M · mean var) / √ mean (x̄ − y)²`; below 1: too sure of itself.

    It is 1 in expectation if truth and members are exchangeable: the squared error of the mean of M members is then
    (1 + 1/M) times the variance. Undefined if the mean has no error. Source: Fortin et al. 2014, "Why should ensemble
    spread match the RMSE of the ensemble mean?", eq. 15.
    """

    name, unit, perfect = "spread_skill", "1", 1.0
    direction: ClassVar[Direction] = "nearer"
    statistics: tuple[Statistic, ...] = (EXPECTED_SQUARED_ERROR, SQUARED_ERROR)

    def compute(self, means: Means) -> Any:
        """Ratio of the roots of the averages."""
        return np.sqrt(ratio(means[EXPECTED_SQUARED_ERROR.name], means[SQUARED_ERROR.name]))
