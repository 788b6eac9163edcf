"""Blocks of synthetic weather: fine rain, and the coarse predictors of an analysis."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from geoml.grids.grid import Grid
from geoml.regrid import Regridder
from rainshift.places.climate import Climate
from rainshift.planet.land import Land, spacing_km, torus
from rainshift.planet.latent import BLOCK_HOURS, Drift, SpectralField, isotropic, mixture, ring
from rainshift.planet.rainfall import STRATIFORM_SHAPE, RainLaw, rate, shifted_probability
from rainshift.planet.relation import USUAL, Relation
from rainshift.planet.sun import local_hour, solar_flux
from rainshift.planet.texture import SMOOTH, Texture
from rainshift.sources.variables import PREDICTORS

__all__ = ["PREDICTORS", "Weather", "WeatherBlock"]


#: Number of cells by which the fine and the coarse grid are padded, so that coarse means at the edge are complete.
FINE_PAD, COARSE_PAD = 10, 3
#: Ascent in m/s at which orography shifts the latent field by its full gain.
LIFT_M_S = 0.05
DAYS_A_YEAR = 365.25
SEA_LEVEL_PA, SCALE_HEIGHT_M = 101_325.0, 8_000.0
#: Smooth fields on the coarse grid: outer scale in km and correlation time in hours.
ANALYSIS = {"pressure": (1500.0, 36.0), "error": (400.0, 6.0), "north": (500.0, 12.0), "east": (500.0, 12.0)}

Fields = NDArray[np.float32]


@dataclass(frozen=True)
class WeatherBlock:
    """`BLOCK_HOURS` hours of weather.

    Attributes:
        rain: rain in mm/h `(time, lat, lon)` on the fine grid.
        predictors: predictors `(time, predictor, lat, lon)` on the coarse grid, in the units of
            `rainshift.sources.variables`.
    """

    rain: Fields
    predictors: Fields


@dataclass(frozen=True)
class Weather:
    """Weather model of one region on a pair of grids. `block` generates its weather.

    `key` (usually the region's name) selects the random numbers. Two `Weather`s with equal climate, grids and seed but
    different keys are independent draws from one distribution. Their land is also independent unless `land_key` is
    equal.
    """

    seed: int
    key: str
    climate: Climate
    coarse: Grid
    fine: Grid
    land_key: str
    relation: Relation = USUAL
    texture: Texture = SMOOTH

    def __reduce__(self) -> tuple[Any, ...]:
        # Cached values are not pickled, which keeps tasks small.
        values = (self.seed, self.key, self.climate, self.coarse, self.fine, self.land_key, self.relation, self.texture)
        return Weather, values

    @cached_property
    def _wide(self) -> Grid:
        return self.fine.pad(FINE_PAD)

    @cached_property
    def _wide_coarse(self) -> Grid:
        return self.coarse.pad(COARSE_PAD)

    @cached_property
    def _mean(self) -> Regridder:
        return Regridder(self._wide, self._wide_coarse)

    @cached_property
    def land(self) -> Land:
        """Static fields on the padded fine grid."""
        return Land.of(self.seed, self.land_key, self.climate, self._wide)

    @cached_property
    def law(self) -> RainLaw:
        return RainLaw.of(self.climate)

    @cached_property
    def drift(self) -> Drift:
        wind = (self.climate.wind_east_m_s, self.climate.wind_north_m_s)
        return Drift(self.seed, self.key, wind, self.climate.wind_spread_m_s)

    @cached_property
    def _systems(self) -> SpectralField:
        c = self.climate
        return SpectralField(
            self.seed, f"{self.key}/systems", torus(self._wide.shape), spacing_km(self._wide),
            isotropic(c.spectral_slope, c.outer_scale_km), self.drift, c.system_hours, c.outer_scale_km,
            anisotropy=c.anisotropy, band_angle_deg=c.band_angle_deg,
        )  # fmt: skip

    @cached_property
    def _cells(self) -> SpectralField:
        c = self.climate
        spacing = 3 * c.cell_km
        spectrum = mixture((0.65, ring(spacing)), (0.35, isotropic(3.5, 8 * spacing)))
        return SpectralField(
            self.seed, f"{self.key}/cells", torus(self._wide.shape), spacing_km(self._wide), spectrum, self.drift,
            4 * c.cell_hours, 8 * spacing, shortest_hours=c.cell_hours,
        )  # fmt: skip

    @cached_property
    def _analysis(self) -> dict[str, SpectralField]:
        return {
            name: SpectralField(
                self.seed, f"{self.key}/{name}", torus(self._wide_coarse.shape), spacing_km(self._wide_coarse),
                isotropic(4.0, outer_km), self.drift, hours, outer_km, shortest_hours=hours / 4,
            )
            for name, (outer_km, hours) in ANALYSIS.items()
        }  # fmt: skip

    def _textures(self, block: int) -> Iterator[Fields | None]:
        """The rough fields of a block, hour by hour; None without texture."""
        if not self.texture.any:
            return itertools.repeat(None, BLOCK_HOURS)
        spectrum = isotropic(self.texture.slope, self.texture.outer_km)
        return SpectralField(
            self.seed, f"{self.key}/texture", torus(self._wide.shape), spacing_km(self._wide), spectrum, self.drift,
            1.0, self.texture.outer_km,
        ).fields(block)  # fmt: skip

    def _season(self, hour: float) -> float:
        c = self.climate
        return 1 + c.season_amplitude * math.cos(2 * math.pi * (hour / 24 - c.season_peak_day) / DAYS_A_YEAR)

    def _clock(self, hour: float) -> Fields:
        """Return the diurnal factor of convection, with daily mean 1: strong over land, weak over sea (peak at 5 h)."""
        c = self.climate
        local = local_hour(hour, self._wide["lon"].coordinates)
        land = c.diurnal_amplitude * np.cos(2 * math.pi * (local - c.diurnal_peak_hour) / 24)
        sea = 0.25 * c.diurnal_amplitude * np.cos(2 * math.pi * (local - 5.0) / 24)
        return (1 + self.land.lsm * land + (1 - self.land.lsm) * sea).astype(np.float32)

    def _rain(self, hour: float, systems: Fields, storms: Fields) -> tuple[Fields, Fields]:
        """Return stratiform and convective rain of an hour on the padded fine grid."""
        c, season = self.climate, self._season(hour)
        east, north = self.drift.at(hour)
        lift = np.clip((east * self.land.slope_east + north * self.land.slope_north) / LIFT_M_S, -2.5, 2.5)
        lifted = shifted_probability(min(self.law.stratiform * season, 0.9), 1.5 * c.orographic_gain * lift)
        stratiform = rate(systems, lifted, c.stratiform_mm_h, STRATIFORM_SHAPE)
        mean = min(self.law.convective * season, 0.5)
        chance = shifted_probability(mean, 0.5 * c.orographic_gain * lift) * self._clock(hour)
        return stratiform, rate(storms, np.minimum(chance, 0.95), c.convective_mm_h, c.tail_shape)

    def _textured(self, hour: float, systems: Fields, storms: Fields, rough: Fields | None) -> tuple[Fields, Fields]:
        """`_rain`, with the texture if there is any."""
        if rough is None:
            return self._rain(hour, systems, storms)
        rough = rough[: systems.shape[0], : systems.shape[1]]
        kinds = self._rain(hour, *(self.texture.mixed(latent, rough) for latent in (systems, storms)))
        stratiform, convective = (self.texture.factored(rain, rough) for rain in kinds)
        return stratiform, convective

    def block(self, block: int) -> WeatherBlock:
        """Return the `BLOCK_HOURS` hours from `block * BLOCK_HOURS` since 1970."""
        hours = [float(block * BLOCK_HOURS + step) for step in range(BLOCK_HOURS)]
        rows, columns = self._wide.shape
        organisation = self.climate.organisation
        rain = np.empty((BLOCK_HOURS, *self.fine.shape), np.float32)
        predictors = np.empty((BLOCK_HOURS, len(PREDICTORS), *self.coarse.shape), np.float32)
        inner = slice(FINE_PAD, -FINE_PAD)
        smooth = zip(*(self._analysis[name].fields(block) for name in ANALYSIS), strict=True)
        fields = (field.fields(block) for field in (self._systems, self._cells))
        latents = zip(hours, *fields, smooth, self._textures(block), strict=True)
        for step, (hour, systems, cells, analysis, rough) in enumerate(latents):
            systems, cells = systems[:rows, :columns], cells[:rows, :columns]
            storms = organisation * systems + math.sqrt(1 - organisation**2) * cells
            stratiform, convective = self._textured(hour, systems, storms, rough)
            rain[step] = (stratiform + convective)[inner, inner]
            fine = {"systems": systems, "storms": storms, "stratiform": stratiform, "convective": convective}
            predictors[step] = self._predictors(hour, fine, dict(zip(ANALYSIS, analysis, strict=True)))
        return WeatherBlock(rain, predictors)

    def _analysed(self, rain: Fields, analysis: dict[str, Fields]) -> Fields:
        """Apply the errors of an analysis to coarse rain: displacement, and a smooth log-normal factor."""
        c = self.climate
        rows, columns = self._wide_coarse.shape
        grid = np.mgrid[COARSE_PAD : rows - COARSE_PAD, COARSE_PAD : columns - COARSE_PAD].astype(np.float32)
        inner = slice(COARSE_PAD, -COARSE_PAD)
        north_km, east_km = spacing_km(self._wide_coarse)
        grid[0] += c.analysis_shift_km / north_km * analysis["north"][:rows, :columns][inner, inner]
        grid[1] += c.analysis_shift_km / east_km * analysis["east"][:rows, :columns][inner, inner]
        error = c.analysis_noise * analysis["error"][:rows, :columns][inner, inner]
        factor = c.analysis_bias * np.exp(error - 0.5 * c.analysis_noise**2)
        return factor * ndimage.map_coordinates(rain, grid, order=1, mode="nearest")

    def _known_of(self, latent: Fields, analysis: dict[str, Fields], name: str) -> Fields:
        """Mix a latent field with an independent field, which has the share `foreign` of the variance."""
        share = self.relation.foreign
        if share == 0:
            return latent
        rows, columns = self._wide_coarse.shape
        inner = slice(COARSE_PAD, -COARSE_PAD)
        other = analysis[name][:rows, :columns][inner, inner]
        return math.sqrt(1 - share) * latent + math.sqrt(share) * other

    def _predictors(self, hour: float, fine: dict[str, Fields], analysis: dict[str, Fields]) -> Fields:
        """Return the nine coarse predictors of an hour, in the order of `PREDICTORS`."""
        c, r = self.climate, self.relation
        rows, columns = self._wide_coarse.shape
        inner = slice(COARSE_PAD, -COARSE_PAD)
        cloud = np.maximum(np.maximum(fine["systems"], fine["storms"]) + r.cloud_from, 0) ** r.cloud_power
        every: dict[str, Any] = {**fine, "cloud": cloud}
        mean = {name: self._mean(values) for name, values in every.items()}
        systems = self._known_of(mean["systems"][inner, inner], analysis, "north")
        storms = self._known_of(mean["storms"][inner, inner], analysis, "east")
        height = self._coarse_height[inner, inner]
        season = 1 + 0.5 * (self._season(hour) - 1)
        tp = self._analysed(mean["stratiform"] + mean["convective"], analysis)
        seen = r.convective_seen
        convective = mean["convective"] if seen == 1 else seen * mean["convective"] + (1 - seen) * mean["stratiform"]
        cp = self._analysed(convective, analysis)
        tclw = 0.1 * (c.water_kg_m2 / 40) ** 0.5 * self._analysed(mean["cloud"], analysis)
        tcw = c.water_kg_m2 * season * np.exp(r.water_systems * systems + r.water_storms * storms - height / 3000.0)
        cape = c.cape_j_kg * season * self._coarse_clock(hour) * np.exp(r.cape_storms * storms - 0.3)
        pressure = analysis["pressure"][:rows, :columns]
        north_m, east_m = (1e3 * km for km in spacing_km(self._wide_coarse))
        north_slope, east_slope = (np.asarray(part)[inner, inner] for part in np.gradient(pressure, north_m, east_m))
        hemisphere = -1.0 if self.coarse["lat"].start < 0 else 1.0
        east_m_s, north_m_s = self.drift.at(hour)
        swirl = hemisphere * 0.5 * c.wind_spread_m_s * 300e3
        sp = (SEA_LEVEL_PA + 500.0 * pressure[inner, inner]) * np.exp(-height / SCALE_HEIGHT_M)
        tisr = solar_flux(hour, self.coarse["lat"].coordinates, self.coarse["lon"].coordinates)
        values = {
            "cape": cape, "cp": cp, "sp": sp, "tclw": tclw, "tcw": tcw, "tisr": tisr, "tp": tp,
            "u": east_m_s - swirl * north_slope, "v": north_m_s + swirl * east_slope,
        }  # fmt: skip
        return np.stack([np.asarray(values[name], np.float32) for name in PREDICTORS])

    @cached_property
    def _coarse_height(self) -> Fields:
        return self._mean(self.land.height_m)

    def _coarse_clock(self, hour: float) -> Fields:
        inner = slice(COARSE_PAD, -COARSE_PAD)
        return self._mean(self._clock(hour))[inner, inner]
