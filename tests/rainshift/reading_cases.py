"""Files of rain as people write them, and what is read of each: `python -m tests.rainshift.reading_cases [--page]`."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

PAGE = Path(__file__).parents[2] / "docs" / "reading.md"
INTRODUCTION = """# What can be read, and how

Each row is a file that a test writes and `data=gridded` reads, or refuses with an error that names the file, the cause
and the way out. Rates are stored in mm/h.

"""
#: Six hours on 30 x 40 cells of 0.1 degree, in steps of 0.5 mm/h, some of it dry, all of it exact in every packing.
SHAPE = (6, 30, 40)
RAIN = np.floor(np.random.default_rng(0).gamma(0.5, 4.0, SHAPE).clip(0, 60)) * 0.5
HOURS = np.datetime64("2020-06-01T01", "ns") + np.arange(6) * np.timedelta64(1, "h")
LAT, LON = 50.05 + 0.1 * np.arange(30), 2.05 + 0.1 * np.arange(40)


@dataclass(frozen=True)
class Case:
    """One file: what it is, what comes of it, how it is written, and the settings it is read with."""

    kind: str
    what: str
    how: str
    write: Callable[[Path], Any]
    settings: dict[str, Any] = field(default_factory=dict)
    expected: Any = None  # the rain to be read, RAIN unless given
    refused: str | None = None  # a pattern of the error


CASES: list[Case] = []


def case(kind: str, what: str, how: str, *, refused: str | None = None, expected: Any = None, **settings: Any) -> Any:
    def add(write: Callable[[Path], Any]) -> Callable[[Path], Any]:
        CASES.append(Case(kind, what, how, write, settings, expected, refused))
        return write

    return add


def dataset(values: Any = RAIN, time: Any = HOURS, units: str | None = "mm h-1", **attrs: Any) -> xr.Dataset:
    said = attrs if units is None else {"units": units, **attrs}
    coords = {
        "time": time,
        "lat": ("lat", LAT, {"units": "degrees_north"}),
        "lon": ("lon", LON, {"units": "degrees_east"}),
    }
    return xr.Dataset({"precipitation": (("time", "lat", "lon"), np.asarray(values, "f4"), said)}, coords)


# ---- formats


@case("format", "NetCDF4", "read")
def _(folder):
    dataset().to_netcdf(folder / "a.nc")


@case("format", "classic NetCDF", "read")
def _(folder):
    dataset().to_netcdf(folder / "a.nc", format="NETCDF3_64BIT", engine="netcdf4")


@case("format", "Zarr 2", "read")
def _(folder):
    dataset().to_zarr(folder / "a.zarr", zarr_format=2)


@case("format", "Zarr 3", "read")
def _(folder):
    dataset().to_zarr(folder / "a.zarr", zarr_format=3, consolidated=False)


@case("format", "Zarr in a zip", "read")
def _(folder):
    dataset().to_zarr(folder / "a.zarr", zarr_format=2, consolidated=False)
    shutil.make_archive(str(folder / "a.zarr"), "zip", folder / "a.zarr")
    shutil.rmtree(folder / "a.zarr")


@case("format", "Zarr 2 with stale consolidated metadata", "the arrays are believed, not the copy")
def _(folder):
    dataset().isel(time=slice(3)).to_zarr(folder / "a.zarr", zarr_format=2, consolidated=True)
    dataset().isel(time=slice(3, 6)).to_zarr(folder / "a.zarr", append_dim="time", consolidated=False)


def _zarr_by_hand(folder: Path, version: int) -> None:
    import zarr

    group = zarr.open_group(folder / "a.zarr", mode="w", zarr_format=version)
    hours = np.arange(1, 7)
    for name, data, dims, attrs in (
        ("time", hours, ("time",), {"units": "hours since 2020-06-01"}),
        ("lat", LAT, ("lat",), {"units": "degrees_north"}),
        ("lon", LON, ("lon",), {"units": "degrees_east"}),
        ("precipitation", RAIN.astype("f4"), ("time", "lat", "lon"), {"units": "mm h-1"}),
    ):
        chunks = (1, 30, 40) if name == "precipitation" else data.shape
        named = {"dimension_names": dims} if version == 3 else {}
        array = group.create_array(name, shape=data.shape, dtype=data.dtype, chunks=chunks, fill_value=0, **named)
        array[...] = data
        array.attrs.update(attrs | ({"_ARRAY_DIMENSIONS": list(dims)} if version == 2 else {}))


@case("format", "Zarr 2 with the default fill value 0", "0 is no rain, not missing")
def _(folder):
    _zarr_by_hand(folder, 2)


@case("format", "Zarr 3 with the default fill value 0", "0 is no rain")
def _(folder):
    _zarr_by_hand(folder, 3)


LOST = RAIN.copy()
LOST[4] = np.nan


@case("format", "Zarr of which the chunk of an hour is lost", "that hour is missing and left out, said", expected=LOST)
def _(folder):
    _zarr_by_hand(folder, 3)
    os.remove(folder / "a.zarr/precipitation/c/4/0/0")


DRY = RAIN.copy()
DRY[4] = 0


@case("format", "the same where chunks without rain were left out", "dry", expected=DRY, absent_chunks="dry")
def _(folder):
    _zarr_by_hand(folder, 3)
    os.remove(folder / "a.zarr/precipitation/c/4/0/0")


@case("format", "text named .nc", "refused", refused="neither NetCDF nor Zarr")
def _(folder):
    (folder / "a.nc").write_text("rain")


def _tiffs(folder: Path, name: str, scale: float = 1.0) -> None:
    import rasterio

    north = LAT[-1] + 0.05
    place = {"crs": "EPSG:4326", "transform": rasterio.transform.from_origin(LON[0] - 0.05, north, 0.1, 0.1)}
    for number, values in enumerate(RAIN):
        file = folder / name.format(number + 1)
        with rasterio.open(file, "w", driver="GTiff", height=30, width=40, count=1, dtype="int16", **place) as sink:
            sink.write(np.round(values[::-1] / scale).astype("int16"), 1)
            sink.scales, sink.units = (scale,), ("mm/h",)


@case("format", "GeoTIFF files, a time each in their names, with scale and unit", "one record")
def _(folder):
    _tiffs(folder, "radar_20200601_{:02d}00.tif", scale=0.5)


@case("format", "GeoTIFF without a date in its name", "refused", refused="no date")
def _(folder):
    _tiffs(folder, "radar{}.tif", scale=0.5)


# ---- units


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


# ---- intervals


@case("interval", "time bounds of an hour, stamped in the middle", "the bounds give step and stamp")
def _(folder):
    middle = HOURS - np.timedelta64(30, "m")
    data = dataset(time=middle, units="mm")
    data["time"].attrs["bounds"] = "time_bnds"
    data["time"].encoding["units"] = "minutes since 2020-06-01"
    data["time_bnds"] = ("time", "nv"), np.stack([HOURS - np.timedelta64(1, "h"), HOURS], 1)
    data.to_netcdf(folder / "a.nc")


def _steps(values: Any, minutes: list[int], **attrs: Any) -> xr.Dataset:
    time = HOURS[0] + np.cumsum(np.array(minutes) * 60_000_000_000).astype("m8[ns]")
    return dataset(np.asarray(values), time=time, **attrs)


SIX = np.full((24, 30, 40), 6.0)


@case("interval", "amounts whose step changes from 15 to 5 minutes", "each over its own interval, averaged to 15 min",
      expected=SIX)  # fmt: skip
def _(folder):
    amounts = np.r_[np.full(12, 1.5), np.full(36, 0.5)][:, None, None] * np.ones((1, 30, 40))
    _steps(amounts, [15] * 12 + [5] * 36, units="mm").to_netcdf(folder / "a.nc")


@case("interval", "amounts whose step changes from 15 to 10 minutes", "refused: split the file", refused="step changes")
def _(folder):
    amounts = np.r_[np.full(12, 1.5), np.full(36, 1.0)][:, None, None] * np.ones((1, 30, 40))
    _steps(amounts, [15] * 12 + [10] * 36, units="mm").to_netcdf(folder / "a.nc")


@case("interval", "amounts for which a change of the step and missing times cannot be distinguished", "refused",
      refused="is ambiguous")  # fmt: skip
def _(folder):
    _steps(RAIN, [15, 5, 15, 5, 15, 15], units="mm").to_netcdf(folder / "a.nc")


RUNNING = np.cumsum(RAIN, axis=0)


@case("interval", "sums since a start", "differences, said; the first time has none", expected=RAIN[1:])
def _(folder):
    dataset(RUNNING, units="mm").to_netcdf(folder / "a.nc")


DAYS = np.concatenate([np.cumsum(np.tile(RAIN, (2, 1, 1))[:10], 0), np.cumsum(np.tile(RAIN, (2, 1, 1))[:10], 0)])


@case("interval", "sums since a start that begins anew", "differences, and the sum itself after each reset",
      expected=np.concatenate([np.tile(RAIN, (2, 1, 1))[1:10], np.tile(RAIN, (2, 1, 1))[:10]]))  # fmt: skip
def _(folder):
    _steps(DAYS, [60] * 20, units="mm").to_netcdf(folder / "a.nc")


@case("interval", "sums since a start, by bounds that share their beginning", "differences", expected=RAIN[1:])
def _(folder):
    data = dataset(RUNNING, units="mm")
    data["time"].attrs["bounds"] = "time_bnds"
    data["time"].encoding["units"] = "minutes since 2020-06-01"
    begin = np.full(6, HOURS[0] - np.timedelta64(1, "h"))
    data["time_bnds"] = ("time", "nv"), np.stack([begin, HOURS], 1)
    data.to_netcdf(folder / "a.nc")


@case("interval", "daily amounts", "rates of the day, in daily steps", expected=RAIN / 24)
def _(folder):
    _steps(RAIN, [1440] * 6, units="mm").to_netcdf(folder / "a.nc")


@case("interval", "monthly amounts", "refused: months are no equal steps", refused="calendar months")
def _(folder):
    months = np.array([f"2020-{m:02d}-01" for m in range(1, 7)], "M8[ns]")
    dataset(time=months, units="mm").to_netcdf(folder / "a.nc")


@case("interval", "one time", "refused: set `data.step_minutes`", refused=r"data\.step_minutes")
def _(folder):
    dataset(units="mm").isel(time=[0]).to_netcdf(folder / "a.nc")


@case("interval", "one time, with `data.step_minutes=60`", "read", expected=RAIN[:1], step_minutes=60)
def _(folder):
    dataset(units="mm").isel(time=[0]).to_netcdf(folder / "a.nc")


# ---- times


def _coded(values: Any, units: str, **attrs: Any) -> xr.Dataset:
    return dataset(time=np.arange(6)).assign_coords(time=("time", np.asarray(values), {"units": units, **attrs}))


@case("time", "days with six decimals", "snapped to whole minutes within a second, said")
def _(folder):
    days = ((HOURS - np.datetime64("1900-01-01")) / np.timedelta64(1, "D")).round(6)
    _coded(days, "days since 1900-01-01").to_netcdf(folder / "a.nc")


@case("time", "ends of intervals at 59 s", "snapped likewise")
def _(folder):
    dataset(time=HOURS - np.timedelta64(1, "s")).to_netcdf(folder / "a.nc")


@case("time", "numbers such as 20200601.25", "read")
def _(folder):
    _coded(20200601 + np.arange(1, 7) / 24, "day as %Y%m%d.%f").to_netcdf(folder / "a.nc")


for _calendar in ("noleap", "360_day", "julian", "proleptic_gregorian"):

    @case("time", f"calendar {_calendar}", "read")
    def _(folder, calendar=_calendar):
        _coded(np.arange(1, 7), "hours since 2020-06-01", calendar=calendar).to_netcdf(folder / "a.nc")


@case("time", "dates that do not exist (30 February of 360_day)", "refused", refused="do not exist")
def _(folder):
    _coded(np.arange(24, 30), "hours since 2021-02-29", calendar="360_day").to_netcdf(folder / "a.nc")


@case("time", "months since a date", "refused", refused="months since")
def _(folder):
    _coded(np.arange(6), "months since 2000-01-01").to_netcdf(folder / "a.nc")


@case("time", "another variable in months since a date", "read: it is not asked for")
def _(folder):
    data = dataset()
    data["clim"] = ("m", np.arange(3.0), {"units": "months since 2000-01-01"})
    data.to_netcdf(folder / "a.nc")


@case("time", "`valid_time`, descending", "sorted")
def _(folder):
    dataset().rename(time="valid_time").isel(valid_time=slice(None, None, -1)).to_netcdf(folder / "a.nc")


@case("time", "a forecast by `time` and `step`", "unrolled to valid times")
def _(folder):
    data = (
        dataset(units="mm")
        .rename(time="step")
        .assign_coords(step=np.arange(1, 7) * np.timedelta64(1, "h").astype("m8[ns]"))
    )
    data.expand_dims(time=[np.datetime64("2020-06-01", "ns")]).to_netcdf(folder / "a.nc")


# ---- missing and impossible values


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


@case("missing", "9999 mm a day that nothing declares", "refused", refused="a common fill value|more than rain can be")
def _(folder):
    values = RAIN.copy()
    values[2, :3, :3] = 9999
    _steps(values, [1440] * 6, units="mm").to_netcdf(folder / "a.nc")


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


# ---- dimensions


@case("dimension", "one member along `number`", "dropped")
def _(folder):
    dataset().expand_dims(number=[0]).to_netcdf(folder / "a.nc")


@case("dimension", "several members", "refused: take one", refused="ensemble of 2")
def _(folder):
    dataset().expand_dims(realization=[0, 1]).to_netcdf(folder / "a.nc")


@case("dimension", "(time, lon, lat), latitudes descending, longitudes 0 to 360", "brought to one order")
def _(folder):
    data = dataset().isel(lat=slice(None, None, -1)).transpose("time", "lon", "lat")
    data.assign_coords(lon=("lon", LON % 360, {"units": "degrees_east"})).to_netcdf(folder / "a.nc")


# ---- grids


def _field(lat: Any, lon: Any) -> Any:
    """Smooth rain that linear interpolation keeps."""
    return 3 + 2 * np.sin(0.7 * lat) * np.cos(0.5 * lon)


def _lambert() -> tuple[Any, Any, Any, Any]:
    """Coordinates of a conformal conic grid of 10 km, and the latitude and longitude of its cells."""
    from rasterio.crs import CRS
    from rasterio.warp import transform

    x, y = np.arange(-300e3, 301e3, 10e3), np.arange(-250e3, 251e3, 10e3)
    east, north = np.meshgrid(x, y)
    conic = CRS.from_proj4("+proj=lcc +lat_1=45 +lat_2=55 +lat_0=50 +lon_0=10 +R=6371229 +units=m")
    lon, lat = transform(conic, CRS.from_epsg(4326), east.ravel(), north.ravel())
    return x, y, np.reshape(lat, east.shape), np.reshape(lon, east.shape)


def _projected(folder: Path, mapping: bool, curved: bool) -> None:
    x, y, lat, lon = _lambert()
    values = np.repeat(_field(lat, lon)[None], 4, axis=0)
    data = xr.Dataset({"precipitation": (("time", "y", "x"), values, {"units": "mm h-1"})}, {"time": HOURS[:4]})
    if curved:
        where = {
            "XLAT": (("y", "x"), lat, {"units": "degree_north"}),
            "XLONG": (("y", "x"), lon, {"units": "degree_east"}),
        }
        data = data.assign_coords(where)
    else:
        kinds = (("y", y, "projection_y_coordinate"), ("x", x, "projection_x_coordinate"))
        data = data.assign_coords({n: (n, v, {"standard_name": name, "units": "m"}) for n, v, name in kinds})
    if mapping:
        data["precipitation"].attrs["grid_mapping"] = "crs"
        about = {"standard_parallel": [45.0, 55.0], "latitude_of_projection_origin": 50.0, "earth_radius": 6371229.0}
        names = {"grid_mapping_name": "lambert_conformal_conic", "longitude_of_central_meridian": 10.0}
        data["crs"] = (), 0, {**names, **about}
    data.to_netcdf(folder / "a.nc")


@case("grid", "projected, with a CF grid mapping", "interpolated to even degrees at its spacing, the cost said",
      expected=_field, min_coverage=0)  # fmt: skip
def _(folder):
    _projected(folder, mapping=True, curved=False)


@case("grid", "curvilinear: two-dimensional latitudes and longitudes (WRF, swaths, rotated poles)", "the same",
      expected=_field, min_coverage=0)  # fmt: skip
def _(folder):
    _projected(folder, mapping=False, curved=True)


@case("grid", "projected without a grid mapping", "refused: where its cells are is not known", refused="grid mapping")
def _(folder):
    _projected(folder, mapping=False, curved=False)


@case("grid", "uneven latitudes", "refused", refused="not evenly spaced")
def _(folder):
    data = dataset()
    uneven = LAT + 0.04 * (np.arange(30) % 2)
    data.assign_coords(lat=("lat", uneven, {"units": "degrees_north"})).to_netcdf(folder / "a.nc")


def table() -> str:
    """The cases as a table."""
    lines = ["| kind | file | what is read |", "|---|---|---|"]
    lines += [f"| {row.kind} | {row.what} | {row.how} |" for row in CASES]
    return "\n".join([*lines, "", f"{len(CASES)} files", ""])


if __name__ == "__main__":
    if "--page" in sys.argv[1:]:
        PAGE.write_text(INTRODUCTION + table())
    else:
        print(table(), end="")
