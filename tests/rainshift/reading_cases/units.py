"""Units as CF and people write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.rainshift.reading_cases.base import RAIN, case, dataset


def _units(units: str, factor: float) -> Any:
    def write(folder: Path) -> None:
        dataset(RAIN / factor, units=units).astype("f8").to_netcdf(folder / "a.nc")

    return write


for _name, _factor in (
    ("mm h-1", 1), ("mm/hr", 1), ("mm·h⁻¹", 1), ("mm h**-1", 1), ("mm h^{-1}", 1), ("millimeters per hour", 1),
    ("mm", 1), ("m", 1000), ("0.1 mm", 0.1), ("1e-3 m", 1), ("kg m-2", 1), ("L/m²", 1), ("inches", 25.4), ("cm/h", 10),
    ("kg m-2 s-1", 3600), ("kg/(m^2 s)", 3600), ("kg.m-2.s-1", 3600), ("m s-1", 3.6e6), ("mm/day", 1 / 24),
    ("mm (3 h)-1", 1 / 3), ("mm per 5 min", 12), ("mm/24h", 1 / 24), ("m of water equivalent", 1000),
):  # fmt: skip
    case("unit", f"`{_name}`", "read")(_units(_name, _factor))
for _name in ("dBZ", "%", "K", "mm/month", "1"):
    case("unit", f"`{_name}`", "refused: set `data.units`", refused=r"data\.units")(_units(_name, 1))


@case("unit", "none", "refused: set `data.units`", refused=r"no units.*data\.units")
def _(folder):
    dataset(units=None).to_netcdf(folder / "a.nc")


@case("unit", "none, with `data.units=mm`", "read", units="mm")
def _(folder):
    dataset(units=None).to_netcdf(folder / "a.nc")


@case("unit", "`mm` of what is called rainfall_rate", "refused: one of them is wrong", refused="one of them is wrong")
def _(folder):
    dataset(units="mm", standard_name="rainfall_rate").to_netcdf(folder / "a.nc")


for _name, _factor in (
    ("MM/HR", 1), ("mm hr^-1", 1), ("mm/hour", 1), ("millimetres", 1), ("millimeter hour-1", 1), ("m/s", 3.6e6),
    ("kg m^-2 s^-1", 3600), ("kg m**-2", 1), ("kg/m2", 1), ("kg m-2 h-1", 1), ("in/hr", 25.4), ("inch h-1", 25.4),
    ("mm d-1", 1 / 24), ("mm day^-1", 1 / 24), ("mm/5min", 12), ("mm/3h", 1 / 3), ("0.01 mm h-1", 0.01), ("l m-2", 1),
    ("mm (of water)", 1), ("cm", 10), ("m h-1", 1000), ("tenths of mm", 0.1), ("kg m-2 (3 h)-1", 1 / 3),
):  # fmt: skip
    case("unit", f"`{_name}`", "read")(_units(_name, _factor))
for _name in ("dBR", "mm s", "kg", "kg m-3", "mm/year", "unknown", "mm2 h-1", "h"):
    case("unit", f"`{_name}`", "refused: set `data.units`", refused=r"data\.units")(_units(_name, 1))
