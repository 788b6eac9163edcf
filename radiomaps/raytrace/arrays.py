"""NumPy's arrays for kernels."""

from __future__ import annotations

from typing import Any

import mitsuba as mi
import numpy as np
from numpy.typing import NDArray

__all__ = ["floats", "integers"]

#: More values than the widest vector holds.
_ROOM = 64


def floats(values: NDArray[Any]) -> mi.Float:
    """Values of any shape, flat, as 32-bit floats."""
    return mi.Float(_with_room(values, np.float32))


def integers(values: NDArray[Any]) -> mi.UInt:
    """Values of any shape, flat, as unsigned integers of 32 bits."""
    return mi.UInt(_with_room(values, np.uint32))


def _with_room(values: NDArray[Any], dtype: Any) -> NDArray[Any]:
    """A copy with room behind it: Dr.Jit takes NumPy's memory as it is, and whole vectors read beyond its end."""
    whole = np.zeros(values.size + _ROOM, dtype)
    whole[: values.size] = values.ravel()
    return whole[: values.size]
