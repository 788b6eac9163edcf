"""Variables of RainShift: names, CF standard names, internal units, and conversion from the units of files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from geoml.errors import DataError
from rainshift.sources.units import rain_factor

__all__ = ["PREDICTORS", "VARIABLES", "Variable", "inside_factor"]


@dataclass(frozen=True)
class Variable:
    """One variable with its internal `units`, and the `published_units` of the RainShift files and ERA5."""

    name: str
    long_name: str
    standard_name: str
    units: str
    published_units: str
    role: str  # condition, target or static
    #: Factor from published to internal units; hourly accumulations become mean rates over the hour.
    published_factor: float = 1.0

    @property
    def attrs(self) -> dict[str, str]:
        """CF attributes of the variable in internal units."""
        attrs = {"long_name": self.long_name, "standard_name": self.standard_name, "units": self.units}
        if self.units in ("mm h-1", "W m-2"):
            attrs["cell_methods"] = "time: mean"
        return attrs


def _table() -> Mapping[str, Variable]:
    rows = (
        Variable("cape", "convective available potential energy",
                 "atmosphere_convective_available_potential_energy", "J kg-1", "J kg-1", "condition"),
        Variable("cp", "convective precipitation rate", "lwe_convective_precipitation_rate", "mm h-1", "m",
                 "condition", 1000.0),
        Variable("sp", "surface pressure", "surface_air_pressure", "Pa", "Pa", "condition"),
        Variable("tclw", "total column cloud liquid water",
                 "atmosphere_mass_content_of_cloud_liquid_water", "kg m-2", "kg m-2", "condition"),
        Variable("tcw", "total column water", "atmosphere_mass_content_of_water", "kg m-2", "kg m-2", "condition"),
        Variable("tisr", "incoming solar radiation at the top of the atmosphere", "toa_incoming_shortwave_flux",
                 "W m-2", "J m-2", "condition", 1 / 3600.0),
        Variable("tp", "total precipitation rate", "lwe_precipitation_rate", "mm h-1", "m", "condition", 1000.0),
        Variable("u", "eastward wind", "eastward_wind", "m s-1", "m s-1", "condition"),
        Variable("v", "northward wind", "northward_wind", "m s-1", "m s-1", "condition"),
        Variable("precipitation", "precipitation rate", "lwe_precipitation_rate", "mm h-1", "mm h-1", "target"),
        Variable("lsm", "land fraction", "land_area_fraction", "1", "1", "static"),
        Variable("z", "surface geopotential", "geopotential", "m2 s-2", "m2 s-2", "static"),
    )  # fmt: skip
    return MappingProxyType({row.name: row for row in rows})


#: All variables by name.
VARIABLES: Mapping[str, Variable] = _table()
#: The nine predictors in the order of the published files.
PREDICTORS = tuple(name for name, row in VARIABLES.items() if row.role == "condition")

_POWER = re.compile(r"\s*(\*\*|\^)\s*")
_SAME = {"(0 - 1)": "1", "0-1": "1", "fraction": "1", "dimensionless": "1", "j/kg": "j kg-1", "kg/m2": "kg m-2",
         "m/s": "m s-1", "j/m2": "j m-2", "w/m2": "w m-2", "m2/s2": "m2 s-2", "pascal": "pa"}  # fmt: skip
_FACTORS = {("hpa", "pa"): 100.0, ("mbar", "pa"): 100.0, ("millibars", "pa"): 100.0, ("percent", "1"): 0.01,
            ("%", "1"): 0.01, ("kj kg-1", "j kg-1"): 1000.0, ("g m-2", "kg m-2"): 0.001,
            ("j m-2", "w m-2"): 1 / 3600.0}  # fmt: skip


def inside_factor(name: str, units: str | None, *, label: str, step_hours: float = 1.0) -> float:
    """Return the factor from `units` to the internal units of a variable; None means the units of ERA5.

    Accumulations over `step_hours` become rates. Raises `DataError` for units that do not fit the variable.

    >>> inside_factor("tp", "m", label="tp"), inside_factor("sp", "hPa", label="sp")
    (1000.0, 100.0)
    >>> inside_factor("u", "m s**-1", label="u"), inside_factor("tp", "kg m**-2 s**-1", label="tp")
    (1.0, 3600.0)
    """
    row = VARIABLES[name]
    if units is None or not str(units).strip():
        return row.published_factor / (step_hours if row.published_factor != 1.0 else 1.0)
    if row.units == "mm h-1":
        return rain_factor(units, step_hours, label=label)
    text = _POWER.sub("", str(units).strip().lower())
    text = _SAME.get(text.replace(" ", "") if "/" in text else text, text)
    inside = row.units.lower()
    if text == inside:
        return 1.0
    if (text, inside) not in _FACTORS:
        raise DataError(f"{label} has units {units!r}; expected {row.published_units} or {row.units}")
    return _FACTORS[text, inside] / (step_hours if text == "j m-2" else 1.0)
