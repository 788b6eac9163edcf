"""ERA5 of the Climate Data Store, alone and over IMERG: every style of file gives the same fields, or is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from geoml.errors import DataError, UserError
from geoml.grids.grid import Grid
from rainshift.places.regions import grids, region
from rainshift.sources import open_source
from rainshift.sources.era5_files import find_files, read_fields, to_dataset
from rainshift.sources.statics import read_statics
from rainshift.sources.variables import PREDICTORS, VARIABLES

sys.path.insert(0, str(Path(__file__).parent))
from imerg_era5_cases import HOURS, START, TIME, half_hours, samples, small_region  # noqa: F401

#: Units and a plausible size of the variables as ERA5 has them.
UNITS = {"cape": ("J kg**-1", 500), "cp": ("m", 1e-3), "sp": ("Pa", 1e5), "tclw": ("kg m**-2", 0.1),
         "tcw": ("kg m**-2", 30), "tisr": ("J m**-2", 2e6), "tp": ("m", 2e-3), "u": ("m s**-1", 10),
         "v": ("m s**-1", -10)}  # fmt: skip


def truth(name, time=TIME, lat=None, lon=None):
    """A field that tells hour, latitude and longitude, in ERA5's units; longitudes within ±180."""
    coarse = grids(region("tiny"))[0]
    lat = coarse["lat"].coordinates if lat is None else lat
    lon = coarse["lon"].coordinates if lon is None else (np.asarray(lon) + 180) % 360 - 180
    hour = (time - START) / np.timedelta64(1, "h")
    scale = UNITS[name][1]
    return scale * (1 + 0.02 * hour[:, None, None] + 0.01 * (lat - 40)[:, None] + 0.003 * lon)


def era5(time=TIME, names=PREDICTORS, *, around=True):
    """Decoded ERA5 on a wider grid, north first, longitudes 0–360 or cut out of them."""
    lat = np.arange(43, 38.9, -0.25)
    lon = np.arange(0, 360, 0.25) if around else np.arange(-2, 2.1, 0.25)
    data = {
        name: (("time", "latitude", "longitude"), truth(name, time, lat, lon).astype("f4"), {"units": UNITS[name][0]})
        for name in names
    }
    coords = {
        "time": time,
        "latitude": ("latitude", lat, {"units": "degrees_north"}),
        "longitude": ("longitude", lon, {"units": "degrees_east"}),
    }
    return xr.Dataset(data, coords)


def old_style(folder: Path):
    """One file, packed integers, final and preliminary data along `expver`, winds on levels."""
    data = era5(around=False)
    levels = xr.concat([data[["u", "v"]] * 2, data[["u", "v"]]], "level").assign_coords(level=[850, 700])
    levels = levels.transpose("time", "level", ...)
    for name in ("u", "v"):
        levels[name].attrs["units"] = UNITS[name][0]
    surface = data.drop_vars(["u", "v"])
    final = surface.where(surface.time < TIME[20])
    early = surface.where(surface.time >= TIME[20])
    both = xr.concat([early, final], "expver").assign_coords(expver=[5, 1]).transpose("time", "expver", ...)
    for name in surface:
        both[name].attrs["units"] = UNITS[name][0]
    for what, dataset in (("surface", both), ("levels", levels)):
        encoding = {
            name: {"dtype": "int16", "scale_factor": abs(UNITS[name][1]) * 3 / 32000, "add_offset": 0.0,
                   "_FillValue": np.int16(-32767)}
            for name in dataset
        }  # fmt: skip
        dataset.to_netcdf(folder / f"{what}.nc", format="NETCDF3_64BIT", encoding=encoding)


