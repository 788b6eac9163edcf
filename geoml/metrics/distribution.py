"""Scores of the distribution of values, independent of location, from mergeable logarithmic histograms.

For fields that are not negative and mostly within `SMALLEST`…`LARGEST` in their unit, such as rain in mm/h.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from geoml.metrics.base import CurveMetric, Direction, Forecast, Means, Metric, Statistic, vector

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["EDGES", "LogHistogramDistance", "QuantileError95", "QuantileError99", "QuantileError999"]

Array = NDArray[Any]
SMALLEST, LARGEST, PER_DECADE = 0.01, 10**2.5, 20
#: Edges of the bins, each 12 % larger than the previous one; two further bins hold all smaller and all larger values.
EDGES = np.logspace(np.log10(SMALLEST), np.log10(LARGEST), round(PER_DECADE * np.log10(LARGEST / SMALLEST)) + 1)
#: Share of values ε that is added to each bin before the logarithm; differences of smaller shares have little effect.
FLOOR = 1e-6


@dataclass(frozen=True)
class Histogram(Statistic):
    """Shares of predicted values (all members) in the bins, followed by the shares of observed values."""

    name: str = "histogram"

    def evaluate(self, forecast: Forecast) -> tuple[Array, Array]:
        """Return the weighted histograms of each sample, and the weight of its cells."""
        samples, weights = len(forecast.truth), forecast.cell_weights
        out = np.zeros((samples, 2, len(EDGES) + 1))
        for i in range(samples):
            for x in forecast.prediction[i]:
                out[i, 0] += np.bincount(_bins(x), weights[i], len(EDGES) + 1)
            out[i, 1] = np.bincount(_bins(forecast.truth[i]), weights[i], len(EDGES) + 1)
        out[:, 0] /= forecast.members
        return out.reshape(samples, -1), forecast.total_weight


def _bins(values: Array) -> NDArray[np.intp]:
    """Return the number of the bin of every value."""
    with np.errstate(divide="ignore"):
        place = (np.log10(np.maximum(np.asarray(values, np.float64), 0.0)) - np.log10(SMALLEST)) * PER_DECADE
    return np.clip(np.floor(place) + 1, 0, len(EDGES)).astype(np.intp).ravel()


def _both(means: Means) -> tuple[Array, Array]:
    predicted, observed = np.split(vector(means, "histogram"), 2, axis=-1)
    return predicted, observed


class LogHistogramDistance(CurveMetric):
    """Distance of logarithmic histograms, `√ mean_b (10 log₁₀ (p_b + ε)/(q_b + ε))²` in dB.

    p and q are the predicted and observed shares of values in each bin that is not empty; ε is a millionth. All
    intensities have equal weight, so that missing extremes raise the distance; averages over cells do not reveal them.
    """

    name, unit, perfect = "log_histogram_distance", "1", 0.0
    statistics: tuple[Statistic, ...] = (Histogram(),)

    def compute(self, means: Means) -> Any:
        """Compute the distance of the two histograms."""
        predicted, observed = _both(means)
        some = (predicted > 0) | (observed > 0)
        square = np.square(10 * np.log10((predicted + FLOOR) / (observed + FLOOR))) * some
        return np.sqrt(square.sum(axis=-1) / some.sum(axis=-1))

    def curve(self, means: Means) -> xr.Dataset:
        """`predicted` and `observed` share of values by bin, without the outer two; `value` is the bin's middle."""
        import xarray as xr

        middle = np.sqrt(EDGES[1:] * EDGES[:-1])
        lines = zip(("predicted", "observed"), _both(means), strict=True)
        return xr.Dataset({name: ("value", line[1:-1]) for name, line in lines}, {"value": middle})


def _quantile(histogram: Array, level: float) -> Array:
    """The quantile `level` of histograms `(…, bin)`, in shape `(…)`; 0 in the lowest bin."""
    reached = np.cumsum(histogram, axis=-1)
    wanted = level * reached[..., -1:]
    place = np.minimum((reached < wanted).sum(axis=-1), len(EDGES))[..., None]
    inside, upper = (np.take_along_axis(part, place, -1)[..., 0] for part in (histogram, reached))
    part = np.clip(1 - np.divide(upper - wanted[..., 0], inside, out=np.zeros_like(inside), where=inside > 0), 0, 1)
    place = place[..., 0]
    low = EDGES[np.clip(place - 1, 0, len(EDGES) - 2)]
    value = low * 10 ** (part / PER_DECADE)
    return np.where(place == 0, 0.0, np.where(place == len(EDGES), LARGEST, value))


class _QuantileError(Metric):
    unit, perfect = "field", 0.0
    direction: ClassVar[Direction] = "nearer"
    statistics: tuple[Statistic, ...] = (Histogram(),)
    level: ClassVar[float]

    def compute(self, means: Means) -> Any:
        """Difference of the quantiles of the two histograms, interpolated within their bins."""
        predicted, observed = (_quantile(part, self.level) for part in _both(means))
        return predicted - observed


class QuantileError95(_QuantileError):
    """Predicted less observed quantile of all values, dry ones included, `F_x⁻¹(0.95) − F_y⁻¹(0.95)`."""

    name, level = "quantile_error_95", 0.95


class QuantileError99(_QuantileError):
    """Predicted less observed quantile of all values, dry ones included, `F_x⁻¹(0.99) − F_y⁻¹(0.99)`."""

    name, level = "quantile_error_99", 0.99


class QuantileError999(_QuantileError):
    """Predicted less observed quantile of all values, dry ones included, `F_x⁻¹(0.999) − F_y⁻¹(0.999)`."""

    name, level = "quantile_error_999", 0.999
