"""Physical constants in SI units, exact or as of CODATA 2018."""

from __future__ import annotations

__all__ = ["BOLTZMANN", "SPEED_OF_LIGHT", "STANDARD_GRAVITY", "VACUUM_PERMITTIVITY"]

SPEED_OF_LIGHT = 299_792_458.0  # m/s
VACUUM_PERMITTIVITY = 8.8541878128e-12  # F/m
BOLTZMANN = 1.380649e-23  # J/K
STANDARD_GRAVITY = 9.80665  # m/s²
