"""Dependence of the coarse predictors on the weather of the synthetic planet."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["USUAL", "Relation"]


@dataclass(frozen=True)
class Relation:
    """Dependence of the predictors on the latent fields (rain systems and storms, with mean 0 and variance 1).

    The defaults are the values of the named regions.

    Attributes:
        water_systems, water_storms: exponents of total column water.
        cape_storms: exponent of convective available potential energy.
        cloud_from, cloud_power: cloud water is `max(latent + cloud_from, 0) ** cloud_power`.
        convective_seen: share of convective rain in the analysed convective rain; the rest is stratiform.
        foreign: share of the variance of water and energy that is independent of the rain, 0 … 1.
    """

    water_systems: float = 0.25
    water_storms: float = 0.1
    cape_storms: float = 0.9
    cloud_from: float = 0.3
    cloud_power: float = 1.5
    convective_seen: float = 1.0
    foreign: float = 0.0


#: Values of the named regions.
USUAL = Relation()
