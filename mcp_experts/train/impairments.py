"""Receiver impairments of measured channels, with sizes from data sheets and papers. Training and benchmark use them.

Each impairment acts on windows `csi[n, subcarrier, time, antenna]` of unit mean power, before they are aligned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["IMPAIRMENTS", "Impairment", "impair"]

Grid = NDArray[np.complex64]
Reals = NDArray[np.float64]
#: Level of coloured noise below the signal in dB.
COLOURED_DB = 20.0


@dataclass(frozen=True)
class Impairment:
    """One impairment: its size in words, the source of this size, and the function that applies it."""

    size: str
    source: str
    apply: Callable[[Grid, np.random.Generator], Grid]


def _normal(rng: np.random.Generator, *shape: int) -> NDArray[np.complex128]:
    return np.sqrt(0.5) * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape))


def _timing(csi: Grid, rng: np.random.Generator) -> Grid:
    cells = rng.normal(0, 0.5, (len(csi), 1, csi.shape[2], 1))
    band = np.arange(csi.shape[1])[:, None, None] / csi.shape[1]
    return (csi * np.exp(-2j * np.pi * cells * band)).astype(np.complex64)


def _phase(csi: Grid, rng: np.random.Generator) -> Grid:
    return (csi * np.exp(2j * np.pi * rng.random((len(csi), 1, csi.shape[2], 1)))).astype(np.complex64)


def _gain(csi: Grid, rng: np.random.Generator) -> Grid:
    steps = np.round(rng.normal(0, 1.0, (len(csi), 1, csi.shape[2], 1)))
    return (csi * 10 ** (steps / 20)).astype(np.complex64)


def _drift(csi: Grid, rng: np.random.Generator) -> Grid:
    time = np.linspace(-0.5, 0.5, csi.shape[2])[:, None]
    turns = rng.normal(0, 0.1, (len(csi), 1, 1, 1)) * 4 * time**2
    return (csi * np.exp(2j * np.pi * turns)).astype(np.complex64)


def _image(csi: Grid, rng: np.random.Generator) -> Grid:
    """Add the I/Q image: the complex conjugate of the mirrored subcarrier, 28 dB down."""
    phase = np.exp(2j * np.pi * rng.random((len(csi), 1, 1, csi.shape[3])))
    return (csi + 10 ** (-28 / 20) * phase * csi[:, ::-1].conj()).astype(np.complex64)


def _edges(csi: Grid, rng: np.random.Generator) -> Grid:
    """Attenuate an eighth of the band at each edge by a raised cosine of up to 10 dB."""
    width = csi.shape[1] // 8
    slope = np.zeros(csi.shape[1])
    slope[:width] = 0.5 + 0.5 * np.cos(np.pi * (np.arange(width) + 0.5) / width)
    slope = slope + slope[::-1]
    decibels = -10 * rng.random((len(csi), 1)) * slope
    return (csi * 10 ** (decibels / 20)[:, :, None, None]).astype(np.complex64)


def _notch(csi: Grid, rng: np.random.Generator) -> Grid:
    """Attenuate the three subcarriers in the middle of the band by 20 dB."""
    middle = csi.shape[1] // 2
    notched = csi.copy()
    notched[:, middle - 1 : middle + 2] *= 0.1
    return notched


def _clipped(csi: Grid, rng: np.random.Generator) -> Grid:
    """Clip I and Q in the delay domain, as a sounder's converter does, at 3 dB below their largest amplitude."""
    taps = np.fft.ifft(csi, axis=1)
    most = 10 ** (-3 / 20) * np.maximum(np.abs(taps.real), np.abs(taps.imag)).max(axis=(1, 2, 3), keepdims=True)
    clipped = np.clip(taps.real, -most, most) + 1j * np.clip(taps.imag, -most, most)
    return np.fft.fft(clipped, axis=1).astype(np.complex64)


def _quantised(csi: Grid, rng: np.random.Generator) -> Grid:
    step = np.maximum(np.abs(csi.real), np.abs(csi.imag)).max(axis=(1, 2, 3), keepdims=True) / 31
    return ((np.round(csi.real / step) + 1j * np.round(csi.imag / step)) * step).astype(np.complex64)


