"""What is missing, and what no rain can be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.rainshift.reading_cases.base import RAIN, case, dataset, steps


def _packed(folder: Path, codes: Any, dtype: str, **attrs: Any) -> None:
    import netCDF4

    fill = attrs.pop("_FillValue", None)
    dataset().drop_vars("precipitation").to_netcdf(folder / "a.nc")
    with netCDF4.Dataset(folder / "a.nc", "a") as file:
        variable = file.createVariable("precipitation", dtype, ("time", "lat", "lon"), fill_value=fill)
        variable.set_auto_maskandscale(False)
        variable.setncatts({"units": "mm h-1", "scale_factor": 0.5, **attrs})
        variable[:] = codes


CODES = np.round(RAIN / 0.5)
GAP = RAIN.copy()
GAP[2, :3, :3] = np.nan
WITH_253 = CODES.copy()
WITH_253[2, :3, :3] = 253
HOLES: dict[str, Any] = {"expected": GAP, "min_coverage": 0}

for _name, _attrs in (
    ("valid_range of the stored numbers", {"valid_range": np.array([0, 250], "u1")}),
    ("valid_max of the stored numbers", {"valid_max": np.uint8(250)}),
    ("valid_range of the decoded values", {"valid_range": np.array([0.0, 125.0], "f4")}),
    ("flag_values", {"flag_values": np.array([253], "u1"), "flag_meanings": "no_data"}),
    ("_FillValue", {"_FillValue": 253}),
    ("missing_value", {"missing_value": np.uint8(253)}),
):

    @case("missing", f"packed bytes, 253 by {_name}", "missing", **HOLES)
    def _(folder, attrs=_attrs):
        _packed(folder, WITH_253, "u1", **attrs)


DRY_FLAG = RAIN.copy()
DRY_FLAG[2, :3, :3] = 0


@case("missing", "packed bytes, 253 by a flag that means undetect", "0", expected=DRY_FLAG)
def _(folder):
    _packed(folder, WITH_253, "u1", flag_values=np.array([253], "u1"), flag_meanings="undetect")


@case("missing", "signed bytes with `_Unsigned`", "read as unsigned", **HOLES)
def _(folder):
    codes = WITH_253.astype("u1").view("i1")
    _packed(folder, codes, "i1", _Unsigned="true", valid_range=np.array([0, 250], "u1").view("i1"))


for _value in (-9999.0, -1.0, 999.9, 9999.0, 32767.0, 1e20, 9.96921e36):

    @case(
        "missing",
        f"{_value:g} that nothing declares",
        "refused",
        refused="a common fill value|negative values|more than rain can be",
    )
    def _(folder, value=_value):
        values = RAIN.copy()
        values[2, :3, :3] = value
        dataset(values).to_netcdf(folder / "a.nc")


@case("missing", "the largest number of a packed type that nothing declares", "refused", refused="a common fill value")
def _(folder):
    codes = CODES.copy()
    codes[2, :3, :3] = 255
    _packed(folder, codes, "u1")


@case("missing", "-1 mm a day that nothing declares", "refused", refused="negative")
def _(folder):
    values = RAIN.copy()
    values[2, :3, :3] = -1
    dataset(values, units="mm/day").to_netcdf(folder / "a.nc")


@case(
    "missing",
    "9999 mm a day that nothing declares",
    "refused",
    refused="a common fill value|negative values|more than rain can be",
)
def _(folder):
    values = RAIN.copy()
    values[2, :3, :3] = 9999
    steps(values, [1440] * 6, units="mm").to_netcdf(folder / "a.nc")


HEAVY = RAIN.copy()
HEAVY[3, 10, 10] = 1200.0


@case("value", "1200 mm/h in one cell", "kept: stores hold what the file does", expected=HEAVY)
def _(folder):
    dataset(HEAVY).to_netcdf(folder / "a.nc")


@case("value", "3500 mm/h", "refused: no rain", refused="more than rain can be")
def _(folder):
    values = RAIN.copy()
    values[3, 10, 10] = 3500
    dataset(values).to_netcdf(folder / "a.nc")


@case("value", "floats with a scale_factor", "refused: they would be scaled twice", refused="scale them twice")
def _(folder):
    _packed(folder, RAIN, "f4")


WITH_TWO = WITH_253.copy()
WITH_TWO[2, 0, :3] = 254

for _name, _attrs in (
    ("valid_min and valid_max", {"valid_min": np.uint8(0), "valid_max": np.uint8(250)}),
    ("two flag_values", {"flag_values": np.array([253, 254], "u1"), "flag_meanings": "no_data out_of_range"}),
    ("two missing_values", {"missing_value": np.array([253, 254], "u1")}),
    ("_FillValue and valid_max", {"_FillValue": 254, "valid_max": np.uint8(250)}),
    ("flag_meanings with commas", {"flag_values": np.array([253, 254], "u1"), "flag_meanings": "no_data, blocked"}),
    ("flag_values in a list of text", {"flag_values": "253, 254", "flag_meanings": "no_data blocked"}),
):

    @case("missing", f"packed bytes, 253 and 254 by {_name}", "missing", **HOLES)
    def _(folder, attrs=_attrs):
        _packed(folder, WITH_TWO, "u1", **attrs)


@case("missing", "packed integers with an offset, valid_range of the stored numbers", "missing", **HOLES)
def _(folder):
    _packed(folder, WITH_253 - 20, "i2", add_offset=10.0, valid_range=np.array([-20, 230], "i2"))


@case("missing", "packed integers, valid_range of a wider type", "in the unit of the decoded values only if floats",
      **HOLES)  # fmt: skip
def _(folder):
    _packed(folder, WITH_253, "u1", valid_range=np.array([0, 250], "i4"))


@case("missing", "`actual_range`", "says nothing of what is missing")
def _(folder):
    dataset(actual_range=np.array([0.0, 1.0], "f4")).to_netcdf(folder / "a.nc")


@case("missing", "a valid_range in words", "refused", refused="expected numbers")
def _(folder):
    dataset(valid_range="from 0 to 250").to_netcdf(folder / "a.nc")


for _value in (-99.0, -999.0, 65535.0, -32768.0, 99999.0, -0.2):

    @case("missing", f"{_value:g} mm that nothing declares", "refused",
          refused="a common fill value|negative values|more than rain can be")  # fmt: skip
    def _(folder, value=_value):
        values = RAIN.copy()
        values[2, :3, :3] = value
        dataset(values, units="mm").to_netcdf(folder / "a.nc")


@case("missing", "9999 that a valid_max leaves in", "refused: more than rain can be", refused="more than rain can be")
def _(folder):
    values = RAIN.copy()
    values[2, :3, :3] = 9999
    dataset(values, valid_max=np.float32(20000)).to_netcdf(folder / "a.nc")


@case("missing", "-0.001 of rounding", "0")
def _(folder):
    dataset(np.where(RAIN == 0, -0.001, RAIN)).to_netcdf(folder / "a.nc")


@case("missing", "infinity", "missing", **HOLES)
def _(folder):
    dataset(np.where(np.isnan(GAP), np.inf, GAP)).to_netcdf(folder / "a.nc")


@case("missing", "one field that is all NaN", "that hour is missing", expected=np.where(
    np.arange(6)[:, None, None] == 4, np.nan, RAIN))  # fmt: skip
def _(folder):
    dataset(np.where(np.arange(6)[:, None, None] == 4, np.nan, RAIN)).to_netcdf(folder / "a.nc")


HOLE = RAIN.copy()
HOLE[2, 12:15, 12:15] = np.nan


def _stored(folder: Path, mark: float, dtype: str = "f4", fill: Any = None, **attrs: Any) -> None:
    import netCDF4

    dataset().drop_vars("precipitation").to_netcdf(folder / "a.nc")
    with netCDF4.Dataset(folder / "a.nc", "a") as file:
        variable = file.createVariable("precipitation", dtype, ("time", "lat", "lon"), fill_value=fill)
        variable.set_auto_maskandscale(False)
        variable.setncatts({"units": "mm h-1", **attrs})
        variable[:] = np.where(np.isnan(HOLE), mark, RAIN)


for _what, _mark, _attrs in (
    ("-9999.9 of float32 by a missing_value of float64", -9999.9, {"missing_value": np.float64(-9999.9)}),
    ("1e20 of float32 by a missing_value of float64", 1e20, {"missing_value": np.float64(1e20)}),
    ("-9999 by a missing_value in text", -9999, {"missing_value": "-9999"}),
    ("-9999 by two missing_values", -9999, {"missing_value": np.array([-8888, -9999], "f4")}),
    ("-9999.9 by IMERG's CodeMissingValue", -9999.9, {"CodeMissingValue": "-9999.9"}),
    ("-9999 by `nodata`", -9999, {"nodata": np.float32(-9999)}),
    ("-5 by valid_min alone", -5, {"valid_min": np.float32(0)}),
    ("500 by a valid_range in text", 500, {"valid_range": "0, 400"}),
    ("-9999 by missing_value where _FillValue is NaN", -9999, {"missing_value": np.float32(-9999), "fill": np.nan}),
):

    @case("missing", _what, "missing", expected=HOLE, min_coverage=0)
    def _(folder, mark=_mark, attrs=_attrs):
        _stored(folder, mark, **attrs)


@case("missing", "-9999 next to a valid_max", "refused", refused="negative")
def _(folder):
    _stored(folder, -9999, valid_max=np.float32(400))


@case("missing", "-8888 where only -9999 is declared", "refused", refused="negative")
def _(folder):
    _stored(folder, -8888, fill=np.float32(-9999))


@case("value", "integers with a scale_factor in text", "scaled")
def _(folder):
    _packed(folder, CODES, "i2", scale_factor="0.5")


@case("value", "integers with a `gain`, which is no name of CF", "refused", refused="scale_factor")
def _(folder):
    _stored(folder, 0, "i2", gain=0.5)


@case("value", "text, or wet and dry, in place of numbers", "refused", refused="not numbers")
def _(folder):
    data = dataset()
    data["precipitation"] = data["precipitation"].dims, RAIN > 0, {"units": "mm h-1"}
    data.to_netcdf(folder / "a.nc")
