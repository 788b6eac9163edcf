"""Rain with a known conditional distribution: a Gaussian field observed through area means and noise.

On the fine grid, Z is a Gaussian field of mean 0 and variance 1. The coarse view is c = A·Z + ε, with A the area
means of the coarse cells and ε white noise; rain is g(Z), where g censors and skews. Z given c is then Gaussian too
(Tarantola 2005, "Inverse Problem Theory", sect. 3.2), with

    mean K·c,   covariance Σ − K·A·Σ,   K = Σ·Aᵀ·(A·Σ·Aᵀ + r²·I)⁻¹,

and is drawn exactly: Z' + K·(c − c') with a draw (Z', c') of the joint distribution (Journel & Huijbregts 1978, "Mining
Geostatistics", sect. VII.A). Covariances and A are Kronecker products of one matrix per axis, so the computation needs
only matrix products along single axes, even for a full region.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoml.grids.axes import Axis
from geoml.grids.grid import Grid
from geoml.regrid import Regridder
from rainshift.places.regions import Region
from rainshift.planet.latent import BLOCK_HOURS, KM_PER_DEGREE, generator
from rainshift.planet.rainfall import RainLaw, rate
from rainshift.planet.weather import WeatherBlock

__all__ = ["GaussianLaw", "GaussianWeather", "View"]

#: Resolution of rain in a store; drawn rain is rounded to it, so drawn and stored rain have the same distribution.
STEP_MM_H = 0.01
#: Ratio of the correlation length along an axis to the scale of convective cells.
LENGTH_PER_CELL = 2.0

Fields = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class GaussianLaw:
    """Distribution of rain in a region: marginal distribution, and correlation along each axis.

    The correlation of Z along an axis is the Matérn function of order 3/2 of distance d, (1 + √3 d/ℓ)·exp(−√3 d/ℓ) with
    ℓ = `length_km`. `noise` is r, the standard deviation of ε. Lengths of degrees of longitude are those at `latitude`.
    """

    wet_fraction: float
    mean_mm_h: float
    shape: float
    length_km: float
    noise: float
    latitude: float

    @classmethod
    def of(cls, box: Region) -> GaussianLaw:
        """Derive the distribution from a region's climate: wet fraction, mean rate, tail, cell size, analysis noise."""
        climate = box.climate
        if climate is None:
            raise ValueError(f"region {box.name!r} has no climate")
        kinds = RainLaw.of(climate)
        amount = kinds.stratiform * climate.stratiform_mm_h + kinds.convective * climate.convective_mm_h
        return cls(
            wet_fraction=climate.wet_fraction,
            mean_mm_h=amount / climate.wet_fraction,
            shape=climate.tail_shape,
            length_km=LENGTH_PER_CELL * climate.cell_km,
            noise=climate.analysis_noise,
            latitude=0.5 * (box.lat_min + box.lat_max),
        )

    def rain(self, latent: NDArray[np.floating]) -> NDArray[np.float32]:
        """Transform the latent field Z to rain g(Z) in mm/h, in multiples of `STEP_MM_H`."""
        exact = rate(latent, self.wet_fraction, self.mean_mm_h, self.shape)
        return (np.rint(exact / STEP_MM_H) * STEP_MM_H).astype(np.float32)

    def covariance(self, axis: Axis) -> Fields:
        """Return the covariance matrix Σ of one axis."""
        scale = math.cos(math.radians(self.latitude)) if axis.is_longitude else 1.0
        kilometres = axis.coordinates * KM_PER_DEGREE * scale
        distance = math.sqrt(3) / self.length_km * np.abs(kilometres[:, None] - kilometres[None, :])
        return np.asarray((1 + distance) * np.exp(-distance), np.float64)


