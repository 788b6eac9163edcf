"""Gaussian fields that are advected by the wind and decorrelate in time, computed block by block."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft

__all__ = ["BLOCK_HOURS", "Drift", "SpectralField", "Spectrum", "generator", "isotropic", "mixture", "ring"]

#: Hours in a block; any block can be computed without the previous ones.
BLOCK_HOURS = 24
KM_PER_DEGREE = 111.195
KM_H = 3.6  # per m/s

#: Spectral power as a function of squared wavenumber (rad²/km²); its scale is arbitrary.
Spectrum = Callable[[NDArray[np.floating]], NDArray[np.floating]]


def generator(seed: int, *key: str | int) -> np.random.Generator:
    """Return a random generator with a separate stream for every key."""
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part % 2**32 for part in key]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *words])))


def isotropic(slope: float, outer_scale_km: float) -> Spectrum:
    """Return a spectrum that falls as k^-slope (integrated over directions) below the outer scale, flat above it."""
    outer = (2 * math.pi / outer_scale_km) ** 2
    return lambda squared: ((squared + outer) / outer) ** (-(slope + 1) / 2)


def ring(wavelength_km: float, falloff: float = 5.0) -> Spectrum:
    """Return a spectrum with a maximum near `wavelength_km`: 0 at large scales, k^-falloff at small scales."""
    centre = (2 * math.pi / wavelength_km) ** 2
    return lambda squared: (squared / centre) / (1 + squared / centre) ** ((falloff + 3) / 2)


def mixture(*parts: tuple[float, Spectrum]) -> Spectrum:
    """Add spectra with given shares of the variance (at wavelengths from 20 to 5000 km on a plane)."""
    wavenumber = 2 * np.pi / np.geomspace(5000.0, 20.0, 400)
    scales = [share / np.trapezoid(part(wavenumber**2) * wavenumber, wavenumber) for share, part in parts]
    return lambda squared: np.sum(
        [scale * part(squared) for scale, (_, part) in zip(scales, parts, strict=True)], axis=0
    )


@dataclass(frozen=True)
class Drift:
    """Steering wind with daily variations around its mean, the same for all fields of a region."""

    seed: int
    key: str
    mean_m_s: tuple[float, float]
    spread_m_s: float

    def at(self, hour: float) -> tuple[float, float]:
        """Return the east and north wind in m/s at an hour since 1970. It is normal with the given mean and spread."""
        return _wind(self, hour)

    def _at(self, hour: float) -> tuple[float, float]:
        block, phase = divmod(hour, BLOCK_HOURS)
        fade = 0.5 * math.pi * phase / BLOCK_HOURS
        knots = [generator(self.seed, self.key, "wind", int(block) + after).standard_normal(2) for after in (0, 1)]
        east, north = (
            mean + self.spread_m_s * (math.cos(fade) * float(old) + math.sin(fade) * float(new))
            for mean, old, new in zip(self.mean_m_s, *knots, strict=True)
        )
        return east, north


@lru_cache(maxsize=4096)
def _wind(drift: Drift, hour: float) -> tuple[float, float]:
    # All fields of a region request the same hours.
    return drift._at(hour)


@dataclass(frozen=True)
class SpectralField:
    """A stationary Gaussian field of mean 0 and variance 1 on a torus, advected by wind and correlated in time.

    Every wavenumber is a complex first-order autoregression in the frame that moves with the wind. Its correlation time
    falls as k^(-2/3) from `life_hours` at `life_km`, down to `shortest_hours`. Two overlapping chains allow to compute
    any hour without its history. Chain b covers blocks b-1 and b. It starts at the boundary between them with a draw
    from the stationary distribution, and runs backwards and forwards (the chain is reversible). Within a block, chain b
    fades out and chain b+1 fades in, with weights of constant total variance.
    """

    seed: int
    key: str
    shape: tuple[int, int]
    spacing_km: tuple[float, float]
    spectrum: Spectrum
    drift: Drift
    life_hours: float
    life_km: float
    shortest_hours: float = 0.5
    anisotropy: float = 1.0
    band_angle_deg: float = 0.0
    wander_deg: float = 25.0  # standard deviation of the band angle between chains

    def _wavenumbers(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        north = 2 * np.pi * fft.fftfreq(self.shape[0], self.spacing_km[0])[:, None]
        east = 2 * np.pi * fft.rfftfreq(self.shape[1], self.spacing_km[1])[None, :]
        return north.astype(np.float32), east.astype(np.float32)

    def _amplitude(self, chain: int) -> NDArray[np.float32]:
        north, east = self._wavenumbers()
        turn = self.wander_deg * generator(self.seed, self.key, "angle", chain).standard_normal()
        angle = math.radians(self.band_angle_deg + turn)
        along = math.cos(angle) * east + math.sin(angle) * north
        across = math.cos(angle) * north - math.sin(angle) * east
        power = self.spectrum(self.anisotropy * along**2 + across**2 / self.anisotropy)
        # Columns of the half spectrum also represent their mirror images, except the first and the last.
        twice = np.full(power.shape[1], 2.0)
        twice[0] = 1.0
        if self.shape[1] % 2 == 0:
            twice[-1] = 1.0
        cells = self.shape[0] * self.shape[1]
        return np.sqrt(power * (cells / float((power * twice).sum(dtype=np.float64)))).astype(np.float32)

    def _memory(self) -> NDArray[np.float32]:
        north, east = self._wavenumbers()
        wavenumber = np.sqrt(north**2 + east**2)
        wavenumber[0, 0] = wavenumber.ravel()[1]
        hours = self.life_hours * (wavenumber * (self.life_km / (2 * math.pi))) ** (-2 / 3)
        return np.exp(-1.0 / np.clip(hours, self.shortest_hours, self.life_hours)).astype(np.float32)

    def _noise(self, rng: np.random.Generator) -> NDArray[np.complex64]:
        # The real transform of real white noise has the symmetry of a real field.
        return fft.rfft2(rng.standard_normal(self.shape, dtype=np.float32), workers=1)

    def _phase(self, hour: float, sign: float) -> NDArray[np.complex64]:
        east_m_s, north_m_s = self.drift.at(hour)
        north, east = self._wavenumbers()
        turn = -sign * KM_H
        rows = np.exp(1j * (turn * north_m_s) * north)
        columns = np.exp(1j * (turn * east_m_s) * east)
        return (rows * columns).astype(np.complex64)

    def _chain(self, chain: int, forwards: bool, steps: int) -> Iterator[NDArray[np.complex64]]:
        """Yield the white spectra of hours after the middle of a chain (0, 1, 2, …) or before it (-1, -2, …)."""
        memory = self._memory()
        renewal = np.sqrt(1 - memory**2)
        middle = chain * BLOCK_HOURS
        state = self._noise(generator(self.seed, self.key, "middle", chain))
        rng = generator(self.seed, self.key, "onwards" if forwards else "backwards", chain)
        if forwards:
            yield state
            steps -= 1
        for step in range(steps):
            hour = middle + step + 0.5 if forwards else middle - step - 0.5
            phase = self._phase(hour, 1.0 if forwards else -1.0)
            state = (memory * phase * state + renewal * self._noise(rng)).astype(np.complex64, copy=False)
            yield state

    def block(self, block: int) -> Iterator[NDArray[np.complex64]]:
        """Yield the half spectra of the hours of a block; `fft.irfft2(…, self.shape)` gives the fields."""
        old = list(self._chain(block, True, BLOCK_HOURS))
        new = list(self._chain(block + 1, False, BLOCK_HOURS))[::-1]
        old_amplitude, new_amplitude = self._amplitude(block), self._amplitude(block + 1)
        for hour in range(BLOCK_HOURS):
            fade = 0.5 * math.pi * hour / BLOCK_HOURS
            old_part = (math.cos(fade) * old_amplitude) * old[hour]
            yield old_part + (math.sin(fade) * new_amplitude) * new[hour]

    def fields(self, block: int) -> Iterator[NDArray[np.float32]]:
        """Yield the fields of a block, hour by hour, as float32 of `shape`."""
        for spectrum in self.block(block):
            yield fft.irfft2(spectrum, self.shape, workers=1)
