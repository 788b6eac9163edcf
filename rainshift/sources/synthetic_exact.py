"""Rain with a known distribution given the predictors, so that the best score is known (`rainshift.models.oracle`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rainshift.places.regions import grids, region
from rainshift.planet.gaussian import GaussianLaw, GaussianWeather
from rainshift.sources.synthetic import PlanetSource
from rainshift.sources.variables import VARIABLES

__all__ = ["LATENT", "SyntheticExactSource"]

#: The sufficient predictor: the coarse view of the Gaussian field.
LATENT = "latent"


@dataclass(frozen=True)
class SyntheticExactSource(PlanetSource):
    """`data=synthetic_exact`: a Gaussian field, its noisy area means, and rain as its censored and skewed transform.

    The distribution depends on the region's climate (`GaussianLaw.of`) and not on options, so that it is known for
    every region. Hours are independent. Predictors are `latent`, the area means with noise, in standard deviations of
    the field, and `tp`, a first guess of the rain computed from `latent` alone.
    """

    size_deg: float | None = 2.0

    @property
    def predictors(self) -> Mapping[str, Mapping[str, str]]:
        """Attributes of the predictors, in the order in which blocks of weather hold them."""
        latent = {"long_name": "area mean of the latent Gaussian field, with error", "units": "1"}
        return {LATENT: latent, "tp": VARIABLES["tp"].attrs}

    def weather(self, name: str) -> GaussianWeather:
        """The law of a region's weather."""
        coarse, fine = grids(self.box(name))
        return GaussianWeather(self.seed, name, GaussianLaw.of(region(name)), coarse, fine)

    def provenance(self, name: str) -> dict[str, Any]:
        """That no observation went in, and whose climate it is."""
        return {
            "source": "synthetic Gaussian fields; illustrative climates, no observation",
            "licence": "none needed",
            "seed": self.seed,
            "climate_of": name,
            "stamp": "end",
        }
