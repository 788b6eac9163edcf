"""Scores as mergeable statistics: a `Suite` of metrics fills a `StatisticsTable`, a row a sample.

Pointwise, probabilistic and categorical scores stand in a file each; a score that looks at neighbourhoods or spectra
belongs in a file of its own beside them, as a `Statistic` that reads the whole field.
"""

from geoml.metrics.aggregate import StatisticsTable, merge
from geoml.metrics.base import CellStatistic, Forecast, Metric, Statistic
from geoml.metrics.significance import Interval, block_bootstrap
from geoml.metrics.suite import METRICS, Suite

__all__ = [
    "METRICS",
    "CellStatistic",
    "Forecast",
    "Interval",
    "Metric",
    "Statistic",
    "StatisticsTable",
    "Suite",
    "block_bootstrap",
    "merge",
]
