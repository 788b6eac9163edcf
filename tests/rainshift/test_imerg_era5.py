"""ERA5 of the Climate Data Store and IMERG's half hours: every style of file gives the same fields, or is refused."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr
import yaml

from geoml.errors import DataError, UserError
from geoml.grids import Grid
from rainshift.regions import grids, region
from rainshift.sources import open_source
from rainshift.sources.era5_files import find_files, read_fields, to_dataset
from rainshift.sources.imerg_files import HalfHours, find_granules
from rainshift.sources.statics import read_statics
from rainshift.sources.variables import PREDICTORS, VARIABLES

HOURS = 30
START = np.datetime64("2020-01-31T20", "ns")
TIME = START + np.arange(HOURS) * np.timedelta64(1, "h")
#: Units and a plausible size of the variables as ERA5 has them.
UNITS = {"cape": ("J kg**-1", 500), "cp": ("m", 1e-3), "sp": ("Pa", 1e5), "tclw": ("kg m**-2", 0.1),
         "tcw": ("kg m**-2", 30), "tisr": ("J m**-2", 2e6), "tp": ("m", 2e-3), "u": ("m s**-1", 10),
         "v": ("m s**-1", -10)}  # fmt: skip


@pytest.fixture(autouse=True)
def small_region(tmp_path, monkeypatch):
    """`tiny`: 2 × 2 degrees across Greenwich."""
    folder = tmp_path / "regions"
    folder.mkdir()
    box = {"name": "tiny", "lat_min": 40.0, "lat_max": 42.0, "lon_min": -1.0, "lon_max": 1.0}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(box))
    monkeypatch.setenv("RAINSHIFT_REGIONS", str(folder))


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


# ---- ERA5


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
    with pytest.raises(DataError, match="does not begin as GRIB"):
        read(tmp_path / "none.grib", ("tp",))


def test_what_cannot_be_era5_is_refused(tmp_path):
    def refused(dataset, message, names=("tp",), name="a.nc"):
        dataset.to_netcdf(tmp_path / name)
        with pytest.raises(DataError, match=message):
            read(tmp_path / name, names)["tp"].values  # noqa: B018
        (tmp_path / name).unlink()

    whole = era5(names=("tp", "sp"), around=False)
    refused(whole, r"lacks cape; wanted are tp, cape, found are tp", ("tp", "cape"))
    fine = whole.interp(latitude=np.arange(43, 39, -0.1), longitude=np.arange(-2, 2, 0.1))
    refused(fine, "step of 0.1.*ERA5-Land")
    refused(whole.sel(latitude=slice(41.5, 39)), r"lat runs from 39 to 41.5; 40.25 to 42 is needed")
    refused(whole.isel(time=[0, 1, 1, 2]), "twice; keep one")
    refused(whole.expand_dims(number=[0, 1, 2]), "an ensemble of 3")
    units = whole.copy()
    units["tp"] = whole["tp"].assign_attrs(units="K")
    refused(units, "units 'K'")
    negative = whole.copy()
    negative["tp"] = (whole["tp"] - 1).assign_attrs(units="m")
    refused(negative, r"a.nc: 'tp' holds negative values")
    wind = era5(names=("u",), around=False).expand_dims(level=[850])
    refused(wind, "is at 850 hPa; data.level_hpa is 700", ("u",))
    raw = xr.Dataset({"tp": whole["tp"].astype("i2")})
    refused(raw, "integers without scale_factor")
    (tmp_path / "a.nc").write_bytes(b"\x89HDF\r\n\x1a\n123")
    with pytest.raises(DataError, match=r"a.nc cannot be read"):
        read(tmp_path / "a.nc", ("tp",))
    with pytest.raises(UserError, match="holds no file"):
        find_files(tmp_path / "regions" if not list((tmp_path / "regions").glob("*.nc")) else tmp_path)


# ---- IMERG


def half_hour(folder, start, rain, *, version="07B", style="hdf5", run="HHR", time=None, lat=None, lon=None):
    """One granule as NASA writes it: group Grid, (time, lon, lat), fill −9999.9, a calendar called Julian."""
    start = np.datetime64(start, "s")
    text = str(start).replace("-", "").replace(":", "")
    day, clock = text.split("T")
    stop = str(start + np.timedelta64(1799, "s")).replace(":", "").split("T")[1]
    minutes = int((start - start.astype("datetime64[D]")) / np.timedelta64(1, "m"))
    ending = {"hdf5": "HDF5", "nc4": "HDF5.nc4"}[style]
    path = folder / f"3B-{run}.MS.MRG.3IMERG.{day}-S{clock}-E{stop}.{minutes:04d}.V{version}.{ending}"
    lat = np.arange(38.05, 44, 0.1) if lat is None else lat
    lon = np.arange(-3.95, 4, 0.1) if lon is None else lon
    epoch = np.datetime64("1980-01-06" if version.startswith("07") else "1970-01-01", "s")
    name = "precipitation" if version.startswith("07") else "precipitationCal"
    values = np.where(np.isnan(rain), np.float32(-9999.9), rain).astype("f4")
    with h5py.File(path, "w") as file:
        group = file.create_group("Grid") if style == "hdf5" else file
        said = np.datetime64(start if time is None else time, "s")
        made = group.create_dataset("time", data=np.array([(said - epoch) / np.timedelta64(1, "s")], "i4"))
        made.attrs.update(units=np.bytes_(f"seconds since {epoch.astype('datetime64[D]')} 00:00:00 UTC"),
                          calendar=np.bytes_("julian"))  # fmt: skip
        group.create_dataset("lat", data=lat.astype("f4")).attrs["units"] = np.bytes_("degrees_north")
        group.create_dataset("lon", data=lon.astype("f4")).attrs["units"] = np.bytes_("degrees_east")
        field = group.create_dataset(name, data=values.T[None])
        field.attrs.update(DimensionNames=np.bytes_("time,lon,lat"), units=np.bytes_("mm/hr"),
                           _FillValue=np.float32(-9999.9))  # fmt: skip
    return path


def rain_at(start, lat=None, lon=None):
    lat = np.arange(38.05, 44, 0.1) if lat is None else lat
    lon = np.arange(-3.95, 4, 0.1) if lon is None else lon
    minutes = (np.datetime64(start, "s") - START.astype("datetime64[s]")) / np.timedelta64(30, "m")
    return 1 + 0.1 * minutes + 0.05 * (lat - 40)[:, None] + 0.02 * lon


def half_hours(folder, count=2 * HOURS, **options):
    folder.mkdir(exist_ok=True)
    for number in range(count):
        start = START.astype("datetime64[s]") - np.timedelta64(60, "m") + number * np.timedelta64(30, "m")
        half_hour(folder, start, rain_at(start), **options)
    return folder


@pytest.mark.parametrize(("version", "style"), [("07B", "hdf5"), ("06B", "hdf5"), ("06B", "nc4")])
def test_hours_are_means_of_the_halves_that_era5s_sums_cover(tmp_path, version, style):
    folder = half_hours(tmp_path / "imerg", 9, version=version, style=style)
    halves = HalfHours(tuple(find_granules(folder)))
    np.testing.assert_array_equal(halves.hours, TIME[:4])  # the ninth has no partner
    source = open_source("imerg", root=str(folder), boxes=["tiny"])
    made = source.open("tiny")
    fine = grids(region("tiny"))[1]
    lat, lon = fine["lat"].coordinates, fine["lon"].coordinates
    for place, end in enumerate(TIME[:4]):
        halves_of = [rain_at(end.astype("datetime64[s]") - np.timedelta64(m, "m"), lat, lon) for m in (60, 30)]
        np.testing.assert_allclose(made.target["precipitation"].values[place], sum(halves_of) / 2, rtol=1e-5)
    np.testing.assert_array_equal(made.time, TIME[:4])
    # a linear field's area mean is its value in the middle of the cell, but for the cosine of latitude
    coarse = made.coarse
    nodes = [rain_at(TIME[0].astype("datetime64[s]") - np.timedelta64(m, "m"), coarse["lat"].coordinates,
                     coarse["lon"].coordinates) for m in (60, 30)]  # fmt: skip
    np.testing.assert_allclose(made.condition["tp"].values[0], sum(nodes) / 2, atol=2e-4)


def test_fill_values_are_missing_and_half_a_pair_is_none(tmp_path):
    folder = tmp_path / "imerg"
    folder.mkdir()
    start = START.astype("datetime64[s]") - np.timedelta64(60, "m")
    holes = rain_at(start)
    holes[22, 32] = np.nan  # of the box, row and column 2
    half_hour(folder, start, holes)
    half_hour(folder, start + np.timedelta64(30, "m"), rain_at(start))
    data = open_source("imerg", root=str(folder), boxes=["tiny"]).open("tiny")
    rain = data.target["precipitation"].values
    assert np.argwhere(np.isnan(rain[0])).tolist() == [[2, 2]]
    assert np.isfinite(data.condition["tp"].values).all()  # the mean of what is known of a cell


def test_granules_that_do_not_go_together_are_refused(tmp_path):
    folder = half_hours(tmp_path / "imerg", 2)
    start = START.astype("datetime64[s]") + np.timedelta64(60, "m")

    def refused(message):
        halves = HalfHours(tuple(find_granules(folder)))
        with pytest.raises(DataError, match=message):
            halves.read_hours(halves.hours, slice(0, 2), slice(0, 2))

    extra = half_hour(folder, start, rain_at(start), version="06B")
    refused("of version 06.*of 07")
    extra.unlink()
    extra = half_hour(folder, START.astype("datetime64[s]") - np.timedelta64(60, "m"), rain_at(start), run="HHR-L")
    refused("both hold the half hour")
    extra.unlink()
    half_hour(folder, START.astype("datetime64[s]") - np.timedelta64(60, "m"), rain_at(start), time="2020-01-01")
    refused("its name says 2020-01-31T19:00:00, its time 2020-01-01")
    extra = half_hour(folder, START.astype("datetime64[s]") - np.timedelta64(60, "m"), rain_at(start) * 1e5)
    refused("more than rain can be")
    extra.write_bytes(extra.read_bytes()[:500])
    refused("may be truncated")
    extra.write_bytes(b"")
    half_hour(folder, START.astype("datetime64[s]") - np.timedelta64(60, "m"), rain_at(start)[:10], run="DAY",
              lat=np.arange(0.05, 1, 0.1))  # fmt: skip
    with pytest.raises(DataError, match=r"half hours \(3B-HHR\) are needed"):
        _ = HalfHours(tuple(find_granules(folder))).hours
    with pytest.raises(UserError, match="no IMERG file"):
        HalfHours(())


# ---- both


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
    with pytest.raises(UserError, match=r"no hour of \[2019\]; its years are 2020 to 2020"):
        open_source("era5", years=[2019], **options).open("tiny")
    with pytest.raises(UserError, match=r"data.boxes is empty"):
        _ = open_source("era5", root=str(era), imerg=str(imerg)).names
    with pytest.raises(UserError, match=r"data.imerg is not set"):
        open_source("era5", root=str(era), boxes=["tiny"]).open("tiny")


def test_it_is_prepared_and_split(tmp_path):
    from rainshift.archive import Archive

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
    with pytest.raises(DataError, match="is needed"):
        read_statics({"z": str(tmp_path / "short.nc")}, fine)


# ---- the real files: they prove the layout, not the rain (temperature, a half hour, a cut of fill values and zeros)


@pytest.fixture
def samples():
    root = os.environ.get("GEOML_DATA")
    if not root:
        pytest.skip("GEOML_DATA is not set")
    return Path(root) / "samples"


@pytest.mark.real_data
def test_a_real_half_hour_of_imerg(samples):
    late = HalfHours((samples / "3B-HHR-E.MS.MRG.3IMERG.20231117-S093000-E095959.0570.V06E.HDF5.nc4",))
    assert late.grid.shape == (128, 192)
    assert late.grid["lat"].start == pytest.approx(-34.35)
    start = np.datetime64("2023-11-17T09:30:00")
    rain = late.read(start, slice(0, 128), slice(0, 192))
    assert rain.shape == (128, 192)
    assert 20 < np.nanmax(rain) < 30
    with h5py.File(late.files[0]) as file:
        np.testing.assert_array_equal(rain, file["precipitationCal"][0].T)
    with pytest.raises(DataError, match="of no hour both"):
        _ = late.hours
    final = HalfHours((samples / "3B-HHR.MS.MRG.3IMERG.20000601-S000000-E002959.0000.V07A.HDF5",))
    assert list(final.places) == [np.datetime64("2000-06-01T00:00:00")]
    polar = final.read(np.datetime64("2000-06-01T00:00:00"), slice(0, 10), slice(0, 10))
    assert set(np.unique(polar[np.isfinite(polar)])) <= {0.0}
    assert np.isnan(polar).any()


@pytest.mark.real_data
def test_real_era5_in_grib(samples):
    pytest.importorskip("cfgrib")
    path = samples / "era5-2mt-2019-03-uk.grib"
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
def test_real_statics(samples):
    fine = Grid.latlon(50, 51, 6, 8, 0.1)
    made = read_statics({"lsm": str(samples.parent / "static" / "land_fraction_0p10_global.nc")}, fine)
    assert float(made["lsm"].min()) > 0.9
    with pytest.raises(DataError, match="coordinate reference system"):
        read_statics({"z": str(samples.parent / "static" / "gtopo30_30arcsec_5-9E_49-52N.tif")}, fine)
