"""The fit: offsets of cells, corrections of their azimuths and losses of materials, with priors and posteriors.

Powers are linear in the powers of the paths, their dB are not. So the fit is a Gauss-Newton iteration on the whitened
residual, and the posterior is that of the model linearised at its mode (Laplace), with losses constrained to 0 or more.
The noise parameters maximise the evidence (MacKay 1992). Outliers are down-weighted as under a Student t distribution,
and all readings by a power of the likelihood that held-out blocks choose, since a wrong map moves many at once.

Intervals are wider than the linearised posterior: the noise is integrated out by draws from its own posterior, and
errors of the map may look like a turn of an antenna or a loss of a material. Neither changes what is applied.

Corrections are applied only with strong evidence (Kass and Raftery 1995): a Bayes factor of at least e³ against no
change, of all parameters together, or of one of them, divided by their number. Then each parameter whose Bayes factor
exceeds 1 is applied; the factor is the ratio of the prior's to the posterior's density at 0 (Savage and Dickey). The
others stay 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import lsq_linear
from scipy.special import ndtr, ndtri

from geoml.errors import UserError
from radiomaps.raytrace.calibration.forward import Parameters, StoredPaths
from radiomaps.raytrace.calibration.noise import LOSS_DB, TURN_DEG, Shadowing, Whitened

__all__ = ["Fit", "Priors", "fit"]

Array = NDArray[np.float64]
_STRONG = 3.0
_FREEDOM = 4.0
_DRAWS = 4000
#: Number of draws of the noise parameters.
_NOISES = 16
#: Powers of the likelihood that held-out blocks choose among, and the size of these blocks in m.
_POWERS = (1.0, 0.5, 0.25, 0.12, 0.06, 0.03, 0.01)
_BLOCK_M, _FOLDS = 40.0, 5
#: Powers whose held-out error is within this ratio of the smallest are considered equal; the greatest is used.
_AS_GOOD = 1.01
#: Errors of a held-out reading count up to this many dB.
_MOST_DB = 25.0


@dataclass(frozen=True, kw_only=True)
class Priors:
    """Prior standard deviations of the corrections about 0; 0 fixes a parameter. Losses are 0 or more."""

    offset_db: float = 6.0
    azimuth_deg: float = 10.0
    loss_db: float = 3.0

    def __post_init__(self) -> None:
        for name in ("offset_db", "azimuth_deg", "loss_db"):
            value = getattr(self, name)
            if not 0 <= value <= 100:
                raise UserError(f"priors: {name}={value}; expected a standard deviation of 0 … 100")

    def deviations(self, parameters: Parameters) -> Array:
        """Prior standard deviations of all parameters, in order."""
        return np.array(
            [self.offset_db] * len(parameters.cells)
            + [self.azimuth_deg] * len(parameters.turning)
            + [self.loss_db] * len(parameters.materials)
        )


@dataclass(frozen=True, eq=False)
class Fit:
    """Parameters with their posterior: `draws` `(draw, parameter)`, whether each is applied, and the fitted `noise`.

    `values` are applied: the posterior mean given that the parameters that are not applied are 0.
    """

    parameters: Parameters
    values: Array
    applied: NDArray[np.bool_]
    draws: Array
    noise: Shadowing
    bayes: Array = field(default_factory=lambda: np.empty(0))

    def interval(self, share: float = 0.9) -> tuple[Array, Array]:
        """The narrowest interval of each parameter that contains this share of its draws."""
        draws = np.sort(self.draws, axis=0)
        inside = min(int(np.ceil(share * len(draws))), len(draws) - 1)
        width = draws[inside:] - draws[: len(draws) - inside]
        low = np.argmin(width, axis=0)
        columns = np.arange(draws.shape[1])
        return draws[low, columns], draws[low + inside, columns]

    def rows(self) -> list[dict[str, Any]]:
        """A table of the parameters, one row each."""
        low, high = self.interval()
        return [
            {
                "parameter": name, "applied": round(float(self.values[k]), 2),
                "posterior": round(float(self.draws[:, k].mean()), 2),
                "low_90": round(float(low[k]), 2), "high_90": round(float(high[k]), 2),
                "evidence": round(float(self.bayes[k]), 1),
            }
            for k, name in enumerate(self.parameters.names)
        ]  # fmt: skip


def fit(
    paths: StoredPaths, points: Array, measured: Array, count: NDArray[np.int64], priors: Priors, *, seed: int = 0
) -> Fit:
    """Fit to readings that all have a path; raises `UserError` for fewer than 10 of them."""
    if len(measured) < 10:
        raise UserError(f"{len(measured)} measured positions with a path; a calibration needs at least 10")
    parameters = paths.parameters
    sd = priors.deviations(parameters)
    free = sd > 0
    bounded = np.array([name.startswith("loss_db") for name in parameters.names])
    white = Whitened(points, paths, count)
    noise, extra = Shadowing(), np.zeros(len(measured))
    values = np.zeros(len(parameters))
    for _ in range(3):
        values = _mode(paths, parameters, measured, white, noise, extra, sd, free, bounded, values)
        predicted, jacobian = paths.predict(values, parameters)
        # The parameters are integrated out about the mode.
        residual = measured - predicted + jacobian @ values
        noise = white.best(noise, extra, residual, jacobian[:, free], sd[free])
        extra = white.surplus(noise, np.zeros(len(measured)), measured - predicted, _FREEDOM)
    values = _mode(paths, parameters, measured, white, noise, extra, sd, free, bounded, values)
    predicted, jacobian = paths.predict(values, parameters)
    linear = measured - predicted + jacobian @ values
    whitened = (paths, points, count, noise, extra)
    white.power = _power(whitened, linear, jacobian[:, free], sd[free], bounded[free])
    values = _mode(paths, parameters, measured, white, noise, extra, sd, free, bounded, values)
    mean, covariance = _posterior(paths, parameters, measured, white, noise, extra, sd, free, values)
    random = np.random.default_rng(seed)
    draws = _draw(random, mean, covariance, bounded & free)
    bayes = _against_zero(mean, covariance, draws, sd, free, bounded)
    draws = _mixed(random, white, paths, parameters, measured, noise, extra, residual, sd, free, bounded, values)
    unchanged = (extra, measured - paths.predict(np.zeros(len(sd)), parameters)[0], jacobian[:, :0], sd[:0])
    together = white.evidence(noise, extra, residual, jacobian[:, free], sd[free])
    together -= white.evidence(white.best(noise, *unchanged), *unchanged)
    # The strongest of many parameters is strong by chance more often than a given one.
    alone = bayes.max(initial=-np.inf) - np.log(max(int(free.sum()), 1))
    applied = free & (bayes > 0) & (max(together, alone) > _STRONG)
    chosen = np.zeros(len(parameters))
    if applied.any():
        chosen = _mode(
            paths, parameters, measured, white, noise, extra, sd, applied, bounded, np.where(applied, values, 0.0)
        )
        centre, spread = _posterior(paths, parameters, measured, white, noise, extra, sd, applied, chosen)
        chosen = np.where(applied, _draw(random, centre, spread, bounded & applied).mean(axis=0), 0.0)
    return Fit(parameters, chosen, applied, draws, noise, bayes)


def _mixed(
    random: np.random.Generator, white: Whitened, paths: StoredPaths, parameters: Parameters, measured: Array,
    noise: Shadowing, extra: Array, residual: Array, sd: Array, free: NDArray[np.bool_], bounded: NDArray[np.bool_],
    values: Array,
) -> Array:  # fmt: skip
    """Draw parameters with the noise integrated out: an equal number for each of several draws of the noise."""
    _, jacobian = paths.predict(values, parameters)
    scale = np.array([0.0] * len(parameters.cells) + [TURN_DEG] * len(parameters.turning)
                     + [LOSS_DB] * len(parameters.materials))  # fmt: skip
    white, parts = white.doubting(jacobian * scale), []
    for one in white.drawn(_NOISES, random, noise, extra, residual, jacobian[:, free], sd[free]):
        mean, covariance = _posterior(paths, parameters, measured, white, one, extra, sd, free, values)
        parts.append(_draw(random, mean, covariance, bounded & free)[::_NOISES])
    return np.concatenate(parts)


def _folds(points: Array) -> NDArray[np.int64]:
    """Number of the fold of each point. Points in one square block are in the same fold."""
    _, block = np.unique(np.floor(points[:, :2] / _BLOCK_M).astype(np.int64), axis=0, return_inverse=True)
    return np.asarray(np.random.default_rng(0).permutation(int(block.max()) + 1)[block.ravel()] % _FOLDS)


def _power(
    readings: tuple[StoredPaths, Array, NDArray[np.int64], Shadowing, Array], linear: Array, jacobian: Array, sd: Array,
    bounded: NDArray[np.bool_],
) -> float:  # fmt: skip
    """Choose the power of the likelihood by cross-validation over blocks of readings.

    A wrong map changes many readings at once, which the covariance of readings does not describe. A power of the
    likelihood below 1 widens the posterior accordingly (Grünwald and van Ommen 2017). `linear` are linearised powers.
    """
    paths, points, count, noise, extra = readings
    loss = np.zeros(len(_POWERS))
    # There are few blocks, so results of three shifted grids of blocks are combined.
    folds = [_folds(points + shift * _BLOCK_M) for shift in (0.0, 1 / 3, 2 / 3)]
    for held in (fold == k for fold in folds for k in np.unique(fold) if (fold != k).any()):
        white = Whitened(points[~held], paths[~held], count[~held])
        factors = white.factors(noise, extra[~held])
        design, target = white.whiten(factors, jacobian[~held]), white.whiten(factors, linear[~held])
        for index, power in enumerate(_POWERS):
            mean = np.linalg.solve(power * design.T @ design + np.diag(sd**-2.0), power * design.T @ target)
            mean = np.where(bounded, np.maximum(mean, 0.0), mean)
            error = np.abs(linear[held] - jacobian[held] @ mean)
            loss[index] += float((np.minimum(error, _MOST_DB) ** 2).sum())
    return _POWERS[int(np.argmax(loss <= _AS_GOOD * loss.min()))]


def _mode(
    paths: StoredPaths, parameters: Parameters, measured: Array, white: Whitened, noise: Shadowing, extra: Array,
    sd: Array, free: NDArray[np.bool_], bounded: NDArray[np.bool_], values: Array,
) -> Array:  # fmt: skip
    """The posterior's mode: Gauss-Newton steps, each a linear least-squares problem with losses of 0 or more."""
    values = np.where(free, values, 0.0)
    if not free.any():
        return values
    factors = white.factors(noise, extra)
    low = np.where(bounded[free], 0.0, -np.inf)
    for _ in range(12):
        predicted, jacobian = paths.predict(values, parameters)
        target = white.power**0.5 * white.whiten(factors, measured - predicted + jacobian[:, free] @ values[free])
        design = np.vstack([white.power**0.5 * white.whiten(factors, jacobian[:, free]), np.diag(1 / sd[free])])
        found = lsq_linear(design, np.concatenate([target, np.zeros(free.sum())]), (low, np.inf)).x
        step = found - values[free]
        values[free] += np.clip(step, -2 * sd[free], 2 * sd[free])
        if np.abs(step).max() < 1e-3:
            break
    return values


