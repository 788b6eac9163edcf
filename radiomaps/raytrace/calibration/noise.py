"""Errors of predicted powers: spatially correlated shadowing and uncorrelated noise.

Within a cell the covariance of two errors is σᵢσⱼ exp(-d/ℓ) (Gudmundson 1991), plus an uncorrelated variance. σ has one
value in line of sight and one out of it. Cells are independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from scipy.optimize import minimize

__all__ = ["Shadowing", "Whitened"]

Array = NDArray[np.float64]
_BOUNDS = {"lit": (0.1, 20.0), "dark": (0.1, 30.0), "alone": (0.3, 15.0), "distance": (2.0, 500.0)}


@dataclass(frozen=True)
class Shadowing:
    """Shadowing in and out of sight and uncorrelated noise, all in dB, and the decorrelation distance in m."""

    lit_db: float = 3.0
    dark_db: float = 6.0
    alone_db: float = 2.0
    distance_m: float = 25.0

    @property
    def logs(self) -> Array:
        return np.log([self.lit_db, self.dark_db, self.alone_db, self.distance_m])


class Whitened:
    """Readings grouped by cell, with the distances from which covariances are computed for any noise."""

    def __init__(self, points: Array, cell: NDArray[Any], direct: NDArray[np.bool_], count: NDArray[np.int64]) -> None:
        self.direct, self.count = direct, count
        self.groups = [np.flatnonzero(cell == name) for name in np.unique(cell)]
        self.distances = [np.linalg.norm(points[group, None] - points[None, group], axis=-1) for group in self.groups]

    def factors(self, noise: Shadowing, extra: Array) -> list[Array]:
        """Lower Cholesky factors of each group's covariance; `extra` is an additional variance of each reading."""
        found = []
        for group, distance in zip(self.groups, self.distances, strict=True):
            sigma = np.where(self.direct[group], noise.lit_db, noise.dark_db)
            covariance = sigma[:, None] * sigma[None] * np.exp(-distance / noise.distance_m)
            covariance[np.diag_indices(len(group))] += noise.alone_db**2 / self.count[group] + extra[group] + 1e-6
            found.append(np.linalg.cholesky(covariance))
        return found

    def whiten(self, factors: Sequence[Array], values: Array) -> Array:
        """L⁻¹ times `values`, along the first axis."""
        made = np.empty_like(values)
        for group, factor in zip(self.groups, factors, strict=True):
            made[group] = scipy.linalg.solve_triangular(factor, values[group], lower=True, check_finite=False)
        return made

    def evidence(self, noise: Shadowing, extra: Array, residual: Array, jacobian: Array, sd: Array) -> float:
        """Log evidence of a residual: parameters with prior deviations `sd` are integrated out (linearised)."""
        factors = self.factors(noise, extra)
        white, design = self.whiten(factors, residual), self.whiten(factors, jacobian) * sd
        inner = np.eye(design.shape[1]) + design.T @ design
        root = np.linalg.cholesky(inner)
        along = scipy.linalg.solve_triangular(root, design.T @ white, lower=True)
        log_det = sum(np.log(np.diag(factor)).sum() for factor in factors) + np.log(np.diag(root)).sum()
        return float(-0.5 * (white @ white - along @ along) - log_det)

    def best(self, start: Shadowing, extra: Array, residual: Array, jacobian: Array, sd: Array) -> Shadowing:
        """The noise that maximises the evidence, with a weak log-normal prior about typical values."""
        usual, width = Shadowing().logs, np.array([0.7, 0.7, 0.7, 0.8])
        bounds = np.log(list(_BOUNDS.values()))

        def loss(logs: Array) -> float:
            noise = Shadowing(*np.exp(np.clip(logs, bounds[:, 0], bounds[:, 1])))
            prior = 0.5 * float((((logs - usual) / width) ** 2).sum())
            return prior - self.evidence(noise, extra, residual, jacobian, sd)

        found = minimize(loss, start.logs, method="Nelder-Mead", options={"maxfev": 160, "xatol": 0.02, "fatol": 0.02})
        return Shadowing(*(float(value) for value in np.exp(np.clip(found.x, bounds[:, 0], bounds[:, 1]))))

    def surplus(self, noise: Shadowing, extra: Array, residual: Array, freedom: float) -> Array:
        """Additional variances for Student-t distributed errors, from the leave-one-out errors of readings."""
        made = np.zeros(len(residual))
        for group, factor in zip(self.groups, self.factors(noise, extra), strict=True):
            inverse = scipy.linalg.cho_solve((factor, True), np.eye(len(group)))
            variance = 1 / np.diag(inverse)
            squared = (inverse @ residual[group]) ** 2 * variance
            weight = (freedom + 1) / (freedom + squared)
            made[group] = np.where(weight < 1, variance * (1 / weight - 1), 0.0)
        return made
