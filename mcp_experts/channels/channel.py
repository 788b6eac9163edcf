"""The channel that experts take: a grid of coefficients with its sampling, checked at construction."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoml.errors import DataError

__all__ = ["SNAPSHOTS", "SUBCARRIERS", "Channel", "ChannelWindow", "from_paths", "from_taps"]

#: The grid that features are computed on.
SUBCARRIERS, SNAPSHOTS = 64, 14
MOST = {"subcarrier": 4096, "time": 4096, "antenna": 64}
MOST_VALUES = 2**21
#: Least correlation of neighbouring samples after thinning; below it the grid would alias.
LEAST_CORRELATION = 0.5


@dataclass(frozen=True, eq=False, kw_only=True)
class Channel:
    """Channel coefficients `csi[subcarrier, time, antenna]` (complex, linear) with the spacing of the axes.

    Subcarriers ascend in frequency, `subcarrier_spacing_hz` apart; snapshots are `snapshot_interval_s` apart. The
    shape is at least 64 × 14 × 1 and at most 4096 × 4096 × 64, with at most 2 097 152 values in total. Raises
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
        """The 64 × 14 samples that features are computed on, as far apart on the grid as possible without aliasing."""
        band, time = (_stride(self.csi, axis, count) for axis, count in ((0, SUBCARRIERS), (1, SNAPSHOTS)))
        warnings = []
        for name, step, axis, count in (("subcarriers", band, 0, SUBCARRIERS), ("snapshots", time, 1, SNAPSHOTS)):
            left = self.csi.shape[axis] - (step * (count - 1) + 1)
            if left >= step * count / 4:
                warnings.append(f"{left} of {self.csi.shape[axis]} {name} are outside the window that was analysed")
        if np.array_equal(self.csi, np.broadcast_to(self.csi[:, :1], self.csi.shape)):
            warnings.append("all snapshots are equal: verdicts on Doppler shift and coherence time mean nothing")
        return ChannelWindow(
            csi=self.csi[: band * SUBCARRIERS : band][:SUBCARRIERS, : time * SNAPSHOTS : time],
            bandwidth_hz=SUBCARRIERS * band * self.subcarrier_spacing_hz,
            duration_s=SNAPSHOTS * time * self.snapshot_interval_s,
            warnings=tuple(warnings),
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class ChannelWindow:
    """64 × 14 × antennas samples of a channel, with the bandwidth and duration they span."""

    csi: NDArray[np.complex64]
    bandwidth_hz: float
    duration_s: float
    warnings: tuple[str, ...] = field(default=())


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

    The number of subcarriers is that of the taps, rounded up to a power of two, at least 64. Raises `DataError` for
    another shape, for real numbers, and for what `Channel` refuses.
    """
    taps = np.asarray(taps)
    if taps.ndim != 3 or taps.dtype.kind not in "fc":
        raise DataError(
            f"taps of shape {taps.shape} and type {taps.dtype}; expected complex numbers [tap, time, antenna]"
        )
    count = max(SUBCARRIERS, 1 << (taps.shape[0] - 1).bit_length())
    spectrum = np.fft.fftshift(np.fft.fft(taps, n=count, axis=0), axes=0)
    return Channel(
        csi=spectrum.astype(np.complex64),
        subcarrier_spacing_hz=sample_rate_hz / count,
        snapshot_interval_s=snapshot_interval_s,
    )


def _check_positive(name: str, value: Any, low: float, high: float, unit: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(f"{name} is {value!r}; expected a finite number of {unit}")
    if not low <= value <= high:
        raise DataError(f"{name} is {value:g} {unit}; expected {low:g} to {high:g} {unit}")


def _checked(csi: Any) -> NDArray[np.complex64]:
    """The coefficients as complex64; a `DataError` if shape or values are not those of a channel."""
    array = np.asarray(csi)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3:
        raise DataError(f"csi of shape {array.shape}; expected [subcarrier, time, antenna]")
    if array.dtype.kind not in "fc":
        raise DataError(f"csi of type {array.dtype}; expected complex numbers")
    for axis, (name, most), least in zip(range(3), MOST.items(), (SUBCARRIERS, SNAPSHOTS, 1), strict=True):
        if not least <= array.shape[axis] <= most:
            raise DataError(
                f"csi has {array.shape[axis]} along {name} (shape {array.shape}, axes subcarrier, time, antenna); "
                f"expected {least} to {most}"
            )
    if array.size > MOST_VALUES:
        raise DataError(f"csi has {array.size} values; at most {MOST_VALUES} are accepted: take a part, or thin it out")
    if not np.isfinite(array).all():
        raise DataError("csi holds NaN or infinity; every coefficient must be finite")
    scale = float(np.abs(array).max())
    if not 1e-30 < scale < 1e30:
        raise DataError(f"csi has a largest magnitude of {scale:g}; a channel must have power")
    return np.ascontiguousarray(array / scale, dtype=np.complex64)


def _stride(csi: NDArray[np.complex64], axis: int, count: int) -> int:
    """The largest step at which `count` samples fit along `axis` and neighbours stay correlated.

    Correlation is relative to that of neighbours in the full grid, so that noise does not reduce it.
    """
    stride = (csi.shape[axis] - 1) // (count - 1)
    moved = np.moveaxis(csi, axis, 0)

    def correlation(lag: int) -> float:
        # A common phase rotation due to delay or Doppler shift must not matter: sum before taking the modulus.
        return float(abs(np.vdot(moved[:-lag], moved[lag:])) / (len(moved) - lag))

    nearest = correlation(1)
    while stride > 1 and correlation(stride) < LEAST_CORRELATION * nearest:
        stride //= 2
    return max(stride, 1)
