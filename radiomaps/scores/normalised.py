"""Scores as published, of fields on 0 … 1: over all voxels at once, and averaged over maps.

The two differ: NMSE over all voxels is `Σ e² / Σ I²` of the set; the averaged NMSE is the mean of each map's NMSE.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from geoml.metrics.base import CellStatistic, Direction, Forecast, Means, Metric, Statistic, ratio
from geoml.metrics.pointwise import OBSERVED_SQUARE, RMSE, SQUARED_ERROR

__all__ = [
    "NMSE",
    "PSNR",
    "RMSE",
    "SSIM",
    "NMSEOfMaps",
    "PSNROfMaps",
    "RMSEOfMaps",
    "SSIMOfMaps",
    "similarity",
]

Array = NDArray[Any]
#: Lower limit of a mean squared error, so that a perfect map has 120 dB instead of infinity.
_LEAST_ERROR = 1e-12
#: Wang et al. 2004: Gaussian window of 11 × 11 cells, its width, and the constants for a range of 1.
_SIGMA, _RADIUS, _C1, _C2 = 1.5, 5, 0.01**2, 0.03**2


@dataclass(frozen=True)
class MapStatistic(Statistic):
    """One number per map; maps with valid cells have equal weights."""

    name: str
    of_map: Callable[[Forecast], Array]

    def evaluate(self, forecast: Forecast) -> tuple[Array, Array]:
        """The number of each sample (0 without valid cells), and whether it has valid cells."""
        known = (forecast.total_weight > 0).astype(np.float64)
        return np.where(known > 0, np.nan_to_num(self.of_map(forecast), posinf=0.0), 0.0), known


def _mean(forecast: Forecast, cells: Array) -> Array:
    """Mean over the valid cells of every sample."""
    weights = forecast.cell_weights
    total = np.maximum(forecast.total_weight, 1e-300)
    return (cells.reshape(len(weights), -1) * weights).sum(axis=1) / total


def _squared_error(forecast: Forecast) -> Array:
    return _mean(forecast, np.square(forecast.error))


def _psnr(error: Array) -> Array:
    return -10 * np.log10(np.maximum(error, _LEAST_ERROR))


def similarity(prediction: Array, truth: Array, weights: Array) -> Array:
    """Structural similarity of planes `(…, y, x)` with range 1, cell by cell, from weighted local moments.

    Wang et al. 2004, eq. 13; cells of weight 0 do not enter their neighbours' moments either. With equal weights this
    is the usual index, windows cut at the edge.
    """
    from scipy.ndimage import correlate1d

    taps = np.exp(-0.5 * np.square(np.arange(-_RADIUS, _RADIUS + 1) / _SIGMA))
    taps /= taps.sum()

    def blurred(field: Array) -> Array:
        for axis in (-2, -1):
            field = correlate1d(field, taps, axis=axis, mode="constant")
        return field

    share = np.maximum(blurred(weights), 1e-12)
    x, y = np.asarray(prediction, np.float64), np.asarray(truth, np.float64)
    mx, my = (blurred(field * weights) / share for field in (x, y))
    vx, vy, vxy = (
        blurred(product * weights) / share - squared
        for product, squared in ((x * x, mx * mx), (y * y, my * my), (x * y, mx * my))
    )
    return ((2 * mx * my + _C1) * (2 * vxy + _C2)) / ((mx**2 + my**2 + _C1) * (vx + vy + _C2))


def _similar_cells(forecast: Forecast) -> Array:
    """Similarity of every cell of the ensemble mean, planes of all other axes one by one."""

    def make() -> Array:
        shape = forecast.truth.shape
        counts = forecast.cell_weights.reshape(shape) > 0
        return similarity(forecast.mean, forecast.truth, counts.astype(np.float64))

    return forecast.keep("similarity", make)


SIMILARITY = CellStatistic("similarity", _similar_cells)
RMSE_OF_MAP = MapStatistic("rmse_of_map", lambda f: np.sqrt(_squared_error(f)))
NMSE_OF_MAP = MapStatistic("nmse_of_map", lambda f: ratio(_squared_error(f), _mean(f, np.square(f.truth, dtype=float))))
PSNR_OF_MAP = MapStatistic("psnr_of_map", lambda f: _psnr(_squared_error(f)))
SSIM_OF_MAP = MapStatistic("ssim_of_map", lambda f: _mean(f, _similar_cells(f)))


class NMSE(Metric):
    """Normalised mean squared error over all voxels, `Σ e² / Σ I²`; undefined where everything is 0."""

    name, unit, perfect = "nmse", "1", 0.0
    statistics: tuple[Statistic, ...] = (SQUARED_ERROR, OBSERVED_SQUARE)

    def compute(self, means: Means) -> Any:
        """Ratio of the averages."""
        return ratio(means[SQUARED_ERROR.name], means[OBSERVED_SQUARE.name])


class PSNR(Metric):
    """Peak signal-to-noise ratio of the mean squared error of all voxels, `−10 log₁₀ mean e²`, range 1, at most 120."""

    name, unit, perfect = "psnr", "1", 120.0
    direction: ClassVar[Direction] = "higher"
    statistics: tuple[Statistic, ...] = (SQUARED_ERROR,)

    def compute(self, means: Means) -> Any:
        """In decibel."""
        return _psnr(np.asarray(means[SQUARED_ERROR.name]))


class SSIM(Metric):
    """Structural similarity of horizontal slices, averaged over all valid voxels (Wang et al. 2004)."""

    name, unit, perfect = "ssim", "1", 1.0
    direction: ClassVar[Direction] = "higher"
    statistics: tuple[Statistic, ...] = (SIMILARITY,)


class RMSEOfMaps(Metric):
    """Mean over maps of each map's root-mean-square error."""

    name, unit, perfect = "rmse_of_maps", "field", 0.0
    statistics: tuple[Statistic, ...] = (RMSE_OF_MAP,)


class NMSEOfMaps(Metric):
    """Mean over maps of each map's `Σ e² / Σ I²`; a map of zeros counts as 0."""

    name, unit, perfect = "nmse_of_maps", "1", 0.0
    statistics: tuple[Statistic, ...] = (NMSE_OF_MAP,)


class PSNROfMaps(Metric):
    """Mean over maps of each map's peak signal-to-noise ratio, range 1, at most 120 dB."""

    name, unit, perfect = "psnr_of_maps", "1", 120.0
    direction: ClassVar[Direction] = "higher"
    statistics: tuple[Statistic, ...] = (PSNR_OF_MAP,)


class SSIMOfMaps(Metric):
    """Mean over maps of each map's structural similarity."""

    name, unit, perfect = "ssim_of_maps", "1", 1.0
    direction: ClassVar[Direction] = "higher"
    statistics: tuple[Statistic, ...] = (SSIM_OF_MAP,)
