"""Synthetic channels: exponential delay profile, isotropic scattering, optionally a direct path, white noise."""

from __future__ import annotations

import math
import random

import numpy as np
from numpy.typing import NDArray

from geoml.errors import UserError
from mcp_experts.channels.channel import SNAPSHOTS, SUBCARRIERS, Channel, from_paths

__all__ = ["synthesize"]

PATHS, WAVES = 48, 24
#: Length of the exponential profile, in RMS delay spreads: it holds 99.9 % of the power.
CUT = 7.0


def synthesize(
    *,
    delay_spread_s: float = 100e-9,
    doppler_hz: float = 10.0,
    k_factor_db: float | None = None,
    snr_db: float = 20.0,
    bandwidth_hz: float = 20e6,
    duration_s: float = 0.014,
    antennas: int = 1,
    seed: int = 0,
) -> Channel:
    """A channel of 64 subcarriers and 14 snapshots with the given properties, deterministic in `seed`.

    There are scattered paths at 48 delays over an exponential profile of RMS delay spread `delay_spread_s`, each with
    Clarke's Doppler spectrum up to `doppler_hz` (a sum of 24 waves). `k_factor_db` adds a direct path of the smallest
    delay, stronger by this factor than all others together. Raises `UserError` for values out of range, and for delays
    that 64 subcarriers cannot resolve.

    >>> synthesize(k_factor_db=10.0).csi.shape
    (64, 14, 1)
    """
    limits = {
        "delay_spread_s": (delay_spread_s, 0.0, 1e-4),
        "doppler_hz": (doppler_hz, 0.0, 1e5),
        "k_factor_db": (0.0 if k_factor_db is None else k_factor_db, -40.0, 60.0),
        "snr_db": (snr_db, -30.0, 80.0),
        "bandwidth_hz": (bandwidth_hz, 1e5, 4e9),
        "duration_s": (duration_s, 1e-5, 10.0),
        "antennas": (antennas, 1, 16),
        "seed": (seed, 0, 2**31 - 1),
    }
    for name, (value, low, high) in limits.items():
        if not math.isfinite(value) or not low <= value <= high:
            raise UserError(f"{name} is {value:g}; expected {low:g} to {high:g}")
    if CUT * delay_spread_s * bandwidth_hz > SUBCARRIERS:
        raise UserError(
            f"a delay spread of {delay_spread_s:.3g} s over {bandwidth_hz:.3g} Hz needs more than {SUBCARRIERS} "
            f"subcarriers; expected at most {SUBCARRIERS / CUT / bandwidth_hz:.3g} s, or a narrower band"
        )
    rng = random.Random(seed)
    interval = duration_s / SNAPSHOTS
    time = interval * np.arange(SNAPSHOTS)
    delays = np.linspace(0, CUT, PATHS) * delay_spread_s
    powers = np.exp(-np.linspace(0, CUT, PATHS))
    angles = 2 * np.pi * _uniform(rng, PATHS, WAVES, 1)
    phases = 2 * np.pi * _uniform(rng, PATHS, WAVES, antennas)
    turn = 2 * np.pi * doppler_hz * np.cos(angles) * time
    waves = np.exp(1j * (turn[..., None] + phases[:, :, None, :])).sum(axis=1) / math.sqrt(WAVES)
    gains = np.sqrt(powers / powers.sum())[:, None, None] * waves
    if k_factor_db is not None:
        shift = doppler_hz * math.cos(rng.uniform(0, 2 * math.pi))
        start = 2 * np.pi * _uniform(rng, antennas)
        direct = math.sqrt(10 ** (k_factor_db / 10)) * np.exp(1j * (2 * np.pi * shift * time[:, None] + start))
        gains, delays = np.concatenate([direct[None], gains]), np.concatenate([[0.0], delays])
    clean = from_paths(gains, delays, bandwidth_hz=bandwidth_hz, snapshot_interval_s=interval)
    # Box and Muller 1958: the squared modulus of a complex normal number has an exponential distribution.
    modulus = np.sqrt(-np.log1p(-_uniform(rng, *clean.csi.shape)))
    noise = modulus * np.exp(2j * np.pi * _uniform(rng, *clean.csi.shape))
    deviation = math.sqrt(float(np.mean(np.abs(clean.csi) ** 2)) * 10 ** (-snr_db / 10))
    return Channel(
        csi=clean.csi + deviation * noise,
        subcarrier_spacing_hz=clean.subcarrier_spacing_hz,
        snapshot_interval_s=interval,
    )


def _uniform(rng: random.Random, *shape: int) -> NDArray[np.float64]:
    """Uniform over [0, 1) in multiples of 2⁻⁵³; NumPy's generators would take 3 MB of memory in every server."""
    words = np.frombuffer(rng.randbytes(8 * math.prod(shape)), dtype="<u8").reshape(shape)
    return np.asarray((words >> np.uint64(11)) * 2.0**-53, np.float64)
