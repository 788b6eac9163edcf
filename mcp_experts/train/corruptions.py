"""Corrupted channels that test the gate: client mistakes and broken receivers."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from mcp_experts.inference import features
from mcp_experts.inference.classical import estimate
from mcp_experts.train.dataset import Examples
from mcp_experts.train.truths import TRUTHS, Links, observe

__all__ = ["SPOILERS", "spoilt"]

Grid = NDArray[np.complex64]


def _noise(csi: Grid, rng: np.random.Generator) -> Grid:
    return (rng.standard_normal(csi.shape) + 1j * rng.standard_normal(csi.shape)).astype(np.complex64)


def _real(csi: Grid, rng: np.random.Generator) -> Grid:
    return np.abs(csi).astype(np.complex64)


def _shuffled(csi: Grid, rng: np.random.Generator) -> Grid:
    return csi[:, rng.permutation(csi.shape[1])]


def _transposed(csi: Grid, rng: np.random.Generator) -> Grid:
    """Swap the time and subcarrier axes without changing the shape, as a reader of the wrong order does."""
    return csi.transpose(0, 2, 1, 3).reshape(csi.shape)


def _constant(csi: Grid, rng: np.random.Generator) -> Grid:
    return np.ones_like(csi)


def _interfered(csi: Grid, rng: np.random.Generator) -> Grid:
    """A narrow interferer ten times as strong as the channel."""
    spoilt = csi.copy()
    place = rng.integers(csi.shape[1] - 4)
    power = np.sqrt(10 * csi.shape[1] / 4 * np.mean(np.abs(csi) ** 2))
    spoilt[:, place : place + 4] += power * _noise(csi[:, :4], rng)
    return spoilt


def _clipped(csi: Grid, rng: np.random.Generator) -> Grid:
    """Dead subcarriers: half the band is zero."""
    spoilt = csi.copy()
    spoilt[:, csi.shape[1] // 2 :] = 0
    return spoilt


SPOILERS: dict[str, Callable[[Grid, np.random.Generator], Grid]] = {
    "white noise": _noise,
    "phases dropped": _real,
    "subcarriers shuffled": _shuffled,
    "axes in the wrong order": _transposed,
    "constant": _constant,
    "narrow interferer": _interfered,
    "half the band missing": _clipped,
}


def spoilt(links: Iterable[Links], seed: int) -> dict[str, Examples]:
    """Return features of the same links under each corruption, by its name."""
    rng = np.random.default_rng([seed, 99])
    observed = [(observe(group, rng)[0], group.bandwidth_hz) for group in links]
    found = {}
    for name, spoil in SPOILERS.items():
        windows = [(spoil(csi, rng), bandwidth) for csi, bandwidth in observed]
        count = sum(len(csi) for csi, _ in windows)
        estimates = np.concatenate([estimate(*window) for window in windows])
        own = np.concatenate([features.extract(csi) for csi, _ in windows])
        found[name] = Examples(
            features=features.with_estimates(own, estimates),
            estimates=estimates,
            truths=np.full((count, len(TRUTHS)), np.nan),
            source=np.full(count, "spoilt", dtype="<U8"),
            group=np.arange(count),
        )
    return found
