"""Scores in physical units: dB, ns and degrees; shares of voxels within a tolerance; circular CRPS."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from geoml.metrics import Suite
from geoml.metrics.base import CellStatistic, Direction, Forecast, Metric, Statistic
from geoml.metrics.pointwise import MAE, RMSE, Bias
from geoml.metrics.probabilistic import CRPSFair, Spread, SpreadSkill
from geoml.metrics.ranks import OutlierExcess, RankDeviation

__all__ = ["QUANTITIES", "CircularCRPSFair", "Quantity", "Within", "degrees_apart", "suite_of"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Quantity:
    """The presentation of a target: factor to its unit, the unit, the tolerance, and whether it is circular."""

    factor: float
    unit: str
    near: float
    circular: bool = False


QUANTITIES = {
    "path_gain_db": Quantity(1.0, "dB", 3.0),
    "toa_s": Quantity(1e9, "ns", 10.0),
    "doa_azimuth": Quantity(180 / np.pi, "°", 10.0, circular=True),
    "doa_zenith": Quantity(180 / np.pi, "°", 10.0),
}


def degrees_apart(a: Any, b: Any) -> Any:
    """Signed difference a − b of angles in degrees, −180 … 180.

    >>> float(degrees_apart(359.0, 2.0))
    -3.0
    """
    return (np.asarray(a) - np.asarray(b) + 180.0) % 360.0 - 180.0


def _circular_crps(forecast: Forecast) -> Array:
    """Fair CRPS with the distance along a circle of 360 for that along a line (Grimit et al. 2006, eq. 10)."""
    x, y = forecast.prediction, forecast.truth
    members = x.shape[1]
    crps = np.abs(degrees_apart(x, y[:, None])).mean(axis=1, dtype=np.float64)
    pairs = np.zeros_like(crps)
    for first in range(members):
        for second in range(first):
            pairs += np.abs(degrees_apart(x[:, first], x[:, second]))
    return crps - pairs / max(members * (members - 1), 1)


CIRCULAR_CRPS = CellStatistic("circular_crps_fair", _circular_crps)


class CircularCRPSFair(Metric):
    """Fair CRPS of directions in degrees, `mean |xᵢ − y| − ½ Σᵢⱼ |xᵢ − xⱼ| / (M (M − 1))` along the circle."""

    name, unit, perfect = "crps_fair", "field", 0.0
    statistics: tuple[Statistic, ...] = (CIRCULAR_CRPS,)


class Within(Metric):
    """Share of voxels at which the ensemble mean errs by at most the threshold: 3 dB, 10 ns, 10°."""

    name, unit, perfect = "within", "1", 1.0
    direction: ClassVar[Direction] = "higher"
    takes_threshold = True

    @property
    def statistics(self) -> tuple[Statistic, ...]:
        """Whether each voxel is within the tolerance."""
        assert self.threshold is not None
        return (CellStatistic(f"within_{self.threshold:g}", lambda f: np.abs(f.error) <= self.threshold),)


def suite_of(target: str, *, members: int) -> Suite:
    """Metrics of a target in its unit; for several members also those of uncertainty."""
    quantity = QUANTITIES[target]
    metrics: list[Metric] = [RMSE(), MAE(), Bias(), Within(quantity.near)]
    metrics.append(CircularCRPSFair() if quantity.circular else CRPSFair())
    if members > 1:
        metrics += [Spread(), SpreadSkill(), RankDeviation(), OutlierExcess()]
    return Suite.of(metrics)


def laid_flat(members: Array, truth: Array) -> tuple[Array, Array]:
    """Convert directions in degrees `(sample, member, …)` to unwrapped differences from a truth of 0.

    Members are unwrapped around their circular mean. The mean has its shortest distance from the truth. Ordinary means,
    spreads and errors are then correct for directions.
    """
    radians = np.deg2rad(members)
    middle = np.rad2deg(np.arctan2(np.sin(radians).mean(axis=1), np.cos(radians).mean(axis=1)))[:, None]
    return degrees_apart(middle, truth[:, None]) + degrees_apart(members, middle), np.zeros_like(truth)


def groups_of_distance(edges_m: Sequence[float]) -> list[tuple[str, float, float]]:
    """Names and bounds of classes of distance.

    >>> groups_of_distance([0, 50, 100])
    [('0–50 m', 0, 50), ('50–100 m', 50, 100), ('from 100 m', 100, inf)]
    """
    inner = [(f"{low:g}–{high:g} m", low, high) for low, high in itertools.pairwise(edges_m)]
    return [*inner, (f"from {edges_m[-1]:g} m", edges_m[-1], np.inf)]
