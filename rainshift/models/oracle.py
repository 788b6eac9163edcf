"""The oracle of `data=synthetic_exact`: members sampled from the exact distribution of rain given the predictors."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch

from geoml.data.fields import Batch
from geoml.errors import DataError, UserError
from geoml.grids.grid import Grid
from geoml.models.base import Channels
from geoml.models.noise import member_noise
from rainshift.baselines import Baseline
from rainshift.places.regions import regions
from rainshift.planet.gaussian import GaussianLaw, View
from rainshift.sources.synthetic_exact import LATENT

__all__ = ["Oracle"]


class Oracle(Baseline):
    """Samples of the exact conditional distribution; in expectation no model has a lower fair CRPS.

    Truth and members are independent samples of one distribution. Hence the expected fair CRPS is minimal (Gneiting &
    Raftery 2007), ranks are uniform and the spread–skill ratio is 1. The distribution is that of the region in which
    the grids lie. `length_factor` and `noise_factor` multiply the correlation length and the noise that the oracle
    assumes; values other than 1 give a model with a known error.

    Raises `UserError` if the predictors lack the latent field of `data=synthetic_exact` or a factor is not positive.
    """

    learns = False
    stochastic = True

    def __init__(
        self, channels: Channels, dims: int = 2, *, length_factor: float = 1.0, noise_factor: float = 1.0
    ) -> None:
        super().__init__(channels, dims)
        if channels.target != ("precipitation",) or LATENT not in channels.condition:
            raise UserError(
                f"the oracle requires data=synthetic_exact, which has the predictor {LATENT!r}; "
                f"the predictors are {', '.join(channels.condition)}. Remove the oracle from models, or use these data"
            )
        for name, value in (("length_factor", length_factor), ("noise_factor", noise_factor)):
            if not value > 0:
                raise UserError(f"oracle.{name} is {value!r}; expected a number above 0")
        self.length_factor, self.noise_factor = length_factor, noise_factor

    def predict(self, batch: Batch, *, members: int = 1, seed: int = 0) -> tuple[torch.Tensor, float]:
        """Draw independent members. All samples of a batch must be of one region."""
        view = self.view(batch)
        coarse = batch.condition[:, self.channels.condition.index(LATENT)].double().cpu().numpy()
        white = member_noise((view.wide.size + view.coarse.size,), batch.ids, members=members, seed=seed).double()
        parts = white.split((view.wide.size, view.coarse.size), dim=-1)
        fields = [
            p.reshape(*p.shape[:2], *g.shape).numpy() for p, g in zip(parts, (view.wide, view.coarse), strict=True)
        ]
        rain = view.law.rain(view.conditional(coarse[:, None], *fields))
        return torch.from_numpy(rain).unsqueeze(2).to(batch.condition.device), 0.0

    def view(self, batch: Batch) -> View:
        """Return the joint distribution on the two grids of a batch, with the assumed length and noise."""
        law = _law(batch.target_grid)
        believed = replace(law, length_km=law.length_km * self.length_factor, noise=law.noise * self.noise_factor)
        return _view(believed, batch.target_grid, batch.condition_grid)


@lru_cache(maxsize=32)
def _view(law: GaussianLaw, fine: Grid, coarse: Grid) -> View:
    return View(law, fine, coarse)


@lru_cache(maxsize=32)
def _law(grid: Grid) -> GaussianLaw:
    """Return the distribution of the region that contains the centre of a grid."""
    lat, lon = (float(np.mean(grid[name].edges[[0, -1]])) for name in ("lat", "lon"))
    for found in regions().values():
        inside = found.lat_min <= lat <= found.lat_max and found.lon_min <= lon <= found.lon_max
        if inside and found.climate is not None:
            return GaussianLaw.of(found)
    raise DataError(
        f"the oracle needs a region with a climate at {lat:g} N {lon:g} E, but there is none; `rainshift regions` "
        "lists the regions"
    )
