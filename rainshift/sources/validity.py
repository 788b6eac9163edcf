"""Validity of stored rain values: valid ranges, flags, missing chunks and physical limits."""

from __future__ import annotations

import logging
import math
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoml.data.location import sizes
from geoml.data.zip_stores import open_zip
from geoml.errors import DataError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["MOST_MM_H", "Validity", "blanked", "check_rain", "lost_parts", "validity_of"]

logger = logging.getLogger(__name__)

#: Largest valid rate in mm/h: above any observed one-minute rain, below values in wrong units or unscaled integers.
MOST_MM_H = 3000.0
#: Smallest valid value, which allows for rounding of packed data; lower values count as fill values.
LEAST_MM_H = -0.05
#: Common fill values, which are not valid amounts of rain.
SENTINELS = (999.0, 999.9, 999.99, 9999.0, 9999.9, 9999.99, 32766.0, 32767.0, 65534.0, 65535.0)
#: Common fill values of any variable.
FILLS = (-9999.0, -9999.9, 1e20, 9.969209968386869e36)
#: Record depth of rain in T hours: about 422 T^0.475 mm (Jennings 1950 and later, WMO-No. 1045).
RECORD_MM, RECORD_POWER = 422.0, 0.475
#: A number of a list in text, with or without the suffix of its type: 253, 253b, 254ub.
NUMBER = re.compile(r"[+-]?\d+(\.\d*)?[ubslf]{0,2}")
#: Attribute names of a scale outside CF.
OTHER_SCALES = ("gain", "slope", "scale", "scaling_factor", "ScaleFactor", "Scale", "multiplier")
#: Flag meanings for no rain; other flags mean missing data.
DRY = ("dry", "no_rain", "no_precip", "undetect", "below_detection", "below_threshold", "zero")


@dataclass(frozen=True)
class Validity:
    """Valid decoded values: from `low` to `high` except `missing`. Values in `dry` become 0.

    `slack` is half the distance between two stored values. `fills` are common fill values, which raise an error if the
    file does not declare them.
    """

    low: float = -math.inf
    high: float = math.inf
    missing: tuple[float, ...] = ()
    dry: tuple[float, ...] = ()
    fills: tuple[float, ...] = ()
    slack: float = 0.0

    def apply(self, values: NDArray[Any], label: str) -> NDArray[Any]:
        """Replace invalid values by NaN. Raises `DataError` for undeclared fill values."""
        slack = self.slack or 1e-6
        known = np.isfinite(values)
        outside = known & ((values < self.low - self._near(self.low)) | (values > self.high + self._near(self.high)))
        for value in self.missing:
            outside |= np.isclose(values, value, rtol=1e-6, atol=slack / 2)
        dry = np.zeros(values.shape, bool)
        for value in self.dry:
            dry |= np.isclose(values, value, rtol=1e-6, atol=slack / 2)
        if self.fills:
            self._refuse_fills(values[known & ~outside & ~dry], label)
        if not (outside.any() or dry.any()):
            return values
        values = np.where(outside, np.nan, values)
        return np.where(dry & ~outside, 0.0, values)

    def _refuse_fills(self, values: NDArray[Any], label: str) -> None:
        least = min(self.fills)
        large = values[values > least * (1 - 1e-5)] if least > 0 else values
        for value in self.fills if large.size else ():
            if count := int(np.isclose(large, value, rtol=1e-6, atol=0.0).sum()):
                raise DataError(
                    f"{label} has {value:g} in {count} cells, a common fill value; declare it in the file as "
                    "_FillValue if it marks missing data, or set valid_range if it is valid"
                )

    def _near(self, limit: float) -> float:
        return self.slack or 1e-6 * abs(limit) if math.isfinite(limit) else 0.0


