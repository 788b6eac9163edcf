"""Pairs from files of their own: any two grids, any labels of time, several predictors; against a closed form."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import xarray as xr

from geoml.errors import DataError, UserError
from rainshift.__main__ import main
from rainshift.sources import open_source
from tests.rainshift.pair_cases import LABELS, RATIOS, START, axis, hours_of, rain_file, truth, write

FINE = (axis(47.05, 52.95, 0.1), axis(2.05, 7.95, 0.1))


def coarse_axes(step: float, offset: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    return axis(46 + offset, 55, step), axis(1 + offset, 10, step)


def pair(tmp_path, **options):
    return open_source("pair", coarse=str(tmp_path / "coarse"), fine=str(tmp_path / "fine"), **options)


def check(data, *, length: float, tolerance: float = 2e-4) -> None:
    """Every value of a region is that of the closed form in the middle of its interval."""
    middle = hours_of(data.time) - length / 2
    np.testing.assert_allclose(
        data.target.precipitation.values,
        truth(data.fine["lat"].coordinates, data.fine["lon"].coordinates, middle),
        atol=tolerance,
    )
    np.testing.assert_allclose(
        data.condition.tp.values,
        truth(data.coarse["lat"].coordinates, data.coarse["lon"].coordinates, middle),
        atol=tolerance,
    )


@pytest.mark.parametrize("step", RATIOS.values(), ids=RATIOS)
@pytest.mark.parametrize("offset", [0.0, 0.0137], ids=["aligned", "shifted"])
def test_two_grids_of_any_ratio(tmp_path, step, offset) -> None:
    rain_file(tmp_path / "fine" / "f.nc", *FINE, minutes=60, count=5)
    rain_file(tmp_path / "coarse" / "c.nc", *coarse_axes(step, offset), minutes=60, count=5)
    data = pair(tmp_path).open("fine")
    check(data, length=1)
    ratio = data.coarse["lat"].step / data.fine["lat"].step
    assert ratio == pytest.approx(step / 0.1, abs=0.26)
    assert len(data) == 5
    for a, b in zip(data.coarse.axes, data.fine.axes, strict=True):  # no fine cell beyond the coarse points
        assert a.start <= b.edges[0] + 1e-6
        assert a.stop >= b.edges[-1] - 1e-6


@pytest.mark.parametrize(("step", "said"), [(0.12, "1.2"), (2.5, "25"), (0.05, "swapped")])
def test_ratios_that_are_none_are_refused(tmp_path, step, said) -> None:
    rain_file(tmp_path / "fine" / "f.nc", *FINE, minutes=60, count=3)
    rain_file(tmp_path / "coarse" / "c.nc", *coarse_axes(step), minutes=60, count=3)
    with pytest.raises(DataError, match=said):
        pair(tmp_path).open("fine")


@pytest.mark.parametrize("case", LABELS)
def test_times_are_matched_by_their_intervals(tmp_path, case) -> None:
    minutes, stamp, units, wide, its_stamp, its_units, length = LABELS[case]
    begin = -1 / 6 if "ten minutes" in case else 0.0
    days = 3 if length == 24 else 1
    rain_file(
        tmp_path / "fine" / "f.nc", *FINE, minutes=minutes, count=days * 1440 // minutes + (stamp == "point"),
        stamp=stamp, units=units, begin=begin, bounds=stamp == "middle",
    )  # fmt: skip
    rain_file(
        tmp_path / "coarse" / "c.nc", *coarse_axes(0.25), minutes=wide, count=days * 1440 // wide, stamp=its_stamp,
        units=its_units, bounds=its_stamp == "middle",
    )  # fmt: skip
    source = pair(tmp_path, fine_as={"stamp": stamp}, predictors={"tp": {"stamp": its_stamp}})
    data = source.open("fine")
    check(data, length=length)
    whole = days * 24 // length
    assert len(data) == (whole - 1 if begin else whole)
    assert data.step.total_seconds() == 3600 * length
    assert data.provenance["stamp"] == "end"


def test_a_gap_of_one_side_is_left_out_and_said(tmp_path, caplog) -> None:
    rain_file(tmp_path / "fine" / "f.nc", *FINE, minutes=30, count=48)
    path = rain_file(tmp_path / "coarse" / "c.nc", *coarse_axes(0.25), minutes=60, count=24)
    with xr.open_dataset(path) as data:
        data.isel(time=[*range(5), *range(8, 24)]).to_netcdf(tmp_path / "coarse" / "d.nc")
    path.unlink()
    with caplog.at_level(logging.WARNING):
        data = pair(tmp_path).open("fine")
    check(data, length=1)
    assert len(data) == 21


def test_predictors_of_several_files_levels_units_and_kinds(tmp_path) -> None:
    """Instants are averaged over the interval, levels chosen in hPa, energy made a rate, by name or standard name."""
    lat, lon = coarse_axes(0.25)
    rain_file(tmp_path / "fine" / "f.nc", *FINE, minutes=60, count=24)
    rain_file(tmp_path / "coarse" / "c.nc", lat, lon, minutes=60, count=24, units="m", name="tp")
    hours = np.arange(25)
    coords = {"time": START + hours * np.timedelta64(1, "h"), "lat": ("lat", lat, {"units": "degrees_north"}),
              "lon": ("lon", lon, {"units": "degrees_east"})}  # fmt: skip
    linear = truth(lat, lon, hours)
    upper = np.stack([linear * 10, linear * 20], 1)
    levels = ("plev", [85000.0, 70000.0], {"units": "Pa"})
    write(
        xr.Dataset(
            {"ua": (("time", "plev", "lat", "lon"), upper, {"units": "m s-1", "standard_name": "eastward_wind"}),
             "ta": (("time", "plev", "lat", "lon"), upper, {"units": "K"})},
            coords | {"plev": levels},
        ),
        tmp_path / "coarse" / "levels.nc",
    )  # fmt: skip
    hourly = truth(lat, lon, hours[1:] - 0.5) * 3600  # J m-2 of the hour that ends
    write(
        xr.Dataset(
            {"tisr": (("time", "lat", "lon"), hourly, {"units": "J m**-2"}),
             "sp": (("time", "lat", "lon"), linear[1:] * 1e4, {"units": "Pa"})},
            coords | {"time": coords["time"][1:]},
        ),
        tmp_path / "coarse" / "surface.zarr",
    )  # fmt: skip
    wanted = {"tp": None, "u": {"level": 700}, "t850": {"variable": "ta", "level": 850}, "tisr": None}
    data = pair(tmp_path, predictors=wanted).open("fine")
    check(data, length=1)
    place = (data.coarse["lat"].coordinates, data.coarse["lon"].coordinates)
    middle = hours_of(data.time) - 0.5
    for name, factor in (("u", 20), ("t850", 10), ("tisr", 1)):
        np.testing.assert_allclose(data.condition[name].values, truth(*place, middle, factor), rtol=2e-4)
    assert {n: a.attrs["units"] for n, a in data.condition.items()} == {
        "tp": "mm h-1", "u": "m s-1", "t850": "K", "tisr": "W m-2"}  # fmt: skip
    assert len(pair(tmp_path, predictors=["tp", "sp"]).open("fine")) == 23  # the first hour has no earlier instant
    for wrong, said in (
        ({"t": {"variable": "ta"}}, "choose with data.predictors.t.level"),
        ({"t": {"variable": "ta", "level": 500}}, "is at 85000, 70000 Pa"),
        ({"q": None}, "Set the name of the variable: data.predictors.q.variable"),
    ):
        with pytest.raises(DataError, match=said):
            pair(tmp_path, predictors={"tp": None, **wrong}).open("fine")
    with pytest.raises(UserError, match="levl"):
        pair(tmp_path, predictors={"t": {"levl": 500}}).open("fine")


def test_uneven_latitudes_and_a_curvilinear_radar(tmp_path, caplog) -> None:
    gaussian = 48 + np.cumsum(np.r_[0, 0.28 + 0.004 * np.arange(20)])
    assert np.ptp(np.diff(gaussian)) > 0.07
    lon = axis(3, 9, 0.28125)
    rain_file(tmp_path / "coarse" / "c.nc", gaussian[::-1], lon, minutes=60, count=3)
    y, x = np.meshgrid(np.arange(60), np.arange(70), indexing="ij")
    lat2, lon2 = 49 + 0.06 * y + 0.004 * x, 4 + 0.06 * x - 0.004 * y
    values = np.stack([6 + 0.5 * (lat2 - 50) + 0.3 * (lon2 - 5) - 0.01 * (h + 0.5) for h in range(3)])
    write(
        xr.Dataset(
            {"rr": (("time", "y", "x"), values.astype("f4"), {"units": "mm h-1"})},
            {"time": START + np.arange(1, 4) * np.timedelta64(1, "h"), "lat": (("y", "x"), lat2),
             "lon": (("y", "x"), lon2)},
        ),
        tmp_path / "fine" / "radar.nc",
    )  # fmt: skip
    with caplog.at_level(logging.WARNING):
        data = pair(tmp_path, fine_as={"stamp": "end"}).open("fine")
    fine = data.target.precipitation.values
    expected = truth(data.fine["lat"].coordinates, data.fine["lon"].coordinates, hours_of(data.time) - 0.5)
    known = np.isfinite(fine)
    assert known.mean() > 0.7
    np.testing.assert_allclose(fine[known], expected[known], atol=2e-3)
    coarse = truth(data.coarse["lat"].coordinates, data.coarse["lon"].coordinates, hours_of(data.time) - 0.5)
    np.testing.assert_allclose(data.condition.tp.values, coarse, atol=2e-3)
    assert caplog.text.count("of its variance") == 3


def test_statics_and_regions_in_folders(tmp_path) -> None:
    for name, shift in (("north", 0.0), ("south", -5.0)):
        rain_file(tmp_path / "fine" / name / "a.nc", FINE[0] + shift, FINE[1], minutes=60, count=3)
        lat, lon = coarse_axes(0.25)
        rain_file(tmp_path / "coarse" / name / "a.nc", lat + shift, lon, minutes=60, count=3)
    wide = (axis(30, 60, 0.5), axis(0, 12, 0.5))
    field = (("lat", "lon"), wide[0][:, None] + 0 * wide[1], {"units": "degree"})
    write(
        xr.Dataset({"steepness": field}, {"lat": ("lat", wide[0], {"units": "degrees_north"}),
                                          "lon": ("lon", wide[1], {"units": "degrees_east"})}),
        tmp_path / "slope.nc",
    )  # fmt: skip
    source = pair(tmp_path, static_files={"slope": str(tmp_path / "slope.nc")})
    assert source.names == ("north", "south")
    data = source.open("south")
    assert data.static is not None
    np.testing.assert_allclose(data.static["slope"].values[:, 0], data.fine["lat"].coordinates, atol=1e-4)
    assert set(source.files("south")) == {"fine/south/a.nc", "coarse/south/a.nc", "static/slope"}


def test_train_on_a_pair_and_predict_from_its_coarse_side_alone(tmp_path, monkeypatch, capsys) -> None:
    """Wet cells of the closed form, whose days of rain are drawn, on grids of 2.8125 : 1; later days are predicted."""
    monkeypatch.chdir(tmp_path)
    amounts = np.random.default_rng(0).gamma(0.6, 1.0, 24 * 10)
    for folder, (lat, lon) in {"fine": FINE, "coarse": coarse_axes(0.28125)}.items():
        path = rain_file(tmp_path / "whole" / f"{folder}.nc", lat, lon, minutes=60, count=len(amounts))
        with xr.open_dataset(path) as whole:
            drawn = whole.assign(precipitation=whole.precipitation * xr.DataArray(amounts, dims="time")).load()
        write(drawn, tmp_path / folder / "rain.nc")
    last = {"time": slice(-24, None)}
    with xr.open_dataset("coarse/rain.nc") as coarse, xr.open_dataset("fine/rain.nc") as fine:
        write(coarse.isel(last), tmp_path / "later.nc")
        expected = fine.precipitation.isel(last).load()
    network = ["model=resnet", "model.width=4", "model.coarse_blocks=1", "model.fine_blocks=1", "trainer.samples=96"]
    data = [
        "data=pair",
        "data.coarse=coarse",
        "data.fine=fine",
        "data.purge_hours=6",
        "data.blocks=2",
        "data.shares={train: 0.6, validation: 0.2, test: 0.2}",
    ]
    loader = ["loader.patch=20", "loader.batch_size=8", "loader.validation_samples=4", "trainer.validate_every=48"]
    assert main(["train", *data, "region.name=fine", *network, *loader, "run.dir=trained"]) == 0, (
        capsys.readouterr().err
    )
    assert main(["predict", "checkpoint=trained", "input=later.nc", "output=predicted.nc", "run.dir=p"]) == 0
    with xr.open_dataset("predicted.nc") as predicted:
        rain = predicted.precipitation.isel(member=0)
        assert rain.sizes["time"] == 24
        error = rain.interp(lat=expected.lat, lon=expected.lon, method="nearest") - expected
    inner = error.sel(lat=slice(48, 52), lon=slice(3, 7))
    assert float(abs(inner).mean()) < 0.25 * float(expected.mean())
