"""Errors of predicted powers: spatially correlated shadowing and uncorrelated noise.

Within a cell the covariance of two errors is σᵢσⱼ exp(-d/ℓ) (Gudmundson 1991), plus an uncorrelated variance, plus what
a wrong map adds where power does not come on the direct path: an error that all readings of a cell share, one that
those in similar directions share, and one that grows with the depth of the predicted shadow. σ lies between its values
in and out of sight by the share of the direct path. Cells are independent.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from scipy.optimize import minimize

from radiomaps.raytrace.calibration.forward import StoredPaths

__all__ = ["LOSS_DB", "TURN_DEG", "Shadowing", "Whitened"]

Array = NDArray[np.float64]
_BOUNDS = {"lit": (0.1, 20.0), "dark": (0.1, 30.0), "alone": (0.3, 15.0), "distance": (2.0, 500.0), "map": (0.1, 30.0)}
#: Widths of the log-normal prior of the noise, and the step of differences of its logarithms.
_WIDTH, _STEP = np.array([0.7, 0.7, 0.7, 0.8, 0.8]), 0.1
#: Errors of the map are alike within this angle seen from the cell.
_ANGLE = np.radians(30.0)
#: Change of the error with the depth of the predicted shadow, in dB per dB, where errors of the map are 8 dB.
_SLOPE = 0.3 / 8.0
#: Turn of an antenna in degrees, and loss of a material in dB, that an error of the map of 1 dB may look like.
TURN_DEG, LOSS_DB = 2.0, 0.4


@dataclass(frozen=True)
class Shadowing:
    """Shadowing in and out of sight, uncorrelated noise, errors of the map, all in dB; decorrelation distance in m."""

    lit_db: float = 3.0
    dark_db: float = 6.0
    alone_db: float = 2.0
    distance_m: float = 25.0
    map_db: float = 3.0

    @property
    def logs(self) -> Array:
        return np.log([self.lit_db, self.dark_db, self.alone_db, self.distance_m, self.map_db])


class Whitened:
    """Readings grouped by cell, with precomputed terms of their covariance. `power` is the power of the likelihood."""

    def __init__(self, points: Array, paths: StoredPaths, count: NDArray[np.int64]) -> None:
        self.power = 1.0
        self.sight, self.count = paths.sight_share(), count
        self.groups = [np.flatnonzero(paths.cell == name) for name in np.unique(paths.cell)]
        self.distances = [np.linalg.norm(points[group, None] - points[None, group], axis=-1) for group in self.groups]
        self.shared = [self._shared(points[group], paths[group], self.sight[group]) for group in self.groups]

    def doubting(self, slopes: Array) -> Whitened:
        """Return a copy that also includes errors of the map equivalent to a change of azimuth or of material loss.

        `slopes` `(n, parameter)` are the derivatives of the powers, scaled to an error of the map of 1 dB.
        """
        made = copy.copy(self)
        made.shared = []
        for group, shared in zip(self.groups, self.shared, strict=True):
            dark = (1 - self.sight[group])[:, None] * slopes[group]
            made.shared.append(shared + dark @ dark.T)
        return made

    @staticmethod
    def _shared(points: Array, paths: StoredPaths, sight: Array) -> Array:
        """Covariance of errors of the map for a `map_db` of 1 dB; `sight` is the share of power on the direct path."""
        away = points - np.asarray(paths.transmitters[int(paths.cell[0])].position)
        angle = np.arctan2(away[:, 1], away[:, 0])
        apart = np.abs(angle[:, None] - angle[None])
        apart = np.minimum(apart, 2 * np.pi - apart)
        alike = 0.5 + 0.5 * np.exp(-0.5 * (apart / _ANGLE) ** 2)
        depth = -10 * np.log10(np.maximum(paths.power.sum(axis=1) * (away**2).sum(axis=1), 1e-30))
        depth -= depth.mean()
        return (alike + _SLOPE**2 * depth[:, None] * depth[None]) * np.outer(1 - sight, 1 - sight)

    def factors(self, noise: Shadowing, extra: Array) -> list[Array]:
        """Lower Cholesky factors of each group's covariance; `extra` is an additional variance of each reading."""
        found = []
        for group, distance, shared in zip(self.groups, self.distances, self.shared, strict=True):
            sigma = noise.dark_db + (noise.lit_db - noise.dark_db) * self.sight[group]
            covariance = sigma[:, None] * sigma[None] * np.exp(-distance / noise.distance_m)
            covariance += noise.map_db**2 * shared
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
        usual = Shadowing().logs
        bounds = np.log(list(_BOUNDS.values()))

        def loss(logs: Array) -> float:
            noise = Shadowing(*np.exp(np.clip(logs, bounds[:, 0], bounds[:, 1])))
            prior = 0.5 * float((((logs - usual) / _WIDTH) ** 2).sum())
            return prior - self.evidence(noise, extra, residual, jacobian, sd)

        found = minimize(loss, start.logs, method="Nelder-Mead", options={"maxfev": 200, "xatol": 0.02, "fatol": 0.02})
        return Shadowing(*(float(value) for value in np.exp(np.clip(found.x, bounds[:, 0], bounds[:, 1]))))

    def drawn(
        self, count: int, random: np.random.Generator, best: Shadowing, extra: Array, residual: Array, jacobian: Array,
        sd: Array,
    ) -> list[Shadowing]:  # fmt: skip
        """Noise drawn from its posterior about the `best`: Gaussian in its logarithms, by the evidence's curvature."""
        bounds = np.log(list(_BOUNDS.values()))
        usual = Shadowing().logs
        size = len(usual)

        def loss(logs: Array) -> float:
            prior = 0.5 * float((((logs - usual) / _WIDTH) ** 2).sum())
            return prior - self.power * self.evidence(Shadowing(*np.exp(logs)), extra, residual, jacobian, sd)

        step = _STEP * np.eye(size)
        here = np.clip(best.logs, bounds[:, 0] + _STEP, bounds[:, 1] - _STEP)
        middle, ahead = loss(here), [loss(here + one) for one in step]
        behind = [loss(here - one) for one in step]
        curve = np.zeros((size, size))
        for k in range(size):
            curve[k, k] = (ahead[k] + behind[k] - 2 * middle) / _STEP**2
            for j in range(k):
                both = loss(here + step[k] + step[j])
                curve[k, j] = curve[j, k] = (both - ahead[k] - ahead[j] + middle) / _STEP**2
        values, vectors = np.linalg.eigh(curve)
        # If the evidence has no maximum along a direction, the width of the prior limits the posterior.
        spread = vectors / np.sqrt(np.maximum(values, (1 / _WIDTH**2).min()))
        logs = here + (spread @ random.normal(size=(size, count))).T
        return [Shadowing(*(float(v) for v in np.exp(np.clip(row, bounds[:, 0], bounds[:, 1])))) for row in logs]

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
