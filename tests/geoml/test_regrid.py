"""Regridding: conservation, exactness, and one answer for every kind of array."""

from __future__ import annotations

import copy
import pickle
import sys
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from geoml.grids.grid import Axis, Grid
from geoml.regrid import (
    Regridder,
    operator_for,
)

sys.path.insert(0, str(Path(__file__).parent))
from regrid_cases import COARSE, FINE, METHODS, areas, integrals, plane, random_fields, smooth_fields


@st.composite
def nested_pairs(draw):
    """A grid, and one that covers it with cells of another size, shifted against it, in any direction."""
    factor = draw(st.sampled_from([1, 2, 2.5, 5 / 3, 4, 0.4, 0.5, 7 / 3, 1.1]))
    step = draw(st.sampled_from([0.1, 0.25, 1.0]))
    # Whole ten-thousandths of a cell: what differs by less than a millionth is the same place to the operator.
    shift = draw(st.integers(0, 10_000)) / 10_000
    axes, others = [], []
    for name, units, low in (("lat", "degrees_north", draw(st.integers(-60, 30))), ("lon", "degrees_east", -10)):
        size = draw(st.integers(2, 24))
        axis = Axis(name, low, step, size, units)
        width = step * factor
        start = axis.edges[0] - shift * width + width / 2
        other = Axis(name, start, width, int(np.ceil(size / factor)) + 2, units)
        if draw(st.booleans()):
            other = Axis(name, other.stop, -width, other.size, units)
        axes.append(axis)
        others.append(other)
    return Grid(tuple(axes)), Grid(tuple(others))


# ---- conservation and exactness ---------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(nested_pairs(), st.integers(0, 99))
def test_the_integral_is_conserved(pair, seed):
    source, target = pair
    fields = random_fields(source, seed=seed)
    before, after = integrals(source, target, fields)
    np.testing.assert_allclose(after, before, rtol=1e-8)
    np.testing.assert_allclose(before, (fields * areas(source)).sum(axis=(-2, -1)), rtol=1e-10)  # all of it is shared


