"""The classical estimators that stand beside each expert, on windows `csi[n, 64, 14, antenna]`, in NumPy alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcp_experts.channels.channel import SNAPSHOTS, SUBCARRIERS

__all__ = ["ESTIMATORS", "autocorrelation", "estimate", "k_factor_by_moments_db"]

Reals = NDArray[np.float64]
#: Cells of the delay profile weaker than this below the peak, or than three times the noise, are left out.
DYNAMIC_RANGE_DB = 25.0
HANN = np.hanning(SUBCARRIERS + 2)[1:-1].astype(np.float32)


def estimate(csi: NDArray[np.complex64], bandwidth_hz: NDArray[Any]) -> Reals:
    """The columns of `ESTIMATORS` of each window, `(n, estimators)`."""
    csi = csi / np.sqrt(np.mean(np.abs(csi) ** 2, axis=(1, 2, 3), keepdims=True))
    view = _WindowEstimates(csi, np.broadcast_to(np.asarray(bandwidth_hz, np.float64), len(csi)))
    return np.stack([function(view) for function in ESTIMATORS.values()], axis=1)


class _WindowEstimates:
    """What several estimators need of a window: its taps, its power delay profile and the noise in it."""

    def __init__(self, csi: NDArray[np.complex64], bandwidth_hz: Reals) -> None:
        self.csi, self.bandwidth_hz = csi, bandwidth_hz
        self.power = np.abs(csi) ** 2
        self.taps = np.fft.ifft(csi * HANN[:, None, None], axis=1)
        profile = np.mean(np.abs(self.taps) ** 2, axis=(2, 3))
        start = np.argmax(profile, axis=1) - SUBCARRIERS // 4
        self.order = (np.arange(SUBCARRIERS) + start[:, None]) % SUBCARRIERS
        profile = np.take_along_axis(profile, self.order, axis=1)
        # The emptiest quarter is below the noise's mean: powers averaged over so many samples spread about it, and the
        # lowest quarter of a normal distribution lies 1.27 deviations low on average.
        low = 1 - 1.27 / np.sqrt(csi.shape[2] * csi.shape[3])
        self.noise = np.mean(np.sort(profile, axis=1)[:, : SUBCARRIERS // 4], axis=1, keepdims=True) / low
        peak = profile.max(axis=1, keepdims=True)
        least = np.maximum(peak * 10 ** (-DYNAMIC_RANGE_DB / 10), 3 * self.noise)
        self.profile = np.where((profile > least) | (profile == peak), profile, 0)
        self.total = np.maximum(profile.sum(axis=1), 1e-30)

    @cached_property
    def fading(self) -> Reals:
        """Modulus of the autocorrelation over time at lags 0, 1, …, without the noise."""
        return self.relative(autocorrelation(self.csi.transpose(0, 1, 3, 2).reshape(len(self.csi), -1, SNAPSHOTS)))

    def relative(self, products: NDArray[Any]) -> Reals:
        """Moduli of correlations over the signal's power; 1 at lag 0, which noise would raise."""
        signal = np.maximum(self.power.mean(axis=(1, 2, 3)) * (1 - self.noise_share), 1e-20)
        modulus: Reals = np.minimum(np.abs(products) / signal[:, None], 1.0)
        modulus[:, 0] = 1.0
        return modulus

    @cached_property
    def noise_share(self) -> Reals:
        """Noise power over all power."""
        share: Reals = np.clip(SUBCARRIERS * self.noise[:, 0] / self.total, 1e-6, 1 - 1e-6)
        return share


def k_factor_by_moments_db(power: Reals, noise_share: Reals | float = 0.0) -> Reals:
    """K-factor of a narrowband channel from the first two moments of its power (Greenstein, Michelson, Erceg 1999).

    `power`: samples along the last axis. With γ the variance of the power over its squared mean, noise taken out,
    K = √(1 − γ) / (1 − √(1 − γ)); −20 dB where γ ≥ 1, as for Rayleigh fading.
    """
    mean = power.mean(axis=-1)
    share = np.asarray(noise_share, np.float64)
    signal = mean * (1 - share)
    # The power of signal plus white noise varies by 2·S·N + N² more.
    variance = power.var(axis=-1) - mean**2 * (2 * (1 - share) * share + share**2)
    root = np.sqrt(np.clip(1 - variance / np.maximum(signal, 1e-20) ** 2, 1e-4, 1 - 1e-4))
    ratio: Reals = 10 * np.log10(root / (1 - root))
    return np.maximum(ratio, -20.0)


def _k_factor_db(view: _WindowEstimates) -> Reals:
    return k_factor_by_moments_db(view.power.reshape(len(view.power), -1), view.noise_share)