@dataclass(frozen=True)
class View:
    """Joint distribution of Z on a fine grid and its view c on a coarse grid. Fields are `(…, lat, lon)`.

    Coarse cells may extend beyond the fine grid; Z is defined on `wide`, which contains them completely.
    """

    law: GaussianLaw
    fine: Grid
    coarse: Grid

    @cached_property
    def wide(self) -> Grid:
        """The fine grid, extended to cover the coarse cells at its edge."""
        return self.fine.pad(dict(zip(self.fine.names, self._margins, strict=True)))

    @cached_property
    def _margins(self) -> list[tuple[int, int]]:
        margins = []
        for fine, coarse in zip(self.fine.axes, self.coarse.axes, strict=True):
            beyond = (fine.edges[0] - coarse.edges[0], coarse.edges[-1] - fine.edges[-1])
            before, after = (max(0, math.ceil(part / fine.step - 1e-6)) for part in beyond)
            margins.append((before, after))
        return margins

    @cached_property
    def _inner(self) -> tuple[Any, ...]:
        return tuple(slice(a, a + n) for (a, _), n in zip(self._margins, self.fine.shape, strict=True))

    @cached_property
    def means(self) -> tuple[Fields, ...]:
        """Matrices A of area means, one per axis."""
        return Regridder(self.wide, self.coarse).matrices

    @cached_property
    def _roots(self) -> tuple[Fields, ...]:
        return tuple(np.asarray(np.linalg.cholesky(self.law.covariance(axis))) for axis in self.wide.axes)

    @cached_property
    def _modes(self) -> tuple[tuple[Fields, ...], tuple[Fields, ...], Fields]:
        """U with A·Σ·Aᵀ = U·Λ·Uᵀ, Σ·Aᵀ·U at the fine cells, and Λ + r²; the first two with one matrix per axis."""
        vectors, gains, values = [], [], []
        for axis, mean, inner in zip(self.wide.axes, self.means, self._inner, strict=True):
            joint = self.law.covariance(axis) @ mean.T
            value, vector = np.linalg.eigh(mean @ joint)
            vectors.append(vector)
            gains.append((joint @ vector)[inner])
            values.append(np.maximum(value, 0))
        return tuple(vectors), tuple(gains), np.multiply.outer(*values) + self.law.noise**2

    @property
    def deviation(self) -> Fields:
        """Standard deviation of c in every coarse cell."""
        variances = [
            np.einsum("ij,jk,ik->i", mean, self.law.covariance(axis), mean)
            for axis, mean in zip(self.wide.axes, self.means, strict=True)
        ]
        return np.asarray(np.sqrt(np.multiply.outer(*variances) + self.law.noise**2))

    def draw(self, white_fine: Fields, white_coarse: Fields) -> tuple[Fields, Fields]:
        """Draw Z on the fine grid and c, from standard normal fields on the wide and on the coarse grid."""
        field = self._roots[0] @ white_fine @ self._roots[1].T
        view = self.means[0] @ field @ self.means[1].T + self.law.noise * white_coarse
        return field[(..., *self._inner)], view

    def expected(self, view: Fields) -> Fields:
        """Return K·c, the mean of Z given c."""
        vectors, gains, values = self._modes
        return np.asarray(gains[0] @ ((vectors[0].T @ view @ vectors[1]) / values) @ gains[1].T)

    def conditional(self, view: Fields, white_fine: Fields, white_coarse: Fields) -> Fields:
        """Draw Z given c, once for each pair of standard normal fields."""
        field, other = self.draw(white_fine, white_coarse)
        return field + self.expected(view - other)


@dataclass(frozen=True)
class GaussianWeather:
    """Independent random hours of a region. Predictors are c, and g of c scaled to variance 1.

    The second predictor is a first guess of rain with the right marginal distribution. It is a function of c, so it
    adds no information: the distribution of rain given both predictors is that given c.
    """

    seed: int
    key: str
    law: GaussianLaw
    coarse: Grid
    fine: Grid

    def __reduce__(self) -> tuple[Any, ...]:
        # Cached values are not pickled, which keeps tasks small.
        return GaussianWeather, (self.seed, self.key, self.law, self.coarse, self.fine)

    @cached_property
    def view(self) -> View:
        """Joint distribution on the two grids."""
        return View(self.law, self.fine, self.coarse)

    def block(self, block: int) -> WeatherBlock:
        """Return the `BLOCK_HOURS` hours from `block * BLOCK_HOURS` since 1970."""
        rng = generator(self.seed, self.key, "gaussian", block)
        whites = [rng.standard_normal((BLOCK_HOURS, *grid.shape)) for grid in (self.view.wide, self.coarse)]
        latent, view = self.view.draw(*whites)
        law = self.law
        guess = rate(view / self.view.deviation, law.wet_fraction, law.mean_mm_h, law.shape)
        return WeatherBlock(law.rain(latent), np.stack([view.astype(np.float32), guess], axis=1))
