"""Random climates: regions from a distribution that is much wider than the named regions."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from geoml.errors import UserError
from rainshift.places.climate import Climate
from rainshift.places.regions import Region
from rainshift.planet.latent import generator
from rainshift.planet.relation import USUAL, Relation
from rainshift.planet.texture import SMOOTH, Texture

__all__ = ["INSIDE", "OUTSIDE", "RandomClimate", "random_climate"]

#: Ranges of the uniform distributions of climate parameters; uniform in the logarithm for the names in `LOG`.
INSIDE: dict[str, tuple[float, float]] = {
    "latitude": (-60, 60),
    "wet_fraction": (0.05, 0.40),  # log
    "stratiform_mm_h": (0.4, 2.5),  # log
    "convective_mm_h": (1.2, 8.0),  # log
    "tail_shape": (0.55, 1.25),
    "convective_share": (0.08, 0.92),
    "outer_scale_km": (250, 1500),  # log
    "spectral_slope": (2.0, 3.6),
    "anisotropy": (1.0, 2.8),
    "cell_km": (14, 45),  # log
    "organisation": (0.1, 0.9),
    "relief_m": (50, 2000),  # log
    "base_m": (50, 3500),  # log
    "orographic_gain": (0.0, 0.8),
    "wind_m_s": (0, 16),
    "water_kg_m2": (5, 60),
    "cape_j_kg": (30, 2500),  # log
    "noise": (0.0, 0.9),  # twice that of the wettest named regions
    "shift_km": (0.0, 64.0),
    "bias": (0.6, 1.7),  # log
}
LOG = (
    *("wet_fraction", "stratiform_mm_h", "convective_mm_h", "outer_scale_km", "cell_km", "relief_m", "base_m"),
    *("cape_j_kg", "bias"),
)  # fmt: skip
#: Ranges outside those of `INSIDE`; an outside climate draws two of its parameters from these ranges.
OUTSIDE: dict[str, tuple[float, float]] = {
    "wet_fraction": (0.42, 0.55),
    "stratiform_mm_h": (3.0, 5.0),
    "convective_mm_h": (9.0, 14.0),
    "tail_shape": (0.42, 0.52),
    "outer_scale_km": (120, 200),
    "spectral_slope": (1.5, 1.85),
    "anisotropy": (3.2, 4.5),
    "cell_km": (50, 80),
    "relief_m": (2300, 3200),
    "water_kg_m2": (64, 76),
    "noise": (0.95, 1.2),
    "shift_km": (70, 100),
    "bias": (1.9, 2.6),
}
#: Share of climates with exact means as coarse rain.
EXACT_SHARE = 1 / 3
#: Share of climates in which predictors depend on rain as in the named regions.
USUAL_SHARE = 0.4
#: Share of climates inside the ranges whose rain is rough, and the ranges of its texture.
ROUGH_SHARE = 0.6
ROUGH: dict[str, tuple[float, float]] = {
    "deviation": (0.05, 0.8),
    "share": (0.0, 0.2),
    "slope": (1.0, 3.0),
    "outer_km": (20, 150),
}


@dataclass(frozen=True)
class RandomClimate:
    """A random region: climate, dependence of predictors on rain, whether coarse rain is exact, and texture."""

    region: Region
    relation: Relation
    exact: bool
    texture: Texture = SMOOTH

    @property
    def climate(self) -> Climate:
        """Parameters of the climate."""
        assert self.region.climate is not None
        return self.region.climate


def random_climate(seed: int, number: int, *, size_deg: float = 4.0, outside: bool = False) -> RandomClimate:
    """Draw climate `number` of the planet `seed`; with `outside`, two of its parameters are outside `INSIDE`.

    The result is deterministic. Raises `UserError` if no valid climate is found in 50 draws.

    >>> random_climate(0, 7) == random_climate(0, 7)
    True
    """
    key = "outside" if outside else "inside"
    for attempt in range(50):
        rng = generator(seed, "climates", key, number, attempt)
        try:
            made = _drawn(rng, f"climate-{key}-{number:04d}", size_deg, outside)
            return made if outside else replace(made, texture=_texture(generator(seed, "texture", number)))
        except UserError:  # no rain distribution has this wet fraction with these rates: draw again
            continue
    raise UserError(f"no valid climate {number} was found for planet {seed}; use another number")


def _drawn(rng: np.random.Generator, name: str, size_deg: float, outside: bool) -> RandomClimate:
    from rainshift.planet.rainfall import RainLaw

    beyond = set(rng.choice(list(OUTSIDE), 2, replace=False)) if outside else set()

    def number(key: str) -> float:
        low, high = OUTSIDE[key] if key in beyond else INSIDE[key]
        return float(math.exp(rng.uniform(math.log(low), math.log(high))) if key in LOG else rng.uniform(low, high))

    drawn = {key: number(key) for key in INSIDE}
    exact = bool(rng.random() < EXACT_SHARE) and not beyond & {"noise", "shift_km", "bias"}
    wind, heading = drawn["wind_m_s"], rng.uniform(0, 2 * math.pi)
    climate = Climate(
        **{key: drawn[key] for key in (
            "wet_fraction", "stratiform_mm_h", "convective_mm_h", "tail_shape", "convective_share", "outer_scale_km",
            "spectral_slope", "anisotropy", "cell_km", "organisation", "relief_m", "base_m", "orographic_gain",
            "cape_j_kg", "water_kg_m2",
        )},
        band_angle_deg=float(rng.uniform(-90, 90)),
        system_hours=float(rng.uniform(5, 30)),
        cell_hours=float(rng.uniform(0.8, 4)),
        diurnal_peak_hour=float(rng.uniform(0, 24)),
        diurnal_amplitude=float(rng.uniform(0, 0.7)),
        season_peak_day=float(rng.uniform(0, 366)),
        season_amplitude=float(rng.uniform(0, 0.6)),
        wind_east_m_s=wind * math.cos(heading),
        wind_north_m_s=wind * math.sin(heading),
        wind_spread_m_s=float(rng.uniform(2, 8)),
        land_fraction=float(np.clip(rng.uniform(-0.3, 1.3), 0, 1)),
        orography_slope=float(rng.uniform(1.8, 2.8)),
        analysis_bias=1.0 if exact else drawn["bias"],
        analysis_noise=0.0 if exact else drawn["noise"],
        analysis_shift_km=0.0 if exact else drawn["shift_km"],
    )  # fmt: skip
    RainLaw.of(climate)
    south = round(2 * (drawn["latitude"] - size_deg / 2)) / 2
    west = round(2 * float(rng.uniform(-175, 170))) / 2
    region = Region(name, south, south + size_deg, west, west + size_deg, title=name, climate=climate)
    return RandomClimate(region, USUAL if rng.random() < USUAL_SHARE else _relation(rng), exact)


def _relation(rng: np.random.Generator) -> Relation:
    return Relation(
        water_systems=float(rng.uniform(0.0, 0.4)),
        water_storms=float(rng.uniform(0.0, 0.25)),
        cape_storms=float(rng.uniform(0.0, 1.3)),
        cloud_from=float(rng.uniform(-0.3, 0.9)),
        cloud_power=float(rng.uniform(1.0, 2.2)),
        convective_seen=float(rng.uniform(0.4, 1.0)),
        foreign=float(rng.uniform(0.0, 1.0)),
    )


def _texture(rng: np.random.Generator) -> Texture:
    if rng.random() >= ROUGH_SHARE:
        return SMOOTH
    return Texture(**{key: float(rng.uniform(*ends)) for key, ends in ROUGH.items()})
