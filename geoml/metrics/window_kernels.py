"""Compiled passes over square windows: counts of events by integral images (Crow 1984, "Summed-area tables")."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from geoml.metrics.base import reached

__all__ = ["event_integrals", "fraction_sums"]


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _integrate(values: Any, counts: Any, threshold: Any, out: Any) -> None:  # pragma: no cover - compiled
    fields, height, width = values.shape
    for n in range(fields):
        for i in range(height):
            running = np.int32(0)
            row, known, above, here = values[n, i], counts[i], out[n, i, 1:], out[n, i + 1, 1:]
            for j in range(width):
                running += np.int32(known[j] & (row[j] >= threshold))
                here[j] = above[j] + running


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _window_row(integral: Any, i: int, window: int, out: Any, padded: Any) -> None:  # pragma: no cover - compiled
    height, width = integral.shape[0] - 1, integral.shape[1] - 1
    top = max(i - window // 2, 0)
    bottom = max(min(i - window // 2 + window, height), top)
    first = window - window // 2
    # Slices first: indices that the compiler cannot tell from negative ones would keep it from vector instructions.
    upper, lower, middle = integral[top], integral[bottom], padded[window : window + width + 1]
    for j in range(width + 1):
        middle[j] = lower[j] - upper[j]
    padded[window + width + 1 :] = padded[window + width]
    left, right = padded[first : first + width], padded[first + window : first + window + width]
    for j in range(width):
        out[j] = right[j] - left[j]


@numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _sums(members: Any, truth: Any, weights: Any, window: int) -> tuple[float, float]:  # pragma: no cover - compiled
    height, width = weights.shape
    predicted, observed = np.empty(width, np.int32), np.empty(width, np.int32)
    padded = np.zeros(width + 1 + 2 * window, np.int32)
    error, reference = 0.0, 0.0
    for i in range(height):
        weight = weights[i]
        _window_row(truth, i, window, observed, padded)
        for n in range(members.shape[0]):
            _window_row(members[n], i, window, predicted, padded)
            for j in range(width):
                f, o = np.float64(predicted[j]), np.float64(observed[j])
                error += weight[j] * ((f - o) * (f - o))
                reference += weight[j] * (f * f + o * o)
    scale = np.float64(window) ** 4 * members.shape[0]
    return error / scale, reference / scale


def event_integrals(values: NDArray[Any], counts: NDArray[np.bool_], threshold: float) -> NDArray[np.int32]:
    """Events at or above a threshold above and left of every corner, `(field, y + 1, x + 1)` of `(field, y, x)`.

    Cells where `counts` `(y, x)` is False are no events.

    >>> event_integrals(np.array([[[1.0, 0.0], [2.0, 3.0]]]), np.ones((2, 2), bool), 1.0)[0].tolist()
    [[0, 0, 0], [0, 1, 1], [0, 2, 3]]
    """
    fields, height, width = values.shape
    out = np.zeros((fields, height + 1, width + 1), np.int32)
    _integrate(values, counts, reached(threshold), out)
    return out


def fraction_sums(
    members: NDArray[np.int32], truth: NDArray[np.int32], weights: NDArray[np.float64], window: int
) -> tuple[float, float]:
    """Weighted sums over cells of `(f − o)²` and `f² + o²`, averaged over members, f and o the fractions in windows.

    `members` `(member, y + 1, x + 1)` and `truth` `(y + 1, x + 1)` are integral images. A window of n cells a side
    reaches from n // 2 cells before its own cell; cells outside the field are not events.
    """
    error, reference = _sums(members, truth, weights, window)
    return float(error), float(reference)
