"""Stations that guide members: matched to times and cells, met by members within their errors, said in the file."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import rainshift
from geoml.cli import app
from geoml.errors import DataError, UserError
from geoml.grids.grid import Grid, grid_of
from rainshift.__main__ import APP
from rainshift.data.observations import ObservationError, readings_of
from rainshift.data.stations import read_stations
from rainshift.sources import open_source

GRID = Grid.latlon(50, 52, 4, 7, 0.1)
HOUR = np.timedelta64(1, "h")
TIMES = np.datetime64("2021-06-01T01", "ns") + np.arange(4) * HOUR


def table(path, rows, interval="1 h"):
    """A CSV file of (id, lat, lon, end, amount)."""
    made = pd.DataFrame(rows, columns=["id", "lat", "lon", "time", "amount"])
    made["interval"] = interval
    made.to_csv(path, index=False)
    return path


def test_values_are_matched_to_the_times_and_cells_of_a_prediction(tmp_path) -> None:
    rows = [("a", 50.52, 5.03, TIMES[0], 2.0), ("a", 50.52, 5.03, TIMES[2], 0.0), ("b", 51.23, 6.41, TIMES[0], 1.0)]
    rows += [("far", 10.0, 5.0, TIMES[0], 9.0), ("a", 50.52, 5.03, TIMES[0] + 99 * HOUR, 1.0)]
    readings = readings_of(table(tmp_path / "gauges.csv", rows), {"share": 0.25})
    made = readings.at(GRID, TIMES, TIMES - HOUR, TIMES)
    assert str(made) == (
        "2 of 3 stations guide the members, at 2 of 4 times (3 values); 1 outside the domain; 1 value of other "
        "times or of longer intervals"
    )
    assert made.attrs["observation_error"] == "25 % of the rate, at least 0.1 mm/h"
    points = made.points(TIMES)
    assert points.cells.tolist() == [[5, 10], [12, 24]]
    np.testing.assert_allclose(points.values[:, 0], [2, np.nan, 0, np.nan])
    np.testing.assert_allclose(points.low[:, 0], [1.5, np.nan, 0, np.nan])
    np.testing.assert_allclose(points.high[:, 0], [2.5, np.nan, 0.1, np.nan])
    assert made.points(TIMES[1:2]) is None
    window = made.points(TIMES[None])
    assert window.cells.tolist() == [[0, 5, 10], [0, 12, 24], [2, 5, 10]]
    np.testing.assert_allclose(window.values, [[2, 1, 0]])
    # A global field that is padded by two columns shows some cells twice.
    columns = np.arange(-2, GRID.shape[1] + 20) % GRID.shape[1]
    padded = made.points(TIMES[:1], columns)
    assert padded.cells.tolist() == [[5, 12], [5, 42], [12, 26]]


def test_short_intervals_are_averaged_and_long_ones_are_not_used(tmp_path) -> None:
    tenth = np.timedelta64(10, "m")
    short = [("a", 50.52, 5.03, TIMES[0] - k * tenth, 0.1 * k) for k in range(6)]
    made = readings_of(table(tmp_path / "short.csv", short, "10 min")).at(GRID, TIMES, TIMES - HOUR, TIMES)
    np.testing.assert_allclose(made.rates[0], 1.5)
    daily = [("a", 50.52, 5.03, TIMES[0], 24.0)]
    with pytest.raises(DataError, match="no value matches the interval of a predicted time"):
        readings_of(table(tmp_path / "day.csv", daily, "1 D")).at(GRID, TIMES, TIMES - HOUR, TIMES)


def test_errors_and_kinds_of_observations_are_checked(tmp_path) -> None:
    with pytest.raises(UserError, match=r"observation_error\.share is -1"):
        ObservationError(share=-1)
    with pytest.raises(UserError, match="a dry station needs an error"):
        ObservationError(least=0)
    with pytest.raises(UserError, match=r"did you mean 'observation_error\.share'"):
        readings_of("gauges.csv", {"shar": 0.1})
    with pytest.raises(UserError, match="expected the path of a CSV or NetCDF file"):
        readings_of(3)
    with pytest.raises(DataError, match="does not exist"):
        readings_of(tmp_path / "none.csv")


@pytest.fixture(scope="module")
def wet():
    """Three wet hours of a place."""
    data = open_source("synthetic", size_deg=2).blocks("melanesia", np.array([19001]))
    hours = np.argsort(data.target["precipitation"].values.mean((1, 2)))[-3:]
    return data.isel(np.sort(hours))


@pytest.fixture
def gauges(wet, tmp_path):
    """Six stations with the true rain of the first two hours."""
    rain, rng = wet.target["precipitation"], np.random.default_rng(2)
    rows = []
    for number in range(6):
        i, j = rng.integers(2, 18, 2)
        for hour in range(2):
            at = rain[hour, i, j]
            rows.append((f"s{number}", float(at.lat) + 0.02, float(at.lon) - 0.02, at.time.values, float(at)))
    return table(tmp_path / "gauges.csv", rows)


def at_stations(made: xr.Dataset, gauges) -> np.ndarray:
    rows, columns = read_stations(str(gauges)).cells(grid_of(made["precipitation"])).T
    return made["precipitation"].transpose("time", "member", "lat", "lon").values[:, :, rows, columns]


def test_members_agree_with_stations_and_are_free_at_other_times(wet, gauges) -> None:
    model = rainshift.load("general")
    error = {"share": 0.05, "least": 0.05}
    free, guided = (
        model.predict(wet.condition, members=4, **options)
        for options in ({}, {"observations": gauges, "observation_error": error})
    )
    assert guided.attrs["observations"].startswith("6 of 6 stations guide the members, at 2 of 3 times (12 values)")
    stations = read_stations(str(gauges))
    times = wet.target["time"].values[:2].astype("datetime64[ns]")
    truth = stations.over(times - HOUR, times, 3600)[:, None]
    off = [np.abs(at_stations(made, gauges)[:2] - truth).mean() for made in (free, guided)]
    assert off[1] < 0.4 * off[0]
    np.testing.assert_array_equal(guided["precipitation"][:, 2], free["precipitation"][:, 2])


def test_tiles_see_their_stations(wet, gauges) -> None:
    model = rainshift.load("general")
    options = {"members": 1, "observations": gauges, "observation_error": {"share": 0.05, "least": 0.05}}
    hour = wet.condition.isel(time=[0])
    one = model.predict(hour, **options)
    tiled = model.predict(hour, **options, tiles={"tile": 8, "blend": 2, "halo": 8, "limit": 8})
    stations = read_stations(str(gauges))
    time = wet.target["time"].values[:1].astype("datetime64[ns]")
    truth = stations.over(time - HOUR, time, 3600)[:, None]
    whole, parts = (np.abs(at_stations(made, gauges) - truth).mean() for made in (one, tiled))
    assert parts < max(2 * whole, 0.3 * truth.mean())


def test_models_without_members_refuse_and_fields_without_times_too(wet, gauges) -> None:
    with pytest.raises(UserError, match="observations require a diffusion model, which bilinear is not"):
        rainshift.load("bilinear").predict(wet.condition[["tp"]], target=grid_of(wet.target), observations=gauges)
    still = wet.condition.isel(time=0, drop=True)
    with pytest.raises(UserError, match="the coarse fields have none; add a time"):
        rainshift.load("general").predict(still, observations=gauges)


def test_the_command_line_says_what_was_used(wet, gauges, tmp_path, capsys) -> None:
    wet.condition[["tp"]].isel(time=slice(0, 2)).to_netcdf(tmp_path / "coarse.nc")
    output = tmp_path / "fine.nc"
    words = ["predict", "model=general", f"input={tmp_path}/coarse.nc", f"output={output}", "members=2"]
    words += [f"observations={gauges}", "observation_error.share=0.1"]
    assert app.main(APP, [*words, f"run.dir={tmp_path}/run"]) == 0
    assert "6 of 6 stations guide the members" in capsys.readouterr().err
    with xr.open_dataset(output) as made:
        assert made.attrs["observation_error"] == "10 % of the rate, at least 0.1 mm/h"
        assert np.isfinite(made["precipitation"].values).all()


def test_prepared_regions_are_guided_with_their_test_hours_alone(tmp_path, capsys) -> None:
    hours = {"test": {"start": "2022-01-01", "end": "2022-01-03", "hours": 24}}
    tree = rainshift.open("melanesia", "test", size_deg=1, splits_at=hours, cache=str(tmp_path))
    rain = tree["target"]["precipitation"].isel(lat=4, lon=4).load()
    rows = [("mid", float(rain.lat), float(rain.lon), time, 3.0) for time in rain.time.values]
    place = table(tmp_path / "gauges.csv", rows)
    words = ["predict", "model=general", "region=melanesia", "data.size_deg=1", f"cache={tmp_path}", "members=2"]
    words += ["data.splits_at={test: {start: '2022-01-01', end: '2022-01-03', hours: 24}}", "samples=2"]
    assert app.main(APP, [*words, f"observations={place}", f"run.dir={tmp_path}/run"]) == 0
    assert "1 of 1 station" in (said := capsys.readouterr()).err + said.out
    with xr.open_dataset(tmp_path / "run" / "samples" / "melanesia-test.nc") as made:
        assert made.attrs["observations"].startswith("1 of 1 stations guide the members, at 2 of 2 times")
        assert float(abs(made["precipitation"].isel(lat=4, lon=4) - 3).mean()) < 1.5
