"""Compiled loops of the scores: terms of the CRPS of an ensemble, and power summed over rings of wavenumbers.

`ensemble_terms` computes mean, variance and the two terms of the CRPS of every cell, `crps_terms` only the two terms.

Two sorts of members use the processor's vector instructions; which is faster depends on their number. Up to `NETWORK`
members the cells are sorted by a network of compare-and-exchange steps (Batcher 1968, "Sorting networks and their
applications", odd–even merge) that is the same for all cells: each step is a minimum and a maximum of two rows of
neighbouring cells; rows are short enough for all of them to fit in the first-level cache. The number of steps grows
as M log² M; larger ensembles are sorted by numpy, cell by cell.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "NETWORK",
    "SIDE_BY_SIDE",
    "crps_terms",
    "decibel_distance",
    "ensemble_terms",
    "ring_power",
    "sorting_network",
]

#: Largest number of members for the sorting network: it is twice as fast as numpy at 50, about equal at 64.
NETWORK = 56
#: Number of cells that the network sorts at a time: 50 rows of so many cells take 25 kB.
ROW = 128
#: Number of cells that numpy sorts at a time.
BLOCK = 512
#: Number of partial sums per ring: additions of neighbouring coefficients, often on one ring, run in parallel.
SIDE_BY_SIDE = 4
#: Number of values that are made contiguous at a time, so that an ensemble in another layout is not copied in full.
VALUES_AT_A_TIME = 1 << 17


@lru_cache(maxsize=64)
def sorting_network(size: int) -> NDArray[np.int32]:
    """Return pairs `(i, j)`, `i < j`, of the compare-and-exchange steps that sort `size` values.

    This is Batcher's odd–even merge sort for the next power of two, without the pairs that reach beyond `size`.

    >>> sorting_network(3).tolist()
    [[0, 1], [0, 2], [1, 2]]
    """
    pairs = []
    half = 1
    while half < size:
        step = half
        while step >= 1:
            for low in range(step % half, size - step, 2 * step):
                for i in range(low, min(low + step, size - step)):
                    if i // (2 * half) == (i + step) // (2 * half):
                        pairs.append((i, i + step))
            step //= 2
        half *= 2
    return np.array(pairs, dtype=np.int32).reshape(-1, 2)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _sort(rows: Any, width: Any, network: Any) -> None:  # pragma: no cover - compiled
    # Unsigned indices, and this form of minimum and maximum, become vector instructions.
    for k in range(network.shape[0]):
        i, j = np.uintp(network[k, 0]), np.uintp(network[k, 1])
        for c in range(width):
            x, y = rows[i, c], rows[j, c]
            rows[i, c] = x if x < y else y
            rows[j, c] = y if x < y else x


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _fill(values: Any, members_last: bool, start: Any, width: Any, rows: Any) -> None:  # pragma: no cover - compiled
    members = np.uintp(rows.shape[0])
    if members_last:
        for c in range(width):
            for m in range(members):
                rows[m, c] = values[start + c, m]
    else:
        for m in range(members):
            for c in range(width):
                rows[m, c] = values[m, start + c]


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _network_terms(
    values: Any, members_last: bool, truth: Any, network: Any, moments: bool, out: Any
) -> None:  # pragma: no cover - compiled
    count, cells = values.shape[::-1] if members_last else values.shape
    members, pairs = np.uintp(count), np.float64(count) * count
    rows = np.empty((count, ROW), values.dtype)
    mean, square, error, gaps = np.empty(ROW), np.empty(ROW), np.empty(ROW), np.empty(ROW)
    for begin in range(0, cells, ROW):
        start, width = np.uintp(begin), np.uintp(min(ROW, cells - begin))
        _fill(values, members_last, start, width, rows)
        mean[:], square[:], error[:], gaps[:] = 0.0, 0.0, 0.0, 0.0
        for m in range(members):
            for c in range(width):
                error[c] += abs(np.float64(rows[m, c]) - truth[start + c])
        if moments:
            for m in range(members):
                for c in range(width):
                    mean[c] += rows[m, c]
            for c in range(width):
                mean[c] /= count
            for m in range(members):
                for c in range(width):
                    deviation = np.float64(rows[m, c]) - mean[c]
                    square[c] += deviation * deviation
            for c in range(width):
                out[0, start + c] = mean[c]
                out[1, start + c] = square[c] / max(count - 1, 1)
        _sort(rows, width, network)
        # The m-th least and the m-th greatest have opposite weights in the sum of |xᵢ − xⱼ| over pairs.
        for m in range(members // np.uintp(2)):
            weight, n = np.float64(count - 1) - 2 * np.float64(m), members - np.uintp(1) - m
            for c in range(width):
                gaps[c] += weight * (np.float64(rows[n, c]) - np.float64(rows[m, c]))
        for c in range(width):
            out[-2, start + c] = error[c] / count
            out[-1, start + c] = gaps[c] * (2.0 / pairs)


@numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _sorted_terms(values: Any, truth: Any, moments: bool, out: Any) -> None:  # pragma: no cover - compiled
    cells, count = values.shape
    for c in range(cells):
        row, observed = values[c], truth[c]
        total, error, gaps, square = 0.0, 0.0, 0.0, 0.0
        for m in range(count):
            value = np.float64(row[m])
            total += value
            error += abs(value - observed)
            gaps += (2 * m + 1 - count) * value  # rank by rank, the sum of |xᵢ − xⱼ| over pairs
        out[-2, c] = error / count
        out[-1, c] = gaps * (2.0 / (np.float64(count) * count))
        if moments:
            mean = total / count
            for m in range(count):
                deviation = np.float64(row[m]) - mean
                square += deviation * deviation
            out[0, c] = mean
            out[1, c] = square / max(count - 1, 1)


def ensemble_terms(members: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.float64]:
    """Mean, variance, mean absolute error and mean absolute difference of an ensemble, `(4, cell)`.

    `members` is `(member, cell)`, `truth` is `(cell,)`, both finite. The variance has the divisor M − 1 (0 for one
    member). The mean absolute difference is over all M² ordered pairs, `Σᵢⱼ |xᵢ − xⱼ| / M²`.

    >>> ensemble_terms(np.array([[0.0], [3.0]]), np.array([1.0])).ravel().tolist()
    [1.5, 4.5, 1.5, 1.5]
    """
    out = np.empty((4, members.shape[1]), np.float64)
    _terms(members, truth, out, moments=True)
    return out


def crps_terms(members: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.float64]:
    """Return the last two rows of `ensemble_terms`, `(2, cell)`, in less time.

    >>> crps_terms(np.array([[0.0], [3.0]]), np.array([1.0])).ravel().tolist()
    [1.5, 1.5]
    """
    out = np.empty((2, members.shape[1]), np.float64)
    _terms(members, truth, out, moments=False)
    return out


def _terms(members: NDArray[Any], truth: NDArray[Any], out: NDArray[np.float64], *, moments: bool) -> None:
    dtype = np.float32 if members.dtype == np.float32 else np.float64
    count, cells = members.shape
    truth = np.ascontiguousarray(truth, np.float64)
    if count > NETWORK:
        block = np.empty((min(BLOCK, cells), count), dtype)
        for start in range(0, cells, BLOCK):
            part = block[: min(BLOCK, cells - start)]
            part[:] = members[:, start : start + BLOCK].T
            part.sort(axis=1)
            _sorted_terms(part, truth[start : start + BLOCK], moments, out[:, start : start + BLOCK])
        return
    network, step = sorting_network(count), max(ROW, VALUES_AT_A_TIME // count // ROW * ROW)
    members_last = members.T.flags.c_contiguous and not members.flags.c_contiguous
    for start in range(0, cells, step):
        values = members[:, start : start + step]
        values = np.ascontiguousarray(values.T if members_last else values, dtype)
        here = slice(start, start + step)
        _network_terms(values, members_last, truth[here], network, moments, out[:, here])


@numba.njit(nogil=True, cache=True, error_model="numpy")
def ring_power(parts: Any, slots: Any, scale: Any, even: bool) -> Any:  # pragma: no cover - compiled
    """Power of real transforms `(row, y, x)`, summed over each ring and scaled: `(row, ring)`.

    `parts` has alternating real and imaginary parts, `(row, y, 2 x)`; `even` is True if the fields have an even width.
    `slots` are `SIDE_BY_SIDE` × ring + number of the partial sum, for the lines `0 … height // 2`; the other lines
    mirror these.
    """
    rows, height = parts.shape[:2]
    half, width = slots.shape
    count = scale.size
    out = np.empty((rows, count))
    power = np.empty(width)
    sums = np.empty(count * SIDE_BY_SIDE)
    columns = np.uintp(width)
    for row in range(rows):
        sums[:] = 0
        for y in range(half):
            mirror = np.uintp((height - y) % height)
            line = np.uintp(y)
            for x in range(columns):
                real, imaginary = parts[row, line, 2 * x], parts[row, line, 2 * x + 1]
                power[x] = real * real + imaginary * imaginary
            if mirror != line:
                for x in range(columns):
                    real, imaginary = parts[row, mirror, 2 * x], parts[row, mirror, 2 * x + 1]
                    power[x] += real * real + imaginary * imaginary
            power[0] *= 0.5  # all other columns stand for their mirror images, too
            if even:
                power[width - 1] *= 0.5
            for x in range(columns):
                sums[np.uintp(slots[line, x])] += power[x]
        for k in range(count):
            out[row, k] = sums[k * SIDE_BY_SIDE : (k + 1) * SIDE_BY_SIDE].sum() * scale[k]
    return out


@numba.njit(nogil=True, cache=True, error_model="numpy")
def decibel_distance(predicted: Any, observed: Any) -> Any:  # pragma: no cover - compiled
    """Root mean square over wavenumbers of the ratio of two powers in dB, `(row,)`; pairs of zeros are left out."""
    rows, size = predicted.shape
    out = np.empty(rows)
    for row in range(rows):
        total, some = 0.0, 0
        for k in range(size):
            p, o = predicted[row, k], observed[row, k]
            if p > 0 or o > 0:
                some += 1
                total += (10 * np.log10(p / o)) ** 2
        out[row] = np.sqrt(total / some)
    return out
