"""Fine texture of rain: variance at the scale of cells, as in rain of minutes rather than of an hour."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rainshift.planet.rainfall import HEAVIEST_MM_H, WET_MM_H

__all__ = ["SMOOTH", "Texture"]


@dataclass(frozen=True)
class Texture:
    """A rough Gaussian field that rain is multiplied with, and that frays its edges.

    An hour's accumulation is smooth because storms move on; radar rates of a few minutes are not. The coarse mean
    hardly sees the rough field, so that the texture decides how much a coarse cell leaves open.

    Attributes:
        deviation: standard deviation of the logarithm of rates that the field adds.
        share: of the variance of the latent fields, 0 … 1, which decide where rain falls.
        slope: power over wavenumber falls as k^-slope below `outer_km`, the scale up to which it is flat.
    """

    deviation: float = 0.0
    share: float = 0.0
    slope: float = 2.0
    outer_km: float = 40.0

    @property
    def any(self) -> bool:
        """Whether there is any."""
        return self.deviation > 0 or self.share > 0

    def mixed(self, latent: NDArray[np.float32], rough: NDArray[np.float32]) -> NDArray[np.float32]:
        """A latent field of mean 0 and variance 1, with its rough part."""
        return np.asarray(math.sqrt(1 - self.share) * latent + math.sqrt(self.share) * rough, np.float32)

    def factored(self, rain: NDArray[np.float32], rough: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rain in mm/h with rough rates; less than `WET_MM_H` is dry."""
        made = rain * np.exp(self.deviation * rough - 0.5 * self.deviation**2)
        return np.where(made >= WET_MM_H, np.minimum(made, HEAVIEST_MM_H), 0).astype(np.float32)


#: The texture of the named regions: none.
SMOOTH = Texture()
