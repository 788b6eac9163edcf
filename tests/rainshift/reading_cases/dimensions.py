"""Dimensions besides time, and their order."""

from __future__ import annotations

from tests.rainshift.reading_cases.base import LON, case, dataset


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


@case("dimension", "rows and columns named y and x that are latitudes and longitudes by attributes", "read")
def _(folder):
    data = dataset().rename(lat="y", lon="x")
    data["y"].attrs, data["x"].attrs = {"standard_name": "latitude"}, {"standard_name": "longitude"}
    data.to_netcdf(folder / "a.nc")


@case("dimension", "a height of 0 m with one value", "dropped")
def _(folder):
    dataset().expand_dims(height=[0.0]).to_netcdf(folder / "a.nc")


@case("dimension", "several heights", "refused", refused="dims")
def _(folder):
    dataset().expand_dims(height=[0.0, 2.0]).to_netcdf(folder / "a.nc")


@case("dimension", "no time", "refused", refused="a time dimension is required")
def _(folder):
    dataset().isel(time=0, drop=True).to_netcdf(folder / "a.nc")


@case("dimension", "latitudes and longitudes swapped", "refused", refused="swapped|not a latitude")
def _(folder):
    data = dataset()
    data.assign_coords(lat=("lat", 100 + LON[:30], {"units": "degrees_north"})).to_netcdf(folder / "a.nc")
