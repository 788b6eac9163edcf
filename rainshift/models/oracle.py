"""The best there is on `data=synthetic_exact`: members drawn from the law of the rain given the coarse predictors."""

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
    """Exact members of the rain given its coarse view; in expectation no model has a lower fair CRPS.

    Truth and members are independent draws of one law, which makes the fair CRPS least in expectation (Gneiting &
    Raftery 2007), ranks uniform, and the spread–skill ratio 1. The law is that of the place, which the grids tell.
    `length_factor` and `noise_factor` multiply what the oracle believes of the field's correlation length and of the
    noise: other than 1, it is a model that is wrong in a known way.
    """

    learns = False
    stochastic = True

    def __init__(
        self, channels: Channels, dims: int = 2, *, length_factor: float = 1.0, noise_factor: float = 1.0
    ) -> None:
        super().__init__(channels, dims)
        if channels.target != ("precipitation",) or LATENT not in channels.condition:
            raise UserError(
                f"the oracle knows the law of data=synthetic_exact alone, where {LATENT!r} is a predictor; "
                f"these are {', '.join(channels.condition)}. Leave it out of models, or take that data"
            )
        for name, value in (("length_factor", length_factor), ("noise_factor", noise_factor)):
            if not value > 0:
                raise UserError(f"oracle.{name} is {value!r}; expected a number above 0")
        self.length_factor, self.noise_factor = length_factor, noise_factor

    def predict(self, batch: Batch, *, members: int = 1, seed: int = 0) -> tuple[torch.Tensor, float]:
        """Independent members, keyed on (seed, sample id, member); all samples have to be of one place."""
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
        """The joint law of the two grids of a batch, as the oracle believes it to be."""
        law = _law(batch.target_grid)
        believed = replace(law, length_km=law.length_km * self.length_factor, noise=law.noise * self.noise_factor)
        return _view(believed, batch.target_grid, batch.condition_grid)


@lru_cache(maxsize=32)
def _view(law: GaussianLaw, fine: Grid, coarse: Grid) -> View:
    return View(law, fine, coarse)


@lru_cache(maxsize=32)
def _law(grid: Grid) -> GaussianLaw:
    """The law of the region in which the middle of a grid lies."""
    lat, lon = (float(np.mean(grid[name].edges[[0, -1]])) for name in ("lat", "lon"))
    for found in regions().values():
        inside = found.lat_min <= lat <= found.lat_max and found.lon_min <= lon <= found.lon_max
        if inside and found.climate is not None:
            return GaussianLaw.of(found)
    raise DataError(
        f"the oracle finds no region with a climate around {lat:g} N {lon:g} E; `rainshift regions` lists them"
    )