def validity_of(array: xr.DataArray, label: str, *, rain: bool = True) -> Validity:
    """Read the validity from attributes of a decoded variable: `valid_range`, `valid_min`, `valid_max`, `flag_values`.

    Limits of the same type as the packed integers refer to packed values, other limits to decoded values (NUG,
    appendix A; CF 2.5.1). Values outside are missing. With `rain`, undeclared fill values are detected. Raises
    `DataError` for attributes that are not numbers.
    """
    scale = float(np.ravel(array.encoding.get("scale_factor", 1.0))[0])
    offset = float(np.ravel(array.encoding.get("add_offset", 0.0))[0])
    stored = np.dtype(array.encoding.get("dtype", array.dtype))
    packed = stored.kind in "iu"
    if rain:
        _look_at_attributes(array, packed, label)
    unsigned = stored.kind == "u" or str(array.encoding.get("_Unsigned", array.attrs.get("_Unsigned", ""))) == "true"

    def decoded(name: str) -> list[float]:
        if (given := array.attrs.get(name)) is None:
            return []
        values = np.ravel(np.asarray(given))
        if isinstance(given, str):  # a list in text: 253, 254 or 253b 254b
            parts = given.replace(",", " ").lower().split()
            if parts and all(NUMBER.fullmatch(part) for part in parts):
                values = np.array([float(part.rstrip("ubslf")) for part in parts])
                values = values.astype(int) if all("." not in part for part in parts) else values
        if values.dtype.kind not in "iuf":
            raise DataError(f"{label}: its {name} is {given!r}; expected numbers")
        if not packed or (values.dtype.kind == "f" and (scale != 1 or offset != 0)):
            return [float(value) for value in values]
        if unsigned and values.dtype.kind == "i":
            values = values.astype(f"i{stored.itemsize}").astype(f"u{stored.itemsize}")
        return [float(value) * scale + offset for value in values]

    limits = decoded("valid_range") or [*(decoded("valid_min") or [-math.inf]), *(decoded("valid_max") or [math.inf])]
    if len(limits) != 2:
        raise DataError(f"{label}: its valid_range is {limits}; expected two numbers")
    flags, dry = _flags(array, decoded("flag_values"), label)
    fills: list[float] = list(SENTINELS) if rain and math.isinf(max(limits)) else []
    if not rain and not packed and all(map(math.isinf, limits)):
        fills = list(FILLS)
    declared = any(name in array.encoding for name in ("_FillValue", "missing_value"))
    if packed and not declared and all(map(math.isinf, limits)):
        info = np.iinfo(np.dtype(f"{'u' if unsigned else 'i'}{stored.itemsize}"))
        ends = [info.max] if unsigned else [info.min, info.min + 1, info.max]
        known = {*flags, *dry}
        fills += [v for end in ends if (v := end * scale + offset) not in known and v != 0]
    low, high = min(limits), max(limits)
    return Validity(low, high, tuple(flags), tuple(dry), tuple(fills), abs(scale) / 2 if packed else 0.0)


def _look_at_attributes(array: xr.DataArray, packed: bool, label: str) -> None:
    """Raise `DataError` for a scale under a name outside CF. Warn if 0 is declared as missing."""
    named = {name: array.attrs[name] for name in OTHER_SCALES if name in array.attrs}
    if (
        packed
        and "scale_factor" not in array.encoding
        and any(str(value) not in ("1", "1.0") for value in named.values())
    ):
        listed = ", ".join(f"{name} = {value}" for name, value in named.items())
        raise DataError(f"{label} has integers and {listed}, which is not CF; rename the attribute to scale_factor")
    declared = [array.encoding.get(name) for name in ("_FillValue", "missing_value")]
    if any(value is not None and np.size(value) == 1 and float(value) == 0 for value in declared):
        logger.warning("%s: 0 is declared as missing, so dry cells are missing", label)


def _flags(array: xr.DataArray, values: list[float], label: str) -> tuple[list[float], list[float]]:
    """Return the flag values for missing data and those for dry cells."""
    if "flag_masks" in array.attrs:
        raise DataError(
            f"{label} contains bit flags (flag_masks), not amounts; choose another variable with data.variable="
        )
    meanings = str(array.attrs.get("flag_meanings", "")).lower().split()
    dry = [v for v, meaning in zip(values, meanings, strict=False) if any(word in meaning for word in DRY)]
    return [value for value in values if value not in dry], dry


