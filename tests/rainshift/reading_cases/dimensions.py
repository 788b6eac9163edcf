"""Dimensions besides time, and their order."""

from __future__ import annotations

import numpy as np
import xarray as xr

from tests.rainshift.reading_cases.base import LAT, LON, RAIN, case, dataset


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


@case("dimension", "`expver` of ERA5, final and preliminary hours", "one after the other")
def _(folder):
    hours = np.arange(6)[:, None, None]
    parts = [dataset(np.where((hours < 3) == final, RAIN / 1000, np.nan), units="m") for final in (True, False)]
    xr.concat(parts, xr.DataArray([1, 5], dims="expver", name="expver")).to_netcdf(folder / "a.nc")


@case("dimension", "one level, height, member, surface and band at once", "dropped")
def _(folder):
    data = dataset().expand_dims(level=[1000.0], height=[2.0], realization=[1], surface=[0.0], band=[1])
    data.to_netcdf(folder / "a.nc")


@case("dimension", "axes `X` and `Y` in degrees, of any name", "read")
def _(folder):
    data = dataset().rename(lat="nlat", lon="nlon")
    data["nlat"].attrs, data["nlon"].attrs = {"axis": "Y", "units": "degrees"}, {"axis": "X", "units": "degrees"}
    data.to_netcdf(folder / "a.nc")


@case("dimension", "cells by their bounds alone", "their middles")
def _(folder):
    data = dataset().drop_vars(["lat", "lon"])
    data["lat_bnds"] = ("lat", "nv"), np.stack([LAT - 0.05, LAT + 0.05], 1)
    data["lon_bnds"] = ("lon", "nv"), np.stack([LON - 0.05, LON + 0.05], 1)
    data.to_netcdf(folder / "a.nc")


@case("dimension", "latitudes and longitudes in radians", "in degrees")
def _(folder):
    data = dataset()
    for name, standard in (("lat", "latitude"), ("lon", "longitude")):
        data = data.assign_coords(
            {name: (name, np.deg2rad(data[name].values), {"units": "radian", "standard_name": standard})}
        )
    data.to_netcdf(folder / "a.nc")


@case("dimension", "a list of cells", "refused: regrid it", refused="cdo remapcon")
def _(folder):
    cells = dataset().stack(cell=("lat", "lon")).reset_index("cell")
    cells["lat"].attrs, cells["lon"].attrs = {"units": "degrees_north"}, {"units": "degrees_east"}
    cells.to_netcdf(folder / "a.nc")


@case("dimension", "a longitude that is a latitude by its unit", "refused", refused="name and attributes differ")
def _(folder):
    dataset().rename(lat="lon", lon="lat").to_netcdf(folder / "a.nc")
