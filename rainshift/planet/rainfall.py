"""Transform Gaussian fields to rain with exact wet fraction and Weibull rates at every pixel."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from geoml.errors import UserError
from rainshift.places.climate import Climate

__all__ = ["HEAVIEST_MM_H", "STRATIFORM_SHAPE", "WET_MM_H", "RainLaw", "rate", "shifted_probability"]

#: Smallest wet rate in mm/h; lower rates are dry.
WET_MM_H = 0.1
#: Upper limit of each type of rain in mm/h; hourly means over 0.1° are far below the record of 305 mm in 42 min.
HEAVIEST_MM_H = 150.0
#: Weibull shape of stratiform rates, nearly exponential.
STRATIFORM_SHAPE = 1.1


@dataclass(frozen=True)
class RainLaw:
    """Yearly mean probabilities of the two types of rain, for a climate's wet fraction and convective share."""

    stratiform: float
    convective: float

    @classmethod
    def of(cls, climate: Climate) -> RainLaw:
        """Solve for both probabilities. The types overlap like two normal fields with correlation `organisation`."""
        ratio = climate.convective_mm_h * (1 - climate.convective_share)
        ratio /= climate.convective_share * climate.stratiform_mm_h
        limit = min(0.99, 0.99 / ratio)

        def surplus(convective: float) -> float:
            return _union(ratio * convective, convective, climate.organisation) - climate.wet_fraction

        if surplus(limit) < 0:
            raise UserError(
                f"climate.wet_fraction is {climate.wet_fraction}, which is impossible with the mean rates and the "
                "convective share; use a smaller wet_fraction"
            )
        convective = optimize.brentq(surplus, 1e-9, limit, xtol=1e-10)
        return cls(ratio * convective, convective)


def _union(p: float, q: float, correlation: float) -> float:
    """Compute the probability that at least one of two correlated normal variables exceeds its threshold."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = weights / weights.sum()
    share = math.sqrt(correlation)
    rest = math.sqrt(1 - correlation)
    dry = [special.ndtr((-special.ndtri(chance) - share * nodes) / rest) for chance in (p, q)]
    return float(1 - (weights * dry[0] * dry[1]).sum())


def rate(
    latent: NDArray[np.floating], probability: NDArray[np.floating] | float, mean_mm_h: float, shape: float
) -> NDArray[np.float32]:
    """Transform a standard normal field to rain in mm/h: wet with `probability`, then Weibull above `WET_MM_H`.

    A stretched exponential of shape about 2/3 is the tail that Wilson and Toumi (2005, doi 10.1029/2005GL022465) derive
    for heavy rain. P(wet) = probability exactly; E(rate | wet) = mean_mm_h except for clipping at `HEAVIEST_MM_H`.
    """
    rain = np.zeros(latent.shape, np.float32)
    chance = np.broadcast_to(np.asarray(probability, np.float32), latent.shape)
    wet = latent > -special.ndtri(chance)
    # Among wet cells the survival function is Phi(-latent)/probability: invert the Weibull survival function at it.
    depth = np.log(chance[wet]) - special.log_ndtr(-latent[wet])
    scale = (mean_mm_h - WET_MM_H) / math.gamma(1 + 1 / shape)
    rain[wet] = np.minimum(WET_MM_H + scale * np.maximum(depth, 0) ** (1 / shape), HEAVIEST_MM_H)
    return rain


def shifted_probability(mean: float, shift: NDArray[np.floating]) -> NDArray[np.float32]:
    """Compute Phi(z + shift), with z chosen so that the mean over the field is `mean`."""
    sample = np.asarray(shift, np.float64).ravel()[::7]
    centre = float(special.ndtri(mean))
    z = centre
    for _ in range(6):
        gap = special.ndtr(z + sample).mean() - mean
        z -= gap / max(np.exp(-0.5 * (z + sample) ** 2).mean() / math.sqrt(2 * math.pi), 1e-6)
        z = min(max(z, centre - 4), centre + 4)
    return special.ndtr(z + shift).astype(np.float32)
