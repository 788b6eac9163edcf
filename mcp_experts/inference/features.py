"""Features of a window: delay profile, Doppler spectra, correlations and amplitudes, in NumPy only.

All features except the bandwidth are dimensionless: delays are in cells of 1/bandwidth and Doppler shifts in cells of
1/duration, so that one expert serves any sampling. A common delay, phase, frequency offset or gain has little or no
effect.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcp_experts.channels.channel import SNAPSHOTS, SUBCARRIERS
from mcp_experts.channels.noise import low_quarter, noise_per_cell
from mcp_experts.inference.classical import ESTIMATORS, autocorrelation

__all__ = ["FEATURES", "extract", "names", "with_estimates"]

Floats = NDArray[np.float32]
#: Lags, in subcarriers, of the frequency correlation.
LAGS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48)
QUANTILES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
DOPPLER_CELLS = 2 * SNAPSHOTS
PEAK_AT = 8
FLOOR_DB = -60.0
#: Delay cells, relative to the strongest, whose fading over time and antennas is a feature.
CELLS = tuple(range(-1, 7))
OF_EACH_CELL = ("cell_power_variance", "tone_share", "antenna_coherence", "antenna_balance")
#: Oversampling of the Doppler spectrum in the search for a tone.
FINER = 4
HANN = np.hanning(SNAPSHOTS + 2)[1:-1].astype(np.float32)
#: Periodic Hann window over subcarriers: a path covers three delay cells.
HANN_OVER_BAND = np.hanning(SUBCARRIERS + 1)[:-1].astype(np.float32)


def names() -> list[str]:
    """Names of the features, in order."""
    return [
        *(f"delay_profile_db[{cell - PEAK_AT}]" for cell in range(SUBCARRIERS)),
        *(f"frequency_correlation[{lag}]" for lag in LAGS),
        *(f"time_correlation[{lag}]" for lag in range(1, SNAPSHOTS)),
        *(f"time_correlation_by_delay[{lag}]" for lag in range(1, SNAPSHOTS)),
        *(f"doppler_{part}_db[{cell}]" for part in ("all", "peak", "rest") for cell in range(DOPPLER_CELLS)),
        *(f"power_quantile_db[{level:g}]" for level in QUANTILES),
        *(f"{kind}[{cell}]" for kind in OF_EACH_CELL for cell in CELLS),
        "window_power_variance",
        "window_power_skewness",
        "strongest_delay_share",
        "noise_floor_db",
        *ESTIMATORS,
    ]


FEATURES = len(names())


def with_estimates(own: Floats, estimates: NDArray[np.float64]) -> Floats:
    """Join the features of `extract` and the classical estimates, spreads as logarithms: the networks' `FEATURES`."""
    decades = np.log10(np.clip(estimates, 1e-2, None))
    ratios = np.array([name.endswith(("_db", "_share", "_decades")) for name in ESTIMATORS])
    return np.concatenate([own, np.where(ratios, estimates, decades)], axis=1).astype(np.float32)


def extract(csi: NDArray[np.complex64], snapshots: int = SNAPSHOTS) -> Floats:
    """Features of windows `csi[n, 64, 14, antenna]`, without the classical estimates: `(n, features)`.

    `snapshots` is the number of distinct snapshots in each window.
    """
    csi = (csi / np.sqrt(np.mean(np.abs(csi) ** 2, axis=(1, 2, 3), keepdims=True))).astype(np.complex64)
    smooth = _delays(csi)
    profile = np.mean(np.abs(smooth) ** 2, axis=(2, 3))
    # Convert to the noise floor of a window without repetitions, whose noise varies less between cells.
    antennas = csi.shape[3]
    floor = noise_per_cell(profile, snapshots * antennas)[:, 0] * low_quarter(SNAPSHOTS * antennas)
    total = profile.sum(axis=1)
    # Cells above the noise: only their spectra and correlations carry information.
    strong = (profile > 4 * floor[:, None]) | (np.arange(SUBCARRIERS) == PEAK_AT)
    power = np.abs(csi) ** 2
    flat = power.reshape(len(csi), -1)
    near = smooth[:, PEAK_AT + CELLS[0] : PEAK_AT + CELLS[-1] + 1]
    columns = [
        _decibels(profile / total[:, None]),
        _frequency_correlation(csi),
        *_time_correlations(smooth, strong),
        *_doppler_spectra(smooth, strong),
        _decibels(_quantiles(flat)),
        *_steadiness(near),
        np.stack(
            [
                flat.var(axis=1),
                np.mean((flat - 1) ** 3, axis=1),
                profile[:, PEAK_AT] / total,
                _decibels(SUBCARRIERS * floor / total),
            ],
            axis=1,
        ),
    ]
    return np.concatenate(columns, axis=1).astype(np.float32)


