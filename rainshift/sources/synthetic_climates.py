"""Data source of random climates of the synthetic planet: many small regions for training general models."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from geoml.errors import unknown
from geoml.grids.grid import Grid
from rainshift.places.regions import grids
from rainshift.planet.climates import RandomClimate, random_climate
from rainshift.planet.weather import FINE_PAD, Weather, WeatherBlock
from rainshift.sources.synthetic import PlanetSource
from rainshift.sources.variables import VARIABLES

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["EXACT", "SyntheticClimatesSource"]

#: Predictor that is 1 if the coarse rain is the exact mean of the fine rain, else 0.
EXACT = "exact"


@dataclass(frozen=True)
class ClimateWeather:
    """Weather of a random climate, with the additional predictor `exact`."""

    weather: Weather
    exact: bool

    @property
    def coarse(self) -> Grid:
        """Grid of the predictors."""
        return self.weather.coarse

    @property
    def fine(self) -> Grid:
        """Grid of the rain."""
        return self.weather.fine

    def block(self, block: int) -> WeatherBlock:
        """Return the hours of one day, with `exact` as an additional predictor."""
        made = self.weather.block(block)
        flag = np.full_like(made.predictors[:, :1], float(self.exact))
        return replace(made, predictors=np.concatenate((made.predictors, flag), axis=1))


@dataclass(frozen=True)
class SyntheticClimatesSource(PlanetSource):
    """`data=synthetic_climates`: `count` regions with climates of `rainshift.planet.climates`.

    Names are `climate-0000`, `climate-0001`, …. With `outside`, climates are outside the training ranges.
    """

    size_deg: float | None = 4.0
    count: int = 160
    outside: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the climates, restricted to `include` if it is not empty."""
        known = tuple(f"climate-{number:04d}" for number in range(self.count))
        for name in self.include:
            if name not in known:
                raise unknown("climate", name, known)
        return tuple(self.include) or known

    @property
    def predictors(self) -> Mapping[str, Mapping[str, str]]:
        """Attributes of the predictors, in their order in blocks of weather."""
        flag = {"long_name": "whether the coarse rain is the exact mean of the fine rain", "units": "1"}
        return {**super().predictors, EXACT: flag}

    def drawn(self, name: str) -> RandomClimate:
        """Return the climate with a name."""
        if name not in self.names:
            raise unknown("climate", name, self.names)
        return _climate(self.seed, int(name.rpartition("-")[2]), float(self.size_deg or 4.0), self.outside)

    def weather(self, name: str) -> ClimateWeather:
        """Return the weather model of a climate."""
        return _weather(self.seed, self.drawn(name))

    def static(self, name: str) -> xr.Dataset:
        """Return land fraction and surface geopotential."""
        import xarray as xr

        weather, inner = self.weather(name).weather, slice(FINE_PAD, -FINE_PAD)
        fields = {"lsm": weather.land.lsm, "z": weather.land.geopotential}
        dims = weather.fine.names
        values = {key: (dims, field[inner, inner], VARIABLES[key].attrs) for key, field in fields.items()}
        return xr.Dataset(values, weather.fine.coords())

    def provenance(self, name: str) -> dict[str, Any]:
        """Return the origin: source, licence, seed and climate."""
        drawn = self.drawn(name)
        return {
            "source": "synthetic planet; a climate drawn at random, no observation",
            "licence": "none needed",
            "seed": self.seed,
            "climate_of": drawn.region.name,
            "coarse": "area means of the fine rain" if drawn.exact else "an analysis with errors",
            "stamp": "end",
        }


@functools.lru_cache(maxsize=512)
def _climate(seed: int, number: int, size_deg: float, outside: bool) -> RandomClimate:
    return random_climate(seed, number, size_deg=size_deg, outside=outside)


@functools.lru_cache(maxsize=8)
def _weather(seed: int, drawn: RandomClimate) -> ClimateWeather:
    coarse, fine = grids(drawn.region)
    name = drawn.region.name
    weather = Weather(seed, name, drawn.climate, coarse, fine, name, drawn.relation, drawn.texture)
    return ClimateWeather(weather, drawn.exact)
