"""The variogram score: differences of neighbouring cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoml.metrics.base import Forecast, Metric, Statistic

__all__ = ["LAGS", "VariogramScore"]

Array = NDArray[Any]
#: Pairs of cells that are compared, in cells along y and x.
LAGS = ((0, 1), (1, 0), (1, 1), (1, -1), (0, 2), (2, 0), (0, 4), (4, 0))
ORDER = 0.5


@dataclass(frozen=True)
class Variogram(Statistic):
    """Squared error of the ensemble's mean `|xᵢ − xⱼ|^½`, pairs weighted by 1 over their distance."""

    name: str = "variogram"

    def evaluate(self, forecast: Forecast) -> tuple[Array, Array]:
        """Sum over the pairs of known cells, and their weight."""
        prediction, truth, weights = forecast.planes
        sums, totals = np.zeros((2, len(truth)))
        for lag in LAGS:
            if lag[0] >= truth.shape[-2] or abs(lag[1]) >= truth.shape[-1]:
                continue
            weight = np.sqrt(np.multiply(*_pair(weights, lag))) / np.hypot(*lag)
            error = _difference(truth, lag) - _difference(prediction, lag).mean(axis=1)
            sums += (weight * np.square(error)).sum(axis=(1, 2, 3))
            totals += weight.sum(axis=(1, 2, 3))
        return sums, totals


def _pair(fields: Array, lag: tuple[int, int]) -> tuple[Array, Array]:
    """The two ends of all pairs, `(…, y, x)` of fields `(…, y, x)`."""
    dy, dx = lag
    height, width = fields.shape[-2:]
    first, second = slice(max(0, -dx), width - max(0, dx)), slice(max(0, dx), width + min(0, dx))
    return fields[..., : height - dy, first], fields[..., dy:, second]


def _difference(fields: Array, lag: tuple[int, int]) -> Array:
    one, other = _pair(fields, lag)
    return np.abs(np.subtract(one, other, dtype=np.float64)) ** ORDER


class VariogramScore(Metric):
    """Variogram score of order ½, `Σᵢⱼ wᵢⱼ (|yᵢ − yⱼ|^½ − mean_m |xᵢ − xⱼ|^½)² / Σᵢⱼ wᵢⱼ`, near pairs only.

    Pairs are up to 4 cells apart and weighted by 1 over the distance. Insensitive to a constant offset, sensitive to
    the roughness of members. Source: Scheuerer & Hamill 2015, eq. 3.
    """

    name, unit, perfect = "variogram_score", "field", 0.0
    statistics: tuple[Statistic, ...] = (Variogram(),)
