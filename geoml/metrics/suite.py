"""A suite: which metrics, scored together in one look at the fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geoml.errors import DataError, UserError, unknown
from geoml.metrics.aggregate import StatisticsTable, merge, require_paired
from geoml.metrics.base import Forecast, Metric, Statistic, ratio
from geoml.metrics.categorical import CSI, ExceedanceBias, FrequencyBias
from geoml.metrics.pointwise import MAE, RMSE, Bias, Correlation, MeanRatio
from geoml.metrics.probabilistic import CRPS, CRPSFair, Spread, SpreadSkill

__all__ = ["METRICS", "Suite"]

METRICS: dict[str, type[Metric]] = {
    metric.name: metric
    for metric in (
        CRPSFair,
        CRPS,
        MAE,
        RMSE,
        Bias,
        MeanRatio,
        Correlation,
        Spread,
        SpreadSkill,
        CSI,
        FrequencyBias,
        ExceedanceBias,
    )
}

#: Values (cells × members) scored at a time, so that temporary arrays stay small.
VALUES_AT_A_TIME = 1 << 19


class Suite:
    """Metrics by name, those with a threshold once for each of `thresholds`.

    >>> suite = Suite(("mae", "rmse"))
    >>> prediction = np.array([[[1.0, 2.0]], [[3.0, 8.0]]])  # two samples, one member, two cells
    >>> table = suite.update(prediction, np.array([[1.0, 1.0], [1.0, 2.0]]), ids=[0, 1])
    >>> {name: round(value, 3) for name, value in suite.evaluate(table).items()}
    {'mae': 2.25, 'rmse': 3.202}
    """

    def __init__(self, metrics: Sequence[str], *, thresholds: Sequence[float] = ()) -> None:
        chosen: list[Metric] = []
        for name in metrics:
            if name not in METRICS:
                raise unknown("metric", name, METRICS)
            if METRICS[name].takes_threshold:
                if not len(thresholds):
                    raise UserError(f"metric {name!r} needs thresholds, and none are given")
                chosen += [METRICS[name](float(threshold)) for threshold in thresholds]
            else:
                chosen.append(METRICS[name]())
        if not chosen:
            raise UserError(f"no metrics chosen (known: {', '.join(METRICS)})")
        self.metrics: dict[str, Metric] = {metric.label: metric for metric in chosen}
        self.statistics: dict[str, Statistic] = {
            statistic.name: statistic for metric in self.metrics.values() for statistic in metric.statistics
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Suite:
        """The suite of a mapping such as `{metrics: [crps_fair, csi], thresholds: [1, 5]}`."""
        for key in config:
            if key not in ("metrics", "thresholds"):
                raise unknown("key of a metric suite", key, ("metrics", "thresholds"))
        return cls(tuple(config.get("metrics") or ()), thresholds=tuple(config.get("thresholds") or ()))

    def update(
        self,
        prediction: ArrayLike,
        truth: ArrayLike,
        *,
        ids: ArrayLike,
        mask: ArrayLike | None = None,
        weights: ArrayLike | None = None,
    ) -> StatisticsTable:
        """The rows of some samples.

        Args:
            prediction: `(sample, member, *space)`.
            truth: `(sample, *space)`.
            ids: `(sample,)`, global sample ids or times.
            mask: `(sample, *space)`, True where the truth is known; other cells never count and may hold anything.
            weights: not negative, broadcastable to `space`: cell areas, for instance.

        Errors: `DataError` that names the sample where a cell that counts is not finite, in the fields or in a
        statistic of them.
        """
        x, y = np.asarray(prediction), np.asarray(truth)
        known = np.ones(y.shape, bool) if mask is None else np.asarray(mask)
        labels = np.asarray(ids)
        if x.ndim < 2 or x.shape[:1] + x.shape[2:] != y.shape or x.shape[1] < 1:
            raise ValueError(f"prediction {x.shape} must be (sample, member, *space) for a truth of {y.shape}")
        if known.shape != y.shape or known.dtype != bool:
            raise ValueError(f"mask is {known.dtype} {known.shape}; expected bool {y.shape}")
        if labels.shape != y.shape[:1]:
            raise ValueError(f"{labels.shape} ids for {len(y)} samples")
        area = np.broadcast_to(np.asarray(1.0 if weights is None else weights, np.float64), y.shape[1:])
        if not (np.isfinite(area).all() and (area >= 0).all()):
            raise DataError("weights must be finite and not negative")
        step = max(1, VALUES_AT_A_TIME // max(1, x[0].size if len(x) else 1))
        sums, totals = np.zeros((2, len(y), len(self.statistics)))
        for start in range(0, len(y), step):
            rows = slice(start, start + step)
            forecast = _forecast(x[rows], y[rows], known[rows], area, labels[rows])
            for column, (name, statistic) in enumerate(self.statistics.items()):
                with np.errstate(over="ignore", invalid="ignore"):
                    sums[rows, column], totals[rows, column] = statistic.evaluate(forecast)
                bad = ~np.isfinite(sums[rows, column])
                if bad.any():
                    raise DataError(f"statistic {name} of sample {labels[rows][bad][0]} is not finite: values overflow")
        return StatisticsTable(labels, tuple(self.statistics), sums, totals)

    def merge(self, tables: Iterable[StatisticsTable], *, tiles: bool = False) -> StatisticsTable:
        """One table of all rows; see `geoml.metrics.merge`."""
        return merge(tables, tiles=tiles)

    def evaluate(self, table: StatisticsTable) -> dict[str, float]:
        """The value of every metric over all rows; NaN where a metric is undefined."""
        means = table.means()
        return {label: float(metric.compute(means)) for label, metric in self.metrics.items()}

    def skill(self, table: StatisticsTable, reference: StatisticsTable, *, metric: str = "crps_fair") -> float:
        """Skill score `1 − score / score of the reference` on the same samples and cells; 1 is perfect, 0 no better.

        For a metric whose perfect value is 0. Errors: `DataError` where the tables do not hold the same samples with
        the same weights, `UserError` where the metric is not in the suite.
        """
        if metric not in self.metrics:
            raise unknown("metric", metric, self.metrics, hint="in this suite")
        if self.metrics[metric].perfect != 0 or self.metrics[metric].direction != "lower":
            raise UserError(f"skill needs a metric that is 0 when perfect; {metric} is not")
        require_paired(table, reference)
        return float(1 - ratio(self.evaluate(table)[metric], self.evaluate(reference)[metric]))


def _forecast(
    prediction: NDArray[Any], truth: NDArray[Any], known: NDArray[Any], area: NDArray[Any], ids: NDArray[Any]
) -> Forecast:
    """A checked forecast with zeros where the mask is False."""
    if not known.all():
        prediction = np.where(known[:, None], prediction, prediction.dtype.type(0))
        truth = np.where(known, truth, truth.dtype.type(0))
    for what, array in (("prediction", prediction), ("truth", truth)):
        finite = np.isfinite(array)
        if not finite.all():
            where = np.argwhere(~finite)
            sample, cell = where[0][0], where[0][1:] if what == "truth" else where[0][2:]
            raise DataError(
                f"{what} of sample {ids[sample]} is {array[tuple(where[0])]} at cell {tuple(cell.tolist())}, which is "
                f"not masked ({len(where)} such values in this call)"
            )
    return Forecast(prediction, truth, known, np.broadcast_to(area, truth.shape))
