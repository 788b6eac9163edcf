"""Grids that are no even latitudes and longitudes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from tests.rainshift.reading_cases.base import HOURS, LAT, LON, case, dataset


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


def _smooth(folder: Path, lat: Any, lon: Any) -> None:
    values = np.repeat(_field(lat[:, None], lon[None, :])[None], 4, axis=0)
    data = xr.Dataset(
        {"precipitation": (("time", "lat", "lon"), values, {"units": "mm h-1"})},
        {"time": HOURS[:4], "lat": ("lat", lat, {"units": "degrees_north"}),
         "lon": ("lon", lon, {"units": "degrees_east"})},
    )  # fmt: skip
    data.to_netcdf(folder / "a.nc")


@case("grid", "latitudes whose steps change slowly (Gaussian grids)", "interpolated to even degrees, the cost said",
      expected=_field, min_coverage=0)  # fmt: skip
def _(folder):
    _smooth(folder, (50 + np.cumsum(0.1 + 0.001 * np.arange(30)))[::-1], 2.05 + 0.1 * np.arange(40))


@case("grid", "a rotated pole by its grid mapping alone", "interpolated to even degrees, the cost said",
      expected=_field, min_coverage=0)  # fmt: skip
def _(folder):
    from rasterio.crs import CRS
    from rasterio.warp import transform

    rlat, rlon = np.arange(-2, 2.01, 0.1), np.arange(-3, 3.01, 0.1)
    x, y = np.meshgrid(rlon, rlat)
    pole = CRS.from_proj4("+proj=ob_tran +o_proj=longlat +o_lon_p=0 +o_lat_p=39.25 +lon_0=18 +R=6371229 +no_defs")
    lon, lat = transform(pole, CRS.from_proj4("+proj=longlat +R=6371229 +no_defs"), x.ravel(), y.ravel())
    lon, lat = np.reshape(lon, x.shape), np.reshape(lat, x.shape)
    values = np.repeat(_field(lat, lon)[None], 4, axis=0)
    data = xr.Dataset(
        {"precipitation": (("time", "rlat", "rlon"), values, {"units": "mm h-1", "grid_mapping": "pole"})},
        {"time": HOURS[:4], "rlat": ("rlat", rlat, {"standard_name": "grid_latitude", "units": "degrees"}),
         "rlon": ("rlon", rlon, {"standard_name": "grid_longitude", "units": "degrees"})},
    )  # fmt: skip
    data["pole"] = (), 0, {"grid_mapping_name": "rotated_latitude_longitude", "grid_north_pole_latitude": 39.25,
                           "grid_north_pole_longitude": -162.0}  # fmt: skip
    data.to_netcdf(folder / "a.nc")


@case("grid", "polar stereographic in kilometres (radar)", "interpolated to even degrees, the cost said",
      expected=_field, min_coverage=0)  # fmt: skip
def _(folder):
    from rasterio.crs import CRS
    from rasterio.warp import transform

    x, y = np.arange(-200, 201, 8.0), np.arange(-4700, -4299, 8.0)
    east, north = np.meshgrid(x * 1000, y * 1000)
    polar = CRS.from_proj4("+proj=stere +lat_0=90 +lat_ts=60 +lon_0=10 +a=6370040 +b=6370040 +units=m")
    lon, lat = transform(polar, CRS.from_epsg(4326), east.ravel(), north.ravel())
    values = np.repeat(_field(np.reshape(lat, east.shape), np.reshape(lon, east.shape))[None], 4, axis=0)
    data = xr.Dataset(
        {"precipitation": (("time", "y", "x"), values, {"units": "mm h-1", "grid_mapping": "crs"})},
        {"time": HOURS[:4], "y": ("y", y, {"standard_name": "projection_y_coordinate", "units": "km"}),
         "x": ("x", x, {"standard_name": "projection_x_coordinate", "units": "km"})},
    )  # fmt: skip
    about = {"standard_parallel": 60.0, "latitude_of_projection_origin": 90.0, "earth_radius": 6370040.0}
    names = {"grid_mapping_name": "polar_stereographic", "straight_vertical_longitude_from_pole": 10.0}
    data["crs"] = (), 0, names | about
    data.to_netcdf(folder / "a.nc")


@case("grid", "a latitude that is missing between others", "refused", refused="not evenly spaced")
def _(folder):
    dataset().isel(lat=[*range(10), *range(11, 30)]).to_netcdf(folder / "a.nc")


@case("grid", "a latitude twice", "refused", refused="repeats")
def _(folder):
    dataset().isel(lat=[*range(10), 9, *range(10, 30)]).to_netcdf(folder / "a.nc")


@case("grid", "longitudes in float32 across Greenwich", "brought to one order")
def _(folder):
    lon = ((LON - 4).astype("f4") % 360).astype("f4")
    data = dataset().assign_coords(lon=("lon", lon, {"units": "degrees_east"}))
    data.sortby("lon").to_netcdf(folder / "a.nc")


def _curved(folder: Path, **repeated: Any) -> None:
    _, _, lat, lon = _lambert()
    values = np.repeat(_field(lat, lon)[None], 4, axis=0)
    data = xr.Dataset({"precipitation": (("time", "y", "x"), values, {"units": "mm h-1"})}, {"time": HOURS[:4]})
    for name, each in (("XLAT", lat), ("XLONG", lon)):
        data[name] = ("time", "y", "x"), np.repeat(each[None], 4, axis=0)
        data[name] = data[name] + repeated.get("drift", 0.0) * xr.DataArray(np.arange(4.0), dims="time")
    data.to_netcdf(folder / "a.nc")


@case("grid", "XLAT and XLONG that are repeated at each time (WRF)", "interpolated to even degrees, the cost said",
      expected=_field, min_coverage=0)  # fmt: skip
def _(folder):
    _curved(folder)


@case("grid", "XLAT and XLONG that move", "refused", refused="changes along")
def _(folder):
    _curved(folder, drift=0.1)


@case("grid", "-999 among two-dimensional latitudes", "refused", refused="_FillValue")
def _(folder):
    lat, lon = np.meshgrid(LAT, LON, indexing="ij")
    lat[:2, :2] = lon[:2, :2] = -999
    data = dataset().drop_vars(["lat", "lon"]).rename(lat="y", lon="x")
    data.assign_coords(lat=(("y", "x"), lat), lon=(("y", "x"), lon)).to_netcdf(folder / "a.nc")


@case("grid", "two-dimensional latitudes and longitudes of an even grid", "taken as one-dimensional")
def _(folder):
    lat, lon = np.meshgrid(LAT, LON, indexing="ij")
    data = dataset().drop_vars(["lat", "lon"]).rename(lat="y", lon="x")
    data.assign_coords(lat=(("y", "x"), lat), lon=(("y", "x"), lon)).to_netcdf(folder / "a.nc")


def _mapped(folder: Path, crs: str, attrs: dict[str, Any], **about: Any) -> None:
    from rasterio.crs import CRS
    from rasterio.warp import transform

    if crs == "EPSG:4326":
        data = dataset().rename(lat="y", lon="x")
        data["y"].attrs, data["x"].attrs = {}, {}
    else:
        x, y = 500e3 + np.arange(-150e3, 151e3, 5e3), 5600e3 + np.arange(125e3, -126e3, -5e3)
        east, north = np.meshgrid(x, y)
        lon, lat = transform(CRS.from_user_input(crs), CRS.from_epsg(4326), east.ravel(), north.ravel())
        values = np.repeat(_field(np.reshape(lat, east.shape), np.reshape(lon, east.shape))[None], 4, axis=0)
        data = xr.Dataset({"precipitation": (("time", "y", "x"), values, {"units": "mm h-1"})}, {"time": HOURS[:4]})
        data = data.assign_coords(y=y, x=x)
    data["precipitation"].attrs.update(about)
    data["spatial_ref"] = (), 0, attrs
    data.to_netcdf(folder / "a.nc")


def _wkt(crs: str) -> dict[str, str]:
    from rasterio.crs import CRS

    return {"crs_wkt": CRS.from_user_input(crs).to_wkt()}


for _what, _attrs, _about in (
    ("a grid mapping `spatial_ref: x y`", "wkt", {"grid_mapping": "spatial_ref: x y"}),
    ("a variable `spatial_ref` that no attribute names (rioxarray)", "wkt", {}),
    ("a grid mapping by its EPSG code", {"epsg_code": "EPSG:32632"}, {"grid_mapping": "spatial_ref"}),
    ("a grid mapping by its PROJ text", {"proj4_params": "+proj=utm +zone=32 +datum=WGS84"}, {}),
):

    @case("grid", f"UTM, north first, {_what}", "interpolated to even degrees, the cost said", expected=_field,
          min_coverage=0)  # fmt: skip
    def _(folder, attrs=_attrs, about=_about):
        _mapped(folder, "EPSG:32632", _wkt("EPSG:32632") if attrs == "wkt" else attrs, **about)


@case("grid", "`y` and `x` with a grid mapping of latitudes and longitudes (EPSG:4326)", "read as these")
def _(folder):
    _mapped(folder, "EPSG:4326", _wkt("EPSG:4326"), grid_mapping="spatial_ref")


@case("grid", "latitudes and longitudes of 1/24 degree, written with three decimals", "read as even")
def _(folder):
    lat, lon = np.round(50 + np.arange(30) / 24, 3), np.round(2 + np.arange(40) / 24, 3)
    dataset().assign_coords(lat=("lat", lat, {"units": "degrees_north"}), lon=("lon", lon, {"units": "degrees_east"})
    ).to_netcdf(folder / "a.nc")  # fmt: skip