def _posterior(
    paths: StoredPaths, parameters: Parameters, measured: Array, white: Whitened, noise: Shadowing, extra: Array,
    sd: Array, free: NDArray[np.bool_], values: Array,
) -> tuple[Array, Array]:  # fmt: skip
    """Mean and covariance of the linearised model without bounds; fixed parameters have mean and variance 0."""
    factors = white.factors(noise, extra)
    predicted, jacobian = paths.predict(values, parameters)
    design = white.power**0.5 * white.whiten(factors, jacobian[:, free])
    target = white.power**0.5 * white.whiten(factors, measured - predicted + jacobian[:, free] @ values[free])
    inner = np.linalg.inv(design.T @ design + np.diag(sd[free] ** -2.0))
    mean, covariance = np.zeros(len(sd)), np.zeros((len(sd), len(sd)))
    mean[free] = inner @ design.T @ target
    covariance[np.ix_(free, free)] = inner
    return mean, covariance


def _draw(random: np.random.Generator, mean: Array, covariance: Array, bounded: NDArray[np.bool_]) -> Array:
    """Draws of a Gaussian whose `bounded` components are 0 or more (by Gibbs sampling, if there are any)."""
    free = np.flatnonzero(np.diag(covariance) > 0)
    draws = np.zeros((_DRAWS, len(mean)))
    if not len(free):
        return draws
    inner = covariance[np.ix_(free, free)]
    made = random.multivariate_normal(mean[free], inner, _DRAWS, method="cholesky")
    limited = bounded[free]
    outside = (made[:, limited] < 0).any(axis=1) if limited.any() else np.zeros(_DRAWS, bool)
    if outside.any():
        precision = np.linalg.inv(inner)
        scale = 1 / np.sqrt(np.diag(precision))
        made = np.where(limited, np.maximum(made, 0.0), made)
        for _ in range(30):  # all draws at once, each as a separate chain
            for k in range(len(free)):
                rest = (made - mean[free]) @ precision[:, k] - (made[:, k] - mean[free][k]) * precision[k, k]
                centre = mean[free][k] - rest / precision[k, k]
                lowest = ndtr(-centre / scale[k]) if limited[k] else np.zeros(_DRAWS)
                uniform = lowest + (1 - lowest) * random.uniform(1e-12, 1 - 1e-12, _DRAWS)
                made[:, k] = centre + scale[k] * ndtri(np.minimum(uniform, 1 - 1e-15))
                if limited[k]:
                    made[:, k] = np.maximum(made[:, k], 0.0)
    draws[:, free] = made
    return draws


def _against_zero(
    mean: Array, covariance: Array, draws: Array, sd: Array, free: NDArray[np.bool_], bounded: NDArray[np.bool_]
) -> Array:
    """Natural logarithm of the Bayes factor of each parameter against 0 (Savage and Dickey)."""
    found = np.full(len(mean), -np.inf)
    for k in np.flatnonzero(free):
        spread = float(np.sqrt(covariance[k, k]))
        at_zero = -0.5 * (mean[k] / spread) ** 2 - np.log(spread)
        if bounded[k]:  # both densities are cut off at 0: the prior's doubles, the posterior's grows by what is lost
            at_zero -= np.log(max(float(ndtr(mean[k] / spread)), 1e-12))
            found[k] = np.log(2.0) - np.log(sd[k]) - at_zero
        else:
            found[k] = -np.log(sd[k]) - at_zero
    return found