def new_style(folder: Path):
    """`valid_time`, `number`, `expver` along time; sums and the rest in files of their own, a month each."""
    data = era5().rename(time="valid_time")
    expver = np.where(np.arange(HOURS) < 20, "0001", "0005")
    data = data.assign_coords(number=0, expver=("valid_time", expver))
    january = data["valid_time"] < np.datetime64("2020-02-01")
    groups = {"accum": ["cp", "tp", "tisr"], "instant": ["cape", "sp", "tclw", "tcw"], "levels": ["u", "v"]}
    for what, names in groups.items():
        for month, part in (("01", january), ("02", ~january)):
            made = data[names].isel(valid_time=np.flatnonzero(part))
            if what == "levels":
                made = made.expand_dims(pressure_level=[700.0], axis=1)
            made.to_netcdf(folder / f"{what}-{month}.nc", engine="h5netcdf")


def read(folder, names=PREDICTORS, **options):
    fields = read_fields(find_files(folder), names)
    return to_dataset(fields, names, grids(region("tiny"))[0], str(folder), **options)


@pytest.mark.parametrize(("write", "rounding"), [(old_style, 2e-4), (new_style, 1e-6)])
def test_every_style_gives_the_same_fields(tmp_path, write, rounding):
    folder = tmp_path / "era5"
    folder.mkdir()
    write(folder)
    made = read(folder)
    np.testing.assert_array_equal(made["time"].values, TIME)
    assert (np.diff(made["lat"]) > 0).all()
    assert (made["lon"].values[0], made["lon"].values[-1]) == (-1, 0.75)
    for name in PREDICTORS:
        row = VARIABLES[name]
        expected = truth(name) * row.published_factor
        np.testing.assert_allclose(made[name].values, expected, rtol=rounding * 3, err_msg=name)
        assert made[name].attrs["units"] == row.units


def test_sums_become_rates_of_the_hour_that_ends(tmp_path):
    era5(names=("tp", "tisr")).to_netcdf(tmp_path / "a.nc")
    made = read(tmp_path / "a.nc", ("tp", "tisr"))
    np.testing.assert_allclose(made["tp"].values, truth("tp") * 1000, rtol=1e-5)  # m an hour to mm/h
    np.testing.assert_allclose(made["tisr"].values, truth("tisr") / 3600, rtol=1e-5)  # J/m² an hour to W/m²
    rate = era5(names=("tp",)).rename(tp="avg_tprate")
    rate["avg_tprate"].attrs["units"] = "kg m**-2 s**-1"
    rate.to_netcdf(tmp_path / "b.nc")
    np.testing.assert_allclose(read(tmp_path / "b.nc", ("tp",))["tp"].values, truth("tp") * 3600, rtol=1e-5)


def grib_sums(path: Path):
    """Forecasts from 06 and 18 UTC, steps of 1 to 12 hours, as far as they are valid within the hours asked for."""
    import eccodes

    fields = era5(names=("tp",), around=False)["tp"]
    with open(path, "wb") as stream:
        for time in TIME:
            hour = int((time - time.astype("datetime64[D]")) / np.timedelta64(1, "h"))
            step = (hour - 6) % 12 or 12
            run = time - np.timedelta64(step, "h")
            message = eccodes.codes_grib_new_from_samples("regular_ll_sfc_grib1")
            date, clock = str(run.astype("datetime64[s]")).split("T")
            keys = {
                "Ni": fields.sizes["longitude"], "Nj": fields.sizes["latitude"], "centre": "ecmf",
                "latitudeOfFirstGridPointInDegrees": 43.0, "latitudeOfLastGridPointInDegrees": 39.0,
                "longitudeOfFirstGridPointInDegrees": -2.0, "longitudeOfLastGridPointInDegrees": 2.0,
                "iDirectionIncrementInDegrees": 0.25, "jDirectionIncrementInDegrees": 0.25,
                "dataDate": int(date.replace("-", "")), "dataTime": int(clock[:2]) * 100, "dataType": "fc",
                "stepType": "accum", "startStep": step - 1, "endStep": step, "paramId": 228, "bitsPerValue": 24,
            }  # fmt: skip
            for key, value in keys.items():
                eccodes.codes_set(message, key, value)
            eccodes.codes_set_values(message, fields.sel(time=time).values.ravel().astype(float))
            eccodes.codes_write(message, stream)
            eccodes.codes_release(message)


