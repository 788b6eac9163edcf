"""Analysis window of a channel: the occupied band on 64 subcarriers, and 14 snapshots. Features are computed on it.

Zero padding carries neither signal nor noise and is cut. Subcarriers without a measurement are interpolated.
Subcarriers outside the occupied band are cut. Each change is listed in the window's warnings.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mcp_experts.channels.alignment import steady

__all__ = ["LEAST_SUBCARRIERS", "SNAPSHOTS", "SUBCARRIERS", "ChannelWindow", "window_of"]

Grid = NDArray[np.complex64]
#: Size of the window, and smallest number of measured subcarriers that it is resampled from.
SUBCARRIERS, SNAPSHOTS = 64, 14
LEAST_SUBCARRIERS = 32
#: Least correlation of neighbouring snapshots after thinning; below it the grid would alias.
LEAST_CORRELATION = 0.5
#: Amplitude, relative to the largest, below which a sample counts as not measured.
ZERO = 1e-6
#: The occupied band ends at subcarriers with less than this share of the power inside it, if at least the second share
#: of all subcarriers lies beyond.
EDGE, LEAST_EDGE = 10**-1.5, 1 / 16
#: Largest share of energy at delays that alias on 64 subcarriers; above it only a part of the band is used.
MOST_ALIASED = 0.05
#: Subcarriers with less than this share of the power on both sides are a notch.
NOTCH = 0.05
#: Widest gap that is interpolated, as a share of all subcarriers.
WIDEST_GAP = 1 / 12


@dataclass(frozen=True, eq=False, kw_only=True)
class ChannelWindow:
    """64 × 14 × antennas samples of a channel, with the bandwidth and duration they span.

    `snapshots` is the number of distinct snapshots; the others are repetitions. `coherent` is False if the receiver
    changed the phases between snapshots: they were aligned and do not show how the channel changes over time. `padded`
    is True if most delays are exactly zero, so that the noise cannot be estimated.
    """

    csi: Grid
    bandwidth_hz: float
    duration_s: float
    warnings: tuple[str, ...] = field(default=())
    snapshots: int = SNAPSHOTS
    coherent: bool = True
    padded: bool = False

    @property
    def shows_time(self) -> bool:
        """True if the window shows how the channel changes over time."""
        return self.coherent and self.snapshots >= SNAPSHOTS


def window_of(csi: Grid, spacing_hz: float, interval_s: float) -> ChannelWindow:
    """Create the window of coefficients `csi[subcarrier, time, antenna]`."""
    notes: list[str] = []
    bandwidth = csi.shape[0] * spacing_hz
    grid, duration, snapshots = _in_time(csi, interval_s, notes)
    grid, padded = _without_padding(grid, notes)
    before = len(grid)
    grid = _filled(grid, notes)
    grid = _occupied(grid, notes)
    grid = _resolved(grid, notes)
    bandwidth *= len(grid) / before
    settled, kept = steady(_on_grid(grid)[None], snapshots)
    if not kept[0]:
        notes.append(
            "the phases between snapshots are the receiver's: they were aligned, and verdicts on time are null"
        )
    return ChannelWindow(
        csi=settled[0],
        bandwidth_hz=bandwidth,
        duration_s=duration,
        warnings=tuple(notes),
        snapshots=snapshots,
        coherent=bool(kept[0]),
        padded=padded,
    )


def _in_time(csi: Grid, interval_s: float, notes: list[str]) -> tuple[Grid, float, int]:
    """Select 14 snapshots as far apart as possible without aliasing; repeats them if the channel has fewer.

    Also returns the duration in s and the number of distinct snapshots.
    """
    count = csi.shape[1]
    if count < SNAPSHOTS:
        there_and_back = [*range(count), *range(count - 2, 0, -1)]
        few = "one snapshot" if count == 1 else f"{count} of {SNAPSHOTS} snapshots"
        notes.append(f"{few}: verdicts on Doppler shift and coherence time are null")
        return csi[:, np.resize(there_and_back, SNAPSHOTS)], SNAPSHOTS * interval_s, count
    step = _stride(csi)
    left = count - (step * (SNAPSHOTS - 1) + 1)
    if left >= step * SNAPSHOTS / 4:
        notes.append(f"{left} of {count} snapshots are outside the window that was analysed")
    if np.array_equal(csi, np.broadcast_to(csi[:, :1], csi.shape)):
        notes.append("all snapshots are equal: verdicts on Doppler shift and coherence time are null")
        return csi[:, :SNAPSHOTS], SNAPSHOTS * step * interval_s, 1
    return csi[:, : step * SNAPSHOTS : step][:, :SNAPSHOTS], SNAPSHOTS * step * interval_s, SNAPSHOTS


def _stride(csi: Grid) -> int:
    """Step between selected snapshots: the largest at which 14 fit, halved until neighbours are correlated.

    The correlation is relative to that of adjacent snapshots, so that noise does not reduce it.
    """
    moved = np.moveaxis(csi, 1, 0)
    stride = (len(moved) - 1) // (SNAPSHOTS - 1)

    def correlation(lag: int) -> float:
        # A common phase rotation due to a Doppler shift must not matter: sum before taking the modulus.
        return float(abs(np.vdot(moved[:-lag], moved[lag:])) / (len(moved) - lag))

    nearest = correlation(1)
    while stride > 1 and correlation(stride) < LEAST_CORRELATION * nearest:
        stride //= 2
    return max(stride, 1)


def _without_padding(grid: Grid, notes: list[str]) -> tuple[Grid, bool]:
    """Remove zero padding in the delay domain, which would otherwise count as delays without noise.

    Delays are cut if at least an eighth of them, in a row, are exactly zero. If fewer than 32 would remain, the grid is
    returned unchanged with True: its noise cannot be estimated.
    """
    taps = np.fft.ifft(grid, axis=0)
    size = np.abs(taps).max(axis=(1, 2))
    start, length = _longest(size < ZERO * size.max())
    if length < len(size) / 8:
        return grid, False
    if len(size) - length < LEAST_SUBCARRIERS:
        return grid, True
    notes.append(f"{length} of {len(size)} delays are zero, as from padding: cut")
    return np.fft.fft(np.roll(taps, -start - length, axis=0)[: len(size) - length], axis=0).astype(np.complex64), False


def _longest(marked: NDArray[np.bool_]) -> tuple[int, int]:
    """Start and length of the longest run of True in a periodic array.

    >>> _longest(np.array([1, 1, 0, 1, 0, 1], bool))
    (5, 3)
    """
    if marked.all():
        return 0, len(marked)
    first = int(np.argmin(marked))
    turned = np.roll(marked, -first)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], turned.astype(int), [0]])))
    if not len(edges):
        return 0, 0
    starts, lengths = edges[::2], edges[1::2] - edges[::2]
    best = int(np.argmax(lengths))
    return int((starts[best] + first) % len(marked)), int(lengths[best])


def _present(grid: Grid) -> NDArray[np.bool_]:
    """Return a mask of measured subcarriers: neither zero nor in a narrow notch far below both sides.

    A fade, at which two paths cancel, is also marked as a notch. Interpolation is accurate there, since the
    coefficients change linearly through zero.
    """
    power = np.mean(np.abs(grid) ** 2, axis=(1, 2))
    present = power > ZERO**2 * power.max()
    reach = max(4, len(grid) // 16)
    padded = np.pad(power, reach, mode="edge")
    sides = np.lib.stride_tricks.sliding_window_view(padded, reach).max(axis=1)
    level = np.minimum(sides[: len(power)], sides[reach + 1 :][: len(power)])
    notched = power < NOTCH * level
    return present & ~notched


def _filled(grid: Grid, notes: list[str]) -> Grid:
    """Remove zero subcarriers: cuts the edges and interpolates gaps. With wide gaps only the widest part is kept."""
    present = _present(grid)
    if present.all() or present.sum() < LEAST_SUBCARRIERS:
        return grid
    inner = np.flatnonzero(present)
    grid, present = grid[inner[0] : inner[-1] + 1], present[inner[0] : inner[-1] + 1]
    places = np.flatnonzero(present)
    wide = np.flatnonzero(np.diff(places) - 1 > max(2, WIDEST_GAP * len(grid)))
    if len(wide):
        bounds = [0, *(wide + 1), len(places)]
        parts = [places[low:high] for low, high in itertools.pairwise(bounds)]
        widest = max(parts, key=len)
        if len(widest) < LEAST_SUBCARRIERS:
            return grid
        notes.append(f"gaps in the band are wide: {len(widest)} of {len(places)} subcarriers were analysed")
        grid, present = grid[widest[0] : widest[-1] + 1], present[widest[0] : widest[-1] + 1]
        places = np.flatnonzero(present)
    missing = np.flatnonzero(~present)
    if not len(missing):
        return grid
    notes.append(f"{len(missing)} subcarriers without a signal were interpolated")
    # Without the common delay, neighbours differ little, and linear interpolation is accurate.
    near = present[1:] & present[:-1]
    turn = np.exp(-1j * np.angle(np.vdot(grid[:-1][near], grid[1:][near])) * np.arange(len(grid)))[:, None, None]
    level = grid * turn
    after = np.searchsorted(places, missing)
    low, high = places[after - 1], places[after]
    part = ((missing - low) / (high - low))[:, None, None]
    level[missing] = (1 - part) * level[low] + part * level[high]
    filled: Grid = (level * turn.conj()).astype(np.complex64)
    return filled


def _occupied(grid: Grid, notes: list[str]) -> Grid:
    """Cut the subcarriers outside the occupied band, whose power is far below the power inside it."""
    count = len(grid)
    width = max(count // 16, 2)
    power = np.mean(np.abs(grid) ** 2, axis=(1, 2))
    smooth = np.convolve(
        np.pad(power, (width // 2, width - 1 - width // 2), mode="edge"), np.ones(width) / width, "valid"
    )
    level = float(np.mean(np.sort(smooth)[-count // 4 :]))
    inside = np.flatnonzero(smooth > EDGE * level)
    low, high = int(inside[0]), int(inside[-1]) + 1
    # The moving mean widens the band by half of `width` at each edge.
    low = low + width // 2 if low >= LEAST_EDGE * count else 0
    high = high - width // 2 if count - high >= LEAST_EDGE * count else count
    if high - low < LEAST_SUBCARRIERS or (low, high) == (0, count):
        return grid
    notes.append(f"the signal occupies {high - low} of {count} subcarriers: the others were left out")
    return grid[low:high]


def _resolved(grid: Grid, notes: list[str]) -> Grid:
    """Halve the band, keeping its lower end, until its delays do not alias on 64 subcarriers."""
    part = grid
    while len(part) > SUBCARRIERS and _aliased(part) > MOST_ALIASED:
        part = part[: max(SUBCARRIERS, len(part) // 2)]
    if len(part) < len(grid):
        notes.append(f"{len(grid) - len(part)} of {len(grid)} subcarriers are outside the window that was analysed")
    return part


def _aliased(grid: Grid) -> float:
    """Share of the energy above the noise that lies outside the 64 consecutive delays with the most energy."""
    taps = np.fft.ifft(grid * np.hanning(len(grid) + 2)[1:-1, None, None], axis=0)
    profile = np.mean(np.abs(taps) ** 2, axis=(1, 2))
    floor = np.median(profile)
    profile = np.where(profile > 4 * floor, profile - floor, 0)
    total = np.concatenate([[0], np.cumsum(np.concatenate([profile, profile[: SUBCARRIERS - 1]]))])
    best = (total[SUBCARRIERS:] - total[:-SUBCARRIERS]).max()
    return float(1 - best / max(profile.sum(), 1e-30))


def _on_grid(grid: Grid) -> Grid:
    """Resample the band to 64 subcarriers by folding the delays to 64, or by appending delays that hold noise.

    Folding does not change the noise in each coefficient. With fewer than 64 subcarriers, the appended delays are
    complex conjugates of the second half of the delays, which holds mostly noise, so that the noise level is kept.
    """
    count = len(grid)
    if count == SUBCARRIERS:
        return grid
    if count % SUBCARRIERS == 0:
        return np.ascontiguousarray(grid[:: count // SUBCARRIERS])
    taps = np.fft.ifft(grid, axis=0)
    strongest = int(np.argmax(np.mean(np.abs(taps) ** 2, axis=(1, 2))))
    taps = np.roll(taps, count // 4 - strongest, axis=0)
    wanted = np.zeros((-(-count // SUBCARRIERS) * SUBCARRIERS, *grid.shape[1:]), taps.dtype)
    wanted[:count] = taps
    if count < SUBCARRIERS:
        source = np.arange(count // 2, count)
        wanted[count:] = taps[np.resize(source, SUBCARRIERS - count)].conj()
    folded = wanted.reshape(-1, SUBCARRIERS, *grid.shape[1:]).sum(axis=0)
    sampled: Grid = np.fft.fft(folded, axis=0).astype(np.complex64)
    return sampled
