"""Interpolation of the coarse rain to the fine grid."""

from __future__ import annotations

import torch

from geoml.data.fields import Batch
from geoml.errors import unknown
from geoml.models.base import Channels
from geoml.regrid import Method, operator_for
from rainshift.baselines.base import Baseline, first_guesses

__all__ = ["Interpolation"]


class Interpolation(Baseline):
    """Coarse rain regridded to the fine grid: `method` is "bilinear", "nearest" or "conservative" (area-weighted).

    All members are equal. Fine cells outside the hull of the coarse cell centres get the nearest coarse value.
    """

    learns = False

    def __init__(self, channels: Channels, dims: int = 2, *, method: Method = "bilinear") -> None:
        super().__init__(channels, dims)
        if method not in ("bilinear", "nearest", "conservative"):
            raise unknown("interpolation method", method, ("bilinear", "nearest", "conservative"))
        self.method = method
        self._guesses = first_guesses(channels, "interpolation")

    def predict(self, batch: Batch, *, members: int = 1, seed: int = 0) -> tuple[torch.Tensor, float]:
        """Return the interpolated rain. All `members` are equal."""
        regrid = operator_for(batch.condition_grid, batch.target_grid, self.method, rim="nearest")
        fine = regrid(batch.condition[:, self._guesses])
        return fine.unsqueeze(1).expand(-1, members, *(-1,) * (fine.ndim - 1)), 0.0
