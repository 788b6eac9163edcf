"""Tables of gauges, folders and predictions as others write them: the right value, or a refusal with the way out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import rainshift
from geoml.errors import DataError, UserError
from geoml.grids.grid import Grid
from rainshift.data.matching import matched
from rainshift.data.stations import read_stations
from rainshift.sources import open_source
from rainshift.sources.units import rain_units
from tests.rainshift.reading_cases.base import LAT, LON, RAIN, dataset

HEAD = "id,lat,lon,time,amount,interval\n"
ROW = "harbour,60.15,24.96,2016-09-28T16:00Z,1.4,1 h\n"
#: What a table is, its text, and the rate in mm/h of its first value, or what its refusal says.
TABLES = {
    "semicolons and decimal commas": (
        "id;lat;lon;time;amount;interval\nh;60,15;24,96;2016-09-28 16:00;1,4;1 h\n", 1.4),
    "capitals and units in headings": ("ID,LAT (deg),LON (deg),TIME (UTC),RAIN (mm),INTERVAL\n" + ROW, 1.4),
    "a comma in a name": (HEAD + ROW.replace("harbour", '"Helsinki, harbour"'), 1.4),
    "a byte order mark": ("\ufeff" + HEAD + ROW, 1.4),
    "a name in Latin-1": ((HEAD + ROW.replace("harbour", "Jyväskylä")).encode("latin-1"), 1.4),
    "blanks between": ("id lat lon time amount interval\nh 60.15 24.96 2016-09-28T16:00Z 1.4 1h\n", 1.4),
    "a date and a time of day": ("id,lat,lon,date,time,amount,interval\nh,60.15,24.96,2016-09-28,16:00,1.4,1 h\n", 1.4),
    "tenths in a heading": ("id,lat,lon,time,rain_0.1mm,interval\n" + ROW.replace("1.4", "14"), 1.4),
    "tenths in words": ("id,lat,lon,time,rain_tenths_mm,interval\n" + ROW.replace("1.4", "14"), 1.4),
    "inches in words": ("id,lat,lon,time,precip_inches,interval\n" + ROW.replace("1.4", "1"), 25.4),
    "a rate": ("id,lat,lon,time,rain (mm/h),interval\n" + ROW.replace("1 h", "10 min"), 1.4),
    "a row twice": (HEAD + ROW + ROW, 1.4),
    "minutes": ("id,lat,lon,time,amount,interval_minutes\n" + ROW.replace("1 h", "30"), 2.8),
    "local time by its offset": (HEAD + ROW.replace("16:00Z", "19:00+03:00"), 1.4),
    "an amount twice with other values": (HEAD + ROW + ROW.replace("1.4", "2"), "occurs twice"),
    "local time by its heading": ("id,lat,lon,time_local,amount,interval\n" + ROW.replace("Z", ""), "offset"),
    "a zone in the heading": ("id,lat,lon,time (CET),amount,interval\n" + ROW.replace("Z", ""), "offset"),
    "hours in the heading of amounts": ("id,lat,lon,time,rain_24h,interval\n" + ROW, "units"),
    "two amounts": ("id,lat,lon,time,amount,rain,interval\nh,60,24,2016-09-28T16:00Z,1,7,1 h\n", "keep one"),
    "nothing": ("", "cannot be read as a table"),
    "a trace as a letter": (HEAD + ROW.replace("1.4", "T"), "line 2"),
    "a date with the day first": (HEAD + ROW.replace("2016-09-28T16:00Z", "28/09/2016 16:00"), "line 2"),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_gauges(name: str, tmp_path: Path) -> None:
    text, expected = TABLES[name]
    (tmp_path / "gauges.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    if isinstance(expected, str):
        with pytest.raises(DataError, match=expected):
            read_stations(str(tmp_path / "gauges.csv"))
        return
    gauges = read_stations(str(tmp_path / "gauges.csv"))
    assert gauges.rate.tolist() == [pytest.approx(expected)]
    assert (gauges.lat[0], gauges.lon[0], str(gauges.end[0])[:16]) == (60.15, 24.96, "2016-09-28T16:00")


def test_identifiers_keep_their_zeros_and_swapped_places_are_named(tmp_path: Path) -> None:
    file = tmp_path / "gauges.csv"
    file.write_text(HEAD + ROW.replace("harbour", "00123") + ROW.replace("harbour", "123").replace("60.15", "60.25"))
    assert read_stations(str(file)).ids.tolist() == ["00123", "123"]
    file.write_text(HEAD + ROW.replace("60.15,24.96", "24.96,60.15"))
    with pytest.raises(DataError, match="swapped"):
        read_stations(str(file)).inside(Grid.latlon(59, 61, 24, 26, 0.1))


def coarse_of(data: xr.Dataset) -> xr.Dataset:
    return (
        data.coarsen(lat=5, lon=5).mean().assign(precipitation=lambda d: d.precipitation.assign_attrs(units="mm h-1"))
    )


@pytest.mark.parametrize(
    ("fine", "coarse", "name"),
    [("rain_1km.nc", "rain_5km.nc", "rain_1km"), ("HR_event.nc", "LR_event.nc", "HR_event"),
     ("fine/a.nc", "coarse/a.nc", "fine_a")],
)  # fmt: skip
def test_a_coarse_version_is_no_second_place(tmp_path: Path, fine: str, coarse: str, name: str) -> None:
    for file, data in ((fine, dataset()), (coarse, coarse_of(dataset()))):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        data.to_netcdf(tmp_path / file)
    source = open_source("gridded", root=str(tmp_path), min_coverage=1.0)
    assert source.names == (name,)
    opened = source.open(name)
    assert opened.provenance["coarse"] == "partner file"
    means = RAIN.reshape(6, 6, 5, 8, 5).mean((2, 4))
    np.testing.assert_allclose(opened.condition.tp.values, means, rtol=1e-5)


def test_one_place_at_two_times_or_two_places_are_two_records(tmp_path: Path) -> None:
    dataset().to_netcdf(tmp_path / "a.nc")
    coarse_of(dataset()).assign_coords(lat=coarse_of(dataset()).lat + 20).to_netcdf(tmp_path / "b.nc")
    assert open_source("gridded", root=str(tmp_path), min_coverage=1.0).names == ("a", "b")


@pytest.mark.parametrize(
    ("file", "said"),
    [("a.nc.gz", "unpack"), ("a.zip", "unpack"), ("rain_2020", "contains rain_2020"), (None, "contains nothing")],
)
def test_a_folder_without_rain_says_what_it_holds(tmp_path: Path, file: str | None, said: str) -> None:
    if file is not None:
        (tmp_path / file).write_bytes(b"x")
    with pytest.raises(UserError, match=said):
        _ = open_source("gridded", root=str(tmp_path)).names


def forecast(run: str, step: str, **units: str) -> xr.Dataset:
    lead = np.arange(1, 7) if units else np.arange(1, 7) * np.timedelta64(3600, "s")
    return xr.Dataset(
        {"precipitation": ((run, step, "lat", "lon"), RAIN[None].astype("f4"), {"units": "mm h-1"})},
        {run: [np.datetime64("2020-06-01", "ns")], step: (step, lead, units), "lat": LAT, "lon": LON},
    )


PREDICTIONS = {
    **{dim: dataset().expand_dims({dim: [0, 1]}) for dim in ("ens", "number", "realization", "sample", "eps")},
    "labels of members in text": dataset().expand_dims(member=["a", "b"]),
    "members last": dataset().expand_dims(member=[0, 1]).transpose("time", "lat", "lon", "member"),
    "init_time and lead_time": forecast("init_time", "lead_time"),
    "time and prediction_timedelta": forecast("time", "prediction_timedelta"),
    "forecast_reference_time and forecast_period in hours": forecast(
        "forecast_reference_time", "forecast_period", units="hours"),
    "amounts": dataset(units="mm"),
    "metres": dataset(RAIN / 1000, units="m").rename(precipitation="tp"),
    "north first, longitudes to 360": dataset().isel(lat=slice(None, None, -1)),
    "coordinates in float32": dataset().assign_coords(lat=LAT.astype("f4"), lon=LON.astype("f4")),
}  # fmt: skip


@pytest.mark.parametrize("name", PREDICTIONS)
def test_a_prediction_of_others(name: str) -> None:
    rain, truth = matched(PREDICTIONS[name], dataset())
    assert rain.sizes["time"] == 6
    values = rain.transpose("member", "time", "lat", "lon").values
    np.testing.assert_allclose(values, np.broadcast_to(truth.values, values.shape), rtol=1e-5)


def halved(data: xr.Dataset) -> xr.Dataset:
    return data.map(lambda array: array.coarsen(lat=2, lon=2).mean().assign_attrs(array.attrs))


def marked(value: float, **attrs: object) -> xr.Dataset:
    data = halved(dataset())
    data.precipitation.values[2, 7, 7] = value
    data.precipitation.attrs.update(attrs)
    return data


HOUR = np.arange(6)[:, None, None]
COARSE = {
    "times as text": (halved(dataset()).assign_coords(time=[f"2020-06-01T0{h}:00:00Z" for h in range(1, 7)]), None),
    "final and preliminary hours": (
        xr.concat([halved(dataset(np.where((HOUR < 3) == final, RAIN, np.nan))) for final in (True, False)],
                  xr.DataArray([1, 5], dims="expver", name="expver")), None),
    "-9999 that nothing declares": (marked(-9999), "negative"),
    "9999 that nothing declares": (marked(9999), "fill value"),
    "the default fill value of NetCDF": (marked(9.96921e36), "more than rain can be"),
    "maxima of each hour": (marked(0, cell_methods="time: maximum"), "expected their sum or mean"),
}  # fmt: skip


@pytest.mark.parametrize("name", COARSE)
def test_coarse_rain_to_predict_from(name: str) -> None:
    data, refused = COARSE[name]
    model = rainshift.load("bilinear")
    if refused is not None:
        with pytest.raises(DataError, match=refused):
            model.predict(data, target=dataset())
        return
    expected = model.predict(halved(dataset()), target=dataset()).precipitation.values
    np.testing.assert_allclose(model.predict(data, target=dataset()).precipitation.values, expected, rtol=1e-5)


@pytest.mark.parametrize(("text", "factor"), [("mm_per_hour", 1.0), ("mm/week", 1 / 168)])
def test_more_units(text: str, factor: float) -> None:
    assert rain_units(text).factor == pytest.approx(factor)


def test_a_number_after_the_unit_is_refused() -> None:
    with pytest.raises(DataError, match="after the unit"):
        rain_units("mm/h*10")


def test_sums_of_a_counter_and_maxima_are_no_amounts(tmp_path: Path) -> None:
    rows = [f"h,60.15,24.96,2016-09-28T{hour:02d}:00Z,{0.2 * (hour // 2):.1f},1 h" for hour in range(24)]
    (tmp_path / "gauges.csv").write_text(HEAD + "\n".join(rows))
    with pytest.raises(DataError, match="never decrease"):
        read_stations(str(tmp_path / "gauges.csv"))
    places = {"lat": ("station", [60.1, 60.2]), "lon": ("station", [24.9, 25.0])}
    rain = xr.DataArray(np.arange(8.0).reshape(2, 4) % 3, dims=("station", "time"), attrs={"units": "mm"})
    data = rain.to_dataset(name="rain").assign_coords(places | {"time": [f"2020-06-01T0{h}:00" for h in range(1, 5)]})
    data.to_netcdf(tmp_path / "gauges.nc")
    gauges = read_stations(str(tmp_path / "gauges.nc"))
    assert (str(gauges.end[0])[:16], gauges.rate[:2].tolist()) == ("2020-06-01T01:00", [0.0, 1.0])
    data["rain"].attrs["cell_methods"] = "time: maximum"
    data.to_netcdf(tmp_path / "maxima.nc")
    with pytest.raises(DataError, match="maximum"):
        read_stations(str(tmp_path / "maxima.nc"))


COARSE_LAT, COARSE_LON = 49.75 + 0.25 * np.arange(16), 1.75 + 0.25 * np.arange(20)


def predictors(rain: np.ndarray | float = 3.0, units: str = "mm h-1", other: float = 283.0) -> xr.Dataset:
    kelvin = np.full((6, 16, 20), 283.0, "f4")
    kelvin[2, 3, 3] = other
    fields = {"tp": np.broadcast_to(rain, (6, 16, 20)).astype("f4"), "t2m": kelvin}
    data = xr.Dataset({name: (("time", "lat", "lon"), values) for name, values in fields.items()})
    data["tp"].attrs["units"], data["t2m"].attrs["units"] = units, "K"
    return data.assign_coords(time=dataset().time, lat=COARSE_LAT, lon=COARSE_LON)


def pair(folder: Path, coarse: xr.Dataset) -> xr.Dataset:
    dataset().to_netcdf(folder / "fine.nc")
    coarse.to_netcdf(folder / "coarse.nc")
    options = {
        "fine": str(folder / "fine.nc"),
        "coarse": str(folder / "coarse.nc"),
        "predictors": {"tp": {}, "t2m": {}},
    }
    source = open_source("pair", **options)
    return source.open(source.names[0]).condition


def test_steady_amounts_are_no_sum_since_a_start(tmp_path: Path) -> None:
    steady = 1 + np.arange(20) / 10
    condition = pair(tmp_path, predictors(steady / 1000, "m"))
    assert float(condition.tp.std("time").max()) < 1e-6
    assert float(condition.tp.min()) > 0.99


@pytest.mark.parametrize("value", [1e20, -9999.0])
def test_a_fill_value_of_any_predictor_is_refused(tmp_path: Path, value: float) -> None:
    with pytest.raises(DataError, match="common fill value"):
        pair(tmp_path, predictors(other=value)).t2m.values  # noqa: B018


def test_sides_that_do_not_overlap_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="do not overlap"):
        pair(tmp_path, predictors().assign_coords(lon=COARSE_LON + 40))
