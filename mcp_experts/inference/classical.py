"""Classical estimators for comparison with the experts, on windows `csi[n, 64, 14, antenna]`, in NumPy only."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcp_experts.channels.channel import SNAPSHOTS, SUBCARRIERS
from mcp_experts.channels.noise import noise_per_cell

__all__ = ["ESTIMATORS", "autocorrelation", "estimate", "k_factor_by_moments_db"]

Reals = NDArray[np.float64]
#: Cells of the delay profile that are weaker than the peak by more than this, or weaker than three times the noise, are
#: ignored.
DYNAMIC_RANGE_DB = 25.0
HANN = np.hanning(SUBCARRIERS + 2)[1:-1].astype(np.float32)


def estimate(csi: NDArray[np.complex64], bandwidth_hz: NDArray[Any], snapshots: int = SNAPSHOTS) -> Reals:
    """Compute all `ESTIMATORS` of each window, `(n, estimators)`; `snapshots` is the number of distinct snapshots."""
    csi = csi / np.sqrt(np.mean(np.abs(csi) ** 2, axis=(1, 2, 3), keepdims=True))
    view = _WindowEstimates(csi, np.broadcast_to(np.asarray(bandwidth_hz, np.float64), len(csi)), snapshots)
    return np.stack([function(view) for function in ESTIMATORS.values()], axis=1)


class _WindowEstimates:
    """Quantities that several estimators share: taps, power delay profile and noise of each window."""

    def __init__(self, csi: NDArray[np.complex64], bandwidth_hz: Reals, snapshots: int = SNAPSHOTS) -> None:
        self.csi, self.bandwidth_hz = csi, bandwidth_hz
        self.power = np.abs(csi) ** 2
        self.taps = np.fft.ifft(csi * HANN[:, None, None], axis=1)
        profile = np.mean(np.abs(self.taps) ** 2, axis=(2, 3))
        start = np.argmax(profile, axis=1) - SUBCARRIERS // 4
        self.order = (np.arange(SUBCARRIERS) + start[:, None]) % SUBCARRIERS
        profile = np.take_along_axis(profile, self.order, axis=1)
        self.noise = noise_per_cell(profile, snapshots * csi.shape[3])
        peak = profile.max(axis=1, keepdims=True)
        least = np.maximum(peak * 10 ** (-DYNAMIC_RANGE_DB / 10), 3 * self.noise)
        self.profile = np.where((profile > least) | (profile == peak), profile, 0)
        self.total = np.maximum(profile.sum(axis=1), 1e-30)

    @cached_property
    def fading(self) -> Reals:
        """Modulus of the autocorrelation over time at lags 0, 1, …, with the noise removed."""
        return self.relative(autocorrelation(self.csi.transpose(0, 1, 3, 2).reshape(len(self.csi), -1, SNAPSHOTS)))

    def relative(self, products: NDArray[Any]) -> Reals:
        """Moduli of correlations relative to the signal power. Lag 0, where noise adds power, is set to 1."""
        signal = np.maximum(self.power.mean(axis=(1, 2, 3)) * (1 - self.noise_share), 1e-20)
        modulus: Reals = np.minimum(np.abs(products) / signal[:, None], 1.0)
        modulus[:, 0] = 1.0
        return modulus

    @cached_property
    def noise_share(self) -> Reals:
        """Noise power over total power."""
        share: Reals = np.clip(SUBCARRIERS * self.noise[:, 0] / self.total, 1e-6, 1 - 1e-6)
        return share


def k_factor_by_moments_db(power: Reals, noise_share: Reals | float = 0.0) -> Reals:
    """K-factor of a narrowband channel from the first two moments of its power (Greenstein, Michelson, Erceg 1999).

    `power` has samples along its last axis. γ is the variance of the power over its squared mean, corrected for noise:
    K = √(1 − γ) / (1 − √(1 − γ)), and −20 dB if γ ≥ 1, as for Rayleigh fading.
    """
    mean = power.mean(axis=-1)
    share = np.asarray(noise_share, np.float64)
    signal = mean * (1 - share)
    # White noise N adds 2·S·N + N² to the variance of the power of a signal S.
    variance = power.var(axis=-1) - mean**2 * (2 * (1 - share) * share + share**2)
    root = np.sqrt(np.clip(1 - variance / np.maximum(signal, 1e-20) ** 2, 1e-4, 1 - 1e-4))
    ratio: Reals = 10 * np.log10(root / (1 - root))
    return np.maximum(ratio, -20.0)


def _k_factor_db(view: _WindowEstimates) -> Reals:
    return k_factor_by_moments_db(view.power.reshape(len(view.power), -1), view.noise_share)


def _first_tap_k_factor_db(view: _WindowEstimates) -> Reals:
    """K-factor at the strongest delay, from its power over time and antennas."""
    peak = np.take_along_axis(view.taps, view.order[:, SUBCARRIERS // 4][:, None, None, None], axis=1)
    return k_factor_by_moments_db((np.abs(peak) ** 2).reshape(len(peak), -1))


def _peak_share(view: _WindowEstimates) -> Reals:
    """Power in the strongest delay and its neighbours over that in all delays above the noise."""
    middle = SUBCARRIERS // 4
    share: Reals = view.profile[:, middle - 1 : middle + 2].sum(axis=1) / view.profile.sum(axis=1)
    return share


def _delay_spread_cells(view: _WindowEstimates) -> Reals:
    """Root of the second central moment of the delay profile above the noise, corrected for the Hann window."""
    cells = np.arange(SUBCARRIERS, dtype=np.float64)
    weights = view.profile / view.profile.sum(axis=1, keepdims=True)
    mean = (weights * cells).sum(axis=1, keepdims=True)
    variance = (weights * (cells - mean) ** 2).sum(axis=1)
    own = 2 * 0.25 / 1.5  # moment of the Hann window's own profile, where both neighbours have half the peak amplitude
    spread: Reals = np.sqrt(np.maximum(variance - own, 1e-4))
    return spread


def _latest_cells(view: _WindowEstimates) -> Reals:
    """Delay from the strongest cell to the last cell above the noise, in cells."""
    found = view.profile > 0
    last = SUBCARRIERS - 1 - np.argmax(found[:, ::-1], axis=1)
    return (last - SUBCARRIERS // 4).astype(np.float64)


def _first(view: _WindowEstimates) -> NDArray[np.int64]:
    """Index of the first cell above the noise; the strongest cell is at a quarter of the window."""
    first: NDArray[np.int64] = np.argmax(view.profile > 0, axis=1)
    return first


def _rise_cells(view: _WindowEstimates) -> Reals:
    """Delay from the first cell above the noise to the strongest, in cells: long if the direct path is blocked."""
    return (SUBCARRIERS // 4 - _first(view)).astype(np.float64)


def _first_path_db(view: _WindowEstimates) -> Reals:
    """Power of the first path (three cells) over that of all delays above the noise, in dB."""
    cells = np.arange(SUBCARRIERS) - _first(view)[:, None]
    first = np.where((cells >= 0) & (cells < 3), view.profile, 0).sum(axis=1)
    ratio: Reals = 10 * np.log10(np.maximum(first / view.profile.sum(axis=1), 1e-6))
    return ratio


def _excess_cells(view: _WindowEstimates) -> Reals:
    """Mean excess delay in cells: power-weighted mean delay of the cells above the noise, relative to the first."""
    cells = np.arange(SUBCARRIERS) - _first(view)[:, None]
    excess: Reals = (view.profile * cells).sum(axis=1) / view.profile.sum(axis=1)
    return excess


def _kurtosis_db(view: _WindowEstimates) -> Reals:
    """Fourth central moment of the amplitudes over delays, over the squared second, in dB (Guvenc et al. 2007)."""
    amplitude = np.sqrt(view.profile)
    about = amplitude - amplitude.mean(axis=1, keepdims=True)
    ratio: Reals = 10 * np.log10(np.mean(about**4, axis=1) / np.maximum(np.mean(about**2, axis=1) ** 2, 1e-30))
    return ratio


def _clipped_share(view: _WindowEstimates) -> Reals:
    """Share of I and Q samples at the strongest delay that are close to the largest; clipping makes it large."""
    taps = np.fft.ifft(view.csi, axis=1)
    peak = np.argmax(np.mean(np.abs(taps) ** 2, axis=(2, 3)), axis=1)[:, None, None, None]
    strongest = np.take_along_axis(taps, peak, axis=1).reshape(len(taps), -1)
    samples = np.abs(np.concatenate([strongest.real, strongest.imag], axis=1))
    share: Reals = np.mean(samples > 0.995 * samples.max(axis=1, keepdims=True), axis=1)
    return share


def _coherence_bandwidth(view: _WindowEstimates) -> Reals:
    """Separation over bandwidth at which the frequency correlation falls to 0.5; 4 if it does not."""
    correlation = view.relative(autocorrelation(view.csi.reshape(*view.csi.shape[:2], -1).swapaxes(1, 2)))
    return _half(correlation[:, : 3 * SUBCARRIERS // 4], SUBCARRIERS)


def _coherence_time(view: _WindowEstimates) -> Reals:
    """Lag over duration at which the autocorrelation falls to 0.5; 4 if it does not."""
    return _half(view.fading, SNAPSHOTS)


def _doppler_cells(view: _WindowEstimates) -> Reals:
    """Maximum Doppler shift of isotropic scattering, from the autocorrelation at its first useful lag.

    J0(2π f τ) ≈ 1 − (π f τ)² holds above about 0.8; a smaller decrease could be due to noise.
    """
    fallen = view.fading < 0.85
    index = np.where(fallen.any(axis=1), np.argmax(fallen, axis=1), SNAPSHOTS - 1)
    value = np.take_along_axis(view.fading, index[:, None], axis=1)[:, 0]
    return np.sqrt(np.maximum(1 - value, 1e-6)) * SNAPSHOTS / (np.pi * np.maximum(index, 1))


def autocorrelation(rows: NDArray[np.complex64]) -> NDArray[Any]:
    """Mean of x(i + lag)·x*(i) over rows and i of `rows[n, row, i]`, `(n, lag)` (Wiener-Khinchin theorem)."""
    count = rows.shape[-1]
    spectrum = np.mean(np.abs(np.fft.fft(rows, n=2 * count)) ** 2, axis=-2)
    products: NDArray[Any] = np.fft.ifft(spectrum)[..., :count] * (count / (count - np.arange(count))) / count
    return products


def _half(correlation: Reals, count: int) -> Reals:
    """Interpolated lag at which correlations over lags 0, 1, … fall to 0.5, divided by `count`; 4 if they do not."""
    below = correlation < 0.5
    index = np.maximum(np.argmax(below, axis=1), 1)[:, None]
    before = np.take_along_axis(correlation, index - 1, axis=1)[:, 0]
    after = np.take_along_axis(correlation, index, axis=1)[:, 0]
    fraction = (before - 0.5) / np.maximum(before - after, 1e-9)
    return np.where(below.any(axis=1), (index[:, 0] - 1 + fraction) / count, 4.0)


def _snr_db(view: _WindowEstimates) -> Reals:
    """Signal-to-noise ratio in dB, with the noise from the weakest quarter of the delay profile."""
    share = view.noise_share
    ratio: Reals = 10 * np.log10((1 - share) / share)
    return ratio


def _power_variance(view: _WindowEstimates) -> Reals:
    variance: Reals = view.power.reshape(len(view.power), -1).var(axis=1)
    return variance


def _bandwidth_decades(view: _WindowEstimates) -> Reals:
    return np.log10(view.bandwidth_hz)


#: Name → estimator; names end with the unit. A cell is 1/bandwidth in delay and 1/duration in Doppler shift.
ESTIMATORS: dict[str, Callable[[_WindowEstimates], Reals]] = {
    "k_factor_db": _k_factor_db,
    "first_tap_k_factor_db": _first_tap_k_factor_db,
    "peak_share": _peak_share,
    "delay_spread_cells": _delay_spread_cells,
    "latest_cells": _latest_cells,
    "rise_cells": _rise_cells,
    "first_path_db": _first_path_db,
    "excess_cells": _excess_cells,
    "kurtosis_db": _kurtosis_db,
    "clipped_share": _clipped_share,
    "coherence_bandwidth": _coherence_bandwidth,
    "doppler_cells": _doppler_cells,
    "coherence_time": _coherence_time,
    "snr_db": _snr_db,
    "power_variance": _power_variance,
    "bandwidth_decades": _bandwidth_decades,
}
