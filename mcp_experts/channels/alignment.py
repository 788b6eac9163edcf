"""Alignment of snapshots whose common delay, phase or gain the receiver changed between them.

Receivers that synchronise to every packet, and sweeps without a common clock, measure each snapshot with its own timing
and phase, and often its own gain. Such snapshots show the shape of the channel but not how it turns over time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcp_experts.channels.noise import noise_share

__all__ = ["align", "coherent", "level", "steady"]

#: Neighbouring snapshots, each turned and delayed to fit best, are this much alike, and at most this share of that as
#: they are: then the receiver moved them. Chosen on tapped delay lines (docs/experts-training.md).
LEAST_ALIKE, MOST_AS_THEY_ARE = 0.7, 0.65
#: Snapshots have one shape above this likeness to their mean, so that a change of power is one of gain. They have a
#: shape where the power over the band deviates by this share of its mean.
ONE_SHAPE, SHAPED = 0.97, 0.3
#: A gain changes where the amplitude is this much rougher over time than the phase, and not by its noise alone.
ROUGHER, LEAST_ROUGH = 2.0, 0.05
#: How many times finer than its cells a delay is looked for.
FINER = 8


def steady(csi: NDArray[np.complex64], independent: int) -> tuple[NDArray[np.complex64], NDArray[np.bool_]]:
    """Windows `csi[n, subcarrier, time, antenna]` without what the receiver changed, and which were coherent as they
    came; `independent` is the number of snapshots that are no repetitions.
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
    """Whether the phases between snapshots of windows `csi[n, subcarrier, time, antenna]` are those of the channel.

    `share` is the noise power over all power, `(n,)`. Compares neighbouring snapshots as they are with the same
    after the best delay and phase between them. Where the channel itself changes from one to the next, neither fits,
    and the snapshots count as coherent. One snapshot does.
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
    """Snapshots of windows `csi[n, subcarrier, time, antenna]`, delayed and turned to fit their mean best."""
    reference = csi[:, :, :1]
    for _ in range(2):
        csi = _fitted(csi, reference)
        reference = csi.mean(axis=2, keepdims=True)
    return csi.astype(np.complex64)


def level(
    csi: NDArray[np.complex64], kept: NDArray[np.bool_], share: NDArray[Any] | float = 0.0
) -> NDArray[np.complex64]:
    """Snapshots of one power each, of windows in which the receiver's gain changed it.

    Fading changes amplitude and phase alike. So in coherent windows (`kept`) a gain is what makes the amplitude rougher
    over time than the phase. In others it is what changes the power of a frequency-selective channel but not its shape.
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
    """Whether all snapshots of a frequency-selective channel have the shape of their mean."""
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
