"""Links of two cluster models that Sionna lacks: the indoor office of TR 38.901, and IEEE 802.15.4a.

Both are sums of rays in clusters (Saleh and Valenzuela 1987). Delays are in seconds, not relative to the bandwidth.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from mcp_experts.channels.channel import SNAPSHOTS
from mcp_experts.train.truths import LATEST_CELLS, NO_SPECULAR_DB, Links, crossing, log_uniform

__all__ = ["UWB", "office_links", "uwb_links"]

Reals = NDArray[np.float64]
ANTENNAS = 2
CLUSTERS, RAYS = 6, 8
#: Ranges of the bandwidth in Hz for the office and for 802.15.4a, whose channels are 499.2 MHz and wider.
OFFICE_HZ, UWB_HZ = (1e7, 1e9), (1e8, 1e9)
#: TR 38.901, table 7.5-6, InH office, with (True) and without line of sight: mean and standard deviation of the decimal
#: logarithm of the delay spread in s at 3.5 GHz, delay scaling factor, shadowing of clusters in dB, number of clusters.
OFFICE = {True: (-7.70, 0.18, 3.6, 6.0, 15), False: (-7.36, 0.12, 3.0, 3.0, 19)}
OFFICE_K_DB = (7.0, 4.0)


@dataclass(frozen=True)
class Uwb:
    """One environment of Molisch et al. 2006: times in ns, rates in 1/ns, shadowing of a cluster in dB."""

    los: bool
    clusters: float
    cluster_rate: float
    ray_rate: float
    cluster_decay: float
    ray_decay: float
    shadowing_db: float
    #: Increase of the ray decay constant per ns of cluster delay.
    growth: float = 0.0
    #: Soft onset of a single cluster: share of power missing at delay 0, and time constant of its rise in ns.
    onset: float = 0.0
    rise: float = 1.0


#: CM1 to CM9: residential, office, outdoor and industrial, each with and without line of sight, and a snow-covered open
#: area. Ray rates are means of the standard's mixtures. Those of dense profiles (CM4, CM7, CM8) are chosen so that the
#: rays cover the decay.
UWB = (
    Uwb(True, 3.0, 0.047, 0.28, 22.6, 12.5, 2.75),
    Uwb(False, 3.5, 0.12, 0.27, 26.3, 17.5, 2.93),
    Uwb(True, 5.4, 0.016, 1.0, 14.6, 6.4, 3.0),
    Uwb(False, 1.0, 0.07, 1.0, 19.8, 11.84, 0.0, onset=0.86, rise=15.21),
    Uwb(True, 13.6, 0.0048, 0.9, 31.7, 3.7, 3.0),
    Uwb(False, 10.5, 0.0243, 0.5, 104.7, 9.3, 3.0),
    Uwb(True, 4.75, 0.0709, 0.4, 13.47, 0.651, 4.32, growth=0.926),
    Uwb(False, 1.0, 0.07, 0.14, 85.36, 85.36, 0.0, onset=1.0, rise=17.35),
    Uwb(False, 3.31, 0.0305, 0.0225, 56.0, 0.92, 3.0),
)
#: Excess power in dB (mean, standard deviation) of the first ray of 802.15.4a in line of sight over the profile. This
#: ray does not fade.
FIRST_DB = (3.0, 3.0)


def office_links(count: int, rng: np.random.Generator, doppler_cells: Reals) -> Links:
    """Links of InH office, half of them in line of sight, with K-factors of 7 ± 4 dB."""
    los = rng.random(count) < 0.5
    table = np.array([OFFICE[bool(one)] for one in los])
    spread = 10 ** rng.normal(table[:, 0], table[:, 1])
    most = int(table[:, 4].max())
    delays = -(table[:, 2] * spread)[:, None] * np.log(rng.random((count, most)))
    delays -= np.where(np.arange(most) < table[:, 4:5], delays, np.inf).min(axis=1, keepdims=True)
    shadow = rng.normal(0, 1, (count, most)) * table[:, 3:4]
    power = np.exp(-delays * ((table[:, 2] - 1) / (table[:, 2] * spread))[:, None]) * 10 ** (-shadow / 10)
    power = np.where(np.arange(most) < table[:, 4:5], power, 0)
    # Each cluster is three rays within a few nanoseconds (table 7.5-5: cluster delay spread).
    delays = (delays[:, :, None] + np.array([0, 5e-9, 10e-9])).reshape(count, -1)
    power = (power[:, :, None] * np.array([0.5, 0.3, 0.2])).reshape(count, -1)
    specular = np.where(los, 10 ** (rng.normal(*OFFICE_K_DB, count) / 10), 0) * power.sum(axis=1)
    return _links(delays, power, specular, los, log_uniform(rng, OFFICE_HZ, count), doppler_cells, rng)


def uwb_links(count: int, rng: np.random.Generator, doppler_cells: Reals) -> Links:
    """Links of IEEE 802.15.4a; CM1 to CM9 are equally likely."""
    kinds = [UWB[index] for index in rng.integers(len(UWB), size=count)]
    each = {field.name: np.array([getattr(kind, field.name) for kind in kinds])[:, None, None] for field in fields(Uwb)}
    number = np.clip(rng.poisson(each["clusters"]), 1, CLUSTERS)
    start = np.cumsum(rng.exponential(1.0, (count, CLUSTERS, 1)) / each["cluster_rate"], axis=1)
    start -= start[:, :1]
    gaps = rng.exponential(1.0, (count, CLUSTERS, RAYS)) / each["ray_rate"]
    inner = np.cumsum(gaps, axis=2)
    inner -= inner[:, :, :1]
    soft = each["onset"].ravel() > 0
    # With a soft onset, all rays form one cluster; the first is at delay 0.
    dense = np.cumsum(gaps[soft].reshape(-1, CLUSTERS * RAYS), axis=1)
    inner[soft], start[soft] = (dense - dense[:, :1]).reshape(-1, CLUSTERS, RAYS), 0.0
    number[soft] = CLUSTERS
    shadow = 10 ** (rng.normal(0, 1, (count, CLUSTERS, 1)) * each["shadowing_db"] / 10)
    power = shadow * np.exp(-start / each["cluster_decay"] - inner / (each["ray_decay"] + each["growth"] * start))
    power *= 1 - each["onset"] * np.exp(-inner / each["rise"])
    power = np.where(np.arange(CLUSTERS)[:, None] < number, power, 0).reshape(count, -1)
    los = each["los"].ravel().astype(bool)
    specular = np.where(los, power[:, 0] * 10 ** (rng.normal(*FIRST_DB, count) / 10), 0)
    power[los, 0] = 0
    # Without line of sight the first ray is attenuated by obstacles.
    hard = ~los & ~soft
    power[hard, 0] *= 10 ** (-np.abs(rng.normal(0, 6, int(hard.sum()))) / 10)
    delays = 1e-9 * (start + inner).reshape(count, -1)
    return _links(delays, power, specular, los, log_uniform(rng, UWB_HZ, count), doppler_cells, rng)


def _links(
    delays: Reals,
    power: Reals,
    specular: Reals,
    los: NDArray[np.bool_],
    bandwidth: Reals,
    doppler_cells: Reals,
    rng: np.random.Generator,
) -> Links:
    """Create links from a constant ray of power `specular` at delay 0, and rays with Rayleigh fading.

    Doppler shifts are those of isotropic scattering.
    """
    count = len(delays)
    delays = np.concatenate([np.zeros((count, 1)), delays], axis=1)
    power = np.concatenate([specular[:, None], power], axis=1)
    shape = (*delays.shape, ANTENNAS)
    fading = np.sqrt(0.5) * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape))
    fading[:, 0] = np.exp(2j * np.pi * rng.random((count, ANTENNAS)))
    cells = doppler_cells[:, None] * np.cos(rng.uniform(0, 2 * np.pi, delays.shape))
    turn = np.exp(2j * np.pi * cells[:, :, None] * np.arange(SNAPSHOTS) / SNAPSHOTS)
    gains = (np.sqrt(power)[:, :, None] * fading)[:, :, None, :] * turn[..., None]
    bandwidth = np.minimum(bandwidth, LATEST_CELLS / np.quantile(delays, 0.98, axis=1).clip(1e-12))
    delays = np.minimum(delays, (LATEST_CELLS / bandwidth)[:, None])
    received = np.mean(np.abs(gains) ** 2, axis=(2, 3))
    lags = np.geomspace(1e-3, 4, 400)
    correlation = np.abs(np.einsum("np,npl->nl", received, np.exp(2j * np.pi * cells[..., None] * lags)))
    rest = np.maximum(received[:, 1:].sum(axis=1), 1e-12)
    with np.errstate(divide="ignore"):
        k_factor = np.where(los, 10 * np.log10(received[:, 0] / rest), NO_SPECULAR_DB)
    unknown = np.full(count, np.nan)
    return Links(
        gains=gains.astype(np.complex64),
        delays_s=delays,
        bandwidth_hz=bandwidth,
        los=los.astype(float),
        k_factor_db=k_factor,
        doppler_cells=doppler_cells,
        coherence_time_cells=crossing(correlation / received.sum(axis=1, keepdims=True), lags),
        profile=unknown,
        scenario=unknown,
    )
