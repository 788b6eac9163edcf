"""Quantile-mapped interpolation: BCSD without local fine observations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np
import torch

from geoml.data.fields import Batch
from geoml.errors import DataError
from geoml.models.base import Channels
from rainshift.baselines.base import Baseline
from rainshift.baselines.climatology import known_values
from rainshift.baselines.histogram import RateHistogram
from rainshift.baselines.interpolation import Interpolation
from rainshift.baselines.quantile_map import QuantileMap

__all__ = ["QuantileMappedInterpolation"]


class QuantileMappedInterpolation(Baseline):
    """Bilinear interpolation, quantile-mapped to the distribution of the fine training rain.

    A variant of BCSD (Wood et al. 2004, Clim. Change 62, 189). BCSD corrects the coarse rain with local fine
    observations and then interpolates. Here one map, F_fine⁻¹(F_interpolated(x)), is fitted on all training regions
    together and used everywhere, so no local observations are needed. The map sharpens the marginal distribution; it
    does not change where rain falls.
    """

    learns = True
    QUANTILES: ClassVar[int] = 1000

    def __init__(self, channels: Channels, dims: int = 2) -> None:
        super().__init__(channels, dims)
        self.interpolation = Interpolation(channels, dims)
        self.interpolated, self.fine = ([RateHistogram() for _ in channels.target] for _ in range(2))

    def fit(self, batches: Iterable[Batch]) -> None:
        """Add the interpolated and the true rain to their histograms, at cells with a known truth."""
        for batch in batches:
            rain = self.interpolation.predict(batch)[0][:, 0]
            for channel in range(len(self.fine)):
                self.fine[channel].add(known_values(batch, channel))
                self.interpolated[channel].add(known_values(batch.map(target=rain), channel))

    def state(self) -> dict[str, Any]:
        """Return the histograms of interpolated and true rain as plain values."""
        return {kind: [one.state() for one in getattr(self, kind)] for kind in ("interpolated", "fine")}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore the histograms from the result of `state`."""
        for kind in ("interpolated", "fine"):
            if len(state.get(kind, ())) != len(self.fine):
                raise DataError(
                    f"the saved state of BCSD has {len(state.get(kind, ()))} histograms of {kind} rain; "
                    f"expected {len(self.fine)}, one per target"
                )
            for histogram, counts in zip(getattr(self, kind), state[kind], strict=True):
                histogram.load_state(counts)

    def maps(self) -> list[QuantileMap]:
        """Return the quantile maps from interpolated to fine rain, one per target."""
        levels = (np.arange(self.QUANTILES) + 0.5) / self.QUANTILES
        pairs = zip(self.interpolated, self.fine, strict=True)
        return [QuantileMap(before.quantiles(levels), after.quantiles(levels)) for before, after in pairs]

    def predict(self, batch: Batch, *, members: int = 1, seed: int = 0) -> tuple[torch.Tensor, float]:
        """Return the mapped rain. All `members` are equal."""
        rain = self.interpolation.predict(batch)[0][:, 0]
        mapped = [torch.from_numpy(one(rain[:, i].cpu().numpy())) for i, one in enumerate(self.maps())]
        fine = torch.stack(mapped, dim=1).to(rain.device)
        return fine.unsqueeze(1).expand(-1, members, *(-1,) * (fine.ndim - 1)), 0.0
