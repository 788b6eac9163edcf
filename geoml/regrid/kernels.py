"""Compiled loops that apply a band matrix along one axis; imported on the first call only (numba is slow to load)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

__all__ = ["apply_inner", "apply_last", "divide_by_share", "split_gaps"]

# Sums may be reordered and fused; NaN and infinities keep their meaning.
FAST = {"reassoc", "contract", "nsz"}


def _compiled(function: Callable[..., Any]) -> Any:
    """Compile on first use without the GIL; the result is cached on disk if a folder is writable."""
    options: dict[str, Any] = {"nogil": True, "fastmath": FAST}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no folder to cache in (read-only installation without a home)
        return numba.njit(**options)(function)


@_compiled
def apply_inner(x: Any, index: Any, weight: Any, out: Any) -> None:
    """`out[o, t, i] = sum_k weight[t, k] * x[o, index[t, k], i]`, rows of `i` contiguous."""
    outer, _, inner = x.shape
    entries = index.shape[1]
    for o in range(outer):
        for t in range(index.shape[0]):
            row, p, a = out[o, t], weight[t, 0], x[o, index[t, 0]]
            if entries == 1:
                for i in range(inner):
                    row[i] = p * a[i]
                continue
            q, b = weight[t, 1], x[o, index[t, 1]]
            for i in range(inner):
                row[i] = p * a[i] + q * b[i]
            for k in range(2, entries):
                p = weight[t, k]
                if p != 0:
                    a = x[o, index[t, k]]
                    for i in range(inner):
                        row[i] += p * a[i]


@_compiled
def apply_last(x: Any, index: Any, weight: Any, out: Any) -> None:
    """`out[r, t] = sum_k weight[t, k] * x[r, index[t, k]]`; four rows share each load of an index and a weight."""
    targets, entries = index.shape
    rows = x.shape[0]
    whole = rows - rows % 4
    for r in range(0, whole, 4):
        x0, x1, x2, x3 = x[r], x[r + 1], x[r + 2], x[r + 3]
        y0, y1, y2, y3 = out[r], out[r + 1], out[r + 2], out[r + 3]
        if entries == 2:  # interpolation: an unrolled sum is a third faster
            for t in range(targets):
                i, j, p, q = index[t, 0], index[t, 1], weight[t, 0], weight[t, 1]
                y0[t] = p * x0[i] + q * x0[j]
                y1[t] = p * x1[i] + q * x1[j]
                y2[t] = p * x2[i] + q * x2[j]
                y3[t] = p * x3[i] + q * x3[j]
            continue
        for t in range(targets):
            i, p = index[t, 0], weight[t, 0]
            a, b, c, d = p * x0[i], p * x1[i], p * x2[i], p * x3[i]
            for k in range(1, entries):
                i, p = index[t, k], weight[t, k]
                a += p * x0[i]
                b += p * x1[i]
                c += p * x2[i]
                d += p * x3[i]
            y0[t], y1[t], y2[t], y3[t] = a, b, c, d
    for r in range(whole, rows):
        for t in range(targets):
            a = weight[t, 0] * x[r, index[t, 0]]
            for k in range(1, entries):
                a += weight[t, k] * x[r, index[t, k]]
            out[r, t] = a


@_compiled
def split_gaps(x: Any, values: Any, valid: Any) -> bool:
    """Copy flat `x` to `values` with NaN replaced by 0, set `valid` to 1 for numbers, else 0; True if any is NaN."""
    zero, one = x.dtype.type(0), x.dtype.type(1)
    total = 0
    for i in range(x.size):
        there = not np.isnan(x[i])
        values[i] = x[i] if there else zero
        valid[i] = one if there else zero
        total += there
    return total < x.size


@_compiled
def divide_by_share(values: Any, share: Any, threshold: float) -> None:
    """Divide flat `values` by `share` in place; NaN where the share is below the threshold."""
    for i in range(values.size):
        values[i] = values[i] / share[i] if share[i] >= threshold else np.nan
