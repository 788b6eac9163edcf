"""The channel that experts take: a grid of coefficients with its sampling, checked at construction."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoml.errors import DataError
from mcp_experts.channels.noise import noise_per_cell
from mcp_experts.channels.window import LEAST_SUBCARRIERS, SNAPSHOTS, SUBCARRIERS, ChannelWindow, window_of

__all__ = ["SNAPSHOTS", "SUBCARRIERS", "Channel", "ChannelWindow", "from_paths", "from_taps"]

MOST = {"subcarrier": 4096, "time": 4096, "antenna": 64}
MOST_VALUES = 2**21
#: A tap of an impulse response counts as a path if its power exceeds this multiple of the noise power.
SIGNAL = 10.0


@dataclass(frozen=True, eq=False, kw_only=True)
class Channel:
    """Channel coefficients `csi[subcarrier, time, antenna]` (complex, linear) with the spacing of the axes.

    Subcarriers ascend in frequency, `subcarrier_spacing_hz` apart; snapshots are `snapshot_interval_s` apart. The
    shape is at least 32 × 1 × 1 and at most 4096 × 4096 × 64, with at most 2 097 152 values in total. Raises
    `DataError` for another shape, with the axis, for values that are not finite, and for a channel without power.
    """

    csi: NDArray[np.complex64]
    subcarrier_spacing_hz: float
    snapshot_interval_s: float

    def __post_init__(self) -> None:
        _check_positive("subcarrier_spacing_hz", self.subcarrier_spacing_hz, 1e3, 1e8, "Hz")
        _check_positive("snapshot_interval_s", self.snapshot_interval_s, 1e-7, 10.0, "s")
        object.__setattr__(self, "csi", _checked(self.csi))

    @property
    def bandwidth_hz(self) -> float:
        """Number of subcarriers times their spacing, in Hz."""
        return float(self.csi.shape[0] * self.subcarrier_spacing_hz)

    @property
    def duration_s(self) -> float:
        """Number of snapshots times their interval, in s."""
        return float(self.csi.shape[1] * self.snapshot_interval_s)

    @property
    def nbytes(self) -> int:
        """Memory of the coefficients, in bytes."""
        return int(self.csi.nbytes)

    def window(self) -> ChannelWindow:
        """Return the window that features are computed on. Its `warnings` list the omitted or changed samples."""
        return window_of(self.csi, self.subcarrier_spacing_hz, self.snapshot_interval_s)


def from_paths(
    gains: NDArray[Any],
    delays_s: NDArray[Any],
    *,
    bandwidth_hz: float,
    snapshot_interval_s: float,
    subcarriers: int = SUBCARRIERS,
) -> Channel:
    """The channel of paths `gains[path, time, antenna]` with delays `delays_s[path]`: H(f, t) = Σ a(t) exp(−2πi f τ).

    Frequencies f are relative to the lowest subcarrier. Raises `DataError` if delays differ by more than the inverse of
    the subcarrier spacing, since they would wrap around.
    """
    gains, delays = np.asarray(gains), np.asarray(delays_s, dtype=np.float64)
    if gains.ndim != 3 or delays.shape != gains.shape[:1]:
        raise DataError(
            f"gains of shape {gains.shape} with delays of shape {delays.shape}; expected gains[path, time, antenna] "
            "and delays_s[path]"
        )
    _check_positive("bandwidth_hz", bandwidth_hz, 1e5, 1e11, "Hz")
    spacing = bandwidth_hz / subcarriers
    if not np.isfinite(delays).all():
        raise DataError("delays_s holds NaN or infinity")
    spread = float(np.ptp(delays)) if delays.size else 0.0
    if spread * spacing > 1:
        raise DataError(
            f"delays span {spread:.3g} s, but {subcarriers} subcarriers over {bandwidth_hz:.3g} Hz resolve delays "
            f"unambiguously up to {1 / spacing:.3g} s only; use more subcarriers or a narrower band"
        )
    turn = np.exp(-2j * np.pi * spacing * np.multiply.outer(np.arange(subcarriers), delays))
    return Channel(
        csi=np.einsum("fp,pta->fta", turn, gains).astype(np.complex64),
        subcarrier_spacing_hz=spacing,
        snapshot_interval_s=snapshot_interval_s,
    )


def from_taps(
    taps: NDArray[Any],
    *,
    sample_rate_hz: float,
    snapshot_interval_s: float,
) -> Channel:
    """The channel of an impulse response `taps[tap, time, antenna]`, sampled at `sample_rate_hz`.

    `taps[tap]` and `taps[tap, time]` have one snapshot and one antenna. Taps that are zero throughout at both ends, and
    noise far before and after the paths, are cut; there are as many subcarriers as taps, and at least 64. Raises
    `DataError` for another shape, for real numbers, and for what `Channel` refuses.
    """
    taps = np.asarray(taps)
    if taps.ndim in (1, 2):
        taps = taps.reshape(*taps.shape, *(1,) * (3 - taps.ndim))
    if taps.ndim != 3 or taps.dtype.kind not in "fc":
        raise DataError(
            f"taps of shape {taps.shape} and type {taps.dtype}; expected complex numbers [tap, time, antenna]"
        )
    _refuse_infinite(taps, "taps", ("tap", "snapshot", "antenna"))
    if np.count_nonzero(np.abs(taps).max(axis=(1, 2), initial=0)) > 1:
        _refuse_real(taps, "taps")
    taps = _about_the_paths(taps)
    count = max(SUBCARRIERS, len(taps))
    spectrum = np.fft.fftshift(np.fft.fft(taps, n=count, axis=0), axes=0)
    return Channel(
        csi=spectrum.astype(np.complex64),
        subcarrier_spacing_hz=sample_rate_hz / count,
        snapshot_interval_s=snapshot_interval_s,
    )


def _about_the_paths(taps: NDArray[Any]) -> NDArray[Any]:
    """Cut taps that hold only noise far from the paths; keeps twice the extent of the paths, and at least 64 taps."""
    power = np.mean(np.abs(taps) ** 2, axis=(1, 2))
    present = np.flatnonzero(power > 1e-12 * power.max(initial=0))
    if not len(present):
        return taps
    taps, power = taps[present[0] : present[-1] + 1], power[present[0] : present[-1] + 1]
    if len(taps) <= SUBCARRIERS:
        return taps
    floor = float(noise_per_cell(power[None], taps.shape[1] * taps.shape[2])[0, 0])
    paths = np.flatnonzero(power > SIGNAL * floor)
    if not len(paths):
        return taps
    extent = int(paths[-1] - paths[0]) + 1
    kept = min(max(SUBCARRIERS, 2 * extent), len(taps))
    start = min(max(int(paths[0]) - kept // 4, 0), len(taps) - kept)
    return taps[start : start + kept]


def _check_positive(name: str, value: Any, low: float, high: float, unit: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(f"{name} is {value!r}; expected a finite number of {unit}")
    if not low <= value <= high:
        raise DataError(f"{name} is {value:g} {unit}; expected {low:g} to {high:g} {unit}")


def _checked(csi: Any) -> NDArray[np.complex64]:
    """The coefficients as complex64; a `DataError` if shape or values are not those of a channel."""
    array = np.asarray(csi)
    if array.ndim in (1, 2):
        array = array.reshape(*array.shape, *(1,) * (3 - array.ndim))
    if array.ndim != 3:
        raise DataError(f"csi of shape {array.shape}; expected [subcarrier, time, antenna]")
    if array.dtype.kind not in "fc":
        raise DataError(f"csi of type {array.dtype}; expected complex numbers")
    for axis, (name, most), least in zip(range(3), MOST.items(), (LEAST_SUBCARRIERS, 1, 1), strict=True):
        if not least <= array.shape[axis] <= most:
            raise DataError(
                f"csi has {array.shape[axis]} along {name} (shape {array.shape}, axes subcarrier, time, antenna); "
                f"expected {least} to {most}; in another order, name the axes: axes=time,subcarrier,antenna"
            )
    if array.size > MOST_VALUES:
        raise DataError(f"csi has {array.size} values; at most {MOST_VALUES} are accepted: take a part, or thin it out")
    _refuse_infinite(array, "csi", ("subcarrier", "snapshot", "antenna"))
    scale = float(np.abs(array).max())
    if not 1e-30 < scale < 1e30:
        raise DataError(
            f"csi has a largest magnitude of {scale:g}; a channel must have power, with a magnitude of 1e-30 to 1e30"
        )
    _refuse_real(array, "csi")
    return np.ascontiguousarray(array / scale, dtype=np.complex64)


def _refuse_infinite(array: NDArray[Any], name: str, axes: tuple[str, ...]) -> None:
    """Raise `DataError` for NaN and infinity, with their number and the position of the first."""
    wrong = np.argwhere(~np.isfinite(array))
    if len(wrong):
        where = ", ".join(f"{axis} {place}" for axis, place in zip(axes, wrong[0], strict=True))
        raise DataError(
            f"{len(wrong)} of {array.size} values of {name} are NaN or infinity (the first at {where}): leave out "
            "those snapshots and antennas, and set subcarriers without a measurement to zero, which are interpolated"
        )


def _refuse_real(array: NDArray[Any], name: str) -> None:
    """Raise `DataError` for real values, except values constant over the first axis: a channel of a single path."""
    if np.any(np.imag(array)) or np.ptp(np.real(array), axis=0).max() <= 1e-6 * np.abs(array).max():
        return
    kind = "real numbers of both signs" if np.real(array).min() < 0 else "magnitudes without phases"
    raise DataError(
        f"{name} holds {kind}; the experts need complex coefficients, amplitude and phase: export I and Q of the "
        f"channel estimate, as complex numbers or as {name}_real and {name}_imag"
    )
