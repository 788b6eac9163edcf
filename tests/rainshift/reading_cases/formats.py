"""Formats: NetCDF, Zarr, GeoTIFF, and what looks like them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np

from tests.rainshift.reading_cases.base import LAT, LON, RAIN, case, dataset


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


GAP = RAIN.copy()
GAP[2, :3, :3] = np.nan
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


@case("format", "GeoTIFF without a date in its name", "refused", refused="needs its time in the file name")
def _(folder):
    _tiffs(folder, "radar{}.tif", scale=0.5)


def _tiff(folder: Path, name: str, codes: np.ndarray, dtype: str, **about: object) -> None:
    import rasterio

    place = {"crs": "EPSG:4326", "transform": rasterio.transform.from_origin(LON[0] - 0.05, LAT[-1] + 0.05, 0.1, 0.1)}
    nodata = about.pop("nodata", None)
    for number, values in enumerate(codes):
        file = folder / name.format(number + 1)
        with rasterio.open(
            file, "w", driver="GTiff", height=30, width=40, count=1, dtype=dtype, nodata=nodata, **place
        ) as sink:
            sink.write(values[::-1].astype(dtype), 1)
            sink.scales, sink.offsets = (about.get("scale", 1.0),), (about.get("offset", 0.0),)
            sink.units = (about.get("units", "mm/h"),)


@case(
    "format", "GeoTIFF with scale, offset and nodata", "nodata is of the stored numbers", expected=GAP, min_coverage=0
)
def _(folder):
    codes = np.where(np.isnan(GAP), 65535, RAIN / 0.5 + 10)
    _tiff(folder, "r_2020-06-01_{:02d}-00.tif", codes, "uint16", scale=0.5, offset=-5.0, nodata=65535)


@case("format", "GeoTIFF in tenths of millimetres, a date and hour without a mark in the name", "one record")
def _(folder):
    _tiff(folder, "rad20200601{:02d}00_eu.tif", RAIN * 10, "int32", units="0.1 mm")


@case("format", "GeoTIFF without a unit", "refused: set `data.units`", refused=r"data\.units")
def _(folder):
    _tiff(folder, "r_20200601T{:02d}00.tif", RAIN, "float32", units="")


@case("format", "GeoTIFF with an impossible date in its name", "refused", refused="not a valid date")
def _(folder):
    _tiff(folder, "r_20201301_{:02d}00.tif", RAIN, "float32")


@case("format", "NetCDF that is cut short", "refused", refused="cannot be read|truncated")
def _(folder):
    dataset().to_netcdf(folder / "a.nc")
    whole = (folder / "a.nc").read_bytes()
    (folder / "a.nc").write_bytes(whole[: len(whole) // 2])


@case("format", "NetCDF with a broken chunk", "refused", refused="cannot be read|truncated")
def _(folder):
    import h5py

    data = dataset()
    data["precipitation"].encoding = {"zlib": True, "fletcher32": True, "chunksizes": (1, 30, 40)}
    data.to_netcdf(folder / "a.nc", engine="h5netcdf")
    with h5py.File(folder / "a.nc") as file:
        place = file["precipitation"].id.get_chunk_info(2)
    whole = bytearray((folder / "a.nc").read_bytes())
    whole[place.byte_offset : place.byte_offset + place.size] = bytes(place.size)
    (folder / "a.nc").write_bytes(bytes(whole))


@case("format", "Zarr 2 of which a chunk is lost", "that hour is missing and left out, said", expected=LOST)
def _(folder):
    _zarr_by_hand(folder, 2)
    os.remove(folder / "a.zarr/precipitation/4.0.0")


@case("format", "Zarr 3 in shards of which one is lost", "its hours are missing", expected=np.where(
    np.arange(6)[:, None, None] >= 3, np.nan, RAIN))  # fmt: skip
def _(folder):
    import zarr

    _zarr_by_hand(folder, 3)
    shutil.rmtree(folder / "a.zarr/precipitation")
    array = zarr.open_group(folder / "a.zarr", mode="a").create_array(
        "precipitation", shape=RAIN.shape, dtype="f4", chunks=(1, 30, 40), shards=(3, 30, 40), fill_value=0,
        dimension_names=("time", "lat", "lon"),
    )  # fmt: skip
    array[...] = RAIN.astype("f4")
    array.attrs["units"] = "mm h-1"
    os.remove(folder / "a.zarr/precipitation/c/1/0/0")


@case("format", "Zarr in a zip of which a chunk is lost", "that hour is missing and left out, said", expected=LOST)
def _(folder):
    _zarr_by_hand(folder, 3)
    os.remove(folder / "a.zarr/precipitation/c/4/0/0")
    shutil.make_archive(str(folder / "a.zarr"), "zip", folder / "a.zarr")
    shutil.rmtree(folder / "a.zarr")


@case("format", "Zarr 3 whose fill value is NaN, a chunk left out", "missing", expected=LOST)
def _(folder):
    data = dataset()
    data["precipitation"].encoding = {"chunks": (1, 30, 40), "_FillValue": np.nan}
    data.to_zarr(folder / "a.zarr", zarr_format=3, consolidated=False)
    os.remove(folder / "a.zarr/precipitation/c/4/0/0")


@case("format", "Zarr with a chunk that is cut short", "refused", refused="cannot be read")
def _(folder):
    _zarr_by_hand(folder, 2)
    chunk = folder / "a.zarr/precipitation/2.0.0"
    chunk.write_bytes(chunk.read_bytes()[:20])


@case("format", "an empty file named .nc", "refused", refused="neither NetCDF nor Zarr")
def _(folder):
    (folder / "a.nc").write_bytes(b"")


@case("format", "NetCDF of other data", "refused: name it", refused=r"data\.variable")
def _(folder):
    dataset().rename(precipitation="temperature").to_netcdf(folder / "a.nc")


@case("format", "NetCDF with two kinds of rain", "refused: choose", refused=r"several rain variables.*data\.variable")
def _(folder):
    data = dataset()
    data["rain"] = data["precipitation"]
    data.to_netcdf(folder / "a.nc")


@case("format", "IMERG half hours in HDF5: a group `Grid`, (time, lon, lat), mm/hr", "one record, by its bounds")
def _(folder):
    data = dataset(units="mm/hr").transpose("time", "lon", "lat")
    for number in range(6):
        start = np.datetime64("2020-06-01", "ns") + number * np.timedelta64(30, "m")
        clock = str(start)[11:16].replace(":", "")
        half = data.isel(time=[number]).assign_coords(time=[start])
        half["time"].encoding["units"] = "seconds since 1970-01-01 00:00:00 UTC"
        half["time_bnds"] = ("time", "nv"), np.array([[start, start + np.timedelta64(30, "m")]])
        half["precipitation"].encoding["_FillValue"] = np.float32(-9999.9)
        half.to_netcdf(folder / f"3B-HHR.MS.MRG.3IMERG.20200601-S{clock}00-E.V07B.HDF5", group="Grid")


@case("format", "NetCDF with its rain in a group", "read")
def _(folder):
    dataset().to_netcdf(folder / "a.nc", group="observed/rain")


@case("format", "Zarr with its rain in a group, of which a chunk is lost", "that hour is missing", expected=LOST)
def _(folder):
    _zarr_by_hand(folder, 2)
    (folder / "b.zarr").mkdir()
    shutil.move(folder / "a.zarr", folder / "b.zarr" / "rain")
    (folder / "b.zarr" / ".zgroup").write_text('{"zarr_format": 2}')
    os.remove(folder / "b.zarr/rain/precipitation/4.0.0")


@case("format", "rain in two groups", "refused", refused="groups")
def _(folder):
    dataset().to_netcdf(folder / "a.nc", group="one")
    dataset().to_netcdf(folder / "a.nc", group="two", mode="a")


@case("format", "names in capitals, a.NC", "read")
def _(folder):
    dataset().to_netcdf(folder / "a.NC")


@case("format", "a file of each year in a separate folder", "one record")
def _(folder):
    for number, year in enumerate((2020, 2021)):
        (folder / str(year)).mkdir()
        dataset().isel(time=slice(3 * number, 3 * number + 3)).to_netcdf(folder / str(year) / "rain.nc")


@case("format", "files that share a time, with the same values", "once, said")
def _(folder):
    dataset().isel(time=slice(4)).to_netcdf(folder / "r_2020.nc")
    dataset().isel(time=slice(3, 6)).to_netcdf(folder / "r_2021.nc")


@case("format", "files that share a time, with other values", "refused", refused="different values")
def _(folder):
    dataset().isel(time=slice(4)).to_netcdf(folder / "r_2020.nc")
    dataset(RAIN + 1).isel(time=slice(3, 6)).to_netcdf(folder / "r_2021.nc")


@case("format", "NetCDF without a time", "refused", refused="no times")
def _(folder):
    dataset().isel(time=slice(0)).to_netcdf(folder / "a.nc", unlimited_dims=["time"])


@case("format", "GeoTIFF with both ends of its interval in the name", "the interval", units="mm")
def _(folder):
    for number in range(6):
        name = f"r_20200601T{number:02d}00_20200601T{number + 1:02d}00.tif"
        _tiff(folder, name, RAIN[number : number + 1], "float32", units="mm")


@case("format", "GeoTIFF named as IMERG's, 20200601-S000000-E002959", "the interval", expected=RAIN * 2, units="mm")
def _(folder):
    for number in range(6):
        hour, half = divmod(number, 2)
        name = f"3B-HHR.MS.MRG.3IMERG.20200601-S{hour:02d}{30 * half:02d}00-E{hour:02d}{30 * half + 29}59.V07B.tif"
        _tiff(folder, name, RAIN[number : number + 1], "float32", units="mm")


@case("format", "GeoTIFF with a band for each time", "refused: split it", refused="bands")
def _(folder):
    import rasterio

    place = {"crs": "EPSG:4326", "transform": rasterio.transform.from_origin(2, 53, 0.1, 0.1)}
    with rasterio.open(
        folder / "r_20200601.tif", "w", driver="GTiff", height=30, width=40, count=6, dtype="float32", **place
    ) as sink:
        sink.write(RAIN.astype("f4"))
