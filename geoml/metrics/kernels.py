"""Compiled loops of the scores: terms of the CRPS of an ensemble, and power summed over rings of wavenumbers.

`ensemble_terms` sorts and then makes one pass over an ensemble: mean, variance and the two terms of the CRPS of every
cell.

Both sorts use the processor's vector instructions; which is faster depends on the number of members. Up to `NETWORK`
members the cells are sorted by a network of compare-and-exchange steps (Batcher 1968, "Sorting networks and their
applications", odd–even merge) that is the same for all cells: each step is a minimum and a maximum of two rows of
neighbouring cells, in the layout `(member, cell)` that models deliver. Its steps grow as M log² M; larger
ensembles are transposed block by block and sorted by numpy.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

__all__ = ["NETWORK", "ensemble_terms", "ring_power", "sorting_network"]

#: Members up to which the network is the faster sort: 4 times at 8, 1.4 times at 16, about even here.
NETWORK = 32
#: Cells sorted at a time: a block of 64 members fits in the second-level cache.
BLOCK = 512
#: Values made contiguous at a time, so that an ensemble in another layout is not copied in full.
VALUES_AT_A_TIME = 1 << 17


@lru_cache(maxsize=64)
def sorting_network(size: int) -> NDArray[np.int32]:
    """Pairs `(i, j)`, `i < j`, whose compare-and-exchange, one after the other, sorts `size` values.

    Batcher's odd–even merge sort for the next power of two, without the pairs that reach beyond `size`: these
    would only meet the infinities that pad the list.

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
def _sort(keys: Any, network: Any) -> None:  # pragma: no cover - compiled
    for k in range(network.shape[0]):
        a, b = keys[network[k, 0]], keys[network[k, 1]]
        for c in range(a.shape[0]):
            x, y = a[c], b[c]
            a[c] = min(x, y)
            b[c] = max(x, y)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _flip(key: Any, sign: Any, ones: Any) -> Any:  # pragma: no cover - compiled
    # The bits of a float in an order that integers share; its own inverse. Compilers turn integer minima into vector
    # instructions, but not those of floats, which would have to mind NaN.
    return key ^ ((key >> sign) & ones)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _terms(
    members: Any, bits: Any, truth: Any, network: Any, sign: Any, ones: Any, out: Any
) -> None:  # pragma: no cover
    count, cells = members.shape
    keys = np.empty((count, BLOCK), bits.dtype)
    values = keys.view(members.dtype)
    mean, square, error, gaps = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    for start in range(0, cells, BLOCK):
        width = min(BLOCK, cells - start)
        observed = truth[start : start + width]
        mean[:], square[:], error[:], gaps[:] = 0.0, 0.0, 0.0, 0.0
        for m in range(count):
            row, key, member = bits[m, start : start + width], keys[m], members[m, start : start + width]
            # Few arrays a loop: with more, the compiler gives up proving that they do not overlap.
            for c in range(width):
                key[c] = _flip(row[c], sign, ones)
            for c in range(width):
                mean[c] += member[c]
            for c in range(width):
                error[c] += abs(member[c] - observed[c])
        for c in range(width):
            mean[c] /= count
        _sort(keys, network)  # whole rows, so that they are contiguous to the compiler
        for m in range(count):
            key, value = keys[m], values[m]
            for c in range(width):
                key[c] = _flip(key[c], sign, ones)
            for c in range(width):
                deviation = value[c] - mean[c]
                square[c] += deviation * deviation
        # A gap between neighbours in order is counted once for every pair of members it lies between.
        for m in range(count - 1):
            pairs = np.float64((m + 1) * (count - 1 - m))
            low, high = values[m], values[m + 1]
            for c in range(width):
                gaps[c] += pairs * (np.float64(high[c]) - np.float64(low[c]))
        for c in range(width):
            out[0, start + c] = mean[c]
            out[1, start + c] = square[c] / max(count - 1, 1)
            out[2, start + c] = error[c] / count
            out[3, start + c] = gaps[c] * (2.0 / (np.float64(count) * count))


@numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _sorted_terms(values: Any, truth: Any, out: Any) -> None:  # pragma: no cover - compiled
    cells, count = values.shape
    for c in range(cells):
        row, observed = values[c], truth[c]
        total, error, gaps, square = 0.0, 0.0, 0.0, 0.0
        for m in range(count):
            value = np.float64(row[m])
            total += value
            error += abs(value - observed)
            gaps += (2 * m + 1 - count) * value  # rank by rank, the sum of |xᵢ − xⱼ| over pairs
        mean = total / count
        for m in range(count):
            deviation = np.float64(row[m]) - mean
            square += deviation * deviation
        out[0, c] = mean
        out[1, c] = square / max(count - 1, 1)
        out[2, c] = error / count
        out[3, c] = gaps * (2.0 / (np.float64(count) * count))


def ensemble_terms(members: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.float64]:
    """Mean, variance, mean absolute error and mean absolute difference of an ensemble, `(4, cell)`.

    `members` is `(member, cell)`, `truth` is `(cell,)`, both finite. The variance has the divisor M − 1 (0 for one
    member). The mean absolute difference is over all M² ordered pairs, `Σᵢⱼ |xᵢ − xⱼ| / M²`.

    >>> ensemble_terms(np.array([[0.0], [3.0]]), np.array([1.0])).ravel().tolist()
    [1.5, 4.5, 1.5, 1.5]
    """
    dtype, integer = (np.float32, np.int32) if members.dtype == np.float32 else (np.float64, np.int64)
    count, cells = members.shape
    out = np.empty((4, cells), np.float64)
    truth = np.ascontiguousarray(truth, np.float64)
    if count > NETWORK:
        block = np.empty((min(BLOCK, cells), count), dtype)
        for start in range(0, cells, BLOCK):
            part = block[: min(BLOCK, cells - start)]
            part[:] = members[:, start : start + BLOCK].T
            part.sort(axis=1)
            _sorted_terms(part, truth[start : start + BLOCK], out[:, start : start + BLOCK])
        return out
    network, limits = sorting_network(count), np.iinfo(integer)
    step = max(BLOCK, VALUES_AT_A_TIME // count // BLOCK * BLOCK)
    for start in range(0, cells, step):
        values = np.ascontiguousarray(members[:, start : start + step], dtype)
        part = truth[start : start + step]
        _terms(
            values,
            values.view(integer),
            part,
            network,
            integer(limits.bits - 1),
            integer(limits.max),
            out[:, start : start + step],
        )
    return out


@numba.njit(nogil=True, cache=True, error_model="numpy")
def ring_power(transform: Any, ring: Any, share: Any, count: int) -> Any:  # pragma: no cover - compiled
    """Power `(row, count)` of complex coefficients `(row, coefficient)`, weighted by `share` and summed by `ring`."""
    rows, size = transform.shape
    out = np.empty((rows, count))
    # neighbouring coefficients often lie on one ring: four sums side by side do not wait for each other
    sums = np.empty((4, count))
    for row in range(rows):
        sums[:] = 0
        for i in range(0, size - 3, 4):
            for lane in range(4):
                value = transform[row, i + lane]
                power = value.real * value.real + value.imag * value.imag
                sums[lane, ring[i + lane]] += share[i + lane] * power
        for i in range(size - size % 4, size):
            value = transform[row, i]
            sums[0, ring[i]] += share[i] * (value.real * value.real + value.imag * value.imag)
        for k in range(count):
            out[row, k] = sums[0, k] + sums[1, k] + sums[2, k] + sums[3, k]
    return out
