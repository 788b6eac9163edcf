"""Rain of one's own: whatever a file says is understood, or refused with the reason and the way out."""

from __future__ import annotations

import os
import shutil
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from geoml.errors import DataError, UserError
from geoml.grids.axes import Axis
from geoml.regrid import Regridder
from rainshift.sources import open_source
from rainshift.sources.gridded import largest_rectangle
from rainshift.sources.joint import joint_axis
from rainshift.sources.units import rain_factor
from rainshift.sources.variables import PREDICTORS, VARIABLES


def _event(*, lat=(50.05, 50), lon=(2.05, 60), times=6, minutes=60, units="mm h-1", name="precipitation", **attrs):
    rain = np.random.default_rng(0).gamma(0.5, 2.0, (times, lat[1], lon[1])).astype("float32")
    time = np.datetime64("2020-06-01T00", "ns") + np.arange(times) * np.timedelta64(minutes, "m")
    coords = {
        "time": time,
        "lat": ("lat", lat[0] + 0.1 * np.arange(lat[1]), {"units": "degrees_north"}),
        "lon": ("lon", lon[0] + 0.1 * np.arange(lon[1]), {"units": "degrees_east"}),
    }
    return xr.Dataset({name: (("time", "lat", "lon"), rain, {"units": units, **attrs})}, coords)


def _open(folder: Path, dataset: xr.Dataset, file="event_0p10.nc", **options):
    dataset.to_netcdf(folder / file)
    return open_source("gridded", root=str(folder), **options).open("event")


# ---- variables and units


def test_variable_table_is_complete():
    assert PREDICTORS == ("cape", "cp", "sp", "tclw", "tcw", "tisr", "tp", "u", "v")
    for name, row in VARIABLES.items():
        assert name == row.name
        assert row.units and row.standard_name and row.long_name, name  # noqa: PT018
        assert row.role in ("condition", "target", "static")


@pytest.mark.parametrize(
    ("units", "hours", "factor"),
    [
        ("mm/h", 1, 1), ("mm/hr", 2, 1), ("mm h-1", 1, 1), ("mm hr**-1", 1, 1), ("mm.h-1", 1, 1), ("MM/HOUR", 1, 1),
        ("kg m-2 s-1", 1, 3600), ("kg m**-2 s**-1", 1, 3600), ("kg/m2/s", 1, 3600), ("m s-1", 1, 3.6e6),
        ("mm/day", 24, 1 / 24), ("mm d-1", 24, 1 / 24), ("mm/s", 1, 3600), ("cm/h", 1, 10), ("in/hr", 1, 25.4),
        ("mm", 0.5, 2), ("m", 1, 1000), ("m of water equivalent", 3, 1000 / 3), ("kg m-2", 0.25, 4), ("kg m^-2", 1, 1),
        ("mm per step", 0.5, 2), ("mm/5min", 1, 12), ("mm per 15 minutes", 1, 4), ("mm/3h", 1, 1 / 3),
        ("m/s", 1, 3.6e6), ("inches", 1, 25.4),
    ],
)  # fmt: skip
def test_units_are_understood(units, hours, factor):
    assert rain_factor(units, hours) == pytest.approx(factor)


@pytest.mark.parametrize("units", [None, "", "1", "dBZ", "K", "mm/parsec", "m2 s-2", "W m-2", "mm h-2"])
def test_other_units_are_refused(units):
    with pytest.raises(DataError, match=r"data\.units"):
        rain_factor(units, 1)


# ---- geometry


