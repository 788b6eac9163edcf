"""What experts look at: delay profile, Doppler spectra, correlations and amplitudes of a window, in NumPy alone.

Everything but the bandwidth, one of the classical estimates, is without a unit: delays count in cells of 1/bandwidth,
Doppler shifts in cells of 1/duration, so that one expert serves any sampling. A common delay, phase, frequency offset
or gain changes nothing or little.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcp_experts.channels import SNAPSHOTS, SUBCARRIERS
from mcp_experts.classical import ESTIMATORS, autocorrelation

__all__ = ["FEATURES", "extract", "names", "with_estimates"]

Floats = NDArray[np.float32]
#: Lags, in subcarriers, of the frequency correlation.
LAGS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48)
QUANTILES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
DOPPLER_CELLS = 2 * SNAPSHOTS
PEAK_AT = 8
FLOOR_DB = -60.0
#: Delays, from the strongest, of which it counts how much their power fades over time and antennas.
CELLS = tuple(range(-1, 7))
HANN = np.hanning(SNAPSHOTS + 2)[1:-1].astype(np.float32)


def names() -> list[str]:
    """A name for each feature, in order."""
    return [
        *(f"delay_profile_db[{cell - PEAK_AT}]" for cell in range(SUBCARRIERS)),
        *(f"frequency_correlation[{lag}]" for lag in LAGS),
        *(f"time_correlation[{lag}]" for lag in range(1, SNAPSHOTS)),
        *(f"time_correlation_by_delay[{lag}]" for lag in range(1, SNAPSHOTS)),
        *(f"doppler_{part}_db[{cell}]" for part in ("all", "peak", "rest") for cell in range(DOPPLER_CELLS)),
        *(f"power_quantile_db[{level:g}]" for level in QUANTILES),
        *(f"cell_power_variance[{cell}]" for cell in CELLS),
        "power_variance",
        "power_skewness",
        "peak_share",
        "noise_floor_db",
        *ESTIMATORS,
    ]


FEATURES = (
    SUBCARRIERS
    + len(LAGS)
    + 2 * (SNAPSHOTS - 1)
    + 3 * DOPPLER_CELLS
    + len(QUANTILES)
    + len(CELLS)
    + 4
    + len(ESTIMATORS)
)


def with_estimates(own: Floats, estimates: NDArray[np.float64]) -> Floats:
    """All `FEATURES` that networks take: those of `extract`, and the classical estimates, spreads as logarithms."""
    decades = np.log10(np.clip(estimates, 1e-2, None))
    ratios = np.array([name.endswith(("_db", "_share", "_decades")) for name in ESTIMATORS])
    return np.concatenate([own, np.where(ratios, estimates, decades)], axis=1).astype(np.float32)


def extract(csi: NDArray[np.complex64]) -> Floats:
    """The features of windows `csi[n, 64, 14, antenna]` that are no classical estimates."""
    csi = (csi / np.sqrt(np.mean(np.abs(csi) ** 2, axis=(1, 2, 3), keepdims=True))).astype(np.complex64)
    taps: NDArray[np.complex64] = np.fft.ifft(csi, axis=1).astype(np.complex64)
    # Hann in frequency, as a circular convolution over delays: no side lobes of paths between the cells.
    smooth: NDArray[np.complex64] = (0.5 * taps - 0.25 * (np.roll(taps, 1, axis=1) + np.roll(taps, -1, axis=1))).astype(
        np.complex64
    )
    profile = np.mean(np.abs(smooth) ** 2, axis=(2, 3))
    peak = np.argmax(profile, axis=1)
    order = (np.arange(SUBCARRIERS) - PEAK_AT + peak[:, None]) % SUBCARRIERS
    profile = np.take_along_axis(profile, order, axis=1)
    smooth = np.take_along_axis(smooth, order[:, :, None, None], axis=1)
    floor = np.mean(np.sort(profile, axis=1)[:, : SUBCARRIERS // 4], axis=1)
    total = profile.sum(axis=1)
    # Cells that stand out of the noise; of their spectra and correlations alone something can be learnt.
    strong = (profile > 4 * floor[:, None]) | (np.arange(SUBCARRIERS) == PEAK_AT)
    power = np.abs(csi) ** 2
    flat = power.reshape(len(csi), -1)
    cells = np.abs(smooth[:, PEAK_AT + CELLS[0] : PEAK_AT + CELLS[-1] + 1]) ** 2
    columns = [
        _decibels(profile / total[:, None]),
        _frequency_correlation(csi),
        *_time_correlations(smooth, strong),
        *_doppler_spectra(smooth, strong),
        _decibels(_quantiles(flat)),
        cells.var(axis=(2, 3)) / np.maximum(cells.mean(axis=(2, 3)) ** 2, 1e-20),
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


def _quantiles(rows: NDArray[Any]) -> NDArray[Any]:
    """`QUANTILES` of each row, as `np.quantile` gives them; that one would load 2 MB of masked arrays into a server."""
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
    """Over all delays together, and of each delay's own: the second does not mind shifts that differ by delay."""
    products = np.where(strong[:, :, None], autocorrelation(smooth.swapaxes(2, 3)), 0)
    power = np.abs(products[:, :, 0]).sum(axis=1)[:, None]
    lagged = products[:, :, 1:]
    return np.abs(lagged.sum(axis=1)) / power, np.abs(lagged).sum(axis=1) / power


def _doppler_spectra(smooth: NDArray[np.complex64], strong: NDArray[np.bool_]) -> list[NDArray[Any]]:
    """Spectra of all strong delays, of the strongest one, and of the others, each turned to its peak."""
    kept = np.where(strong[:, :, None, None], smooth, np.complex64(0)) * HANN[:, None]
    spectra = np.mean(np.abs(np.fft.fft(kept, n=DOPPLER_CELLS, axis=2)) ** 2, axis=3)
    peak = spectra[:, PEAK_AT]
    everything = spectra.sum(axis=1)
    # The strongest path's shift turns all three: what is left over shows beside it.
    order = (np.arange(DOPPLER_CELLS) - SNAPSHOTS + np.argmax(peak, axis=1)[:, None]) % DOPPLER_CELLS
    turned = []
    for spectrum in (everything, peak, everything - peak):
        share = np.take_along_axis(spectrum, order, axis=1) / np.maximum(everything.sum(axis=1), 1e-20)[:, None]
        turned.append(_decibels(share))
    return turned
