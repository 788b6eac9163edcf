"""Removal of changes in delay, phase and gain that the receiver makes between snapshots.

Receivers that synchronise to every packet, and sweeps without a common clock, measure each snapshot with a new timing
and phase, and often a new gain. Such snapshots show the delay profile, but not the Doppler shift or coherence time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcp_experts.channels.noise import noise_share

__all__ = ["align", "coherent", "level", "steady"]

#: Snapshots are aligned if the correlation of neighbours exceeds the first value after the best delay and phase, and
#: without them is below the second value times that. Chosen on tapped delay lines (docs/experts-training.md).
LEAST_ALIKE, MOST_AS_THEY_ARE = 0.7, 0.65
#: Smallest mean correlation of snapshots with their average at which power changes are attributed to the gain, and
#: smallest standard deviation of power over the band, relative to its mean, for a frequency-selective channel.
ONE_SHAPE, SHAPED = 0.97, 0.3
#: A coherent window has gain steps if the amplitude is this many times rougher over time than the phase, and its
#: roughness (RMS second difference of the log amplitude) exceeds the second value.
ROUGHER, LEAST_ROUGH = 2.0, 0.05
#: Oversampling of the delay grid in the search for the best delay.
FINER = 8


def steady(csi: NDArray[np.complex64], independent: int) -> tuple[NDArray[np.complex64], NDArray[np.bool_]]:
    """Remove the receiver's changes of delay, phase and gain from windows `csi[n, subcarrier, time, antenna]`.

    `independent` is the number of distinct snapshots in each window. Also returns a mask `(n,)` of the windows that
    were phase-coherent before the correction.
    """
    if independent < 2:
        return csi, np.ones(len(csi), bool)
    share = noise_share(csi, independent)
    kept = coherent(csi, share)
    moved = ~kept
    if moved.any():
        csi = csi.copy()
        csi[moved] = align(csi[moved])
    return level(csi, kept, share), kept


def coherent(csi: NDArray[np.complex64], share: NDArray[Any]) -> NDArray[np.bool_]:
    """Return a mask `(n,)` of phase-coherent windows, given `csi[n, subcarrier, time, antenna]`.

    In a coherent window, phase changes between snapshots come from the channel, not from the receiver. `share` is the
    noise power over the total power, `(n,)`. The test compares the correlation of neighbouring snapshots before and
    after the best delay and phase are applied. If the channel itself changes between snapshots, both are small, and
    the window counts as coherent. A single snapshot also counts as coherent.
    """
    if csi.shape[2] < 2:
        return np.ones(len(csi), bool)
    products = np.sum(csi[:, :, 1:] * csi[:, :, :-1].conj(), axis=3)
    signal = np.maximum(np.sum(np.abs(csi) ** 2, axis=(1, 2, 3)) * (1 - share), 1e-20)
    signal = signal * (csi.shape[2] - 1) / csi.shape[2]
    alone = np.abs(np.fft.ifft(products, n=FINER * csi.shape[1], axis=1)).max(axis=1) * FINER * csi.shape[1]
    together = np.abs(products.sum(axis=(1, 2)))
    alike, as_they_are = alone.sum(axis=1) / signal, together / signal
    moved: NDArray[np.bool_] = (alike > LEAST_ALIKE) & (as_they_are < MOST_AS_THEY_ARE * np.minimum(alike, 1.0))
    return ~moved


def align(csi: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """Shift delay and phase of each snapshot to match the mean of its window `csi[n, subcarrier, time, antenna]`."""
    reference = csi[:, :, :1]
    for _ in range(2):
        csi = _fitted(csi, reference)
        reference = csi.mean(axis=2, keepdims=True)
    return csi.astype(np.complex64)


def level(
    csi: NDArray[np.complex64], kept: NDArray[np.bool_], share: NDArray[Any] | float = 0.0
) -> NDArray[np.complex64]:
    """Scale all snapshots of a window to equal power if the receiver's gain changed between them.

    Fading changes amplitude and phase together. In coherent windows (`kept`), gain steps are therefore detected by an
    amplitude that is rougher over time than the phase. In other windows they are detected by power that changes while
    the frequency response of a frequency-selective channel keeps its shape.
    """
    energy = np.sum(np.abs(csi) ** 2, axis=(1, 3))
    product = np.sum(csi[:, :, 1:] * csi[:, :, :-1].conj(), axis=(1, 3))
    bends = np.angle(product[:, 1:] * product[:, :-1].conj())
    rough = np.sqrt(np.mean(np.diff(0.5 * np.log(np.maximum(energy, 1e-30)), n=2, axis=1) ** 2, axis=1))
    stepped = rough > np.maximum(ROUGHER * np.sqrt(np.mean(bends**2, axis=1)), LEAST_ROUGH)
    changed = np.where(kept, stepped, _same_shape(csi, share))
    gain = np.sqrt(energy / np.maximum(energy.mean(axis=1, keepdims=True), 1e-30))
    gain = np.where(changed[:, None], np.maximum(gain, 1e-6), 1)
    return (csi / gain[:, None, :, None]).astype(np.complex64)


def _same_shape(csi: NDArray[np.complex64], share: NDArray[Any] | float) -> NDArray[np.bool_]:
    """Return a mask `(n,)` of frequency-selective windows whose snapshots are all proportional to their mean."""
    mean = csi.mean(axis=2, keepdims=True)
    product = np.abs(np.sum(csi * mean.conj(), axis=(1, 3)))
    size = np.sum(np.abs(mean) ** 2, axis=(1, 3)) * np.sum(np.abs(csi) ** 2, axis=(1, 3))
    alike = np.mean(product / np.sqrt(np.maximum(size, 1e-30)), axis=1) / np.sqrt(np.maximum(1 - share, 1e-6))
    over_band = np.mean(np.abs(mean[:, :, 0]) ** 2, axis=2)
    same: NDArray[np.bool_] = (alike > ONE_SHAPE) & (over_band.std(axis=1) > SHAPED * over_band.mean(axis=1))
    return same


def _fitted(csi: NDArray[Any], reference: NDArray[Any]) -> NDArray[Any]:
    band, size = csi.shape[1], FINER * csi.shape[1]
    response = np.fft.ifft(np.sum(csi * reference.conj(), axis=3), n=size, axis=1)
    place = np.argmax(np.abs(response), axis=1)[:, None]
    delay = np.where(place > size // 2, place - size, place) / FINER
    turn = np.exp(2j * np.pi * delay * np.arange(band)[None, :, None] / band)
    phase = np.take_along_axis(response, place, axis=1)
    phase = phase.conj() / np.maximum(np.abs(phase), 1e-30)
    return csi * (turn * phase)[..., None]