@settings(max_examples=150, deadline=None)
@given(
    start=st.integers(-200, 200), size=st.integers(30, 120), registration=st.sampled_from(["node", "centre"]),
    steps=st.sampled_from([(0.1, 0.25), (0.1, 0.5), (0.05, 0.25), (0.25, 1.0), (0.1, 0.3)]),
)  # fmt: skip
def test_joint_axes_have_one_relative_geometry(start, size, registration, steps):
    narrow, wide = steps
    fine = Axis("lon", (start + 0.5) * narrow, narrow, size, "degrees_east", "centre")
    found = joint_axis(fine, wide, registration)
    stretch = fine.crop(found.fine)
    assert stretch.size % found.period == 0
    low, high = stretch.edges[[0, -1]]
    ends = found.coarse.extent if registration == "node" else tuple(found.coarse.edges[[0, -1]])
    assert ends == pytest.approx((low, high), abs=1e-9)
    assert fine.edges[0] <= found.coarse.edges[0] + 1e-9
    assert found.coarse.edges[-1] <= fine.edges[-1] + 1e-9
    assert fine.size - stretch.size < 2 * (found.period + found.margin)


def test_grids_that_never_meet_are_refused():
    with pytest.raises(DataError, match="no edge of its cells"):
        joint_axis(Axis("lon", 0.01, 0.1, 50, "degrees_east", "centre"), 0.25)
    with pytest.raises(DataError, match="too short"):
        joint_axis(Axis("lon", 0.05, 0.1, 6, "degrees_east", "centre"), 0.25)
    with pytest.raises(DataError, match="too short between 60 and 80 for a coarse step"):
        joint_axis(Axis("lon", 0.05, 0.1, 100, "degrees_east", "centre"), 0.25, limits=(60, 80))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**31))
def test_largest_rectangle_is_the_largest(rows, columns, seed):
    good = np.random.default_rng(seed).random((rows, columns)) < 0.6
    areas = [
        (b - a) * (d - c)
        for a in range(rows) for b in range(a + 1, rows + 1)
        for c in range(columns) for d in range(c + 1, columns + 1) if good[a:b, c:d].all()
    ]  # fmt: skip
    found = largest_rectangle(good)
    assert (found is None) == (not areas)
    if found is not None:
        assert good[found].all()
        assert good[found].size == max(areas)


# ---- events


def test_an_event_and_its_exact_partner(tmp_path):
    dataset = _event()
    data = _open(tmp_path, dataset)
    assert (data.fine.shape, data.coarse.shape) == ((40, 50), (17, 21))
    assert data.coarse["lat"].extent == (50.5, 54.5)
    assert data.step == timedelta(hours=1)
    assert data.target["precipitation"].chunks is not None
    source = Regridder(data.fine.pad(2), data.coarse)
    expected = source(dataset["precipitation"].values[:, 3:47, 3:57])
    np.testing.assert_allclose(data.condition["tp"].values, expected, rtol=1e-5)


@pytest.mark.fault("flipped latitude, 0–360 longitudes, unsorted time", "the same fields")
def test_orientation_dims_and_names_do_not_matter(tmp_path):
    dataset = _event()
    plain = _open(tmp_path, dataset)
    for number, changed in enumerate(
        (
            dataset.isel(lat=slice(None, None, -1)),
            dataset.transpose("lon", "time", "lat"),
            dataset.rename(lat="latitude", lon="longitude"),
            dataset.assign_coords(lon=dataset.lon + 360).isel(time=[3, 1, 0, 2, 5, 4]),
            dataset.rename(precipitation="x").assign(x=lambda d: d.x.assign_attrs(standard_name="rainfall_rate")),
            dataset.expand_dims(level=1),
        )
    ):
        (tmp_path / str(number)).mkdir()
        other = _open(tmp_path / str(number), changed)
        np.testing.assert_array_equal(other.target["precipitation"].values, plain.target["precipitation"].values)
        np.testing.assert_array_equal(other.time, plain.time)


def test_amounts_become_rates_at_the_files_own_step(tmp_path):
    rate = _open(tmp_path, _event(minutes=5))
    (tmp_path / "b").mkdir()
    amount = _open(tmp_path / "b", _event(minutes=5, units="mm"))
    np.testing.assert_allclose(amount.target["precipitation"], 12 * rate.target["precipitation"].values, rtol=1e-6)
    assert (amount.provenance["stamp"], rate.provenance["stamp"]) == ("end", "unknown")