def _delays(csi: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """Impulse responses `[n, delay, time, antenna]`, each shifted so that its strongest delay is at `PEAK_AT`.

    The shift includes a fraction of a cell, so that the profile does not depend on the position of the first path
    between two cells. For a single path under a Hann window, the fraction is 2 (A₊ − A₋) / (A₋ + 2 A₀ + A₊), from the
    amplitudes of the strongest cell and its neighbours (Agrež 2002).
    """
    windowed = csi * HANN_OVER_BAND[:, None, None]
    profile = np.mean(np.abs(np.fft.ifft(windowed, axis=1)) ** 2, axis=(2, 3))
    peak = np.argmax(profile, axis=1)[:, None]
    around = (peak + np.array([-1, 0, 1])) % SUBCARRIERS
    before, top, after = np.sqrt(np.take_along_axis(profile, around, axis=1)).T
    fraction = 2 * (after - before) / (before + 2 * top + after)
    delay = peak + fraction[:, None] - PEAK_AT
    turn = np.exp(2j * np.pi / SUBCARRIERS * delay * np.arange(SUBCARRIERS)).astype(np.complex64)
    return np.fft.ifft(windowed * turn[:, :, None, None], axis=1).astype(np.complex64, copy=False)


def _steadiness(cells: NDArray[np.complex64]) -> list[NDArray[Any]]:
    """Fading features `OF_EACH_CELL` of `cells[n, cell, time, antenna]`: a single path is constant, many paths fade.

    They are: variance of the power over its squared mean; largest share of the energy in one Doppler tone of the same
    frequency on all antennas; modulus of the correlation over time of neighbouring antennas; and geometric over
    arithmetic mean of the energies of neighbouring antennas. The last two are 1 for a single antenna.
    """
    power = np.abs(cells) ** 2
    variance = power.var(axis=(2, 3)) / np.maximum(power.mean(axis=(2, 3)) ** 2, 1e-20)
    energy = np.maximum(power.sum(axis=2), 1e-20)
    lines = np.sum(np.abs(np.fft.fft(cells, n=FINER * SNAPSHOTS, axis=2)) ** 2, axis=3)
    tone = lines.max(axis=2) / (SNAPSHOTS * energy.sum(axis=2))
    if cells.shape[3] == 1:
        return [variance, tone, np.ones_like(tone), np.ones_like(tone)]
    one, other = energy[:, :, :-1], energy[:, :, 1:]
    geometric = np.sqrt(one * other).sum(axis=2)
    common = np.abs(np.sum(cells[..., :-1] * cells[..., 1:].conj(), axis=2)).sum(axis=2)
    return [variance, tone, common / geometric, 2 * geometric / (one + other).sum(axis=2)]


def _quantiles(rows: NDArray[Any]) -> NDArray[Any]:
    """`QUANTILES` of each row. Equal to `np.quantile`, whose import of masked arrays takes 2 MB of memory."""
    ordered = np.sort(rows, axis=1)
    place = np.array(QUANTILES) * (rows.shape[1] - 1)
    below = np.floor(place).astype(int)
    above = np.minimum(below + 1, rows.shape[1] - 1)
    return ordered[:, below] + (place - below) * (ordered[:, above] - ordered[:, below])


def _decibels(ratio: NDArray[Any]) -> NDArray[Any]:
    return 10 * np.log10(np.maximum(ratio, 10 ** (FLOOR_DB / 10)))


def _frequency_correlation(csi: NDArray[np.complex64]) -> NDArray[Any]:
    rows = csi.reshape(len(csi), SUBCARRIERS, -1).swapaxes(1, 2)
    return np.abs(autocorrelation(rows)[:, list(LAGS)])


def _time_correlations(smooth: NDArray[np.complex64], strong: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Time correlation: modulus of the sum over delays, and sum of moduli, which ignores differences in Doppler."""
    products = np.where(strong[:, :, None], autocorrelation(smooth.swapaxes(2, 3)), 0)
    power = np.abs(products[:, :, 0]).sum(axis=1)[:, None]
    lagged = products[:, :, 1:]
    return np.abs(lagged.sum(axis=1)) / power, np.abs(lagged).sum(axis=1) / power


def _doppler_spectra(smooth: NDArray[np.complex64], strong: NDArray[np.bool_]) -> list[NDArray[Any]]:
    """Doppler spectra of all strong delays, the strongest, and the others, centred on the strongest one's peak."""
    kept = np.where(strong[:, :, None, None], smooth, np.complex64(0)) * HANN[:, None]
    spectra = np.mean(np.abs(np.fft.fft(kept, n=DOPPLER_CELLS, axis=2)) ** 2, axis=3)
    peak = spectra[:, PEAK_AT]
    everything = spectra.sum(axis=1)
    # All three are shifted by the Doppler shift of the strongest path, so that differences from it remain visible.
    order = (np.arange(DOPPLER_CELLS) - SNAPSHOTS + np.argmax(peak, axis=1)[:, None]) % DOPPLER_CELLS
    turned = []
    for spectrum in (everything, peak, everything - peak):
        share = np.take_along_axis(spectrum, order, axis=1) / np.maximum(everything.sum(axis=1), 1e-20)[:, None]
        turned.append(_decibels(share))
    return turned
