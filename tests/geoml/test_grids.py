"""Grids: geometry, reading coordinates as files have them, and refusing what cannot be read."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from geoml.errors import DataError
from geoml.grids.grid import Axis, Grid, conform, grid_of, require_same


def data_on(lat, lon, *, names=("lat", "lon"), lead=("time",)):
    """Values that name their place: 1000 * lat + (lon in 0 … 360), so that any reordering shows."""
    lat, lon = np.asarray(lat), np.asarray(lon)
    values = 1000.0 * lat.astype(float)[:, None] + np.round(lon.astype(float), 3)[None] % 360
    values = np.broadcast_to(values, (2,) * len(lead) + values.shape)
    return xr.DataArray(values, {names[0]: lat, names[1]: lon}, (*lead, *names), name="rain")


def assert_in_place(data):
    """Every value of `data_on` is still at its place."""
    expected = 1000.0 * data.lat.values[:, None] + data.lon.values[None] % 360
    np.testing.assert_allclose(data.values, np.broadcast_to(expected, data.shape), atol=1e-2)


# ---- geometry ---------------------------------------------------------------------------------------------------


def test_the_rainshift_pair_of_grids():
    fine = Grid.latlon(40, 60, -5, 15, 0.1)
    coarse = Grid.latlon(40, 60, -5, 15, 0.25, "node", half_open=True)
    assert (fine.shape, coarse.shape) == ((200, 200), (80, 80))
    assert (coarse["lat"].start, coarse["lat"].stop) == (40.25, 60.0)
    assert (coarse["lon"].start, coarse["lon"].stop) == (-5.0, 14.75)
    assert (fine["lat"].start, pytest.approx(fine["lat"].stop)) == (40.05, 59.95)
    outside = [
        (fine[name].coordinates < coarse[name].extent[0]) | (fine[name].coordinates > coarse[name].extent[1])
        for name in fine.names
    ]
    assert [int(rows.sum()) for rows in outside] == [2, 2]


def test_cells_surround_their_coordinates_in_both_registrations():
    for registration in ("centre", "node"):
        axis = Axis("x", 0.0, 10.0, 5, "m", registration)
        np.testing.assert_allclose((axis.edges[1:] + axis.edges[:-1]) / 2, axis.coordinates)
    assert Axis("x", 0, 10, 5, registration="node").extent == (0, 40)
    assert Axis("x", 0, 10, 5, registration="centre").extent == (-5, 45)
    assert Axis("x", 40, -10, 5, registration="centre").extent == (-5, 45)


def test_latitude_cells_end_at_the_poles():
    lat = Grid.latlon(-90, 90, -180, 180, 0.25, "node")["lat"]
    assert (lat.size, lat.edges[0], lat.edges[-1]) == (721, -90, 90)
    assert lat.widths.sum() == pytest.approx(2, rel=1e-12)


def test_cell_weights_are_areas_on_the_sphere():
    grid = Grid.latlon(-90, 90, -180, 180, 1.5)
    weights = grid.cell_weights()
    assert weights.shape == grid.shape
    assert weights.mean() == pytest.approx(1, rel=1e-12)
    north_of_30 = weights[grid["lat"].coordinates > 30].sum() / weights.sum()
    assert north_of_30 == pytest.approx(0.25, rel=1e-12)  # Archimedes: (1 - sin 30°) / 2
    assert grid.cell_weights(full=False).shape == (120, 1)
    box = Grid.box({"z": 0, "y": 0, "x": 0}, {"z": 4, "y": 4, "x": 4}, 2)
    assert (box.cell_weights() == 1).all()


def test_global_longitudes_have_a_period():
    assert Grid.latlon(-90, 90, 0, 360, 1)["lon"].period == 360
    assert Grid.latlon(-90, 90, 0, 360, 1, "node")["lon"].size == 360
    assert Grid.latlon(-90, 90, 0, 350, 1)["lon"].period is None
    with pytest.raises(ValueError, match="overlaps"):
        Axis("lon", 0, 1, 361, "degrees_east", period=360)


def test_box_across_the_date_line():
    grid = Grid.latlon(-20, 0, 170, -170, 1)
    assert grid["lon"].extent == (170, 190)
    assert grid.select(lon=(-175, -171)).shape == (20, 4)
    globe = Grid.latlon(-90, 90, -180, 180, 1)
    assert globe.select(lon=(200, 210))["lon"].start == -159.5
    assert globe.select(lon=(0, 360)) == globe
    with pytest.raises(ValueError, match="seam"):
        globe.select(lon=(170, 190))
    assert grid.matches(grid.moved(lon=-360))
    assert not grid.matches(grid.moved(lon=-359))


@pytest.mark.parametrize("factor", [2, 2.5, 4, 5, 8])
def test_coarsened_centre_cells_are_whole_groups(factor):
    grid = Grid.latlon(40, 60, -5, 15, 0.1)
    coarse = grid.coarsen(factor)
    for name in grid.names:
        assert coarse[name].extent == pytest.approx(grid[name].extent)
        assert coarse[name].size == round(200 / factor)
    assert coarse.refine(factor).matches(grid)


def test_coarsened_nodes_are_nodes():
    grid = Grid.latlon(40, 60, -5, 15, 0.25, "node")
    coarse = grid.coarsen({"lat": 4})
    assert set(coarse["lat"].coordinates) <= set(grid["lat"].coordinates)
    assert coarse.shape == (21, 81)


def test_coarsening_refuses_what_does_not_divide():
    with pytest.raises(ValueError, match="do not divide"):
        Grid.latlon(0, 10, 0, 10, 1).coarsen(3)


def test_crop_select_slices_pad_and_move():
    grid = Grid.latlon(40, 60, -5, 15, 0.1)
    part = grid.crop(lat=slice(10, 20), lon=slice(None, 5))
    assert part.shape == (10, 5)
    assert part["lat"].start == pytest.approx(41.05)
    chosen = grid.select(lat=(50, 55))
    assert chosen.shape == (50, 200)
    assert np.arange(200)[grid.slices(lat=(50, 55))[0]][0] == 100
    assert part.pad(2).crop(lat=slice(2, -2), lon=slice(2, -2)).matches(part)
    assert part.pad({"lon": (0, 3)}).shape == (10, 8)
    assert part.moved(lat=1)["lat"].start == pytest.approx(part["lat"].start + 1)
    with pytest.raises(ValueError, match="latitudes"):
        Grid.latlon(80, 90, 0, 10, 1).pad(1)
    with pytest.raises(ValueError, match="none of its"):
        grid.crop(lat=slice(300, 400))
    with pytest.raises(ValueError, match="no coordinate"):
        grid.select(lat=(-10, 0))
    with pytest.raises(KeyError, match="height"):
        grid.crop(height=slice(2))


@settings(max_examples=50, deadline=None)
@given(
    lat=st.integers(-200, 100),
    lon=st.integers(-600, 600),
    cells=st.sampled_from([4, 8, 16, 30]),
    factor=st.sampled_from([1, 2, 2.5, 3]),
)
def test_relative_key_forgets_a_common_translation_and_nothing_else(lat, lon, cells, factor):
    coarse = Grid((Axis("lat", 0, 0.25, cells, "degrees_north"), Axis("lon", 0, 0.25, cells, "degrees_east")))
    fine = coarse.refine(factor) if factor != 3 else coarse.moved(lat=0.05)
    there, here = (lat * 0.25, lon * 0.25), relative_key(fine, coarse)
    assert relative_key(fine.moved(lat=there[0], lon=there[1]), coarse.moved(lat=there[0], lon=there[1])) == here
    assert relative_key(fine.moved(lon=0.1), coarse) != here


def relative_key(a, b):
    key = a.relative_to(b)
    assert hash(key) is not None
    return key


def test_grids_survive_json():
    grid = Grid.latlon(-90, 90, 0, 360, 0.1).with_time(Axis("time", 0, 3600, 24, "seconds since 1970-01-01"))
    assert Grid.from_dict(json.loads(json.dumps(grid.to_dict()))) == grid
    assert grid.names == ("time", "lat", "lon")


def test_require_same_says_where_grids_differ():
    grid = Grid.latlon(40, 60, -5, 15, 0.1)
    require_same(grid, grid.moved(lat=1e-6), "forecast and truth")
    with pytest.raises(DataError, match=r"forecast and truth.*'lat'.*40\.05.*40\.1"):
        require_same(grid, grid.moved(lat=0.05), "forecast and truth")
    with pytest.raises(DataError, match="axes"):
        require_same(grid, Grid(grid.axes[::-1]), "a and b")


# ---- reading ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("registration", ["centre", "node"])
@pytest.mark.parametrize("turn", [0, 360])
@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_files_of_all_conventions_give_one_grid(registration, turn, down, dtype):
    grid = Grid.latlon(-56, -36, -80, -60, 0.1 if registration == "centre" else 0.25, registration)
    lat, lon = grid["lat"].coordinates.astype(dtype), (grid["lon"].coordinates + turn).astype(dtype)
    lat = lat[::-1] if down else lat
    data = data_on(lat, lon, names=("latitude", "longitude"))
    assert grid_of(data) == grid
    tidy = conform(data)
    assert tidy.dims == ("time", "lat", "lon")
    assert_in_place(tidy)
    assert grid_of(tidy) == grid
    xr.testing.assert_identical(conform(tidy), tidy)


@pytest.mark.parametrize(
    ("lon", "start", "stop"),
    [
        ([178, 179, -180, -179, -178], 178, 182),  # the date line, as a jump
        ([178, 179, 180, 181], 178, 181),
        ([358, 359, 0, 1, 2], -2, 2),  # Greenwich, as a jump
        ([0, 1, 2, 358, 359], -2, 2),  # Greenwich, sorted: a gap in the middle
        ([2, 1, 0, 359, 358], -2, 2),  # descending
        ([-180, -179, 178, 179], 178, 181),
        ([280, 281, 282], -80, -78),
        (np.arange(0, 360, 5), -180, 175),  # around the globe
        (np.arange(-180, 180, 5), -180, 175),
        (np.arange(2.5, 360, 5)[::-1], -177.5, 177.5),
    ],
)
def test_longitudes_become_contiguous(lon, start, stop):
    data = data_on([10, 11, 12], lon)
    axis = grid_of(data)["lon"]
    assert (axis.start, axis.stop) == (start, stop)
    assert axis.period == (360 if len(lon) == 72 else None)
    assert_in_place(conform(data))


def test_conform_keeps_dask_lazy_and_attributes():
    data = data_on([12, 11, 10], [358, 359, 0, 1]).assign_attrs(units="mm h-1").chunk({"time": 1})
    data.lat.attrs["long_name"] = "latitude"
    tidy = conform(data)
    assert tidy.chunks is not None
    assert tidy.attrs == {"units": "mm h-1"}
    assert tidy.lat.attrs["long_name"] == "latitude"
    assert tidy.lon.attrs["units"] == "degrees_east"
    assert_in_place(tidy)


def test_extra_dims_scalars_and_auxiliary_coordinates_are_passed_over():
    data = data_on([10, 11], [0, 1, 2], lead=("member", "step", "time"))
    data = data.assign_coords(height=2.0, valid_time=("time", np.array(["2020-01-01", "2020-01-02"], "datetime64[ns]")))
    assert grid_of(data).names == ("lat", "lon")
    assert conform(data.transpose("lon", "time", "lat", "step", "member")).dims[-3:] == ("time", "lat", "lon")
    assert grid_of(data.to_dataset()) == grid_of(data)


def test_time_can_be_the_third_axis():
    times = np.arange("2020-01-01", "2020-01-03", np.timedelta64(6, "h"), dtype="datetime64[ns]")
    data = xr.DataArray(
        np.zeros((8, 3, 4)), {"time": times, "lat": [1, 2, 3], "lon": [1, 2, 3, 4]}, ("time", "lat", "lon")
    )
    grid = grid_of(data, time=True)
    assert grid.names == ("time", "lat", "lon")
    assert grid["time"].step == 6 * 3600
    np.testing.assert_array_equal(grid.coords()["time"][1], times)
    with pytest.raises(DataError, match="'time' is not evenly spaced"):
        grid_of(data.isel(time=[0, 1, 3, 4, 5]), time=True)


def test_metric_grids_with_a_grid_mapping():
    box = Grid.box({"z": 0, "y": 0, "x": 0}, {"z": 20, "y": 64, "x": 32}, {"z": 1, "y": 2, "x": 2})
    data = xr.Dataset({"gain": (box.names, np.zeros(box.shape))}, box.coords())
    assert grid_of(data) == box
    data["gain"].attrs["grid_mapping"] = "utm"
    data["utm"] = ((), 0, {"crs_wkt": "PROJCRS[…]"})
    assert grid_of(data).crs == "PROJCRS[…]"
    # a projected grid may carry two-dimensional longitudes and latitudes beside its own axes
    data = data.assign_coords(lat=(("y", "x"), np.zeros((32, 16))), lon=(("y", "x"), np.zeros((32, 16))))
    assert grid_of(data).names == ("z", "y", "x")


def test_registration_is_guessed_told_or_read():
    assert grid_of(data_on([10.05, 10.15], [0.05, 0.15])).axes[0].registration == "centre"
    assert grid_of(data_on([10.0, 10.1], [0.0, 0.1])).axes[0].registration == "node"
    assert grid_of(data_on([10.0, 10.1], [0.0, 0.1]), registration="centre").axes[1].registration == "centre"
    data = data_on([10.0, 10.1], [0.0, 0.1])
    data.lat.attrs["registration"] = "centre"
    assert [axis.registration for axis in grid_of(data).axes] == ["centre", "node"]
    data.lat.attrs["registration"] = "corner"
    with pytest.raises(DataError, match="corner"):
        grid_of(data)


@settings(max_examples=100, deadline=None)
@given(
    k=st.integers(-160, 150),
    size=st.integers(2, 400),
    step=st.sampled_from([0.05, 0.1, 0.25, 1 / 120, 1 / 3, 0.703125]),
)
def test_float32_noise_is_undone(k, size, step):
    axis = Axis("lon", k + step / 2, step, size, "degrees_east")
    if axis.stop > 179:
        return
    grid = grid_of(data_on([10, 11], axis.coordinates.astype("float32")))
    assert grid["lon"].matches(axis)
    assert grid["lon"].step == pytest.approx(step, rel=1e-3 / size)


# ---- refusing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lat", "lon", "message"),
    [
        ([10, 11, 11.5, 13], [0, 1, 2], r"'lat' is not evenly spaced: 11 to 11.5 \(index 2\)"),
        ([10, 11, 12, 12, 13], [0, 1, 2], r"'lat' repeats at index 3: 12, 12"),
        ([10, 12, 11, 13], [0, 1, 2], r"'lat' turns back at index 2: 12, 11"),
        ([10, np.nan, 12], [0, 1, 2], r"'lat'\[1\] is nan"),
        ([10, 11, 12], [0, np.nan, 2], r"'lon'\[1\] is nan"),
        ([10], [0, 1, 2], r"'lat' has 1 value"),
        ([100, 101, 102], [0, 1, 2], r"'lat'\[2\] is 102.* swapped"),
        ([10, 11], [700, 701], r"'lon'\[1\] is 701, which is not a longitude"),
        ([10, 11], np.arange(0, 361), r"'lon' overlaps: .*repeated meridians"),
        ([10, 11], [0, 1, 2, 50, 51], r"'lon' is not evenly spaced: 2 to 50"),
        ([10, 11], [0, 1, 2, 50, 51, 100, 101], r"'lon' is not evenly spaced"),
        (np.degrees(np.sin(np.linspace(-1, 1, 9))), [0, 1], r"'lat' is not evenly spaced"),
    ],
)
def test_bad_coordinates_are_refused_with_the_place(lat, lon, message):
    with pytest.raises(DataError, match=message):
        grid_of(data_on(lat, lon))
    with pytest.raises(DataError, match=message):
        conform(data_on(lat, lon))


def test_curvilinear_missing_doubled_and_undecoded_coordinates_are_refused():
    curved = xr.DataArray(np.zeros((3, 4)), {"lat": (("y", "x"), np.zeros((3, 4)))}, ("y", "x"))
    with pytest.raises(DataError, match=r"'lat' is two-dimensional \(3, 4\): a curvilinear grid"):
        grid_of(curved)
    with pytest.raises(DataError, match="no pair of lat and lon"):
        grid_of(xr.DataArray(np.zeros((3, 4)), dims=("a", "b")))
    doubled = data_on([1, 2], [3, 4]).assign_coords(latitude=("lat", [1, 2]))
    with pytest.raises(DataError, match="both look like lat"):
        grid_of(doubled)


def test_the_file_is_named(tmp_path):
    path = tmp_path / "uneven.nc"
    data_on([10, 11, 13], [0, 1, 2]).to_dataset().to_netcdf(path)
    with xr.open_dataset(path) as data, pytest.raises(DataError, match=r"uneven\.nc"):
        grid_of(data)