def test_time_bounds_give_interval_and_stamp(tmp_path):
    dataset = _event(times=4, minutes=180, units="mm").isel(time=[0, 1, 3])
    bounds = np.stack([dataset.time.values - np.timedelta64(1, "h"), dataset.time.values], 1)
    dataset["time_bnds"] = (("time", "nv"), bounds)
    dataset["time"].attrs["bounds"] = "time_bnds"
    dataset["time"].encoding["units"] = "minutes since 2020-01-01"
    data = _open(tmp_path, dataset)
    assert (data.step, data.provenance["stamp"]) == (timedelta(hours=1), "end")
    np.testing.assert_allclose(
        data.target["precipitation"].values, dataset["precipitation"].values[:, 5:45, 5:55], rtol=1e-6
    )
    (tmp_path / "b").mkdir()
    dataset["precipitation"].attrs["units"] = "mm h-1"  # of which alone the bounds tell the stamp
    mixed = _open(tmp_path / "b", dataset.isel(time=[2, 0, 1]))
    assert (mixed.step, mixed.provenance["stamp"]) == (timedelta(hours=1), "end")


def test_zarr_and_single_files_are_events_too(tmp_path):
    _event().to_zarr(tmp_path / "event_0p10.zarr", consolidated=False)
    whole = open_source("gridded", root=str(tmp_path))
    assert whole.names == ("event",)
    assert len(whole.open("event")) == 6
    assert open_source("gridded", root=str(tmp_path / "event_0p10.zarr")).names == ("event",)


def test_own_partner(tmp_path):
    fine = _event()
    exact = _open(tmp_path, fine)
    coarse = Regridder(exact.fine.pad(2), exact.coarse)(fine["precipitation"].values[:, 3:47, 3:57])
    partner = xr.Dataset(
        {"precipitation": (("time", "lat", "lon"), coarse, {"units": "mm/h"})},
        {"time": fine.time, **exact.coarse.coords()},
    )
    partner.isel(lat=slice(0, 14)).to_netcdf(tmp_path / "event_0p25.nc")
    data = open_source("gridded", root=str(tmp_path), coarse="file").open("event")
    assert data.coarse["lat"].extent == (50.5, 53.5)  # the partner's last row, 53.75, is off the joint lattice
    np.testing.assert_allclose(data.condition["tp"].values, coarse[:, :13], rtol=1e-5)
    (tmp_path / "late").mkdir()
    fine.to_netcdf(tmp_path / "late" / "event_0p10.nc")
    late = open_source("gridded", root=str(tmp_path / "late"), coarse="file")
    with pytest.raises(DataError, match="no coarse partner"):
        late.open("event")
    partner.isel(time=slice(1, None)).to_netcdf(tmp_path / "late" / "event_0p25.nc")
    with pytest.raises(DataError, match="coarse partner file and fine file have different times"):
        open_source("gridded", root=str(tmp_path / "late"), coarse="file").open("event")


def test_boxes_are_cut_from_a_wide_file(tmp_path, monkeypatch):
    (tmp_path / "boxes").mkdir()
    for name, west in (("one", 3), ("two", 5)):
        text = f"name: {name}\nlat_min: 51\nlat_max: 53\nlon_min: {west}\nlon_max: {west + 2}\n"
        (tmp_path / "boxes" / f"{name}.yaml").write_text(text)
    monkeypatch.setenv("RAINSHIFT_REGIONS", str(tmp_path / "boxes"))
    _event().to_netcdf(tmp_path / "world.nc")
    source = open_source("gridded", root=str(tmp_path / "world.nc"), boxes=["one", "two"])
    assert source.names == ("one", "two")
    one, two = source.open("one"), source.open("two")
    assert one.fine["lon"].edges[[0, -1]].tolist() == pytest.approx([3, 5])
    assert one.coarse.relative_to(one.fine) == two.coarse.relative_to(two.fine)
    with pytest.raises(DataError, match="the box needs"):
        open_source("gridded", root=str(tmp_path / "world.nc"), boxes=["melanesia"]).open("melanesia")


