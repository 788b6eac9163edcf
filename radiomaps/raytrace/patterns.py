"""Antenna patterns and arrays for Sionna RT: named closed forms, and measured patterns from their cuts."""

from __future__ import annotations

import math
from collections.abc import Callable

import drjit as dr
import mitsuba as mi
import numpy as np
import sionna.rt as rt
from sionna.rt.antenna_pattern import antenna_pattern_registry

from geoml.errors import UserError
from radiomaps.antennas.arrays import element_weights
from radiomaps.antennas.pattern import POLARIZATIONS, MeasuredPattern
from radiomaps.maps.layout import Transmitter
from radiomaps.raytrace.arrays import floats

__all__ = ["antenna_pattern", "weighted"]

_Slanted = Callable[[mi.Float, mi.Float], tuple[mi.Complex2f, mi.Complex2f]]


def antenna_pattern(transmitter: Transmitter) -> rt.AntennaPattern:
    """Sionna's pattern of a transmitter; raises `UserError` for an unknown name."""
    if isinstance(transmitter.pattern, MeasuredPattern):
        return _Measured(transmitter.pattern, POLARIZATIONS[transmitter.polarization])
    try:
        return antenna_pattern_registry.get(transmitter.pattern)(polarization=transmitter.polarization)
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(
            f"transmitter {transmitter.name or '?'}: pattern {transmitter.pattern!r} with polarization "
            f"{transmitter.polarization!r} is unknown to the ray tracer ({error})"
        ) from error


class _Measured(rt.AntennaPattern):
    """`MeasuredPattern.gain_dbi_at` for kernels, for one port or two, given by their slants."""

    def __init__(self, pattern: MeasuredPattern, slants: tuple[float, ...]) -> None:
        self.horizontal, self.vertical = (floats(np.array(cut)) for cut in (pattern.horizontal, pattern.vertical))
        self.gain_dbi = dr.opaque(mi.Float, pattern.gain_dbi)
        self.ahead, self.behind = (dr.opaque(mi.Float, level) for level in pattern.reference_db)
        dr.make_opaque(self.horizontal, self.vertical)
        self.patterns = [self._slanted(slant) for slant in slants]

    def _slanted(self, slant: float) -> _Slanted:
        along, across = float(np.cos(slant)), float(np.sin(slant))

        def field(theta: mi.Float, phi: mi.Float) -> tuple[mi.Complex2f, mi.Complex2f]:
            amplitude = dr.exp2(self._gain_dbi(theta, phi) * (np.log2(10) / 20))
            return mi.Complex2f(along * amplitude, 0.0), mi.Complex2f(across * amplitude, 0.0)

        return field

    def _gain_dbi(self, theta: mi.Float, phi: mi.Float) -> mi.Float:
        turn = phi / dr.two_pi
        turn = 2 * dr.abs(turn - dr.floor(turn + 0.5))
        front = _around(self.vertical, dr.pi / 2 - theta) - self.ahead
        back = _around(self.vertical, dr.pi / 2 + theta) - self.behind
        return self.gain_dbi - _around(self.horizontal, phi) - (1 - turn) * front - turn * back


def _around(cut: mi.Float, angle: mi.Float) -> mi.Float:
    count = dr.width(cut)
    turn = angle / dr.two_pi
    place = (turn - dr.floor(turn)) * count
    low = mi.UInt(dr.minimum(dr.floor(place), count - 1))
    rest = place - mi.Float(low)
    one, two = (dr.gather(mi.Float, cut, index) for index in (low, (low + 1) % count))
    return one * (1 - rest) + two * rest


def weighted(field: mi.Vector4f, transmitter: Transmitter, local: mi.Vector3f) -> mi.Vector4f:
    """The field of an array whose elements all radiate `field` along `local` (in its local frame), with their weights.

    The elements are spaced by half a wavelength in the y-z plane, centred at the antenna's position.
    """
    weights = element_weights(transmitter)
    if not transmitter.weights:  # the factor is a real product
        factor = float(np.abs(weights[0, 0])) * _equal(weights.shape[1], local.y) * _equal(weights.shape[0], local.z)
        return field * factor
    table = floats(np.stack([weights.real, weights.imag], -1).ravel())
    dr.make_opaque(table)
    columns = [dr.sincos(turn * local.y) for turn in _turns(weights.shape[1])]
    real, imaginary = mi.Float(0.0), mi.Float(0.0)
    for row, turn in enumerate(_turns(weights.shape[0])):
        across_r, across_i = mi.Float(0.0), mi.Float(0.0)
        for column, (sine, cosine) in enumerate(columns):
            index = 2 * (row * len(columns) + column)
            one, two = dr.gather(mi.Float, table, mi.UInt(index)), dr.gather(mi.Float, table, mi.UInt(index + 1))
            across_r += one * cosine - two * sine
            across_i += one * sine + two * cosine
        sine, cosine = dr.sincos(turn * local.z)
        real += across_r * cosine - across_i * sine
        imaginary += across_r * sine + across_i * cosine
    # A Jones vector holds two real parts, then two imaginary ones.
    return mi.Vector4f(
        real * field.x - imaginary * field.z,
        real * field.y - imaginary * field.w,
        imaginary * field.x + real * field.z,
        imaginary * field.y + real * field.w,
    )


def _turns(count: int) -> list[float]:
    """Phases of centred elements for a wave along their line, as Python floats: NumPy's would convert kernel arrays."""
    return [math.pi * (index - (count - 1) / 2) for index in range(count)]


def _equal(elements: int, sine: mi.Float) -> mi.Float:
    """Sum of the unit phasors of centred elements spaced by half a wavelength; it is real."""
    total = dr.zeros(mi.Float, 1)
    for turn in _turns(elements):
        total += dr.cos(turn * sine)
    return total
