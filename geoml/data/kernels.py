"""Compiled loops that cut patches out of blocks; imported on the first batch only (numba is slow to load)."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

__all__ = ["cut_patch"]

#: Exponent bits of float32: all of them are set only in infinities and NaN.
EXPONENT = np.int32(0x7F800000)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _cut_channel(
    field: Any, c: Any, first: Any, corner: Any, scale: Any, offset: Any, fill: Any, out: Any, k: Any
) -> None:  # fmt: skip  # pragma: no cover - compiled
    # Cells of both arrays are addressed in full, and by unsigned numbers: slices of rows are counted references, and
    # signed numbers may be negative, both of which keep the compiler from using vector instructions.
    steps, depth, height, width = out.shape[1:]
    planes, lines, cells = field.shape[2:]
    low = min(max(-corner[2], 0), width)
    high = max(min(cells - corner[2], width), low)
    begin, inside, last = np.uintp(corner[2] + low), np.uintp(high - low), np.uintp(cells - 1)
    low, high, width = np.uintp(low), np.uintp(high), np.uintp(width)
    nothing = np.float32(np.nan)
    for s in range(np.uintp(steps)):
        t = np.uintp(first) + s
        for z in range(np.uintp(depth)):
            p = np.uintp(min(max(corner[0] + np.intp(z), 0), planes - 1))
            for y in range(np.uintp(height)):
                r = np.uintp(min(max(corner[1] + np.intp(y), 0), lines - 1))
                if scale == 0:
                    for x in range(inside):
                        out[k, s, z, y, low + x] = np.float32(field[c, t, p, r, begin + x])
                else:
                    for x in range(inside):
                        code = field[c, t, p, r, begin + x]
                        value = np.float32(code) * scale
                        out[k, s, z, y, low + x] = nothing if code == fill else value
                    if offset != 0:
                        for x in range(inside):
                            out[k, s, z, y, low + x] += offset
                for x in range(low + width - high):
                    at, cell = (x, np.uintp(0)) if x < low else (high + x - low, last)
                    code = field[c, t, p, r, cell]
                    value = np.float32(code)
                    if scale != 0:
                        value = nothing if code == fill else value * scale
                        if offset != 0:
                            value += offset
                    out[k, s, z, y, at] = value


@numba.njit(nogil=True, cache=True, error_model="numpy")
def cut_patch(
    field: Any,
    first: Any,
    corner: Any,
    channels: Any,
    scale: Any,
    offset: Any,
    fill: Any,
    out: Any,
    bits: Any,
    known: Any,
) -> bool:  # pragma: no cover - compiled
    """Copy one item out of its block as float32; returns True if all its values are finite.

    `field` is `(channel, sample, z, y, x)` as stored, `out` is `(channel, step, z, y, x)`; the item begins at sample
    `first` and cell `corner`, and cells beyond the rim repeat the outermost cells. Channel `c` of the field becomes
    `channels[c]` of the item, integers times `scale[c]` plus `offset[c]`, NaN where they are `fill[c]`; a scale of 0
    marks channels that are not packed. `bits` is `out` as int32, `(channel, value)`. Unless `known` is empty, it is set
    to True where values are finite, and all other values are set to 0.
    """
    wrong = np.int32(0)
    for c in range(np.uintp(field.shape[0])):
        k = np.uintp(channels[c])
        _cut_channel(field, c, first, corner, scale[c], offset[c], fill[c], out, k)
        if known.size:
            for i in range(np.uintp(bits.shape[1])):
                known[k, i] = (bits[k, i] & EXPONENT) != EXPONENT
            for i in range(np.uintp(bits.shape[1])):
                bits[k, i] = bits[k, i] if (bits[k, i] & EXPONENT) != EXPONENT else np.int32(0)
        else:
            for i in range(np.uintp(bits.shape[1])):
                wrong |= np.int32((bits[k, i] & EXPONENT) == EXPONENT)
    return wrong == 0