def test_gaps_are_missing_in_both_or_cut_away(tmp_path):
    dataset = _event()
    dataset["precipitation"][:, :20, :] = np.nan
    data = _open(tmp_path, dataset)
    assert np.isnan(data.target["precipitation"].values[:, :15]).all()
    assert np.isnan(data.condition["tp"].values[:, 0]).all()
    covered = open_source("gridded", root=str(tmp_path), min_coverage=1.0).open("event")
    assert covered.fine["lat"].edges[0] == pytest.approx(52.5)
    assert np.isfinite(covered.target["precipitation"].values).all()
    assert np.isfinite(covered.condition["tp"].values).all()
    assert covered.coarse["lat"].extent == (52.5, 54.5)


# ---- what is refused


def _changed(**changes):
    dataset = _event()
    if "fill" in changes:
        dataset["precipitation"][changes["fill"], 3, 4] = -9999.0
    if "times" in changes:
        dataset = dataset.isel(time=slice(0, len(changes["times"]))).assign_coords(
            time=np.datetime64("2020-06-01T00", "ns") + np.array(changes["times"]) * np.timedelta64(1, "m")
        )
    return dataset


@pytest.mark.parametrize(
    ("dataset", "options", "message"),
    [
        (_event(units=""), {}, "has no units"),
        (_event(units="dBZ"), {}, "not understood"),
        (_event(name="x"), {}, r"data\.variable="),
        (_event(name="rate"), {"variable": "rats"}, "did you mean 'rate'"),
        (_event().assign(rain=_event()["precipitation"]), {}, "several rain variables: precipitation, rain"),
        (_changed(fill=0), {}, r"negative values \(lowest -9999\).*_FillValue"),
        (_changed(times=[0, 60, 60]), {}, "occurs twice"),
        (_changed(times=[0, 60, 150]), {}, "not a multiple of the step"),
        (_changed(times=[0]), {}, r"data\.step_minutes"),
        (_event().isel(time=0, drop=True), {}, "time dimension"),
        (_event(units="m s-1"), {}, "more than rain can be"),
        (_event().drop_vars("lat"), {}, "lat"),
        (_event(), {"min_coverage": 2}, "expected 0 to 1"),
        (_event(), {"coarse": "made"}, "expected exact or file"),
        (_event(), {"stamp": "late"}, "expected end"),
    ],
)  # fmt: skip
@pytest.mark.fault("wrong units, duplicated time", "refused, with file and option")
def test_what_cannot_be_used_is_refused_with_the_reason(tmp_path, dataset, options, message):
    with pytest.raises(UserError, match=message) as error:
        _open(tmp_path, dataset, **options)
    if not options:
        assert "event_0p10.nc" in str(error.value)


@pytest.mark.fault("undeclared fill value", "refused, with the lowest value")
def test_a_fill_value_in_the_middle_is_found_when_it_is_read(tmp_path):
    data = _open(tmp_path, _changed(fill=3))
    with pytest.raises(DataError, match="negative values"):
        data.target["precipitation"].values  # noqa: B018
    assert np.isfinite(data.target["precipitation"].isel(time=0).size)


def test_gaps_of_whole_steps_are_allowed(tmp_path):
    data = _open(tmp_path, _changed(times=[0, 60, 240]))
    assert data.step == timedelta(hours=1)
    assert len(data) == 3


