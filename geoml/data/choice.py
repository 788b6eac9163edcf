"""Selection of samples: evenly spread positions, and runs of consecutive times."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoml.errors import UserError

__all__ = ["consecutive", "evenly", "spanning"]


def evenly(count: int, wanted: int | None) -> NDArray[np.int64]:
    """Return `wanted` evenly spread positions out of `count`; all of them if `wanted` is None or at least `count`.

    >>> evenly(10, 4).tolist(), evenly(2, None).tolist()
    ([1, 3, 6, 8], [0, 1])
    """
    if wanted is not None and wanted < 1:
        raise UserError(f"{wanted} of {count} samples requested; expected 1 or more, or null for all")
    if wanted is None or wanted >= count:
        return np.arange(count)
    return ((np.arange(wanted) + 0.5) * count / wanted).astype(np.int64)


def spanning(count: int, wanted: int) -> NDArray[np.int64]:
    """Return up to `wanted` evenly spread positions out of `count`, including first and last; only the first for 1.

    >>> spanning(7, 3).tolist(), spanning(2, 5).tolist(), spanning(7, 0).tolist()
    ([0, 3, 6], [0, 1], [])
    """
    return np.linspace(0, count - 1, min(count, wanted)).round().astype(np.int64)


def consecutive(
    times: NDArray[Any], step: Any = None, *, indices: NDArray[np.int64] | None = None
) -> list[NDArray[np.int64]]:
    """Split the positions of ascending `times` into runs whose neighbours differ by exactly one `step`.

    `step` defaults to the most frequent time step. With `indices`, the sample indices of the times in a store, a run
    also ends where the indices are not consecutive.

    >>> [run.tolist() for run in consecutive(np.array([0, 1, 2, 5, 6]))]
    [[0, 1, 2], [3, 4]]
    """
    steps = np.diff(times)
    if not len(steps):
        return [np.arange(len(times))]
    if step is None:
        kinds, counts = np.unique(steps, return_counts=True)
        step = kinds[counts.argmax()]
    apart = steps != step
    if indices is not None:
        apart |= np.diff(indices) != 1
    return np.split(np.arange(len(times)), np.flatnonzero(apart) + 1)
