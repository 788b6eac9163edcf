"""Rain at gauges: tables and files of them, fields over their intervals, indices and return levels; by closed form."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

from geoml.errors import DataError
from geoml.grids.grid import Grid
from rainshift.__main__ import main
from rainshift.data.stations import read_stations, taken_at
from rainshift.station_scores import PointRain, climate_rows, score_stations
from tests.rainshift.test_first_go import record

GRID = Grid.latlon(50, 52, 4, 7, 0.1)
HOURS = np.datetime64("2021-06-01T01", "ns") + np.arange(48) * np.timedelta64(1, "h")
PLACES = {"a": (50.52, 5.03), "b": (50.57, 5.08), "c": (51.23, 6.41)}  # a and b share a cell


def table(path: Path, hours: np.ndarray = HOURS, interval: str = "1 h", rain=lambda lat, lon, t: 2.0, **changes) -> str:
    length = pd.to_timedelta(interval) / pd.Timedelta(hours=1)
    rows = [
        {"id": name, "lat": lat, "lon": lon, "time": f"{str(when)[:19]}Z", "amount": rain(lat, lon, t) * length,
         "interval": interval}
        for name, (lat, lon) in PLACES.items()
        for t, when in enumerate(hours)
    ]  # fmt: skip
    made = pd.DataFrame(rows)
    for column, value in changes.items():
        made[column] = made[column].astype(object)
        made.loc[3, column] = value
    made.to_csv(path, index=False)
    return str(path)


def linear(grid: Grid = GRID) -> np.ndarray:
    """A field of latitude and longitude: bilinear interpolation is exact."""
    return 1 + 0.5 * (grid["lat"].coordinates[:, None] - 50) + 0.2 * (grid["lon"].coordinates - 4)


def test_fields_at_points() -> None:
    gauges = read_stations_of()
    np.testing.assert_allclose(
        taken_at(linear(), GRID, gauges, "bilinear"), 1 + 0.5 * (gauges.lat - 50) + 0.2 * (gauges.lon - 4), rtol=1e-6
    )
    np.testing.assert_allclose(taken_at(linear(), GRID, gauges, "nearest")[:2], linear()[5, 10], rtol=1e-6)


def read_stations_of(tmp: Path = Path("gauges.csv"), **options):
    return read_stations(table(tmp, **options)).inside(GRID)


@pytest.fixture(autouse=True)
def _inside(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.chdir(tmp_path)


def test_tables_with_other_names_units_and_zones(tmp_path) -> None:
    Path("a.csv").write_text(
        "# gauges\nstation_id;latitude;longitude;date;rain (in);interval_minutes\n"
        "X1;50.5;-355.0;2021-06-01T03:00:00+02:00;1;30\nX1;50.5;-355.0;2021-06-01T01:30:00Z;;30\n"
    )
    gauges = read_stations("a.csv").inside(GRID)
    assert gauges.rate.tolist() == [pytest.approx(50.8)]
    assert str(gauges.start[0]).startswith("2021-06-01T00:30")
    assert gauges.lon.tolist() == [5.0]


def test_a_file_of_stations() -> None:
    time = HOURS[:6]
    data = xr.Dataset(
        {"rr": (("station", "time"), np.full((2, 6), 1.5), {"units": "mm"})},
        {"time": time, "lat": ("station", [50.5, 51.5]), "lon": ("station", [5.0, 6.0]),
         "station_id": ("station", ["x", "y"])},
    )  # fmt: skip
    data.to_netcdf("g.nc")
    gauges = read_stations("g.nc")
    assert gauges.ids.tolist() == ["x", "y"]
    assert set(gauges.rate) == {1.5}
    assert (gauges.end - gauges.start == np.timedelta64(1, "h")).all()


def file_of(layout: str, hours=(6, 4)) -> xr.Dataset:
    """Two stations with 1.5 and 2.5 mm in each of their hours, in a layout of CF."""
    amounts = [np.full(hours[0], 1.5), np.full(hours[1], 2.5)]
    times = [HOURS[: hours[0]], HOURS[1 : 1 + hours[1]]]
    places = {"lat": ("station", [50.5, 51.5]), "lon": ("station", [5.0, 6.0]), "station_id": ("station", ["x", "y"])}
    flat = {"rr": ("obs", np.concatenate(amounts), {"units": "mm"}), "time": ("obs", np.concatenate(times)), **places}
    if layout == "contiguous":
        return xr.Dataset({**flat, "n": ("station", list(hours), {"sample_dimension": "obs"})})
    if layout == "indexed":
        data = xr.Dataset({**flat, "of": ("obs", np.repeat([0, 1], hours), {"instance_dimension": "station"})})
        return data.isel(obs=np.random.default_rng(0).permutation(data.sizes["obs"]))
    if layout == "incomplete":
        padded = np.full((2, max(hours)), np.nan), np.full((2, max(hours)), "NaT", "M8[ns]")
        for number in range(2):
            padded[0][number, : hours[number]] = amounts[number]
            padded[1][number, : hours[number]] = times[number]
        rain, when = padded
        return xr.Dataset(
            {"rr": (("station", "obs"), rain, {"units": "mm"}), "time": (("station", "obs"), when)} | places
        )
    one = xr.Dataset({"rr": ("time", amounts[0], {"units": "mm"})}, {"time": times[0]})
    return one.assign_coords(lat=50.5, lon=5.0, station_id="x")


@pytest.mark.parametrize("layout", ["contiguous", "indexed", "incomplete", "single"])
def test_time_series_in_the_layouts_of_cf(layout) -> None:
    file_of(layout).to_netcdf("g.nc")
    gauges = read_stations("g.nc")
    expected = {"x": (50.5, 5.0, 1.5, 6, HOURS[5]), "y": (51.5, 6.0, 2.5, 4, HOURS[4])}
    assert gauges.ids.tolist() == ["x"] if layout == "single" else ["x", "y"]
    for number, name in enumerate(gauges.ids):
        lat, lon, rate, count, last = expected[name]
        mine = gauges.station == number
        assert (gauges.lat[number], gauges.lon[number], mine.sum()) == (lat, lon, count)
        assert set(gauges.rate[mine]) == {rate}
        assert gauges.end[mine].max() == last
        assert (gauges.end - gauges.start == np.timedelta64(1, "h")).all()


def test_a_station_with_a_single_value_is_named_and_left_out(caplog) -> None:
    file_of("contiguous", hours=(6, 1)).to_netcdf("g.nc")
    assert read_stations("g.nc").ids.tolist() == ["x"]
    assert "station y has 1 values, so their interval is unknown; it is left out" in caplog.text
    file_of("contiguous", hours=(1, 1)).to_netcdf("h.nc")
    with pytest.raises(DataError, match="no station has two values or time bounds"):
        read_stations("h.nc")


def test_bounds_and_missing_times_of_ragged_arrays() -> None:
    data = file_of("indexed")
    ends = data["time"].values.copy()
    data["time_bnds"] = (("obs", "nv"), np.stack([ends - np.timedelta64(30, "m"), ends], 1))
    data["time"].attrs["bounds"] = "time_bnds"
    data["time"].values[3] = "NaT"
    data.to_netcdf("g.nc")
    gauges = read_stations("g.nc")
    assert len(gauges.rate) == 9
    assert (gauges.end - gauges.start == np.timedelta64(30, "m")).all()
    assert set(gauges.rate) == {3.0, 5.0}


@pytest.mark.parametrize(
    ("layout", "change", "said"),
    [
        ("contiguous", lambda data: data["n"].attrs.clear(), "attribute sample_dimension"),
        ("contiguous", lambda data: data["n"].__setitem__(0, 5), "has 10 values; 'n' counts 9"),
        ("indexed", lambda data: data["of"].__setitem__(0, 2), "numbers outside 0 to 1, the stations"),
    ],
)
def test_wrong_ragged_arrays_are_named(layout, change, said) -> None:
    data = file_of(layout)
    change(data)
    data.to_netcdf("g.nc")
    with pytest.raises(DataError, match=said):
        read_stations("g.nc")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"amount": -1}, "below 0"),
        ({"amount": 9999}, "marks missing data"),
        ({"amount": 4000}, "more than rain can be"),
        ({"amount": "wet"}, "line 5: amount is 'wet'"),
        ({"time": "yesterday"}, "line 5: time is 'yesterday'"),
        ({"interval": "60"}, "numbers without a unit"),
        ({"lat": 95.0}, "latitude"),
        ({"lat": 51.0}, "several positions"),
        ({"time": str(HOURS[2]) + "Z", "amount": 3}, "occurs twice"),
    ],
)
def test_wrong_values_are_named(tmp_path, changes, said) -> None:
    with pytest.raises(DataError, match=said):
        read_stations(table(tmp_path / "g.csv", **changes))


def points(fields: np.ndarray, members: int = 1, hours: np.ndarray = HOURS):
    gauges = read_stations("gauges.csv")
    kept = PointRain(gauges, GRID)
    kept.add(hours, np.repeat(fields[:, None], members, axis=1), fields)
    return kept.data_set(), gauges


@pytest.mark.parametrize("interval", ["1 h", "3 h", "1 D", "10 min"])
def test_a_perfect_field_scores_zero_over_any_interval(interval) -> None:
    """Rain that is linear in place and time: its mean over an interval is the value in the middle."""
    length = pd.to_timedelta(interval) / pd.Timedelta(hours=1)
    ends = (
        HOURS[0]
        - np.timedelta64(1, "h")
        + np.round(np.arange(1, 48 / length + 1) * length * 3600e9).astype("timedelta64[ns]")
    )

    def rain(lat, lon, t):
        return 1 + 0.5 * (lat - 50) + 0.2 * (lon - 4) + 0.1 * length * (t + 0.5)

    table(Path("gauges.csv"), ends, interval, rain)
    fields = linear()[None] + 0.1 * (np.arange(48) + 0.5)[:, None, None]
    data, gauges = points(fields.astype("f4"), members=2)
    flat, _ = points(np.full_like(fields, 2.0, dtype="f4"), members=1)
    made = score_stations(data, gauges, GRID, seconds=3600, stamp="end", reference=flat)
    rows = {(row["rain"], row["taken"]): row for row in made.rows}
    assert rows["prediction", "bilinear"]["crps_fair"] == pytest.approx(0, abs=2e-4)
    assert rows["prediction", "bilinear"]["skill"] == pytest.approx(1, abs=1e-3)
    assert rows["gridded truth", "bilinear"]["rmse"] == pytest.approx(0, abs=2e-4)
    assert rows["prediction", "bilinear"]["values"] == 3 * round(48 / max(length, 1))
    assert 0 < rows["prediction", "nearest"]["rmse"] < 0.03  # the cell's middle is not the gauge
    assert rows["prediction", "cell mean"]["stations"] == 1
    assert "differs from the other gauges of its cell by 0.035" in made.notes[0]


def test_scores_are_those_of_a_library() -> None:
    import scoringrules

    rng = np.random.default_rng(0)
    table(Path("gauges.csv"), rain=lambda lat, lon, t: float(rng.gamma(0.5, 2.0)))
    gauges = read_stations("gauges.csv")
    kept = PointRain(gauges, GRID)
    fields = rng.gamma(0.5, 2.0, (48, 8, *GRID.shape)).astype("f4")
    kept.add(HOURS, fields, fields[:, 0])
    made = score_stations(kept.data_set(), gauges, GRID, seconds=3600, stamp="end")
    row = next(r for r in made.rows if (r["rain"], r["taken"]) == ("prediction", "nearest"))
    cells = gauges.inside(GRID).cells(GRID)
    observed = np.stack([gauges.rate[gauges.station == s] for s in range(3)], 1)
    drawn = fields[:, :, cells[:, 0], cells[:, 1]].transpose(0, 2, 1)
    expected = scoringrules.crps_ensemble(observed, drawn, estimator="fair").mean()
    assert row["crps_fair"] == pytest.approx(expected, rel=1e-6)
    assert row["bias"] == pytest.approx((drawn.mean(-1) - observed).mean(), rel=1e-5)


def test_indices_and_return_levels_of_twenty_years() -> None:
    days = np.datetime64("2000-01-02", "ns") + np.arange(20 * 365) * np.timedelta64(1, "D")
    rng = np.random.default_rng(1)
    amounts = np.where(rng.random(len(days)) < 0.3, rng.gamma(0.8, 9.0, len(days)), 0.0)
    table(Path("gauges.csv"), days, "1 D", lambda lat, lon, t: amounts[t] / 24)
    fields = np.broadcast_to((amounts / 24)[:, None, None], (len(days), *GRID.shape)).astype("f4")
    data, gauges = points(fields, hours=days)
    rows, notes = climate_rows(data, gauges, GRID, seconds=86400, stamp="end")
    assert not notes
    when = (days - np.timedelta64(1, "D")).astype("datetime64[Y]")
    maxima = [amounts[when == year].max() for year in np.unique(when) if (when == year).sum() >= 330]
    level = stats.genextreme.isf(1 / 10, *stats.genextreme.fit(maxima))
    for row in rows:
        assert row["wet days %"] == pytest.approx(100 * (amounts >= 1).mean(), abs=0.02)
        assert row["mm on wet days"] == pytest.approx(amounts[amounts >= 1].mean(), abs=0.01)
        assert row["10-year day, mm"] == pytest.approx(level, rel=0.01)
        assert row["wettest day, mm"] == pytest.approx(amounts.max(), rel=1e-3)


def test_short_records_say_what_they_lack() -> None:
    table(Path("gauges.csv"))
    data, gauges = points(np.ones((48, *GRID.shape), "f4"))
    rows, notes = climate_rows(data, gauges, GRID, seconds=3600, stamp="end")
    assert rows[0]["days"] == 6
    assert "return levels need 10 years" in notes[0]


def test_evaluate_and_benchmark_at_stations(capsys) -> None:
    Path("in").mkdir()
    data = record(96, minutes=60, lat=50.05, lon=4.05, n=24)
    data.to_netcdf("in/storm.nc")
    rain = data["precipitation"]
    rows = []
    for name, (lat, lon) in {"g1": (51.03, 5.04), "g2": (51.54, 5.57)}.items():
        here = rain.sel(lat=lat, lon=lon, method="nearest")
        for when, value in zip(here["time"].values, here.values.tolist(), strict=True):
            rows.append({"id": name, "lat": lat, "lon": lon, "time": str(when), "amount": value, "interval": "1 h"})
    pd.DataFrame(rows).to_csv("g.csv", index=False)
    words = ["data=gridded", "data.root=in", "data.stations=g.csv", "data.fine_suffix=_x"]
    assert main(["benchmark", *words, "models=[bilinear,nearest]", "run.dir=b"]) == 0
    found = json.loads(Path("b/summary.json").read_text())["stations"]
    truth = next(r for r in found if r["model"] == "gridded truth" and r["taken"] == "nearest")
    assert truth["crps_fair"] == pytest.approx(0, abs=1e-3)
    assert truth["skill"] == pytest.approx(1, abs=0.01)
    assert "At stations" in Path("b/report.md").read_text()
    assert "At stations" in Path("b/report.html").read_text()
    whole = xr.Dataset({"precipitation": rain.expand_dims(member=2)})
    whole.to_netcdf("p.nc")
    assert main(["evaluate", *words, "prediction=p.nc", "regions=[storm]", "run.dir=e"]) == 0
    assert "crps_fair at stations" in capsys.readouterr().out
    assert "no two in one cell" in Path("e/stations-storm.md").read_text()
