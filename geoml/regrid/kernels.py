"""Compiled loops that apply a band matrix along one axis; imported on the first call only (numba is slow to load)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

__all__ = ["apply_inner", "apply_last", "split_gaps"]

# Sums may be reordered and fused; NaN and infinities keep their meaning.
FAST = {"reassoc", "contract", "nsz"}


def _compiled(function: Callable[..., Any]) -> Any:
    """Compiled on first use without the GIL, and kept on disk where there is a place for it."""
    options: dict[str, Any] = {"nogil": True, "fastmath": FAST}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no folder to cache in (read-only installation without a home)
        return numba.njit(**options)(function)


@_compiled
def apply_inner(x: Any, index: Any, weight: Any, out: Any) -> None:
    """`out[o, t, i] = sum_k weight[t, k] * x[o, index[t, k], i]`, rows of `i` contiguous."""
    outer, _, inner = x.shape
    for o in range(outer):
        for t in range(index.shape[0]):
            row, share, taken = out[o, t], weight[t, 0], x[o, index[t, 0]]
            for i in range(inner):
                row[i] = share * taken[i]
            for k in range(1, index.shape[1]):
                share = weight[t, k]
                if share != 0:
                    taken = x[o, index[t, k]]
                    for i in range(inner):
                        row[i] += share * taken[i]


@_compiled
def apply_last(x: Any, index: Any, weight: Any, out: Any) -> None:
    """`out[r, t] = sum_k weight[t, k] * x[r, index[t, k]]`; four rows share each load of an index."""
    rows = x.shape[0]
    zero = x.dtype.type(0)
    whole = rows - rows % 4
    for r in range(0, whole, 4):
        for t in range(index.shape[0]):
            a, b, c, d = zero, zero, zero, zero
            for k in range(index.shape[1]):
                j, share = index[t, k], weight[t, k]
                a += share * x[r, j]
                b += share * x[r + 1, j]
                c += share * x[r + 2, j]
                d += share * x[r + 3, j]
            out[r, t], out[r + 1, t], out[r + 2, t], out[r + 3, t] = a, b, c, d
    for r in range(whole, rows):
        for t in range(index.shape[0]):
            a = zero
            for k in range(index.shape[1]):
                a += weight[t, k] * x[r, index[t, k]]
            out[r, t] = a


@_compiled
def split_gaps(x: Any, values: Any, valid: Any) -> None:
    """Flat `x` with NaN replaced by 0 in `values`, and 1 where there was a number, else 0, in `valid`."""
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for i in range(x.size):
        there = not np.isnan(x[i])
        values[i] = x[i] if there else zero
        valid[i] = one if there else zero
