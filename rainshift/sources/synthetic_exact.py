"""Data source with a known distribution of rain given the predictors, hence a known best score (see `Oracle`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rainshift.places.regions import grids, region
from rainshift.planet.gaussian import GaussianLaw, GaussianWeather
from rainshift.sources.synthetic import PlanetSource
from rainshift.sources.variables import VARIABLES

__all__ = ["LATENT", "SyntheticExactSource"]

#: Predictor that contains all information about the rain: the noisy area means of the Gaussian field.
LATENT = "latent"


@dataclass(frozen=True)
class SyntheticExactSource(PlanetSource):
    """`data=synthetic_exact`: rain as a censored and skewed transform of a Gaussian field.

    The distribution depends only on the region's climate (`GaussianLaw.of`), so it is known for every region. Hours are
    independent. Predictors are `latent` (area means of the Gaussian field with noise, in its standard deviations) and
    `tp` (a first guess of the rain, computed from `latent` alone).
    """

    size_deg: float | None = 2.0

    @property
    def predictors(self) -> Mapping[str, Mapping[str, str]]:
        """Attributes of the predictors, in their order in blocks of weather."""
        latent = {"long_name": "area mean of the latent Gaussian field, with error", "units": "1"}
        return {LATENT: latent, "tp": VARIABLES["tp"].attrs}

    def weather(self, name: str) -> GaussianWeather:
        """Return the weather model of a region."""
        coarse, fine = grids(self.box(name))
        return GaussianWeather(self.seed, name, GaussianLaw.of(region(name)), coarse, fine)

    def provenance(self, name: str) -> dict[str, Any]:
        """Return the origin: no observations, the seed, and the region whose climate is used."""
        return {
            "source": "synthetic Gaussian fields; illustrative climates, no observation",
            "licence": "none needed",
            "seed": self.seed,
            "climate_of": name,
            "stamp": "end",
        }
