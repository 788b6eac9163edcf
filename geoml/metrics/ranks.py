"""Calibration of an ensemble by the rank of the truth among its members."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from geoml.metrics.base import CellStatistic, CurveMetric, Direction, Forecast, Means, Metric, Statistic, vector

if TYPE_CHECKING:
    import xarray as xr

    from geoml.metrics.aggregate import StatisticsTable

__all__ = ["RANK_BINS", "SPACING", "OutlierExcess", "RankDeviation", "rank_deviation_by_chance", "ranked"]

Array = NDArray[Any]
#: Number of bins, as many as eight members have ranks. Ranks of other ensembles are spread over these bins, so that all
#: tables can be compared.
RANK_BINS = 9
#: Spacing in cells of the lattice on which ranks are counted, because neighbours are correlated.
SPACING = 10


def _mixed(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The output function of SplitMix64 (Steele et al. 2014), which mixes neighbouring numbers well."""
    z = z * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _seeds(ids: Array, stream: int) -> NDArray[np.uint64]:
    """Return a random seed for each id, independent of other ids."""
    if ids.dtype.kind in "Mm":
        ids = ids.astype(f"{ids.dtype.kind}8[ns]")
    return _mixed(ids.astype(np.int64).view(np.uint64) * np.uint64(8) + np.uint64(stream + 1))


def _within_one(numbers: NDArray[np.uint64]) -> NDArray[np.float64]:
    return (numbers >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _uniform(ids: Array, stream: int) -> NDArray[np.float64]:
    """Return a random number in 0…1 for each id, independent of other ids."""
    return _within_one(_seeds(ids, stream))


@dataclass(frozen=True)
class Ranks(Statistic):
    """Rank histogram of the truth, by weight, on a lattice with a cell spacing of `SPACING`.

    The lattice has a random offset in each sample; of fields with several planes one random plane is used. Ties, mostly
    zeros, are resolved at random (Hamill & Colucci 1998). Random numbers depend on the sample's id only.
    """

    name: str = "ranks"

    def evaluate(self, forecast: Forecast) -> tuple[Array, Array]:
        """Weights of the cells in each bin, and of all cells."""
        count, members, space = len(forecast.truth), forecast.members, forecast.truth.shape[1:]
        plane = (1,) * max(0, 2 - len(space)) + space
        shape = (math.prod(plane[:-2]), *plane[-2:])
        limits = (shape[0], *(min(SPACING, size) for size in shape[1:]))
        first = [(_uniform(forecast.ids, k) * limit).astype(np.intp) for k, limit in enumerate(limits)]
        seeds = [_seeds(forecast.ids, stream) for stream in (3, 4)]
        sums = np.zeros((count, RANK_BINS))
        for i in range(count):
            z, y, x = (int(starts[i]) for starts in first)
            lattice = (z, slice(y, None, SPACING), slice(x, None, SPACING))
            weights = forecast.cell_weights[i].reshape(shape)[lattice].ravel()
            truth = forecast.truth[i].reshape(shape)[lattice].ravel()
            drawn = forecast.prediction[i].reshape(members, *shape)[(slice(None), *lattice)].reshape(members, -1)
            chance = [_within_one(_mixed(seed[i] + np.arange(truth.size, dtype=np.uint64))) for seed in seeds]
            below, equal = (drawn < truth).sum(axis=0), (drawn == truth).sum(axis=0)
            rank = below + np.floor(chance[0] * (equal + 1))
            place = (rank + chance[1]) * RANK_BINS / (members + 1)
            bins = np.minimum(place.astype(np.intp), RANK_BINS - 1)
            sums[i] = np.bincount(bins, weights, RANK_BINS)
        return sums, sums.sum(axis=1)


class RankDeviation(CurveMetric):
    """Largest relative deviation of a bin of the rank histogram, `max_b |n_b / (n/B) − 1|`, B = 9 bins.

    If truth and members are drawn from one distribution, it differs from 0 only by chance, see
    `rank_deviation_by_chance`. With eight members each bin is a rank; else a rank r of M members is spread evenly over
    r/(M + 1)…(r + 1)/(M + 1) of the bins (the randomised PIT, Czado et al. 2009). Source: Hamill 2001.
    """

    name, unit, perfect = "rank_deviation", "1", 0.0
    statistics: tuple[Statistic, ...] = (Ranks(),)

    def compute(self, means: Means) -> Any:
        """Compute the deviation from the shares of the bins."""
        return np.abs(vector(means, "ranks") * RANK_BINS - 1).max(axis=-1)

    def curve(self, means: Means) -> xr.Dataset:
        """`share` of the samples by `rank`, from 0 to 1 in the middle of each bin."""
        import xarray as xr

        place = (np.arange(RANK_BINS) + 0.5) / RANK_BINS
        return xr.Dataset({"share": ("rank", vector(means, "ranks"))}, {"rank": place})


def ranked(table: StatisticsTable) -> int:
    """Number of true values in a table's rank histogram; 0 without a histogram. Assumes weights with a mean of 1."""
    return round(float(table.weights[:, table.names.index("ranks[0]")].sum())) if "ranks[0]" in table.names else 0


def rank_deviation_by_chance(samples: int, *, level: float = 0.95, draws: int = 4000, seed: int = 0) -> float:
    """Return the `level` quantile of the rank deviation of a calibrated ensemble, found by simulation.

    >>> rank_deviation_by_chance(1000) > 0.2 > rank_deviation_by_chance(3000)
    True
    """
    counts = np.random.default_rng(seed).multinomial(samples, np.full(RANK_BINS, 1 / RANK_BINS), size=draws)
    return float(np.quantile(np.abs(counts * (RANK_BINS / samples) - 1).max(axis=1), level))


def _outliers(forecast: Forecast) -> Array:
    """Probability that each truth gets the lowest or highest rank if ties are resolved at random."""
    y = forecast.truth[:, None]
    below, equal = (forecast.prediction < y).sum(axis=1), (forecast.prediction == y).sum(axis=1)
    above = forecast.members - below - equal
    return ((below == 0).astype(np.float64) + (above == 0)) / (equal + 1)


OUTLIERS = CellStatistic("outliers", _outliers)
EXPECTED_OUTLIERS = CellStatistic("expected_outliers", lambda f: np.full(f.truth.shape, 2 / (f.members + 1)))


class OutlierExcess(Metric):
    """Share of truths outside the ensemble less its expectation, `mean [y < min x or y > max x] − 2 / (M + 1)`.

    Over all cells. Above 0 the ensemble is too narrow. A truth equal to a member may count as outside by chance.
    """

    name, unit, perfect = "outlier_excess", "1", 0.0
    direction: ClassVar[Direction] = "nearer"
    statistics: tuple[Statistic, ...] = (OUTLIERS, EXPECTED_OUTLIERS)

    def compute(self, means: Means) -> Any:
        """Difference of the two shares."""
        return means[OUTLIERS.name] - means[EXPECTED_OUTLIERS.name]
