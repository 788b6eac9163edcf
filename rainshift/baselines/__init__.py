"""What a downscaler has to beat: interpolation, climatology, quantile-mapped interpolation, RainFARM.

A baseline works in physical units and answers like a trained model's predictor:
`predict(batch, members, seed) -> ((batch, member, channel, *space), clipped share)`.
"""

from rainshift.baselines.base import Baseline
from rainshift.baselines.bcsd import QuantileMappedInterpolation
from rainshift.baselines.climatology import Climatology
from rainshift.baselines.interpolation import Interpolation
from rainshift.baselines.rainfarm import RainFARM

__all__ = ["Baseline", "Climatology", "Interpolation", "QuantileMappedInterpolation", "RainFARM"]
