"""Links with known parameters, their observations, and the truths that experts are trained on.

A truth follows from the drawn parameters or from the paths before noise is added, never from a detector.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from mcp_experts.channels.channel import SNAPSHOTS, SUBCARRIERS

__all__ = [
    "BANDWIDTH_HZ",
    "DOPPLER_CELLS",
    "LATEST_CELLS",
    "NO_SPECULAR_DB",
    "OFFSET_CELLS",
    "TIMING_CELLS",
    "TRUTHS",
    "Links",
    "coherence_bandwidth_cells",
    "crossing",
    "delay_spread_cells",
    "draw_snr_db",
    "log_uniform",
    "observe",
    "truths",
]

#: Ranges of the bandwidth in Hz, and of the largest Doppler shift in cells of 1/duration.
BANDWIDTH_HZ, DOPPLER_CELLS = (3e6, 1e9), (0.05, 6.0)
#: Paths later than this many cells of 1/bandwidth after the first would wrap around in the window.
LATEST_CELLS = 52.0
#: The K-factor that encodes "no specular path".
NO_SPECULAR_DB = -99.0
SNR_DB = (-5.0, 35.0)
#: Share of links with almost no noise, as in simulated channels, and range of their signal-to-noise ratio in dB.
CLEAN_SHARE, CLEAN_SNR_DB = 0.12, (35.0, 80.0)
#: Residual frequency offset in cells of 1/duration (standard deviation), and timing in cells of 1/bandwidth.
OFFSET_CELLS, TIMING_CELLS = 0.1, 4.0

#: Truths of a link, NaN if unknown to its generator; profile and scenario are class indices.
TRUTHS = (
    "los",
    "k_factor_db",
    "delay_spread",
    "doppler",
    "coherence_bandwidth",
    "coherence_time",
    "profile",
    "scenario",
    "snr_db",
)


@dataclass(frozen=True, eq=False, kw_only=True)
class Links:
    """`n` links: paths `gains[n, path, snapshot, antenna]`, `delays_s[n, path]`, and the parameters behind them.

    `doppler_cells` is the largest Doppler shift times the duration, `coherence_time_cells` the lag at which the
    autocorrelation falls to a half, over the duration. Values unknown to a generator are NaN. If `alike`, the links
    share more than their generator, such as a transmitter, and must be resampled together.
    """

    gains: NDArray[np.complex64]
    delays_s: NDArray[np.float64]
    bandwidth_hz: NDArray[np.float64]
    los: NDArray[np.float64]
    k_factor_db: NDArray[np.float64]
    doppler_cells: NDArray[np.float64]
    coherence_time_cells: NDArray[np.float64]
    profile: NDArray[np.float64]
    scenario: NDArray[np.float64]
    alike: bool = False

    def __len__(self) -> int:
        return len(self.gains)

    def rows(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> Links:
        """The selected links."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "alike"}
        return replace(self, **{name: array[chosen] for name, array in arrays.items()})


def log_uniform(rng: np.random.Generator, limits: tuple[float, float], count: int) -> NDArray[np.float64]:
    """Log-uniform values."""
    return np.exp(rng.uniform(np.log(limits[0]), np.log(limits[1]), count))


def draw_snr_db(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Draw signal-to-noise ratios in dB: uniform, and higher for a share `CLEAN_SHARE` of links."""
    clean = rng.random(count) < CLEAN_SHARE
    return np.where(clean, rng.uniform(*CLEAN_SNR_DB, count), rng.uniform(*SNR_DB, count))


def observe(links: Links, rng: np.random.Generator) -> tuple[NDArray[np.complex64], NDArray[np.float64]]:
    """Simulate a receiver. Returns windows `(n, 64, 14, antenna)` and their signal-to-noise ratios in dB.

    Adds small timing and carrier offsets, and white noise with the ratio of `draw_snr_db`.
    """
    count = len(links.gains)
    frequency = np.arange(SUBCARRIERS) / SUBCARRIERS
    timing = rng.uniform(-TIMING_CELLS, TIMING_CELLS, count)
    cells = links.delays_s * links.bandwidth_hz[:, None] + timing[:, None]
    turn = np.exp(-2j * np.pi * frequency[:, None] * cells[:, None, :]).astype(np.complex64)
    csi = np.einsum("nfp,npta->nfta", turn, links.gains, optimize=True)
    offset = rng.normal(0, OFFSET_CELLS, count)
    csi = csi * np.exp(2j * np.pi * offset[:, None] * np.arange(SNAPSHOTS) / SNAPSHOTS)[:, None, :, None]
    csi = csi / np.sqrt(np.mean(np.abs(csi) ** 2, axis=(1, 2, 3), keepdims=True))
    snr_db = draw_snr_db(rng, count)
    deviation = np.sqrt(0.5 * 10 ** (-snr_db / 10))[:, None, None, None]
    noise = rng.standard_normal(csi.shape) + 1j * rng.standard_normal(csi.shape)
    return (csi + deviation * noise).astype(np.complex64), snr_db


def truths(links: Links, snr_db: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute `TRUTHS` of each link, `(n, truths)`, with delays in cells of 1/bandwidth and shifts of 1/duration.

    Coherence bandwidth is relative to the bandwidth, coherence time to the duration.
    """
    powers = np.mean(np.abs(links.gains) ** 2, axis=(2, 3))
    cells = links.delays_s * links.bandwidth_hz[:, None]
    return np.stack(
        [
            links.los,
            links.k_factor_db,
            delay_spread_cells(powers, cells),
            links.doppler_cells,
            coherence_bandwidth_cells(powers, cells),
            links.coherence_time_cells,
            links.profile,
            links.scenario,
            snr_db,
        ],
        axis=1,
    )


def delay_spread_cells(powers: NDArray[np.float64], cells: NDArray[np.float64]) -> NDArray[np.float64]:
    """Root of the second central moment of delays weighted with the paths' powers, in the unit of `cells`.

    >>> delay_spread_cells(np.array([[1.0, 1.0]]), np.array([[0.0, 2.0]]))
    array([1.])
    """
    weights = powers / powers.sum(axis=1, keepdims=True)
    mean = np.sum(weights * cells, axis=1, keepdims=True)
    spread: NDArray[np.float64] = np.sqrt(np.sum(weights * (cells - mean) ** 2, axis=1))
    return spread


def coherence_bandwidth_cells(powers: NDArray[np.float64], cells: NDArray[np.float64]) -> NDArray[np.float64]:
    """The separation at which the frequency correlation falls to a half, over the bandwidth; 4 where it never does.

    >>> float(np.round(coherence_bandwidth_cells(np.array([[1.0, 1.0]]), np.array([[0.0, 1.0]]))[0], 1))
    0.3
    """
    separation = np.geomspace(1e-3, 4, 400)
    correlation = np.abs(np.einsum("np,nps->ns", powers, np.exp(-2j * np.pi * cells[:, :, None] * separation)))
    return crossing(correlation / powers.sum(axis=1, keepdims=True), separation)


def crossing(correlation: NDArray[np.float64], lags: NDArray[np.float64]) -> NDArray[np.float64]:
    """First lag at which each row of `correlation` is below one half; the last lag if there is none."""
    below = correlation < 0.5
    return np.where(below.any(axis=1), lags[np.argmax(below, axis=1)], lags[-1])