@pytest.mark.parametrize(("source", "target"), [(FINE, COARSE), (COARSE, FINE)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_rainshift_pair_conserves_over_the_common_area(source, target, dtype):
    before, after = integrals(source, target, random_fields(source, (20,), dtype=dtype))
    np.testing.assert_allclose(after, before, rtol=1e-6)


def test_long_sums_of_float32_keep_their_digits():
    source = Grid((Axis("x", 0.5, 1, 200_000, "m"), Axis("y", 0, 1, 2, "m")), "local")
    target = Grid((Axis("x", 50_000, 100_000, 2, "m"), Axis("y", 0, 1, 2, "m")), "local")
    before, after = integrals(source, target, random_fields(source, (), dtype="float32"))
    np.testing.assert_allclose(after, before, rtol=2e-7)


@settings(max_examples=30, deadline=None)
@given(nested_pairs(), st.sampled_from(METHODS), st.floats(-1e3, 1e3))
def test_a_constant_stays_itself(pair, method, value):
    for source, target in (pair, pair[::-1]):
        result = Regridder(source, target, method)(np.full(source.shape, value))
        np.testing.assert_allclose(result, value, rtol=1e-12, atol=1e-12)


def test_places_closer_than_a_millionth_of_a_cell_are_the_same():
    source = Grid((Axis("y", 0, 1, 6, "m"), Axis("x", 0, 1, 6, "m")), "local")
    fields = random_fields(source, ())
    near, far = (Regridder(source, source.moved(x=by), "bilinear", rim="linear")(fields) for by in (5e-7, 5e-6))
    np.testing.assert_array_equal(near, fields)
    assert not np.array_equal(far, fields)
    np.testing.assert_allclose(far, fields, atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(nested_pairs())
def test_bilinear_is_exact_on_planes(pair):
    target, source = pair  # the source covers the target
    fields = plane(source)
    inside = Regridder(source, target, "bilinear", rim="linear")(fields)
    np.testing.assert_allclose(inside, plane(target), rtol=1e-9, atol=1e-9)
    outside = Regridder(target, source, "bilinear", rim="linear")(plane(target))
    np.testing.assert_allclose(outside, plane(source), rtol=1e-8, atol=1e-8)


def test_area_means_on_the_sphere_weigh_by_the_sine_of_latitude():
    source = Grid.latlon(0, 90, 0, 60, 30)
    target = Grid.latlon(0, 90, 0, 90, 90).crop(lon=slice(0, 1))
    fields = np.array([1.0, 0.0, 0.0])[:, None] * np.ones((3, 2))
    assert Regridder(source, target)(fields)[0, 0] == pytest.approx(np.sin(np.radians(30)))


def test_an_axis_equal_in_both_grids_is_left_alone():
    box = Grid.box({"z": 0, "y": 0, "x": 0}, {"z": 20, "y": 32, "x": 16}, {"z": 1, "y": 1, "x": 1}, crs="local")
    coarse = box.coarsen({"y": 4, "x": 2})
    regridder = Regridder(box, coarse)
    assert [band.is_identity for band in regridder.bands] == [True, False, False]
    fields = random_fields(box, ())
    expected = fields.reshape(20, 8, 4, 8, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(regridder(fields), expected, rtol=1e-12)
    same = Regridder(box, box)(fields)
    np.testing.assert_array_equal(same, fields)
    assert not np.shares_memory(same, fields)


def test_three_axes_equal_the_kronecker_product():
    source = Grid.box({"z": 0, "y": 0, "x": 0}, {"z": 4, "y": 6, "x": 10}, 1)
    target = Grid.box({"z": 0, "y": 0, "x": 0}, {"z": 4, "y": 6, "x": 10}, {"z": 2, "y": 1.5, "x": 2.5})
    for method in METHODS:
        regridder = Regridder(source, target, method)
        fields = random_fields(source, ())
        expected = np.einsum("az,by,cx,zyx->abc", *regridder.matrices, fields)
        np.testing.assert_allclose(regridder(fields), expected, rtol=1e-12)
        np.testing.assert_allclose(regridder(torch.tensor(fields)), expected, rtol=1e-12)


def test_integer_factors_are_block_means():
    grid = Grid((Axis("y", 0.5, 1, 12, "m"), Axis("x", 0.5, 1, 8, "m")), "local")
    fields = random_fields(grid)
    expected = fields.reshape(3, 3, 4, 2, 4).mean(axis=(2, 4))
    regridder = Regridder(grid, grid.coarsen(4))
    assert regridder.bands[0].index.shape == (3, 4)  # neighbours that only touch are not read
    np.testing.assert_allclose(regridder(fields), expected, rtol=1e-12)


# ---- against another implementation -----------------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [False, True])
def test_bilinear_and_conservative_agree_with_xarray_regrid(chunked):
    pytest.importorskip("xarray_regrid")
    source, target = (
        Grid.box({"y": 0, "x": 0}, {"y": 20, "x": 20}, 0.1),
        Grid.box({"y": 0.375, "x": 0.375}, {"y": 19.625, "x": 19.625}, 0.25),
    )
    data = xr.DataArray(random_fields(source), source.coords(), ("time", *source.names), name="gain")
    there = xr.Dataset(coords=target.coords())
    data = data.chunk({"time": 1, "y": 64}) if chunked else data
    np.testing.assert_allclose(
        Regridder(source, target, "bilinear")(data), data.regrid.linear(there), rtol=1e-9, atol=1e-12
    )
    theirs = data.regrid.conservative(there, skipna=False)
    np.testing.assert_allclose(Regridder(source, target)(data), theirs, rtol=1e-9, atol=1e-12)
    gappy = data.where(data > 0.01)
    # shares are multiples of 0.01: a threshold between them has no ties
    theirs = gappy.regrid.conservative(there, skipna=True, nan_threshold=0.445)
    np.testing.assert_allclose(Regridder(source, target, valid_fraction=0.555)(gappy), theirs, rtol=1e-9, atol=1e-12)


def test_conservative_on_the_sphere_is_near_xarray_regrid():
    """That package weighs a source cell of latitude by its whole area; we weigh the part inside the target."""
    pytest.importorskip("xarray_regrid")
    target = COARSE.crop(lat=slice(2, -2), lon=slice(2, -2))
    data = xr.DataArray(smooth_fields(FINE), FINE.coords(), ("time", *FINE.names), name="rain")
    theirs = data.regrid.conservative(xr.Dataset(coords=target.coords()), latitude_coord="lat", skipna=False)
    np.testing.assert_allclose(Regridder(FINE, target)(data), theirs, rtol=2e-3)


# ---- one operator for every kind of array -----------------------------------------------------------------------


@pytest.mark.parametrize("rim", ["nearest", "missing"])
@pytest.mark.parametrize("gaps", [0.0, 0.3])
@pytest.mark.parametrize("method", METHODS)
def test_numpy_dask_and_torch_agree(method, gaps, rim):
    for source, target in ((FINE, COARSE), (COARSE, FINE)):
        regridder = Regridder(source, target, method, rim=rim)
        fields = random_fields(source, (2, 3), gaps=gaps, dtype="float32")
        expected = regridder(fields)
        assert expected.dtype == np.float32
        np.testing.assert_allclose(regridder(torch.tensor(fields)).numpy(), expected, rtol=1e-5, atol=1e-6)
        lazy = regridder(da.from_array(fields, chunks=(1, 2, 33, 77)))
        assert isinstance(lazy, da.Array)
        assert lazy.shape == expected.shape
        np.testing.assert_array_equal(lazy.compute(scheduler="synchronous"), expected)
        double = regridder(fields.astype("float64"))
        np.testing.assert_allclose(expected, double, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(regridder(torch.tensor(fields, dtype=torch.float64)).numpy(), double, rtol=1e-10)


def test_blocks_of_fields_do_not_change_the_result():
    """Gaps in some fields only, more fields than fit one block: each is treated as if it were alone."""
    fields = random_fields(FINE, (40,), dtype="float32")
    fields[7, 50:90, 20:60] = np.nan
    fields[31] = np.nan
    regridder = Regridder(FINE, COARSE)
    together = regridder(fields)
    for i in (0, 6, 7, 8, 31, 39):
        np.testing.assert_allclose(together[i], regridder(fields[i]), rtol=1e-6)
    assert np.isnan(together[31]).all()


def test_any_memory_layout_and_float_type():
    fields = random_fields(FINE, (4,))
    regridder = Regridder(FINE, COARSE)
    expected = regridder(fields)
    np.testing.assert_array_equal(regridder(np.asfortranarray(fields)), expected)
    np.testing.assert_array_equal(regridder(fields[::-1])[::-1], expected)
    assert regridder(fields.astype("int16")).dtype == np.float32
    np.testing.assert_allclose(regridder(np.ones(FINE.shape, dtype="int16")), 1, rtol=2e-7)
    assert regridder(fields[:0]).shape == (0, 80, 80)
    assert regridder(torch.ones(FINE.shape, dtype=torch.bfloat16)).dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):  # autocast must not take the digits away
        np.testing.assert_allclose(regridder(torch.tensor(fields)).numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("gaps", [0.0, 0.2])
def test_gradients(method, gaps):
    source = Grid((Axis("y", 0.5, 1, 5, "m"), Axis("x", 0.5, 1, 4, "m")), "local")
    target = Grid((Axis("y", 0.25, 2.5, 2, "m"), Axis("x", 0.0, 0.6, 6, "m")), "local")
    regridder = Regridder(source, target, method)
    fields = torch.tensor(random_fields(source, (2,)), requires_grad=True)
    mask = torch.tensor(np.random.default_rng(1).random((2, 5, 4)) >= gaps)
    assert torch.autograd.gradcheck(lambda x: regridder.masked(x, mask)[0], fields)
    regridder.masked(fields, mask)[0].sum().backward()
    assert torch.isfinite(fields.grad).all()
    assert (fields.grad[~mask] == 0).all()


def test_an_operator_first_used_in_inference_serves_training():
    regridder = Regridder(FINE, COARSE)
    with torch.inference_mode():
        regridder(torch.ones(FINE.shape))
    fields = torch.ones(FINE.shape, requires_grad=True)
    regridder(fields).sum().backward()
    assert fields.grad is not None


def test_operators_travel_and_are_shared():
    regridder = Regridder(FINE, COARSE)
    fields = random_fields(FINE)
    expected = regridder(fields)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(regridder))(fields), expected)
    np.testing.assert_array_equal(copy.deepcopy(regridder)(fields), expected)
    east, north = {"lon": 20.0}, {"lat": -30.0}
    for method, shift, shared in (
        ("bilinear", north, True),
        ("conservative", east, True),
        ("conservative", north, False),
    ):
        one, two = operator_for(FINE, COARSE, method), operator_for(FINE.moved(**shift), COARSE.moved(**shift), method)
        assert (one is two) == shared
    assert operator_for(FINE, COARSE, "bilinear") is not operator_for(FINE, COARSE, "bilinear", rim="missing")
