"""Floats stored as small integers: a fixed step, one integer for missing values, an error on overflow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoml.errors import DataError

__all__ = ["Packing"]


@dataclass(frozen=True)
class Packing:
    """Values kept as `round((value - offset) / scale)` in an integer type; the smallest integer marks NaN.

    The error of a round trip is at most `scale / 2`.

    >>> packing = Packing(0.01)
    >>> packing.decode(packing.encode(np.array([0.0, 1.234, np.nan]), "rate"))
    array([0.  , 1.23,  nan], dtype=float32)
    >>> packing.limits
    (-327.67, 327.67)
    """

    scale: float
    offset: float = 0.0
    dtype: str = "int16"

    def __post_init__(self) -> None:
        if np.dtype(self.dtype).kind not in "iu" or np.dtype(self.dtype).itemsize > 4:
            raise ValueError(f"packing needs an integer of at most 32 bits, not {self.dtype!r}")
        if not (np.isfinite(self.scale) and self.scale > 0 and np.isfinite(self.offset)):
            raise ValueError(f"packing needs a positive scale and a finite offset, not {self.scale}, {self.offset}")

    @property
    def fill(self) -> int:
        """The integer that stands for a missing value."""
        info = np.iinfo(self.dtype)
        return int(info.min if info.min < 0 else info.max)

    @property
    def _codes(self) -> tuple[int, int]:
        info = np.iinfo(self.dtype)
        return (int(info.min) + 1, int(info.max)) if info.min < 0 else (0, int(info.max) - 1)

    @property
    def limits(self) -> tuple[float, float]:
        """Smallest and largest value that can be encoded."""
        low, high = (round(code * self.scale + self.offset, 12) for code in self._codes)
        return low, high

    def encode(self, values: NDArray[Any], name: str) -> NDArray[Any]:
        """The integers for `values`; a value beyond `limits`, or an infinite one, raises `DataError`."""
        codes = np.rint((values.astype(np.float64, copy=False) - self.offset) / self.scale)
        missing = np.isnan(codes)
        low, high = self._codes
        with np.errstate(invalid="ignore"):
            beyond = (codes < low) | (codes > high)
        if beyond.any():
            value = values.ravel()[int(np.argmax(beyond))]
            at = tuple(int(i) for i in np.unravel_index(int(np.argmax(beyond)), values.shape))
            raise DataError(
                f"{name}{list(at)} is {value:g}; {self.dtype} at {self.scale:g} holds {self.limits[0]:g} … "
                f"{self.limits[1]:g}: correct the value or choose a larger scale"
            )
        codes[missing] = self.fill
        return codes.astype(self.dtype)

    def decode(self, codes: NDArray[Any]) -> NDArray[np.float32]:
        """float32 values of `codes`, NaN where missing."""
        values = codes.astype(np.float32)
        values *= np.float32(self.scale)
        if self.offset:
            values += np.float32(self.offset)
        values[codes == self.fill] = np.nan
        return values

    @property
    def attrs(self) -> dict[str, float]:
        """The CF attributes for decoding."""
        offset = {"add_offset": self.offset} if self.offset else {}
        return {"scale_factor": self.scale, **offset, "_FillValue": self.fill}
