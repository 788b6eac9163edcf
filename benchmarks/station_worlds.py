"""Station data for `guided.py`: the exact distribution given stations, and kriging. Not a benchmark.

Kriging interpolates the residuals of a trend at stations.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize, special

from geoml.diffusion.posterior import Observed, given
from geoml.diffusion.samplers import DPMSolver2M
from geoml.diffusion.spacing import log_snr
from geoml.grids.grid import Grid
from rainshift.planet.gaussian import GaussianLaw, View

__all__ = ["Residuals", "StationLaw", "fair_crps", "spread_skill"]

Array = NDArray[np.float64]
KM = 111.195
#: Number of sweeps of the Gibbs sampler over dry stations.
SWEEPS = 40
#: Number of quantiles in the ensemble of kriged residuals; quantiles score better than random members.
QUANTILES = (np.arange(16) + 0.5) / 16


def fair_crps(rain: Array, truth: Array, mask: NDArray[np.bool_]) -> float:
    """Return the mean fair CRPS over cells with a True mask, of `(hour, member, lat, lon)`; MAE for one member."""
    members = rain.shape[1]
    error = np.abs(rain - truth[:, None]).mean(1)
    if members > 1:
        ranked = np.sort(rain, axis=1)
        weights = (2 * np.arange(members) - members + 1).reshape(1, -1, 1, 1)
        error = error - (ranked * weights).sum(1) / (members * (members - 1))
    return float(error[mask].mean())


def spread_skill(rain: Array, truth: Array, mask: NDArray[np.bool_]) -> float:
    """Return √((M+1)/M · mean variance) over the RMSE of the ensemble mean, over cells with a True mask."""
    members = rain.shape[1]
    variance = rain.var(1, ddof=1) * (members + 1) / members
    return float(np.sqrt(variance[mask].mean() / ((rain.mean(1) - truth) ** 2)[mask].mean()))


@dataclass(frozen=True)
class StationLaw:
    """Distribution of a Gaussian field given its coarse view and observations `g(Z + error · noise)` at some cells."""

    view: View
    cells: NDArray[np.intp]
    error: float

    @property
    def law(self) -> GaussianLaw:
        """Distribution of the rain."""
        return self.view.law

    @property
    def limit(self) -> float:
        """Largest latent value without rain."""
        return -float(special.ndtri(self.law.wet_fraction))

    @cached_property
    def flat(self) -> NDArray[np.intp]:
        """Cells of the stations in a flattened field."""
        return np.asarray(self.cells[:, 0] * self.view.fine.shape[1] + self.cells[:, 1])

    def latent(self, rain: Array) -> Array:
        """Return the latent value of wet rates; the limit for dry ones."""
        z = np.linspace(self.limit + 1e-6, 8, 200_001)
        return np.interp(rain, self.law.rain(z), z)

    def columns(self, cells: NDArray[np.intp]) -> Array:
        """Return columns of the covariance of Z given the coarse view, `(cell, lat × lon)`."""
        view = self.view
        sides = [self.law.covariance(axis) for axis in view.wide.axes]
        inner = view._inner
        made = []
        for row, column in cells:
            field = np.outer(sides[0][:, row + inner[0].start], sides[1][:, column + inner[1].start])
            seen = view.means[0] @ field @ view.means[1].T
            made.append((field[inner] - view.expected(seen)).ravel())
        return np.stack(made)

    def draws(self, coarse: Array, readings: Array, members: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """Draw members of the rain without and with the stations, `(hour, member, lat, lon)`; both are exact."""
        hours, count = len(coarse), len(self.cells)
        columns = self.columns(self.cells)
        noise = self.error**2 + 1e-6
        covariance = columns[:, self.flat] + noise * np.eye(count)
        white = [rng.standard_normal((hours, members, *grid.shape)) for grid in (self.view.wide, self.view.coarse)]
        free = self.view.conditional(coarse[:, None], *white)
        mean = self.view.expected(coarse).reshape(hours, -1)[:, None, self.flat]
        wide = (hours, members, count)
        values = self._undried(
            np.broadcast_to(mean, wide), covariance, np.broadcast_to(self.latent(readings)[:, None], wide).copy(),
            np.broadcast_to(readings[:, None] <= 0, wide), rng,
        )  # fmt: skip
        away = values - free.reshape(hours, members, -1)[..., self.flat] - np.sqrt(noise) * rng.standard_normal(wide)
        moved = (away @ np.linalg.solve(covariance, columns)).reshape(free.shape)
        return self.law.rain(free).astype(float), self.law.rain(free + moved).astype(float)

    def _undried(
        self, mean: Array, covariance: Array, values: Array, dry: NDArray[np.bool_], rng: np.random.Generator
    ) -> Array:
        """Draw latent values of dry stations below the limit, given the values of the others (Gibbs)."""
        precision = np.linalg.inv(covariance)
        values = np.where(dry, np.minimum(self.limit - 0.1, mean), values)
        for _ in range(SWEEPS):
            for k in range(len(covariance)):
                away = values - mean
                variance = 1 / precision[k, k]
                centre = mean[..., k] - variance * (away @ precision[:, k] - precision[k, k] * away[..., k])
                top = special.ndtr((self.limit - centre) / np.sqrt(variance))
                drawn = special.ndtri(np.clip(rng.random(top.shape) * top, 1e-300, 1 - 1e-16))
                values[..., k] = np.where(dry[..., k], centre + np.sqrt(variance) * drawn, values[..., k])
        return values

    def with_exact_denoiser(self, coarse: Array, readings: Array, members: int, seed: int) -> Array:
        """Draw members guided by stations with the exact denoiser of Z; dry stations have the mean of dry values."""
        shape = self.view.fine.shape
        everywhere = np.stack(np.unravel_index(np.arange(shape[0] * shape[1]), shape), 1)
        covariance = torch.from_numpy(self.columns(everywhere))
        values, vectors = torch.linalg.eigh((covariance + covariance.T) / 2)
        mean = torch.from_numpy(self.view.expected(coarse)).flatten(1).repeat_interleave(members, 0)[:, None]
        chance = special.ndtr(self.limit)
        dry = -np.exp(-(self.limit**2) / 2) / np.sqrt(2 * np.pi) / chance
        spread = np.sqrt(1 + self.limit * dry - dry**2)
        is_dry = torch.from_numpy(readings <= 0)
        seen = Observed(
            torch.from_numpy(self.flat),
            torch.from_numpy(self.latent(readings)).where(~is_dry, dry).repeat_interleave(members, 0),
            torch.full(readings.shape, self.error).double().where(~is_dry, spread).repeat_interleave(members, 0),
        )

        def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            gain = values.clamp(min=0) / (values.clamp(min=0) + sigma[0] ** 2)
            return mean + ((x - mean) @ vectors * gain) @ vectors.T

        noise = torch.randn(len(mean), 1, len(values), generator=torch.Generator().manual_seed(seed)).double()
        made = DPMSolver2M()(given(denoise, seen), noise, log_snr(24, smallest=0.02))
        return self.law.rain(made.numpy().reshape(len(coarse), members, *shape)).astype(float)


@dataclass(frozen=True)
class Residuals:
    """Kriging (PyKrige) of residuals at stations, in the fourth root of rain.

    The trend is the interpolated coarse rain, or a regression on it (`slope` and `offset`). Trend and exponential
    variogram are fitted to all cells of fields at other hours of the place, which favours kriging.
    """

    slope: float
    offset: float
    sill: float
    reach: float
    nugget: float

    @classmethod
    def fitted(cls, simple: Array, truth: Array, grid: Grid, *, regression: bool) -> Residuals:
        """Fit to interpolated coarse rain and truth of other hours, `(hour, lat, lon)` in mm/h."""
        x, y = np.clip(simple, 0, None) ** 0.25, np.clip(truth, 0, None) ** 0.25
        slope, offset = np.polyfit(x.ravel(), y.ravel(), 1) if regression else (1.0, 0.0)
        left = y - slope * x - offset
        lags = np.arange(1, min(left.shape[1:]) // 2)
        halves = [
            ((left[:, lag:] - left[:, :-lag]) ** 2).mean() / 4 + ((left[..., lag:] - left[..., :-lag]) ** 2).mean() / 4
            for lag in lags
        ]

        def curve(lag: Array, sill: float, reach: float, nugget: float) -> Array:
            return nugget + sill * (1 - np.exp(-3 * lag / reach))

        top = float(left.var()) + 1e-6
        (sill, reach, nugget), _ = optimize.curve_fit(
            curve, lags.astype(float), halves, (top, 5.0, 0.01 * top),
            bounds=([1e-6, 0.5, 0.0], [10 * top, 200.0, 2 * top]),
        )  # fmt: skip
        return cls(float(slope), float(offset), float(sill), float(reach), float(nugget))

    def members(self, simple: Array, readings: Array, cells: NDArray[np.intp]) -> tuple[Array, Array]:
        """Return the kriged rain of one hour, `(1, lat, lon)`, and an ensemble of its quantiles."""
        from pykrige.ok import OrdinaryKriging

        trend = self.slope * np.clip(simple, 0, None) ** 0.25 + self.offset
        left = readings**0.25 - trend[cells[:, 0], cells[:, 1]]
        rows, columns = np.indices(simple.shape).reshape(2, -1).astype(float)
        mean, variance = np.zeros(simple.size), np.full(simple.size, self.sill)
        if np.ptp(left) > 0:
            parameters = {"psill": self.sill, "range": self.reach, "nugget": self.nugget}
            kriging = OrdinaryKriging(
                *cells.T[::-1].astype(float), left, variogram_model="exponential", variogram_parameters=parameters,
                exact_values=False,
            )  # fmt: skip
            mean, variance = (np.asarray(part) for part in kriging.execute("points", columns, rows))
        root = trend + mean.reshape(simple.shape)
        spread = np.sqrt(np.clip(variance, 0, None)).reshape(simple.shape)
        ensemble = root + spread * special.ndtri(QUANTILES)[:, None, None]
        return _rain(root[None]), _rain(ensemble)


def _rain(root: Array) -> Array:
    """Convert fourth roots to rain; dry below half the smallest wet rate."""
    rain = np.clip(root, 0, None) ** 4
    return np.where(rain < 0.05, 0.0, rain)
