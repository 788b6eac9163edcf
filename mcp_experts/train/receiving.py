"""Observation of training links: sampled as by a receiver, then preprocessed in the same way as files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcp_experts.channels.channel import SNAPSHOTS
from mcp_experts.channels.window import LEAST_SUBCARRIERS, SUBCARRIERS, ChannelWindow, window_of
from mcp_experts.inference import features
from mcp_experts.inference.classical import estimate
from mcp_experts.train.impairments import impair
from mcp_experts.train.truths import TRUTHS, Links, observe, truths

__all__ = ["ONE_SNAPSHOT", "received", "sampled"]

Grid = NDArray[np.complex64]
#: Share of links observed in one snapshot (twice as many with one antenna), and of links observed in 2 to 13.
ONE_SNAPSHOT, FEW_SNAPSHOTS = 0.2, 0.1
#: Share of links that occupy only a part of the sampled band, and of links observed on 32 to 63 subcarriers.
WITHIN, FEWER = 0.2, 0.15
#: Edges of an occupied band: range of their width in subcarriers, attenuation in dB, and range of the number of
#: subcarriers beyond each edge.
ROLL_OFF, EDGE_DB, BEYOND = (3, 10), 30.0, (4, 32)
ABOUT_TIME = [TRUTHS.index(name) for name in ("doppler", "coherence_time")]


def received(links: Links, rng: np.random.Generator) -> Iterator[tuple[NDArray[Any], ...]]:
    """Observe links. Yields indices of links with their features, classical estimates and truths.

    Links with equal numbers of distinct snapshots are yielded together. Truths are NaN if the observation cannot show
    them: those about time for too few or incoherent snapshots, and the SNR for some impairments.
    """
    csi, snr_db = observe(links, rng)
    csi, snr_db = impair(csi, rng, snr_db)
    windows = [window_of(sampled(one, rng), 1.0, 1.0) for one in csi]
    count = np.array([window.snapshots for window in windows])
    for snapshots in np.unique(count):
        rows = np.flatnonzero(count == snapshots)
        some = [windows[row] for row in rows]
        yield rows, *_columns(links.rows(rows), some, snr_db[rows], int(snapshots))


def _columns(
    links: Links, windows: list[ChannelWindow], snr_db: NDArray[np.float64], snapshots: int
) -> tuple[NDArray[Any], ...]:
    """Features, estimates and truths of windows that all have `snapshots` distinct snapshots."""
    # Windows were created with a spacing of 1 Hz, so that their bandwidth in Hz is their number of subcarriers.
    links = replace(
        links,
        gains=links.gains[:, :, :snapshots],
        bandwidth_hz=links.bandwidth_hz * np.array([each.bandwidth_hz for each in windows]) / SUBCARRIERS,
    )
    csi = np.stack([each.csi for each in windows])
    estimates = estimate(csi, links.bandwidth_hz, snapshots)
    known = truths(links, snr_db)
    silent = np.flatnonzero([not each.shows_time for each in windows])
    known[silent[:, None], ABOUT_TIME] = np.nan
    return features.with_estimates(features.extract(csi, snapshots), estimates), estimates, known


def sampled(csi: Grid, rng: np.random.Generator) -> Grid:
    """Vary the sampling of `csi[subcarrier, time, antenna]` at random, as in files: fewer snapshots or subcarriers."""
    drawn = rng.random(2)
    # Impulse responses and sweeps are often one snapshot of one antenna.
    one = ONE_SNAPSHOT * (2 if csi.shape[2] == 1 else 1)
    if drawn[0] < one:
        csi = csi[:, :1]
    elif drawn[0] < one + FEW_SNAPSHOTS:
        csi = csi[:, : int(rng.integers(2, SNAPSHOTS))]
    if drawn[1] < WITHIN:
        return _within(csi, rng)
    if drawn[1] < WITHIN + FEWER:
        count = int(rng.integers(LEAST_SUBCARRIERS, len(csi)))
        start = int(rng.integers(len(csi) - count + 1))
        return csi[start : start + count]
    return csi


def _within(csi: Grid, rng: np.random.Generator) -> Grid:
    """Extend the sampled band beyond the signal: attenuates the edges of the signal and appends noise beyond them."""
    width = int(rng.integers(*ROLL_OFF))
    slope = np.ones(len(csi))
    decibels = -EDGE_DB * (0.5 + 0.5 * np.cos(np.pi * (np.arange(width) + 0.5) / width))
    slope[:width] = 10 ** (decibels / 20)
    slope *= slope[::-1]
    below, beyond = rng.integers(*BEYOND, 2)
    noise = rng.standard_normal((below + beyond, *csi.shape[1:], 2)) @ np.array([1, 1j])
    level = np.sqrt(0.5 * np.mean(np.abs(csi) ** 2)) * 10 ** (rng.uniform(-60, -20) / 20)
    shaped = csi * slope[:, None, None]
    return np.concatenate([level * noise[:below], shaped, level * noise[below:]]).astype(np.complex64)
