"""Antenna patterns in the Planet format (`.msi`, `.pln`) of antenna manufacturers.

A file begins with lines of a keyword and a value. Then `HORIZONTAL n` and `VERTICAL n` are each followed by n lines of
an angle in degrees and an attenuation in dB. Gain is in dBd unless its unit is given as dBi (dBi = dBd + 2.15).
Horizontal angles increase clockwise from boresight, vertical angles downwards from the horizon.
"""

from __future__ import annotations

import math
import os
import re
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geoml.errors import DataError, UserError
from radiomaps.antennas.pattern import MeasuredPattern

__all__ = ["read_pattern"]

_DBD = 2.15
_NUMBER = re.compile(r"[-+]?(?:\d+[.,]?\d*|[.,]\d+)(?:[eE][-+]?\d+)?")
_MOST = 100_000


def read_pattern(path: str | os.PathLike[str]) -> MeasuredPattern:
    """Read the pattern of a `.msi` or `.pln` file; raises `DataError` for a truncated or invalid file.

    If `TILT` or `ELECTRICAL_TILT` puts the main lobe on the other side of the horizon than the vertical cut does, the
    vertical angles of the file increase upwards. They are then inverted, with a warning.
    """
    path = Path(path)
    try:
        if path.stat().st_size > 1 << 22:
            raise DataError(f"{path} has more than 4 MiB; it is no antenna pattern")
        raw = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"antenna pattern {path} does not exist") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    try:
        lines = raw.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        lines = raw.decode("cp1252", "replace").splitlines()
    words: dict[str, str] = {}
    cuts: dict[str, NDArray[np.float64]] = {}
    row = 0
    while row < len(lines):
        key, _, value = lines[row].strip().replace("\t", " ").partition(" ")
        key, row = key.rstrip(":="), row + 1
        if key.upper() in ("HORIZONTAL", "VERTICAL"):
            cuts[key.upper()], row = _cut(lines, row, value, key.upper(), path)
        elif key:
            words.setdefault(key.upper(), value.strip())
    for name in ("HORIZONTAL", "VERTICAL"):
        if name not in cuts:
            raise DataError(f"{path} has no {name} cut; expected a complete Planet antenna pattern (.msi, .pln)")
    gain = _gain_dbi(words.get("GAIN", ""), path)
    horizontal = _ring(cuts["HORIZONTAL"], -1, path)
    vertical = _ring(cuts["VERTICAL"], _downwards(words, cuts["VERTICAL"], path), path)
    lobe = float(np.argmin(vertical)) * 360 / len(vertical)
    if 60 < lobe < 300:
        warnings.warn(
            f"{path}: the main lobe is {min(lobe, 360 - lobe):.0f}° off the horizon; expected vertical angles that are "
            "measured from the horizon downwards, not from the zenith",
            stacklevel=2,
        )
    least = min(min(horizontal), min(vertical))
    shift = (
        least if abs(least) < 60 else 0.0
    )  # attenuations relative to the peak, which manufacturers round to other values than 0
    name = words.get("NAME") or path.stem
    return MeasuredPattern(name[:80], gain, tuple(v - shift for v in horizontal), tuple(v - shift for v in vertical))


def _gain_dbi(text: str, path: Path) -> float:
    match = _NUMBER.search(text)
    if not match:
        raise DataError(f"{path} has no GAIN; write GAIN and its dBd or dBi")
    value = float(match[0].replace(",", "."))
    return value if "dbi" in text[match.end() :].lower() else value + _DBD


def _cut(lines: list[str], row: int, count: str, name: str, path: Path) -> tuple[NDArray[np.float64], int]:
    """Angles and attenuations `(n, 2)` of a cut, and the row after it."""
    match = _NUMBER.search(count)
    wanted = int(float(match[0].replace(",", "."))) if match else 0
    if not 8 <= wanted <= _MOST:
        raise DataError(
            f"{path}: {name} {count.strip()[:20]!r}; expected the number of lines of the cut, such as {name} 360"
        )
    pairs: list[tuple[float, float]] = []
    while len(pairs) < wanted:
        numbers = _NUMBER.findall(lines[row]) if row < len(lines) else []
        if row < len(lines) and not lines[row].strip():
            row += 1
            continue
        if len(numbers) < 2:
            raise DataError(
                f"{path}: {name} announces {wanted} lines, but only {len(pairs)} follow; the file is truncated"
            )
        pairs.append((float(numbers[0].replace(",", ".")), float(numbers[1].replace(",", "."))))
        row += 1
    return np.array(pairs), row


def _downwards(words: dict[str, str], cut: NDArray[np.float64], path: Path) -> int:
    """Sign of vertical angles: -1 if they increase downwards, as specified; 1 if the tilt shows the opposite."""
    for key in ("ELECTRICAL_TILT", "TILT"):
        match = _NUMBER.search(words.get(key, ""))
        tilt = float(match[0].replace(",", ".")) if match else 0.0
        if abs(tilt) < 1 or abs(tilt) > 30:
            continue
        strength = np.abs(cut[:, 1])
        lobe = float(cut[np.argmin(strength), 0])
        lobe = (lobe + 180) % 360 - 180
        if abs(lobe + tilt) < 1 + abs(tilt) / 2 and abs(lobe - tilt) > abs(tilt):
            warnings.warn(
                f"{path}: main lobe at {lobe:g}° with {key} {tilt:g}: vertical angles are taken as upwards",
                stacklevel=3,
            )
            return 1
        return -1
    return -1


def _ring(cut: NDArray[np.float64], sign: int, path: Path) -> tuple[float, ...]:
    """Resample a cut, with its angles multiplied by `sign`, to equal steps of at most 1° around the circle."""
    angle, loss = sign * cut[:, 0] % 360.0, cut[:, 1]
    if (loss <= 0).all():
        loss = -loss
    if not np.isfinite(cut).all() or (loss < -60).any() or loss.min() < -3 < 3 < loss.max():
        raise DataError(
            f"{path}: attenuations run {loss.min():g} … {loss.max():g} dB; expected 0 or more: the "
            "gain of the main lobe (GAIN) minus the gain in each direction"
        )
    angle, first = np.unique(np.round(angle, 6), return_index=True)
    gaps = np.diff([*angle, angle[0] + 360])
    if gaps.max() > 45:
        raise DataError(f"{path}: a cut has a gap of {gaps.max():g}°; expected angles all around the circle")
    count = int(min(3600, max(360, math.ceil(360 / max(gaps.min(), 0.1)))))
    return tuple(np.interp(np.arange(count) * (360 / count), angle, loss[first], period=360.0).tolist())
