"""Quantities as 8-bit grey levels, with the ranges of the published data sets and counts of saturated values."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoml.errors import DataError, UserError

__all__ = [
    "PRINTED_RANGE_DB",
    "RADIOMAPSEER",
    "RANGES",
    "URBANRADIO3D",
    "GreyCodec",
    "SaturationCount",
    "read_grey",
    "write_grey",
]


@dataclass(frozen=True)
class GreyCodec:
    """Grey level 255 · max(0, (x - low) / (high - low)), at most 255; level 0 also means "no value".

    With a `period`, a value that would be encoded as level 0 is increased by one period first.

    >>> codec = GreyCodec(-129.0, -52.0)
    >>> codec.encode(np.array([-160.0, -52.0, -60.0, np.nan])).tolist()
    [0, 255, 229, 0]
    >>> codec.decode(np.array([0, 255], np.uint8)).tolist()
    [nan, -52.0]
    >>> GreyCodec(0.0, 6.3, period=2 * np.pi).encode(np.array([0.0, np.nan])).tolist()
    [254, 0]
    """

    low: float
    high: float
    period: float | None = None

    def __post_init__(self) -> None:
        if not self.high > self.low:
            raise UserError(f"a range of grey levels needs its lower end first, not {self.low:g} … {self.high:g}")

    @property
    def step(self) -> float:
        """Size of one level; a round trip is accurate to half of it."""
        return (self.high - self.low) / 255

    def encode(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Levels; NaN becomes 0."""
        values = np.asarray(values, np.float64)
        levels = np.rint((values - self.low) / self.step)
        if self.period is not None:
            levels = np.where(levels == 0, np.rint((values + self.period - self.low) / self.step), levels)
        return np.clip(np.nan_to_num(levels, nan=0.0), 0, 255).astype(np.uint8)

    def decode(self, levels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Values; level 0 becomes NaN, as it may be a building, below the range, or its lower end."""
        values = self.low + self.step * levels.astype(np.float64)
        return np.where(levels == 0, np.nan, values)


#: Range of path loss (dB) that arXiv 2507.12166 states. With it, path gains of the published pictures in line of sight
#: are 40 dB below free space.
PRINTED_RANGE_DB = (-169.0, -92.0)
#: Ranges of grey levels: path gain (dB) 40 dB above the stated range; delay (s), azimuth and zenith (rad) as stated.
URBANRADIO3D = {
    "path_gain_db": GreyCodec(-129.0, -52.0),
    "toa_s": GreyCodec(0.0, 1180e-9),
    "doa_azimuth": GreyCodec(0.0, 6.3, period=2 * np.pi),
    "doa_zenith": GreyCodec(0.5, 2.25),
}
#: Name of the file in which an export records the range of each variable.
RANGES = "ranges.json"
#: Range of path gain (dB) in Levie et al., RadioUNet (arXiv 1911.09002): from the noise floor to the largest gain.
RADIOMAPSEER = GreyCodec(-147.0, -47.84)


@dataclass
class SaturationCount:
    """Number of values outside a codec's range, by variable."""

    counts: dict[str, list[int]] = field(default_factory=dict)

    def note(self, name: str, values: NDArray[Any], codec: GreyCodec) -> None:
        """Count values to be encoded that are outside the range."""
        known = values[np.isfinite(values)]
        low = 0 if codec.period else int((known <= codec.low).sum())
        self._add(name, known.size, low, int((known > codec.high).sum()))

    def note_levels(self, name: str, levels: NDArray[np.uint8], outdoors: NDArray[np.bool_]) -> None:
        """Count decoded levels at the ends of the range, outside buildings."""
        here = levels[outdoors]
        self._add(name, here.size, int((here == 0).sum()), int((here == 255).sum()))

    def _add(self, name: str, size: int, low: int, high: int) -> None:
        totals = self.counts.setdefault(name, [0, 0, 0])
        for index, value in enumerate((size, low, high)):
            totals[index] += value

    def merge(self, counts: Mapping[str, list[int]]) -> None:
        """Add the counts of another instance."""
        for name, totals in counts.items():
            self._add(name, *totals)

    def rows(self) -> list[dict[str, Any]]:
        """A table: variable, number of values, percent at or below the range, percent above it."""
        return [
            {"variable": name, "values": size, "low_%": _percent(low, size), "high_%": _percent(high, size)}
            for name, (size, low, high) in self.counts.items()
        ]


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 2) if whole else 0.0


def read_grey(content: bytes, name: str) -> NDArray[np.uint8]:
    """Read a PNG as grey levels (rows, columns); raises `DataError` for colour images and damaged files."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content)) as picture:
            mode = picture.mode
            array = np.asarray(picture.convert("RGB") if mode == "P" else picture)
    except UnidentifiedImageError as error:
        raise DataError(f"{name} is no picture, or it is truncated") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{name} is no readable picture ({error}); it may be truncated") from error
    if array.ndim == 3 and array.shape[2] >= 3 and (array[..., :2] == array[..., 1:3]).all():
        array = array[..., 0]
    if mode == "1":
        array = array.astype(np.uint8) * 255
    if array.ndim != 2 or array.dtype != np.uint8:
        raise DataError(f"{name} is a picture of mode {mode}; 8-bit grey was expected")
    return array


def write_grey(levels: NDArray[np.uint8]) -> bytes:
    """A PNG of grey levels."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(levels)).save(stream, format="PNG")
    return stream.getvalue()