def _first_tap_k_factor_db(view: _WindowEstimates) -> Reals:
    """K-factor of the strongest delay alone, of its powers over time and antennas."""
    peak = np.take_along_axis(view.taps, view.order[:, SUBCARRIERS // 4][:, None, None, None], axis=1)
    return k_factor_by_moments_db((np.abs(peak) ** 2).reshape(len(peak), -1))


def _peak_share(view: _WindowEstimates) -> Reals:
    """Power in the strongest delay and its neighbours over that in all delays that stand out of the noise."""
    middle = SUBCARRIERS // 4
    share: Reals = view.profile[:, middle - 1 : middle + 2].sum(axis=1) / view.profile.sum(axis=1)
    return share


def _delay_spread_cells(view: _WindowEstimates) -> Reals:
    """Root of the second central moment of the delay profile above the noise, less what the Hann window adds."""
    cells = np.arange(SUBCARRIERS, dtype=np.float64)
    weights = view.profile / view.profile.sum(axis=1, keepdims=True)
    mean = (weights * cells).sum(axis=1, keepdims=True)
    variance = (weights * (cells - mean) ** 2).sum(axis=1)
    own = 2 * 0.25 / 1.5  # of the Hann window's own profile, whose neighbours of the middle have half its amplitude
    spread: Reals = np.sqrt(np.maximum(variance - own, 1e-4))
    return spread


def _latest_cells(view: _WindowEstimates) -> Reals:
    """From the strongest delay to the last that stands out."""
    found = view.profile > 0
    last = SUBCARRIERS - 1 - np.argmax(found[:, ::-1], axis=1)
    return (last - SUBCARRIERS // 4).astype(np.float64)


def _coherence_bandwidth(view: _WindowEstimates) -> Reals:
    """Separation over bandwidth at which the frequency correlation falls to a half; 4 where it does not."""
    correlation = view.relative(autocorrelation(view.csi.reshape(*view.csi.shape[:2], -1).swapaxes(1, 2)))
    return _half(correlation[:, : 3 * SUBCARRIERS // 4], SUBCARRIERS)


def _coherence_time(view: _WindowEstimates) -> Reals:
    """Lag over duration at which the autocorrelation falls to a half; 4 where it does not."""
    return _half(view.fading, SNAPSHOTS)


def _doppler_cells(view: _WindowEstimates) -> Reals:
    """Largest shift of isotropic scattering, from how far the autocorrelation has fallen at its first useful lag.

    J0(2π f τ) ≈ 1 − (π f τ)² while it is above 0.8 or so; of smaller falls noise would be the cause.
    """
    fallen = view.fading < 0.85
    index = np.where(fallen.any(axis=1), np.argmax(fallen, axis=1), SNAPSHOTS - 1)
    value = np.take_along_axis(view.fading, index[:, None], axis=1)[:, 0]
    return np.sqrt(np.maximum(1 - value, 1e-6)) * SNAPSHOTS / (np.pi * np.maximum(index, 1))


def autocorrelation(rows: NDArray[np.complex64]) -> NDArray[Any]:
    """Mean over `rows[n, row, i]` and i of x(i + lag)·x*(i), for each of the n and every lag (Wiener, Khinchin)."""
    count = rows.shape[-1]
    spectrum = np.mean(np.abs(np.fft.fft(rows, n=2 * count)) ** 2, axis=-2)
    products: NDArray[Any] = np.fft.ifft(spectrum)[..., :count] * (count / (count - np.arange(count))) / count
    return products


def _half(correlation: Reals, count: int) -> Reals:
    """Where rows over lags 0, 1, … cross a half, interpolated, over `count`; 4 where they do not."""
    below = correlation < 0.5
    index = np.maximum(np.argmax(below, axis=1), 1)[:, None]
    before = np.take_along_axis(correlation, index - 1, axis=1)[:, 0]
    after = np.take_along_axis(correlation, index, axis=1)[:, 0]
    fraction = (before - 0.5) / np.maximum(before - after, 1e-9)
    return np.where(below.any(axis=1), (index[:, 0] - 1 + fraction) / count, 4.0)


def _snr_db(view: _WindowEstimates) -> Reals:
    """Signal over noise, the noise from the emptiest quarter of the delay profile."""
    share = view.noise_share
    ratio: Reals = 10 * np.log10((1 - share) / share)
    return ratio


def _power_variance(view: _WindowEstimates) -> Reals:
    variance: Reals = view.power.reshape(len(view.power), -1).var(axis=1)
    return variance


def _bandwidth_decades(view: _WindowEstimates) -> Reals:
    return np.log10(view.bandwidth_hz)


#: Name → estimator; the names say the unit, "cells" being of 1/bandwidth in delay and 1/duration in Doppler.
ESTIMATORS: dict[str, Callable[[_WindowEstimates], Reals]] = {
    "k_factor_db": _k_factor_db,
    "first_tap_k_factor_db": _first_tap_k_factor_db,
    "peak_share": _peak_share,
    "delay_spread_cells": _delay_spread_cells,
    "latest_cells": _latest_cells,
    "coherence_bandwidth": _coherence_bandwidth,
    "doppler_cells": _doppler_cells,
    "coherence_time": _coherence_time,
    "snr_db": _snr_db,
    "power_variance": _power_variance,
    "bandwidth_decades": _bandwidth_decades,
}
