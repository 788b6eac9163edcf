"""Electrical properties of building materials (ITU-R P.2040-4, table 3) and of ground (ITU-R P.527-6, section 5.2).

Building materials follow ε_r = a f^b and σ = c f^d with f in GHz. P.2040 gives the ranges of measurement, which are
not hard limits except for ground (1 … 10 GHz). Outside them a building material follows the formula of its nearest
range, and ground the soil model of P.527, with the water content that gives P.2040's ε_r at that end.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from geoml.constants import VACUUM_PERMITTIVITY

__all__ = ["ITU_MATERIALS", "Properties", "itu_properties", "soil_properties"]


#: Frequency ranges in GHz with their coefficients (a, b, c, d); the first range that contains a frequency is used.
_P2040: dict[str, tuple[tuple[float, float, float, float, float, float], ...]] = {
    "vacuum": ((0.001, 100, 1.0, 0.0, 0.0, 0.0),),
    "concrete": ((1, 100, 5.24, 0.0, 0.0462, 0.7822), (110, 330, 5.17, 0.0, 0.0145, 1.09)),
    "brick": ((1, 40, 3.91, 0.0, 0.0238, 0.16), (110, 330, 4.15, 0.0, 0.0006, 1.5712)),
    "plasterboard": (
        (1, 100, 2.73, 0.0, 0.0085, 0.9395),
        (110, 330, 2.56, 0.0, 0.0001, 1.7799),
        (100, 400, 2.65, 0.0, 0.0002, 1.598),
    ),
    "wood": (
        (0.001, 100, 1.99, 0.0, 0.0047, 1.0718),
        (110, 330, 1.82, 0.0, 0.0040, 1.0761),
        (100, 400, 2.1183, 0.0, 0.0055, 1.1113),
    ),
    "glass": (
        (0.1, 100, 6.31, 0.0, 0.0036, 1.3394),
        (220, 450, 5.79, 0.0, 0.0004, 1.658),
        (100, 400, 6.5767, 0.0, 0.0012, 1.4697),
    ),
    "clear_acrylic": ((110, 330, 2.58, 0.0, 0.0001, 1.6524),),
    "ceiling_board": (
        (1, 100, 1.48, 0.0, 0.0011, 1.0750),
        (220, 450, 1.52, 0.0, 0.0029, 1.029),
        (100, 400, 1.2567, 0.0, 0.00013, 1.454),
    ),
    "chipboard": ((1, 100, 2.58, 0.0, 0.0217, 0.78), (100, 200, 2.16, 0.0, 0.0023, 1.359)),
    "plywood": (
        (1, 40, 2.71, 0.0, 0.33, 0.0),
        (110, 330, 1.94, 0.0, 0.0067, 0.9982),
        (100, 400, 2.17, 0.0, 0.0063, 1.045),
    ),
    "marble": (
        (1, 60, 7.074, 0.0, 0.0055, 0.9262),
        (110, 330, 7.94, 0.0, 0.0001, 1.733),
        (100, 400, 8.62, 0.0, 0.0027, 1.15),
    ),
    "floorboard": (
        (50, 100, 3.66, 0.0, 0.0044, 1.3515),
        (220, 300, 5.27, 0.0, 2.22e-17, 7.3413),
        (300, 400, 5.27, 0.0, 0.0003, 2.0298),
        (400, 450, 5.27, 0.0, 49.8726, 0.0),
        (100, 400, 3.1575, 0.0, 0.001675, 1.32775),
    ),
    "vinyl_tile": ((1, 40, 3.62, 0.0, 0.0051, 0.8422),),
    "carpet_tile": ((1, 40, 2.08, 0.0, 0.0009, 0.82),),
    "asphalt_concrete": ((1, 40, 4.83, 0.0, 0.0108, 1.3969),),
    "metal": ((1, 100, 1.0, 0.0, 1e7, 0.0),),
    "very_dry_ground": ((1, 10, 3.0, 0.0, 0.00015, 2.52),),
    "medium_dry_ground": ((1, 10, 15.0, -0.1, 0.035, 1.63),),
    "wet_ground": ((1, 10, 30.0, -0.4, 0.15, 1.3),),
}
#: Volumetric water content of the sandy loam with the permittivity of P.2040's ground at 1 and at 10 GHz.
_WATER = {"very_dry_ground": (0.0035, 0.0035), "medium_dry_ground": (0.209, 0.189), "wet_ground": (0.412, 0.19)}

ITU_MATERIALS = tuple(sorted(_P2040))


class Properties(NamedTuple):
    """Relative permittivity, conductivity in S/m, and whether they were measured at this frequency.

    `measured` is False outside the ranges of ITU-R P.2040.
    """

    eps_r: float
    sigma: float
    measured: bool = True


def itu_properties(name: str, frequency_hz: float) -> Properties:
    """Properties of an ITU material at a frequency, inside its range of measurement or beyond it.

    >>> itu_properties("concrete", 1e9)
    Properties(eps_r=5.24, sigma=0.0462, measured=True)
    >>> itu_properties("concrete", 868e6).measured
    False
    """
    f = frequency_hz / 1e9
    inside = [band for band in _P2040[name] if band[0] <= f <= band[1]]
    if not inside and name in _WATER:
        return soil_properties(_WATER[name][int(f > 1)], frequency_hz)
    nearest = min(_P2040[name], key=lambda band: max(band[0] / f, f / band[1]))
    a, b, c, d = (inside[0] if inside else nearest)[2:]
    return Properties(a * f**b, c * f**d, bool(inside))


def soil_properties(
    water: float, frequency_hz: float, *, sand: float = 65.0, clay: float = 10.0, celsius: float = 23.0
) -> Properties:
    """Properties of soil by its volumetric water content and its texture in percent (the rest is silt).

    The model of ITU-R P.527-6, section 5.2: a refractive mixture of grains, air, and the water between them, which
    relaxes twice (Debye). The default is the recommendation's sandy loam at 23 °C.

    >>> soil = soil_properties(0.2, 1e9)
    >>> round(soil.eps_r, 1), round(soil.sigma, 2)
    (14.4, 0.04)
    """
    f, silt, grain = frequency_hz / 1e9, 100.0 - sand - clay, 2.65
    bulk = 1.07256 + 0.078886 * math.log(sand) + 0.038753 * math.log(clay) + 0.032732 * math.log(silt)
    warm = 300.0 / (celsius + 273.15) - 1.0
    static = 77.66 + 103.3 * warm
    middle, fast = 0.0671 * static, 3.52 - 7.52 * warm
    first = 20.2 - 146.4 * warm + 316.0 * warm**2
    water_r, water_i = fast, 0.0
    for step, relaxation in ((static - middle, first), (middle - fast, 39.8 * first)):
        part = step / (1.0 + (f / relaxation) ** 2)
        water_r += part
        water_i += part * f / relaxation
    low = 0.0467 + 0.2204 * bulk - 0.004111 * sand - 0.006614 * clay
    high = -1.645 + 1.939 * bulk - 0.0225622 * sand + 0.01594 * clay
    fall = (low - high) / (1.0 + (f / 1.35) ** 2)
    scale = 18.0 / f * (grain - bulk) / (grain * water)
    water_r += scale * fall * f / 1.35
    water_i += scale * (high + fall)
    power = 0.65
    grains = ((1.01 + 0.44 * grain) ** 2 - 0.062) ** power - 1.0
    mixture = 1.0 - water + bulk / grain * grains
    mixture += water ** (1.2748 - 0.00519 * sand - 0.00152 * clay) * max(water_r, 0.0) ** power
    lossy = water ** ((1.33797 - 0.00603 * sand - 0.00166 * clay) / power) * water_i
    return Properties(mixture ** (1.0 / power), lossy * 2.0 * math.pi * frequency_hz * VACUUM_PERMITTIVITY, False)