def test_broken_files_and_roots_are_named(tmp_path):
    with pytest.raises(UserError, match=r"data\.root is not set"):
        open_source("gridded").names  # noqa: B018
    with pytest.raises(UserError, match="does not exist"):
        open_source("gridded", root=str(tmp_path / "none")).names  # noqa: B018
    with pytest.raises(UserError, match="contains no file"):
        open_source("gridded", root=str(tmp_path)).names  # noqa: B018
    whole = tmp_path / "event.nc"
    _event().to_netcdf(whole)
    whole.write_bytes(whole.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"event\.nc cannot be read"):
        open_source("gridded", root=str(tmp_path)).open("event")
    whole.unlink()
    _event().to_zarr(tmp_path / "event.zarr", consolidated=False)
    chunk = max((tmp_path / "event.zarr" / "precipitation").rglob("*"), key=lambda path: path.stat().st_size)
    chunk.write_bytes(chunk.read_bytes()[:100])
    with pytest.raises(DataError, match=r"event\.zarr: 'precipitation' cannot be read; the file may be"):
        open_source("gridded", root=str(tmp_path)).open("event")
    shutil.rmtree(tmp_path / "event.zarr")
    whole.write_text("<html>log in</html>")
    with pytest.raises(DataError, match=r"event\.nc is neither NetCDF nor Zarr \(it begins with b'<html>lo'\)"):
        open_source("gridded", root=str(tmp_path)).open("event")
    with pytest.raises(UserError, match="did you mean 'event'"):
        open_source("gridded", root=str(tmp_path)).open("evnt")


# ---- real radar rain

REAL = Path(os.environ.get("GEOML_DATA", "")) / "precip"
real = pytest.mark.skipif(
    not os.environ.get("GEOML_DATA") or not REAL.is_dir(), reason="GEOML_DATA does not name a folder with precip/"
)
STEPS = {
    "fmi_rate_finland_20160928": 5,
    "fmi_rate_finland_20170509": 5,
    "knmi_rate_netherlands_20100826": 5,
    "mrms_preciprate_conus_20190610": 2,
    "radolan_rw_germany_20221018": 60,
}


@real
@pytest.mark.real_data
@pytest.mark.parametrize("name", STEPS)
def test_real_events(name):
    data = open_source("gridded", root=str(REAL), coarse="exact").open(name)
    assert data.step == timedelta(minutes=STEPS[name])
    rain, coarse = data.target["precipitation"].values, data.condition["tp"].values
    assert (np.nanmin(rain), np.isnan(rain).any()) == (0, True)
    # Away from gaps the exact means keep the integral: compare over coarse cells that are wholly known.
    inner = data.coarse.crop(lat=slice(1, -1), lon=slice(1, -1))
    again = Regridder(data.fine, inner, valid_fraction=1.0)(rain)
    known = ~np.isnan(again)
    assert known.any()
    np.testing.assert_allclose(coarse[:, 1:-1, 1:-1][known], again[known], atol=1e-4)


@real
@pytest.mark.real_data
def test_real_partners_agree_to_their_rounding():
    exact, given = (open_source("gridded", root=str(REAL), coarse=kind) for kind in ("exact", "file"))
    for name in STEPS:
        one, other = exact.open(name), given.open(name)
        assert one.coarse == other.coarse
        a, b = one.condition["tp"].values, other.condition["tp"].values
        known = ~np.isnan(a) & ~np.isnan(b)
        whole = np.abs(a - b)[known]
        assert np.quantile(whole, 0.9) < 0.011, name


@real
@pytest.mark.real_data
def test_all_real_events_share_one_geometry():
    source = open_source("gridded", root=str(REAL), min_coverage=1.0)
    keys = set()
    for name in STEPS:
        data = source.open(name)
        keys.add(tuple(round(data.coarse[axis].start - data.fine[axis].start, 6) for axis in ("lat", "lon")))
        assert np.isfinite(data.condition["tp"].values).all(), name
        assert all(size % 5 == 0 for size in data.fine.shape), name
    assert keys == {(-0.05, -0.05)}
