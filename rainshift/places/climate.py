"""Parameters of a region's climate on the synthetic planet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from geoml.errors import UserError, unknown

__all__ = ["Climate"]


def _number(low: float, high: float) -> Any:
    """Define a required field whose value must lie within [low, high]."""
    return field(metadata={"range": (low, high)})


@dataclass(frozen=True, kw_only=True)
class Climate:
    """Parameters of the statistical weather model of one region; read from the `climate:` block of its YAML file.

    Hours are local solar time, days count from 1 January, angles are counter-clockwise from east. Wet means a rate of
    at least `rainshift.planet.rainfall.WET_MM_H`.
    """

    # Rain: frequency, amount and type
    wet_fraction: float = _number(0.001, 0.6)  # share of pixel-hours that are wet, over the year
    stratiform_mm_h: float = _number(0.15, 20.0)  # mean rate of stratiform rain where it falls
    convective_mm_h: float = _number(0.15, 50.0)  # mean rate of convective rain where it falls
    tail_shape: float = _number(0.3, 3.0)  # Weibull shape of convective rates; smaller has the heavier tail
    convective_share: float = _number(0.02, 0.98)  # of the rain amount
    # Size and lifetime of rain systems and of the cells in them
    outer_scale_km: float = _number(50.0, 3000.0)  # beyond it the spectrum of systems is flat
    spectral_slope: float = _number(1.0, 5.0)  # power over wavenumber falls as k^-slope below the outer scale
    anisotropy: float = _number(1.0, 5.0)  # length of bands over their width
    band_angle_deg: float = _number(-180.0, 180.0)  # direction along the bands
    system_hours: float = _number(1.0, 96.0)  # correlation time at the outer scale
    cell_km: float = _number(10.0, 100.0)  # spacing scale of convective cells
    cell_hours: float = _number(0.3, 12.0)  # correlation time of a cell
    organisation: float = _number(0.0, 0.95)  # correlation of cells with the systems; 0 scatters them
    # Diurnal and seasonal cycle
    diurnal_peak_hour: float = _number(0.0, 24.0)  # of convection over land
    diurnal_amplitude: float = _number(0.0, 0.95)  # of convection over land; a quarter of it over sea, at dawn
    season_peak_day: float = _number(0.0, 366.0)
    season_amplitude: float = _number(0.0, 0.95)
    # Wind that carries the weather
    wind_east_m_s: float = _number(-30.0, 30.0)
    wind_north_m_s: float = _number(-30.0, 30.0)
    wind_spread_m_s: float = _number(0.0, 15.0)  # standard deviation from day to day, each component
    # Land
    land_fraction: float = _number(0.0, 1.0)
    base_m: float = _number(0.0, 6000.0)  # mean height of the land
    relief_m: float = _number(0.0, 5000.0)  # standard deviation of height over land
    orography_slope: float = _number(1.0, 5.0)  # spectral slope of heights
    orographic_gain: float = _number(0.0, 0.9)  # correlation of rain's latent field with upslope wind
    # Coarse analysis: predictors and errors
    cape_j_kg: float = _number(1.0, 5000.0)
    water_kg_m2: float = _number(1.0, 80.0)
    analysis_bias: float = _number(0.2, 5.0)  # multiplies the analysed rain
    analysis_noise: float = _number(0.0, 1.5)  # standard deviation of the log of its smooth error
    analysis_shift_km: float = _number(0.0, 150.0)  # standard deviation of its smooth displacement, each component

    def __post_init__(self) -> None:
        for item in fields(self):
            low, high = item.metadata["range"]
            value = getattr(self, item.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise UserError(f"climate.{item.name} is {value!r}; expected a number from {low} to {high}")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Climate:
        """Parse a YAML block. Raises `UserError` for missing and unknown keys."""
        names = [item.name for item in fields(cls)]
        for key in values:
            if key not in names:
                raise unknown("climate key", key, names)
        if missing := [name for name in names if name not in values]:
            raise UserError(f"climate has no {', '.join(missing)}; copy the block of a similar region and edit it")
        return cls(**values)

    def as_dict(self) -> dict[str, float]:
        """Return the block as in the YAML file."""
        return asdict(self)
