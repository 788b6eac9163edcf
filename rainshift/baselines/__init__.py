"""Baselines: interpolation, climatology, quantile-mapped interpolation, RainFARM.

A baseline works in physical units and has the same method as the predictor of a trained model:
`predict(batch, members, seed) -> ((batch, member, channel, *space), clipped share)`.
"""

from rainshift.baselines.base import Baseline
from rainshift.baselines.bcsd import QuantileMappedInterpolation
from rainshift.baselines.climatology import Climatology
from rainshift.baselines.interpolation import Interpolation
from rainshift.baselines.rainfarm import RainFARM

__all__ = ["Baseline", "Climatology", "Interpolation", "QuantileMappedInterpolation", "RainFARM"]