def test_grib_forecasts_are_put_in_the_order_of_valid_time(tmp_path):
    pytest.importorskip("cfgrib")
    grib_sums(tmp_path / "tp.grib")
    made = read(tmp_path / "tp.grib", ("tp",))
    np.testing.assert_array_equal(made["time"].values, TIME)
    np.testing.assert_allclose(made["tp"].values, truth("tp") * 1000, rtol=1e-5)
    whole = (tmp_path / "tp.grib").read_bytes()
    (tmp_path / "short.grib").write_bytes(whole[: len(whole) // 2 + 7])
    with pytest.raises(DataError, match=r"short.grib"):
        read(tmp_path / "short.grib", ("tp",))["tp"].values  # noqa: B018
    (tmp_path / "none.grib").write_bytes(b"CDF\x01")
    with pytest.raises(DataError, match="does not start with a GRIB"):
        read(tmp_path / "none.grib", ("tp",))


def test_what_cannot_be_era5_is_refused(tmp_path):
    def refused(dataset, message, names=("tp",), name="a.nc"):
        dataset.to_netcdf(tmp_path / name)
        with pytest.raises(DataError, match=message):
            read(tmp_path / name, names)["tp"].values  # noqa: B018
        (tmp_path / name).unlink()

    whole = era5(names=("tp", "sp"), around=False)
    refused(whole, r"has no cape; expected tp, cape, found tp", ("tp", "cape"))
    fine = whole.interp(latitude=np.arange(43, 39, -0.1), longitude=np.arange(-2, 2, 0.1))
    refused(fine, "step of 0.1.*ERA5-Land")
    refused(whole.sel(latitude=slice(41.5, 39)), r"lat covers 39 to 41.5; expected at least 40.25 to 42")
    refused(whole.isel(time=[0, 1, 1, 2]), "twice; keep one")
    refused(whole.expand_dims(number=[0, 1, 2]), "an ensemble of 3")
    units = whole.copy()
    units["tp"] = whole["tp"].assign_attrs(units="K")
    refused(units, "units 'K'")
    negative = whole.copy()
    negative["tp"] = (whole["tp"] - 1).assign_attrs(units="m")
    refused(negative, r"a.nc: 'tp' has negative values")
    wind = era5(names=("u",), around=False).expand_dims(level=[850])
    refused(wind, "is at 850 hPa, but data.level_hpa is 700", ("u",))
    raw = xr.Dataset({"tp": whole["tp"].astype("i2")})
    refused(raw, "integers without a scale_factor")
    (tmp_path / "a.nc").write_bytes(b"\x89HDF\r\n\x1a\n123")
    with pytest.raises(DataError, match=r"a.nc cannot be read"):
        read(tmp_path / "a.nc", ("tp",))


# ---- over IMERG


def test_era5_over_imerg_is_one_region(tmp_path):
    era, imerg = tmp_path / "era5", half_hours(tmp_path / "imerg", 20)
    era.mkdir()
    new_style(era)
    lat, lon = np.arange(39.025, 43, 0.05), np.arange(-1.975, 2, 0.05)
    height = xr.DataArray(
        100.0 + 0 * lat[:, None] * lon, {"lat": lat, "lon": lon}, ("lat", "lon"), attrs={"units": "m"}
    )
    height.to_dataset(name="elevation").to_netcdf(tmp_path / "height.nc", engine="h5netcdf")
    options = {"root": str(era), "imerg": str(imerg), "boxes": ["tiny"]}
    data = open_source("era5", static_files={"z": str(tmp_path / "height.nc")}, **options).open("tiny")
    assert tuple(data.condition) == PREDICTORS
    np.testing.assert_array_equal(data.time, TIME[:10])
    np.testing.assert_allclose(data.condition["tp"].values, truth("tp", TIME[:10]) * 1000, rtol=1e-5)
    assert data.coarse.matches(grids(region("tiny"))[0])
    assert data.fine.matches(grids(region("tiny"))[1])
    np.testing.assert_allclose(data.static["z"], 980.665, rtol=1e-5)
    assert "preliminary" in data.provenance["source"]
    assert len(open_source("era5", years=[2020], **options).open("tiny")) == 10
    with pytest.raises(UserError, match=r"no hours in \[2019\]; expected years in 2020 to 2020"):
        open_source("era5", years=[2019], **options).open("tiny")
    with pytest.raises(UserError, match=r"data.boxes is empty"):
        _ = open_source("era5", root=str(era), imerg=str(imerg)).names
    with pytest.raises(UserError, match=r"data.imerg is not set"):
        open_source("era5", root=str(era), boxes=["tiny"]).open("tiny")


def test_it_is_prepared_and_split(tmp_path):
    from rainshift.data.archive import Archive

    era, imerg = tmp_path / "era5", half_hours(tmp_path / "imerg")
    (era / "tiny").mkdir(parents=True)
    new_style(era / "tiny")
    config = {"source": "era5", "root": str(era), "imerg": str(imerg), "condition": ["tp", "u"], "static": [],
              "shares": {"train": 0.7, "test": 0.3}, "blocks": 1, "purge_hours": 3}  # fmt: skip
    archive = Archive(config, tmp_path / "cache")
    assert archive.names == ("tiny",)
    archive.prepare("tiny", "all")
    stored = archive.open("tiny", "all")
    np.testing.assert_allclose(stored["condition"]["u"].values, truth("u"), rtol=1e-5)
    train, test = (archive.times("tiny", role) for role in ("train", "test"))
    assert test.min() - train.max() >= np.timedelta64(4, "h")


def test_statics_are_checked(tmp_path):
    fine = grids(region("tiny"))[1]
    lat, lon = np.arange(39, 43, 0.25), np.arange(-2, 2.1, 0.25)
    water = xr.DataArray(np.full((len(lat), len(lon)), 25.0), {"lat": lat, "lon": lon}, ("lat", "lon"))
    water.to_dataset(name="landseamask").to_netcdf(tmp_path / "mask.nc")
    np.testing.assert_allclose(read_statics({"lsm": str(tmp_path / "mask.nc")}, fine)["lsm"], 0.75)
    water.to_dataset(name="lsm").to_netcdf(tmp_path / "wrong.nc")
    with pytest.raises(DataError, match="expected 0 to 1"):
        read_statics({"lsm": str(tmp_path / "wrong.nc")}, fine)
    water.isel(lat=slice(0, 8)).to_dataset(name="z").to_netcdf(tmp_path / "short.nc")
    with pytest.raises(DataError, match="expected at least"):
        read_statics({"z": str(tmp_path / "short.nc")}, fine)


# ---- the real files: they prove the layout, not the rain (temperature, a half hour, a cut of fill values and zeros)


@pytest.mark.real_data
def test_real_era5_in_grib():
    pytest.importorskip("cfgrib")
    path = samples() / "era5-2mt-2019-03-uk.grib"
    grid = Grid.latlon(50, 58, -10, 2, 0.25, "node", half_open=True)
    made = to_dataset(read_fields([path], ["t2m"]), ["t2m"], grid, str(path))
    assert made["t2m"].shape == (744, 32, 48)
    assert made["time"].values[[0, -1]].tolist() == [
        np.datetime64(t, "ns").item() for t in ("2019-03-01T00", "2019-03-31T23")
    ]
    first = made["t2m"].isel(time=slice(0, 48)).load()
    assert 255 < float(first.min()) < float(first.max()) < 300
    assert made["t2m"].attrs["units"] == "K"
    by_latitude = first.mean(("time", "lon"))
    assert by_latitude[0] > by_latitude[-1]  # the south is warmer


@pytest.mark.real_data
def test_real_statics():
    fine = Grid.latlon(50, 51, 6, 8, 0.1)
    made = read_statics({"lsm": str(samples().parent / "static" / "land_fraction_0p10_global.nc")}, fine)
    assert float(made["lsm"].min()) > 0.9
    with pytest.raises(DataError, match="coordinate reference system"):
        read_statics({"z": str(samples().parent / "static" / "gtopo30_30arcsec_5-9E_49-52N.tif")}, fine)
