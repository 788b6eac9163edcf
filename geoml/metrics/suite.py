"""Suites of metrics, evaluated together in one pass over the fields."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geoml.errors import DataError, UserError, unknown
from geoml.metrics.aggregate import StatisticsTable, merge, require_paired
from geoml.metrics.base import CurveMetric, Forecast, Metric, Statistic, ratio
from geoml.metrics.categorical import CSI, SEDI, ExceedanceBias, FrequencyBias
from geoml.metrics.distribution import LogHistogramDistance, QuantileError95, QuantileError99, QuantileError999
from geoml.metrics.neighbourhood import FSS, CRPSFairMax, CRPSFairMean
from geoml.metrics.objects import ObjectsRatio, OneCellShare
from geoml.metrics.pointwise import MAE, RMSE, Bias, Correlation, MeanRatio
from geoml.metrics.probabilistic import CRPS, CRPSFair, Spread, SpreadSkill
from geoml.metrics.probability import AveragePrecision, Brier, Reliability, Resolution, ROCArea
from geoml.metrics.ranks import OutlierExcess, RankDeviation
from geoml.metrics.spectra import RALSD
from geoml.metrics.temporal import DiurnalError, DiurnalPhase, DrySpellRatio, Lag1Error, WetSpellRatio
from geoml.metrics.variogram import VariogramScore

if TYPE_CHECKING:
    import xarray as xr

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
        SEDI,
        Brier,
        Reliability,
        Resolution,
        ROCArea,
        AveragePrecision,
        RankDeviation,
        OutlierExcess,
        LogHistogramDistance,
        QuantileError95,
        QuantileError99,
        QuantileError999,
        CRPSFairMean,
        CRPSFairMax,
        FSS,
        ObjectsRatio,
        OneCellShare,
        RALSD,
        VariogramScore,
        DiurnalError,
        DiurnalPhase,
        Lag1Error,
        WetSpellRatio,
        DrySpellRatio,
    )
}

#: Number of values (cells × members) scored at a time, so that temporary arrays stay small.
VALUES_AT_A_TIME = 1 << 19


class Suite:
    """Metrics by name; a metric with a threshold or window is computed for each of `thresholds` or `windows`.

    >>> suite = Suite(("mae", "rmse"))
    >>> prediction = np.array([[[1.0, 2.0]], [[3.0, 8.0]]])  # two samples, one member, two cells
    >>> table = suite.update(prediction, np.array([[1.0, 1.0], [1.0, 2.0]]), ids=[0, 1])
    >>> {name: round(value, 3) for name, value in suite.evaluate(table).items()}
    {'mae': 2.25, 'rmse': 3.202}
    """

    def __init__(
        self, metrics: Sequence[str], *, thresholds: Sequence[float] = (), windows: Sequence[int] = ()
    ) -> None:
        if not all(isinstance(value, Integral) and value >= 1 for value in windows):
            raise UserError(f"windows are {list(windows)}; expected whole numbers of cells, 1 or more")
        if not all(isinstance(value, Real) and math.isfinite(value) for value in thresholds):
            raise UserError(f"thresholds are {list(thresholds)}; expected finite numbers")
        chosen: list[Metric] = []
        for name in metrics:
            if name not in METRICS:
                raise unknown("metric", name, METRICS)
            kind = METRICS[name]
            for takes, what, given in (
                (kind.takes_threshold, "thresholds", thresholds),
                (kind.takes_window, "windows", windows),
            ):
                if takes and not len(given):
                    raise UserError(f"metric {name!r} needs {what}; none were given")
            chosen += [
                kind(threshold, window)
                for threshold in (map(float, thresholds) if kind.takes_threshold else (None,))
                for window in (map(int, windows) if kind.takes_window else (None,))
            ]
        if not chosen:
            raise UserError(f"no metrics chosen (known: {', '.join(METRICS)})")
        self._take(chosen)

    def _take(self, chosen: Iterable[Metric]) -> None:
        self.metrics: dict[str, Metric] = {metric.label: metric for metric in chosen}
        self.statistics: dict[str, Statistic] = {
            statistic.name: statistic for metric in self.metrics.values() for statistic in metric.statistics
        }

    @classmethod
    def of(cls, metrics: Iterable[Metric]) -> Suite:
        """The suite of metric objects, including those of a domain."""
        suite = cls.__new__(cls)
        suite._take(metrics)
        return suite

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Suite:
        """The suite of a mapping such as `{metrics: [crps_fair, fss], thresholds: [1, 5], windows: [4, 8]}`."""
        known = ("metrics", "thresholds", "windows")
        for key in config:
            if key not in known:
                raise unknown("key of a metric suite", key, known)
            if isinstance(config[key], str) or not isinstance(config[key] or (), Iterable):
                raise UserError(f"{key} of the metrics is {config[key]!r}; expected a list: {key}=[{config[key]}]")
        chosen, thresholds, windows = (tuple(config.get(key) or ()) for key in known)
        return cls(chosen, thresholds=thresholds, windows=windows)

    def update(
        self,
        prediction: ArrayLike,
        truth: ArrayLike,
        *,
        ids: ArrayLike,
        mask: ArrayLike | None = None,
        weights: ArrayLike | None = None,
    ) -> StatisticsTable:
        """Compute the rows of some samples.

        Args:
            prediction: `(sample, member, *space)`.
            truth: `(sample, *space)`.
            ids: `(sample,)`, global sample ids or times.
            mask: `(sample, *space)`, True where the truth is known; values of other cells are ignored.
            weights: not negative, broadcastable to `space`: cell areas, for instance.

        Raises `DataError`, with the sample, if an unmasked value or a statistic is not finite.
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
        parts = []
        for start in range(0, max(len(y), 1), step):
            rows = slice(start, start + step)
            parts.append(self._statistics(_forecast(x[rows], y[rows], known[rows], area, labels[rows])))
        sums, totals = (np.concatenate(arrays) for arrays in zip(*(part[1:] for part in parts), strict=True))
        return StatisticsTable(labels, parts[0][0], sums, totals)

    def _statistics(self, forecast: Forecast) -> tuple[tuple[str, ...], NDArray[np.float64], NDArray[np.float64]]:
        """Names of the columns, weighted sums and weights of some samples."""
        names: list[str] = []
        columns: list[tuple[NDArray[Any], NDArray[Any]]] = []
        for name, statistic in self.statistics.items():
            with np.errstate(over="ignore", invalid="ignore"):
                total, weight = statistic.evaluate(forecast)
            names += [name] if total.ndim == 1 else [f"{name}[{i}]" for i in range(total.shape[1])]
            total, weight = (part[:, None] if part.ndim == 1 else part for part in (total, weight))
            bad = ~np.isfinite(total).all(axis=1)
            if bad.any():
                raise DataError(f"statistic {name} of sample {forecast.ids[bad][0]} is not finite: values overflow")
            columns.append((total, np.broadcast_to(weight, total.shape)))
        sums, weights = (np.concatenate(arrays, axis=1, dtype=np.float64) for arrays in zip(*columns, strict=True))
        return tuple(names), sums, weights

    def merge(self, tables: Iterable[StatisticsTable], *, tiles: bool = False) -> StatisticsTable:
        """One table of all rows; see `geoml.metrics.merge`."""
        return merge(tables, tiles=tiles)

    def evaluate(self, table: StatisticsTable) -> dict[str, float]:
        """The value of every metric over all rows; NaN where a metric is undefined."""
        means = table.means()
        return {label: float(metric.compute(means)) for label, metric in self.metrics.items()}

    def curves(self, table: StatisticsTable) -> dict[str, xr.Dataset]:
        """Map the label of each metric with a curve to the curve: spectra, rank histogram, reliability, …"""
        means = table.means()
        return {name: metric.curve(means) for name, metric in self.metrics.items() if isinstance(metric, CurveMetric)}

    def skill(self, table: StatisticsTable, reference: StatisticsTable, *, metric: str = "crps_fair") -> float:
        """Skill score `1 − score / score of the reference` on the same samples and cells; 1 is perfect, 0 no better.

        The perfect value of the metric must be 0. Raises `DataError` if the tables differ in samples or weights, and
        `UserError` if the metric is not in the suite.
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
    return Forecast(prediction, truth, known, np.broadcast_to(area, truth.shape), ids)
