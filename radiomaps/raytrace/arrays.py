"""Conversion of NumPy arrays for kernels."""

from __future__ import annotations

from typing import Any

import mitsuba as mi
import numpy as np
from numpy.typing import NDArray

__all__ = ["floats", "integers"]

#: More values than the widest vector register holds.
_ROOM = 64


def floats(values: NDArray[Any]) -> mi.Float:
    """Values of any shape, flat, as 32-bit floats."""
    return mi.Float(_with_room(values, np.float32))


def integers(values: NDArray[Any]) -> mi.UInt:
    """Values of any shape, flat, as 32-bit unsigned integers."""
    return mi.UInt(_with_room(values, np.uint32))


def _with_room(values: NDArray[Any], dtype: Any) -> NDArray[Any]:
    """A padded copy: Dr.Jit uses NumPy's memory without copying, and full vectors read beyond its end."""
    whole = np.zeros(values.size + _ROOM, dtype)
    whole[: values.size] = values.ravel()
    return whole[: values.size]
