"""Scores as mergeable statistics: a `Suite` of metrics fills a `StatisticsTable` with one row per sample.

Scores of cells are averages of a field (`CellStatistic`); those of neighbourhoods, spectra or sequences read the full
sample (`Statistic`). A `CurveMetric` also gives a curve, such as a spectrum, a rank histogram or a reliability diagram,
from the same table (`Suite.curves`).
"""

from geoml.metrics.aggregate import StatisticsTable, merge
from geoml.metrics.base import CellStatistic, CurveMetric, Forecast, Metric, Statistic
from geoml.metrics.probabilistic import fair_crps
from geoml.metrics.significance import Interval, block_bootstrap
from geoml.metrics.suite import METRICS, Suite
from geoml.metrics.temporal import sequences

__all__ = [
    "METRICS",
    "CellStatistic",
    "CurveMetric",
    "Forecast",
    "Interval",
    "Metric",
    "Statistic",
    "StatisticsTable",
    "Suite",
    "block_bootstrap",
    "fair_crps",
    "merge",
    "sequences",
]