def _coloured(csi: Grid, rng: np.random.Generator) -> Grid:
    """Add noise 20 dB below the signal, with a slope of 6 dB over the band."""
    tilt = np.linspace(-3, 3, csi.shape[1]) * rng.choice([-1, 1], (len(csi), 1))
    level = 10 ** ((tilt - COLOURED_DB) / 20)
    return (csi + level[:, :, None, None] * _normal(rng, *csi.shape)).astype(np.complex64)


def _interfered(csi: Grid, rng: np.random.Generator) -> Grid:
    """Add interference as strong as the channel in three subcarriers of three snapshots."""
    found = csi.copy()
    for one in found:
        place, time = rng.integers(csi.shape[1] - 3), rng.permutation(csi.shape[2])[:3]
        one[place : place + 3, time] += _normal(rng, 3, len(time), csi.shape[3])
    return found


def _imbalance(csi: Grid, rng: np.random.Generator) -> Grid:
    return (csi * 10 ** (rng.normal(0, 2.0, (len(csi), 1, 1, csi.shape[3])) / 20)).astype(np.complex64)


#: Impairments by name. Random sizes are standard deviations unless stated otherwise.
IMPAIRMENTS: dict[str, Impairment] = {
    "timing_jitter": Impairment("0.5 samples a snapshot", "packet detection of 802.11: Kotaru et al. 2015", _timing),
    "phase_jitter": Impairment("any phase a snapshot", "802.11 receivers: Zhuo et al. 2017", _phase),
    "gain_steps": Impairment("1 dB a snapshot, whole dB", "gain table of AD9361: 1 dB steps", _gain),
    "offset_drift": Impairment("0.1 turns, quadratic, at the ends", "TCXO after correction: AD9361 UG-570", _drift),
    "iq_image": Impairment("image 28 dB down", "uncalibrated zero-IF receivers: Razavi 1997", _image),
    "band_edges": Impairment("up to 10 dB down over 1/8 of the band", "half-band filters of USRP and AD9361", _edges),
    "notch": Impairment("3 subcarriers in the middle 20 dB down", "DC null of 802.11 and LTE", _notch),
    "clipping": Impairment("3 dB below the largest tap", "a gain set 3 dB too high: DW1000 user manual", _clipped),
    "quantisation": Impairment("6 bits of I and of Q", "Halperin et al. 2011: 8 bits, 2 lost to headroom", _quantised),
    "coloured_noise": Impairment("20 dB down, 6 dB over the band", "noise figure over the band of SDRs", _coloured),
    "interference": Impairment("3 subcarriers in 3 snapshots, 0 dB", "Bluetooth in 802.11, IEEE 802.15.2", _interfered),
    "antenna_imbalance": Impairment("2 dB an antenna", "uncalibrated receive chains: Xie et al. 2015", _imbalance),
}
#: Share of channels that each impairment acts on in training.
SHARE = 0.12
#: Impairments after which the SNR is undefined (NaN) if it was above this value in dB: their error is neither signal
#: nor noise.
UNKNOWN_ERROR, UNKNOWN_ERROR_DB = ("iq_image", "clipping", "quantisation", "interference"), 10.0


def impair(csi: Grid, rng: np.random.Generator, snr_db: Reals) -> tuple[Grid, Reals]:
    """Apply random impairments to windows; also returns their SNR in dB, NaN if it is undefined.

    Each impairment acts on a share `SHARE` of the windows: about a fifth have none, and many have several.
    """
    found, known = csi.copy(), snr_db.copy()
    for name, impairment in IMPAIRMENTS.items():
        chosen = rng.random(len(csi)) < SHARE
        if not chosen.any():
            continue
        found[chosen] = impairment.apply(found[chosen], rng)
        if name == "coloured_noise":
            known[chosen] = -10 * np.log10(10 ** (-snr_db[chosen] / 10) + 10 ** (-COLOURED_DB / 10))
        elif name in UNKNOWN_ERROR:
            known[chosen & (snr_db > UNKNOWN_ERROR_DB)] = np.nan
    return found, known
