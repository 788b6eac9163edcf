"""Land mask, heights and slopes of a synthetic region."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from geoml.constants import STANDARD_GRAVITY
from geoml.grids.grid import Grid
from rainshift.places.climate import Climate
from rainshift.planet.latent import KM_PER_DEGREE, generator, isotropic

__all__ = ["Land", "spacing_km", "torus"]

COAST_KM = 300.0


def spacing_km(grid: Grid) -> tuple[float, float]:
    """Return the spacing to the north and east in km at the middle latitude; weather is computed on a plane."""
    lat, lon = grid["lat"], grid["lon"]
    middle = math.radians((lat.start + lat.stop) / 2)
    return lat.step * KM_PER_DEGREE, lon.step * KM_PER_DEGREE * max(math.cos(middle), 0.2)


def torus(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return a larger shape (by a fifth) that is efficient for Fourier transforms.

    Fields on the larger shape are periodic; their crop is not.
    """
    rows, columns = (fft.next_fast_len(math.ceil(1.2 * size), real=True) for size in shape)
    return rows, columns


@dataclass(frozen=True)
class Land:
    """Static fields on the fine grid: `lsm` 0…1, `height_m`, and slopes (m per m) smoothed over about 20 km."""

    lsm: NDArray[np.float32]
    height_m: NDArray[np.float32]
    slope_east: NDArray[np.float32]
    slope_north: NDArray[np.float32]

    @property
    def geopotential(self) -> NDArray[np.float32]:
        """Surface geopotential in m²/s², like `z` of ERA5."""
        return (STANDARD_GRAVITY * self.height_m).astype(np.float32)

    @classmethod
    def of(cls, seed: int, key: str, climate: Climate, grid: Grid) -> Land:
        """Generate the land of one region: the coast is a level line of a smooth field; mountains grow inland."""
        spacing = spacing_km(grid)
        shape = grid.shape

        def field(name: str, slope: float, outer_km: float) -> NDArray[np.float64]:
            size = torus(shape)
            north = 2 * np.pi * fft.fftfreq(size[0], spacing[0])[:, None]
            east = 2 * np.pi * fft.rfftfreq(size[1], spacing[1])[None, :]
            amplitude = np.sqrt(isotropic(slope, outer_km)(north**2 + east**2))
            amplitude[0, 0] = 0.0
            noise = fft.rfft2(generator(seed, key, name).standard_normal(size), workers=1)
            values = fft.irfft2(amplitude * noise, size, workers=1)
            return (values / values.std())[: shape[0], : shape[1]]

        continent = field("continent", 3.2, 1500.0)
        ranked = np.sort(continent, axis=None)
        share = climate.land_fraction
        level = ranked[min(int((1 - share) * ranked.size), ranked.size - 1)] if share > 0 else np.inf
        inside = continent - (level if share < 1 else ranked[0] - 1.0)
        lsm = np.clip(0.5 + 8 * inside, 0, 1)
        inland = np.clip(inside / 0.4, 0, 1) if share < 1 else np.ones(shape)
        relief = field("relief", climate.orography_slope, 600.0)
        height = inland * (climate.base_m + climate.relief_m * relief)
        height = np.where(lsm > 0.5, np.maximum(height, 2.0), 0.0)
        sigma = tuple(10.0 / km for km in spacing)
        smooth = ndimage.gaussian_filter(height, sigma, mode="nearest")
        north_slope, east_slope = np.gradient(smooth, spacing[0] * 1e3, spacing[1] * 1e3)
        return cls(*(np.asarray(part, np.float32) for part in (lsm, height, east_slope, north_slope)))
