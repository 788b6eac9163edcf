"""Antenna patterns: power gain by direction in the antenna's frame, boresight along +x, up along +z.

Closed forms: "iso"; "dipole" (short, 1.5 sin²θ) and "hw_dipole" (half a wavelength) of Balanis, Antenna Theory, 4-26a
and 4-84; "tr38901", the element of 3GPP TR 38.901, table 7.3-1 (8 dBi, 65° wide, 30 dB front to back). Measured
patterns are given by a horizontal and a vertical cut.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoml.errors import UserError, unknown

__all__ = ["PATTERNS", "POLARIZATIONS", "MeasuredPattern", "Pattern", "around", "gain_dbi"]

Angles = NDArray[Any]

#: Polarisation slant (rad) of each antenna port: 0 is along the zenith angle, π/2 along the azimuth.
POLARIZATIONS: dict[str, tuple[float, ...]] = {
    "V": (0.0,),
    "H": (math.pi / 2,),
    "VH": (0.0, math.pi / 2),
    "cross": (-math.pi / 4, math.pi / 4),
}


@dataclass(frozen=True)
class MeasuredPattern:
    """A measured antenna pattern: attenuations (dB) of two cuts, at equal angular steps around a circle from boresight.

    Angles of `horizontal` increase counter-clockwise as seen from above. Angles of `vertical` increase upwards, over
    the zenith to the back. Between the cuts the gain is interpolated as in Gil et al. (2001): the front and back of the
    vertical cut, weighted by azimuth, are added to the horizontal cut. Both cuts are reproduced exactly.
    """

    name: str
    gain_dbi: float
    horizontal: tuple[float, ...]
    vertical: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "gain_dbi", float(self.gain_dbi))
        for cut in ("horizontal", "vertical"):
            values = tuple(float(value) for value in getattr(self, cut))
            if len(values) < 8 or not all(math.isfinite(value) for value in values):
                raise UserError(f"antenna {self.name!r}: the {cut} cut needs at least 8 finite attenuations in dB")
            object.__setattr__(self, cut, values)
        if not -100 < self.gain_dbi < 100:
            raise UserError(f"antenna {self.name!r}: gain_dbi={self.gain_dbi:g}; expected -100 … 100")

    def gain_dbi_at(self, zenith: Angles, azimuth: Angles) -> Angles:
        """Gain in dBi."""
        turn = np.abs((azimuth + np.pi) % (2 * np.pi) - np.pi) / np.pi
        elevation = np.pi / 2 - zenith
        ahead, behind = self.reference_db
        front = around(self.vertical, elevation) - ahead
        back = around(self.vertical, np.pi - elevation) - behind
        return self.gain_dbi - around(self.horizontal, azimuth) - (1 - turn) * front - turn * back

    @property
    def reference_db(self) -> tuple[float, float]:
        """Attenuation of the vertical cut (dB) where the horizontal cut crosses it: in front, and at the back.

        The cuts cross at the horizon, or at the main lobe for an antenna with electrical tilt. Of these two elevations,
        the elevation is used at which both cuts agree better in front.
        """
        count = len(self.vertical)
        quarter = count // 4
        lobe = min(range(-quarter, quarter + 1), key=lambda place: (self.vertical[place % count], abs(place)))
        level = self.horizontal[0]
        far, near = (abs(self.vertical[place % count] - level) for place in (lobe, 0))
        angle = 0.0 if near <= far else 2 * math.pi * lobe / count
        return float(around(self.vertical, angle)), float(around(self.vertical, math.pi - angle))


Pattern = str | MeasuredPattern


def around(cut: tuple[float, ...], angle: Angles | float) -> Angles:
    """Attenuation of a cut (dB) at angles in radians, by linear interpolation between its equal steps."""
    place = (np.asarray(angle) / (2 * np.pi) % 1.0) * len(cut)
    low = np.floor(place).astype(int)
    values = np.asarray(cut)
    rest = place - low
    return values[low % len(cut)] * (1 - rest) + values[(low + 1) % len(cut)] * rest


def _iso(zenith: Angles, azimuth: Angles) -> Angles:
    return np.zeros(np.broadcast(zenith, azimuth).shape)


def _dipole(zenith: Angles, azimuth: Angles) -> Angles:
    return 10 * np.log10(np.maximum(1.5 * np.sin(zenith) ** 2, 1e-20)) + 0 * azimuth


def _half_wave_dipole(zenith: Angles, azimuth: Angles) -> Angles:
    sine = np.sin(zenith)
    field = np.where(sine > 1e-5, np.cos(np.pi / 2 * np.cos(zenith)) / np.maximum(sine, 1e-5), 0.0)
    return 10 * np.log10(np.maximum(1.643 * field**2, 1e-20)) + 0 * azimuth


def _tr38901(zenith: Angles, azimuth: Angles) -> Angles:
    azimuth = (azimuth + np.pi) % (2 * np.pi) - np.pi
    width = np.radians(65)
    vertical = np.minimum(12 * ((zenith - np.pi / 2) / width) ** 2, 30)
    horizontal = np.minimum(12 * (azimuth / width) ** 2, 30)
    return 8 - np.minimum(vertical + horizontal, 30)


PATTERNS: dict[str, Callable[[Angles, Angles], Angles]] = {
    "iso": _iso,
    "dipole": _dipole,
    "hw_dipole": _half_wave_dipole,
    "tr38901": _tr38901,
}


def gain_dbi(pattern: Pattern, zenith: Angles, azimuth: Angles) -> Angles:
    """Gain in dBi at zenith (from +z) and azimuth (from +x to +y) in the antenna's frame, both in radians.

    >>> round(float(gain_dbi("tr38901", np.radians(90.0), np.radians(32.5))), 6)  # half the width: 3 dB down
    5.0
    """
    if isinstance(pattern, MeasuredPattern):
        return pattern.gain_dbi_at(np.asarray(zenith), np.asarray(azimuth))
    if pattern not in PATTERNS:
        raise unknown("antenna pattern", pattern, PATTERNS)
    return PATTERNS[pattern](np.asarray(zenith), np.asarray(azimuth))