def most_mm_h(hours: float) -> float:
    """Return the largest plausible rate in mm/h; for long intervals, from twice the record depth."""
    return MOST_MM_H if hours < 6 else min(MOST_MM_H, 2 * RECORD_MM * hours**RECORD_POWER / hours)


def check_rain(
    values: NDArray[Any],
    label: str,
    factor: float | NDArray[np.floating],
    validity: Validity | None = None,
    hours: float = 1.0,
) -> NDArray[np.float32]:
    """Convert values to mm/h, with NaN for missing ones. Raises `DataError` for values that cannot be rain.

    `factor`, a number or one per time, converts values to mm/h; `hours` is the length of their interval.
    """
    values = np.asarray(values, np.float64)
    values = values if validity is None else validity.apply(values, label)
    rain = values * factor
    rain[~np.isfinite(rain)] = np.nan
    low, least = np.nanmin(rain, initial=0.0), np.nanmin(np.where(np.isfinite(values), values, 0), initial=0.0)
    if low < LEAST_MM_H or least <= -1:
        raise DataError(
            f"{label} has negative values (lowest {least:g}); if they mark missing data, declare them as "
            "_FillValue in the file"
        )
    if (high := np.nanmax(rain, initial=0.0)) > most_mm_h(hours):
        raise DataError(
            f"{label} reaches {high:g} mm/h, more than rain can be over {hours:g} h; its units, scale_factor or fill "
            "value are wrong (data.units= replaces the units)"
        )
    return np.maximum(rain, 0, out=rain, where=~np.isnan(rain)).astype(np.float32)


def lost_parts(path: Path, array: xr.DataArray, label: str) -> tuple[tuple[slice, ...], ...]:
    """Return the parts of a Zarr array whose chunks are missing. They would be read as 0, which means dry.

    Returns nothing if `fill_value` marks missing data, since missing chunks are then read as missing.
    """
    import zarr

    if not (path.is_dir() or path.suffix == ".zip") or "_FillValue" in array.encoding:
        return ()
    name = f"{array.encoding.get('group', '')}/{array.name}".strip("/")
    stored = zarr.open_group(open_zip(path) if path.suffix == ".zip" else path, mode="r")[name]
    assert isinstance(stored, zarr.Array)
    length = stored.shards or stored.chunks
    shape = [-(-size // each) for size, each in zip(stored.shape, length, strict=True)]
    if path.is_dir():
        there = set(sizes(path / name))
    else:
        with zipfile.ZipFile(path) as archive:
            there = {each.partition(f"{name}/")[2] for each in archive.namelist()}
    absent = [at for at in np.ndindex(*shape) if stored.metadata.encode_chunk_key(at) not in there]
    if absent:
        logger.warning(
            "%s: %d of %d chunks do not exist, the first is %s; they are treated as missing, not as dry. If chunks "
            "without rain were not written, set data.absent_chunks=dry",
            label, len(absent), math.prod(shape), stored.metadata.encode_chunk_key(absent[0]),
        )  # fmt: skip
    return tuple(tuple(slice(i * n, (i + 1) * n) for i, n in zip(at, length, strict=True)) for at in absent)


def blanked(
    values: NDArray[Any], lost: tuple[tuple[slice, ...], ...], block_info: Mapping[int, Any] | None = None
) -> NDArray[Any]:
    """Set the missing parts in a block of a Dask array to NaN."""
    where = (block_info or {}).get(0, {}).get("array-location")
    if not where:
        return values
    values = values.astype(np.result_type(values.dtype, np.float32))
    for part in lost:
        overlap = [(max(p.start, low), min(p.stop, high)) for p, (low, high) in zip(part, where, strict=True)]
        if all(low < high for low, high in overlap):
            inner = (slice(a - low, b - low) for (a, b), (low, _) in zip(overlap, where, strict=True))
            values[tuple(inner)] = np.nan
    return values
