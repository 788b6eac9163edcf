"""The sun: local solar time and top-of-atmosphere flux."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["local_hour", "solar_flux"]

SOLAR_CONSTANT_W_M2 = 1361.0
OBLIQUITY = math.radians(23.44)


def local_hour(hour: float, lon_deg: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean local solar time in hours, 0 … 24, at an hour since 1970 in UTC."""
    return (hour + lon_deg / 15.0) % 24.0


def solar_flux(hour: float, lat_deg: NDArray[np.float64], lon_deg: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean top-of-atmosphere flux in W/m² over the hour that ends at `hour`, `(lat, lon)`.

    The orbit is circular with the equinox on 21 March. The mean is computed by Simpson's rule.

    >>> noon = solar_flux(24 * 79 + 12.5, np.array([0.0]), np.array([0.0]))
    >>> bool(abs(noon[0, 0] / 1361 - 1) < 0.01)
    True
    """
    lat = np.radians(lat_deg)[:, None]
    height_mean = np.zeros((lat_deg.size, lon_deg.size))
    for before, weight in ((1.0, 1 / 6), (0.5, 4 / 6), (0.0, 1 / 6)):
        moment = hour - before
        declination = math.asin(math.sin(OBLIQUITY) * math.sin(2 * math.pi * (moment / 24 - 79.5) / 365.25))
        angle = (2 * math.pi / 24 * (local_hour(moment, lon_deg) - 12.0))[None, :]
        height = np.sin(lat) * math.sin(declination) + np.cos(lat) * math.cos(declination) * np.cos(angle)
        height_mean += weight * np.maximum(height, 0.0)
    return SOLAR_CONSTANT_W_M2 * height_mean
