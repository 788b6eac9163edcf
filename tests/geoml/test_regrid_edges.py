"""Regridding where something is missing or ends: gaps, rims, conventions of files, resizing by index."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import torch
import xarray as xr

from benchmarks.index_resize import index_resize, index_resize_cost
from geoml.errors import DataError
from geoml.grids.grid import Axis, Grid, conform, grid_of
from geoml.regrid import Regridder, interpolation_weights, overlap_weights

sys.path.insert(0, str(Path(__file__).parent))
from regrid_cases import COARSE, FINE, METHODS, integrals, plane, random_fields, smooth_fields

# ---- missing values ---------------------------------------------------------------------------------------------


def test_missing_values_are_left_out_of_the_mean():
    grid = Grid((Axis("y", 0.5, 1, 4, "m"), Axis("x", 0.5, 1, 4, "m")), "local")
    fields = np.arange(16.0).reshape(4, 4)
    fields[0, 0] = fields[0, 2] = fields[0, 3] = fields[1, 2] = np.nan
    fields[2:, :2] = np.nan
    result = Regridder(grid, grid.coarsen(2))(fields)
    np.testing.assert_allclose(result, [[np.mean([1, 4, 5]), np.nan], [np.nan, np.mean([10, 11, 14, 15])]])
    half = Regridder(grid, grid.coarsen(2), valid_fraction=0.25)(fields)
    np.testing.assert_allclose(half[0], [np.mean([1, 4, 5]), 7.0])
    assert np.isnan(half[1, 0])
    strict = Regridder(grid, grid.coarsen(2), valid_fraction=1.0)(fields)
    np.testing.assert_array_equal(np.isnan(strict), [[True, True], [True, False]])
    any_at_all = Regridder(grid, grid.coarsen(2), valid_fraction=0)(fields)
    np.testing.assert_array_equal(np.isnan(any_at_all), [[False, False], [True, False]])


@pytest.mark.parametrize("source", [FINE, COARSE])
def test_gaps_never_leak_into_values(source):
    """Where a result is not missing it is a mean of what is there: within its bounds, exactly 1 for ones."""
    target = COARSE if source is FINE else FINE
    for method in METHODS:
        fields = np.where(random_fields(source, gaps=0.4) >= 0, 1.0, np.nan)
        result = Regridder(source, target, method)(fields)
        assert np.isnan(result).any()
        np.testing.assert_allclose(result[~np.isnan(result)], 1.0, rtol=1e-12)


def test_a_mask_is_the_same_as_nan():
    fields, mask = random_fields(FINE), random_fields(FINE, seed=5) > 0.2
    regridder = Regridder(FINE, COARSE)
    expected = regridder(np.where(mask, fields, np.nan))
    np.testing.assert_array_equal(regridder(fields, mask), expected)
    np.testing.assert_allclose(regridder(torch.tensor(fields), torch.tensor(mask)).numpy(), expected, rtol=1e-12)
    lazy = regridder(da.from_array(fields, chunks=(1, -1, -1)), mask)
    np.testing.assert_array_equal(lazy.compute(), expected)
    values, valid = regridder.masked(fields, mask)
    np.testing.assert_array_equal(valid, ~np.isnan(expected))
    assert (values[~valid] == 0).all()


def test_masked_arrays_keep_their_mask_and_odd_types_are_refused():
    fields, mask = random_fields(FINE, ()), random_fields(FINE, (), seed=5) > 0.2
    regridder = Regridder(FINE, COARSE)
    np.testing.assert_array_equal(regridder(np.ma.array(fields, mask=~mask)), regridder(fields, mask))
    with pytest.raises(TypeError, match="complex"):
        regridder(fields + 1j)
    with pytest.raises(TypeError, match="list"):
        regridder([[1.0]])


def test_an_infinity_spoils_the_cells_it_touches_and_no_other():
    fields = np.ones(FINE.shape)
    fields[100, 100] = np.inf
    regridder = Regridder(FINE, COARSE)
    touched = np.multiply.outer(*(matrix[:, 100] > 0 for matrix in regridder.matrices))
    np.testing.assert_array_equal(np.isfinite(regridder(fields)), ~touched)


# ---- registration, rims, conventions ----------------------------------------------------------------------------


def test_what_belongs_to_a_place_stays_there():
    """A bump at 60.0 N, 5.0 W in the corner of the coarse grid: by coordinate it stays, by index it moves."""
    lat, lon = COARSE["lat"].coordinates, COARSE["lon"].coordinates
    y, x = FINE["lat"].coordinates, FINE["lon"].coordinates
    for where in ((60.0, -5.0), (50.0, 5.0)):
        coarse = np.exp(-((lat[:, None] - where[0]) ** 2 + (lon - where[1]) ** 2) / 2)
        truth = np.exp(-((y[:, None] - where[0]) ** 2 + (x - where[1]) ** 2) / 2)
        by_place = Regridder(COARSE, FINE, "bilinear")(coarse)
        assert np.abs(by_place - truth).max() < 0.02
        # the index-based field is the truth of a bump 0.125° further south and east
        moved = np.exp(-((y[:, None] - where[0] + 0.125) ** 2 + (x - where[1] - 0.125) ** 2) / 2)
        by_index = index_resize(coarse, FINE.shape)
        assert np.abs(by_index - moved).max() < 0.02 < np.abs(by_index - truth).max()


def test_rows_beyond_the_hull_follow_the_rule():
    y, x = FINE["lat"].coordinates, FINE["lon"].coordinates
    missing = Regridder(COARSE, FINE, "bilinear", rim="missing")(np.ones(COARSE.shape))
    beyond = (y < 40.25)[:, None] | (x > 14.75)
    assert int((y < 40.25).sum()) == int((x > 14.75).sum()) == 2
    np.testing.assert_array_equal(np.isnan(missing), beyond)
    nearest = Regridder(COARSE, FINE, "bilinear", rim="nearest")(plane(COARSE))
    np.testing.assert_allclose(nearest[0], nearest[1])
    np.testing.assert_allclose(nearest[2, :-2], plane(FINE)[2, :-2])
    np.testing.assert_allclose(Regridder(COARSE, FINE, "bilinear", rim="linear")(plane(COARSE)), plane(FINE))
    with pytest.raises(DataError, match=r"lat = 40\.05 lies outside .* 40\.25 … 60"):
        Regridder(COARSE, FINE, "bilinear", rim="error")
    Regridder(COARSE, FINE.select(lat=(41, 59), lon=(-4, 14)), "bilinear", rim="error")
    # the half cell between the last centre and the edge belongs to a centre-registered source
    assert not Regridder(FINE, COARSE, "bilinear", rim="error").outside.any()


def test_area_means_at_the_rim():
    far = FINE.pad(3)
    nearest = Regridder(COARSE, far)
    assert np.isfinite(nearest(np.ones(COARSE.shape))).all()
    assert nearest.covered.min() == 0
    missing = Regridder(COARSE, FINE, rim="missing")(np.ones(COARSE.shape))
    np.testing.assert_array_equal(np.isnan(missing).sum(axis=0)[:-1], 1)  # 40.05 is uncovered, 40.15 to three quarters
    assert np.isnan(missing[:, -1]).all()
    corner = Regridder(FINE, COARSE, rim="missing")(np.ones(FINE.shape))  # half-covered rim cells are kept
    assert np.isfinite(corner).all()
    with pytest.raises(DataError, match="outside"):
        Regridder(COARSE, FINE, rim="error")
    with pytest.raises(ValueError, match="extrapolated"):
        Regridder(COARSE, FINE, rim="linear")


def test_the_globe_has_no_rim_in_longitude():
    globe = Grid.latlon(-90, 90, 0, 360, 5, "node")
    target = Grid.latlon(-90, 90, -180, 180, 2.5)
    assert Regridder(globe, target, "bilinear", rim="error").covered.min() == 1
    wave = np.cos(np.radians(globe["lon"].coordinates)) * np.ones(globe.shape)
    result = Regridder(globe, target, "bilinear")(wave)
    np.testing.assert_allclose(result[10], np.cos(np.radians(target["lon"].coordinates)), atol=2e-3)
    before, after = integrals(globe, target, random_fields(globe))
    np.testing.assert_allclose(after, before, rtol=1e-12)
    assert np.allclose(Regridder(globe, target).covered, 1)


def test_files_of_the_globe_may_begin_anywhere():
    east, west = Grid.latlon(-90, 90, 0, 360, 5, "node"), Grid.latlon(-90, 90, -180, 180, 5, "node")
    target = Grid.latlon(-20, 20, -30, 30, 2)
    wave = np.cos(np.radians(east["lon"].coordinates)) * np.ones(east.shape)
    data = xr.DataArray(wave, east.coords(), east.names)
    expected = Regridder(east, target, "bilinear")(wave)
    for grid in (east, west):
        np.testing.assert_allclose(Regridder(grid, target, "bilinear")(data), expected, rtol=1e-12)
        np.testing.assert_allclose(Regridder(grid, target, "bilinear")(conform(data)), expected, rtol=1e-12)


def test_a_region_over_the_date_line_matches_the_globe():
    globe, region = Grid.latlon(-90, 90, -180, 180, 1), Grid.latlon(-20, 0, 170, -170, 2)
    place = np.cos(np.radians(globe["lon"].coordinates)) * np.ones(globe.shape)
    for method in METHODS:
        result = Regridder(globe, region, method)(place)
        np.testing.assert_allclose(result[3], np.cos(np.radians(region["lon"].coordinates)), atol=0.01)
    back = Regridder(region, globe, rim="missing")(np.ones(region.shape))
    assert np.isfinite(back).sum() == 20 * 20
    assert np.isfinite(back[75, [0, 9, 350, 359]]).all()


@pytest.mark.parametrize("method", METHODS)
def test_conventions_do_not_matter(method):
    """Regridding what a file has, in whatever order, equals regridding its canonical form."""
    source = Grid.latlon(-56, -36, -80, -60, 0.5)
    target = Grid.latlon(-56, -36, -80, -60, 0.8)
    regridder = Regridder(source, target, method)
    tidy = xr.DataArray(random_fields(source, gaps=0.1), source.coords(), ("time", *source.names), name="rain")
    expected = regridder(tidy)
    raw = tidy.isel(lat=slice(None, None, -1)).assign_coords(lon=tidy.lon + 360)
    raw = raw.rename(lat="latitude", lon="longitude").transpose("longitude", "time", "latitude")
    xr.testing.assert_allclose(regridder(raw).transpose(*expected.dims), expected)
    xr.testing.assert_allclose(conform(regridder(raw)), conform(expected))
    flipped = Grid((Axis("lat", target["lat"].stop, -0.8, 25, "degrees_north"), target["lon"]))
    np.testing.assert_allclose(Regridder(source, flipped, method)(tidy)[:, ::-1], expected.values, rtol=1e-12)


def test_xarray_labels_and_attributes_are_kept():
    times = np.array(["2020-01-01", "2020-01-02"], "datetime64[ns]")
    data = xr.Dataset(
        {
            "rain": (("time", "lat", "lon"), random_fields(FINE, (2,)), {"units": "mm h-1"}),
            "hour": ("time", [0, 1]),
            "lat_bnds": (("lat", "side"), np.zeros((200, 2))),
        },
        {**FINE.coords(), "time": times, "member": 3},
        {"title": "test"},
    )
    regridder = Regridder(FINE, COARSE)
    result = regridder(data)
    assert set(result.data_vars) == {"rain", "hour"}
    assert result.attrs == {"title": "test"}
    assert result.rain.attrs == {"units": "mm h-1"}
    assert int(result.member) == 3
    np.testing.assert_array_equal(result.time, times)
    np.testing.assert_array_equal(result.lat, COARSE["lat"].coordinates)
    lazy = regridder(data.chunk({"time": 1}))
    assert lazy.rain.chunks is not None
    xr.testing.assert_allclose(lazy.compute(), result)
    with pytest.raises(DataError, match="'rain' and the operator's source"):
        regridder(data.rain.isel(lat=slice(10)))


def test_time_can_be_one_of_the_axes():
    hours = Axis("time", 0, 3600, 8, "seconds since 1970-01-01", "node")
    source, target = FINE.coarsen(10).with_time(hours), FINE.coarsen(20).with_time(hours)
    data = xr.DataArray(random_fields(source, ()), source.coords(), source.names)
    result = Regridder(source, target)(data)
    expected = [Regridder(FINE.coarsen(10), FINE.coarsen(20))(hour) for hour in data.values]
    np.testing.assert_allclose(result, expected, rtol=1e-12)
    np.testing.assert_array_equal(result.time, data.time)


@pytest.mark.fault("grid mismatch", "refused, with the axis")
def test_grids_that_cannot_be_mapped_are_refused():
    with pytest.raises(DataError, match="names and order"):
        Regridder(FINE, Grid(COARSE.axes[::-1]))
    with pytest.raises(DataError, match="reference system"):
        Regridder(FINE, Grid(COARSE.axes, "EPSG:3857"))
    with pytest.raises(DataError, match="degrees_north"):
        overlap_weights(FINE["lat"], Axis("lat", 0, 1, 5, "m"))
    with pytest.raises(ValueError, match="rim"):
        interpolation_weights(FINE["lat"], COARSE["lat"], rim="wrap")
    with pytest.raises(ValueError, match="method"):
        Regridder(FINE, COARSE, "cubic")
    with pytest.raises(ValueError, match=r"\(80, 80\) do not end with"):
        Regridder(FINE, COARSE)(np.zeros((80, 80)))


@pytest.mark.real_data
@pytest.mark.skipif("GEOML_DATA" not in os.environ, reason="GEOML_DATA names no folder of real data")
def test_radar_rain_has_the_area_means_others_made():
    """Hours of Germany at 0.1° and their means at 0.25°, both stored to 0.01 mm/h."""
    folder = Path(os.environ["GEOML_DATA"]) / "precip"
    fine, coarse = (xr.open_dataset(folder / f"radolan_rw_germany_20221018_{step}.nc") for step in ("0p10", "0p25"))
    ours = Regridder(grid_of(fine), grid_of(coarse), rim="missing")(conform(fine).precipitation)
    both = np.isfinite(ours.values) & np.isfinite(coarse.precipitation.values)
    assert both.mean() > 0.75
    assert np.abs(ours - coarse.precipitation).values[both].max() < 0.011


# ---- by index ---------------------------------------------------------------------------------------------------


def test_index_resize_is_what_torch_does():
    fields = random_fields(COARSE, (2, 3), dtype="float32")
    for shape in ((200, 200), (33, 120)):
        theirs = torch.nn.functional.interpolate(torch.tensor(fields), shape, mode="bilinear", align_corners=False)
        np.testing.assert_allclose(index_resize(fields, shape), theirs.numpy(), rtol=1e-4, atol=1e-5)


def test_index_resizing_costs_where_edges_differ_and_only_there():
    fine = smooth_fields(FINE)
    cost = index_resize_cost(fine, COARSE, FINE)
    assert cost.rmse_cost > 0.1
    assert cost.crps_cost > 0.1
    nested = index_resize_cost(fine, FINE.coarsen(2.5), FINE)
    assert abs(nested.rmse_cost) < 1e-9
    assert abs(nested.crps_cost) < 1e-9
