"""Patches as the compiled pass cuts them, against numpy; and the memory of blocks, which later blocks take over."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from geoml.data.blocks import FieldSource
from geoml.data.kernels import cut_patch
from geoml.data.loader import BlockLoader
from geoml.data.packing import Packing
from geoml.data.patches import PatchSpec
from geoml.data.sources import Stack
from geoml.data.store import StoreWriter
from geoml.grids.grid import Grid

#: Each further type that is compiled, and each layout of it, costs the test two seconds.
FLOATS, INTEGERS = ("f2", "f4", ">f4", "f8"), ("i2", "u1", "u4")


def stored(dtype: str, shape: tuple[int, ...], rng: np.random.Generator, fill: int) -> np.ndarray:
    """Values with gaps, infinities among the floats, and both zeros."""
    if np.dtype(dtype).kind == "f":
        values = rng.normal(scale=100, size=shape)
        for odd in (np.nan, np.inf, -np.inf, -0.0):
            values[rng.random(shape) < 0.05] = odd
        return values.astype(dtype)
    info = np.iinfo(dtype)
    values = rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
    values[rng.random(shape) < 0.1] = fill
    return values


def expected(stack: Stack, first: int, steps: int, corner: tuple[int, ...], size: tuple[int, ...]) -> np.ndarray:
    """The patch by numpy: decoded in full, extended by its outermost values, sliced."""
    whole = stack.decode(stack.values[:, first : first + steps], 0)
    whole = np.pad(whole, [(0, 0), (0, 0), *[(9, 9)] * len(size)], mode="edge")
    return whole[
        (slice(None), slice(None), *(slice(9 + low, 9 + low + n) for low, n in zip(corner, size, strict=True)))
    ]


@settings(max_examples=150, deadline=None)
@given(
    dtype=st.sampled_from(FLOATS + INTEGERS),
    packed=st.booleans(),
    offset=st.sampled_from([0.0, 250.0]),
    channels=st.permutations([0, 1, 2]),
    field=st.lists(st.integers(1, 20), min_size=1, max_size=3),
    steps=st.integers(1, 2),
    swapped=st.booleans(),
    data=st.data(),
)
@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered in cast")
def test_a_patch_has_the_bits_that_numpy_gives(dtype, packed, offset, channels, field, steps, swapped, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    packing = Packing(0.01, offset, dtype) if packed and dtype in INTEGERS else None
    values = stored(dtype, (3, 4, *field), rng, packing.fill if packing else 0)
    if swapped and dtype == "f4":  # as arrays `(sample, channel, …)` in memory are read
        values = np.ascontiguousarray(values.swapaxes(0, 1)).swapaxes(0, 1)
    stack = Stack(tuple(channels), values, (packing,) * 3)
    size = tuple(data.draw(st.integers(1, n + 3)) for n in field)
    corner = tuple(data.draw(st.integers(-3, max(n - m, 0) + 2)) for n, m in zip(field, size, strict=True))
    step = data.draw(st.integers(0, 4 - steps))
    wanted = expected(stack, step, steps, corner, size)

    flat = (3, steps, *(1,) * (3 - len(size)), *size)
    at = np.array((*(0,) * (3 - len(size)), *corner))
    for masked in (False, True):
        out, mask = np.full(flat, 7, np.float32), np.zeros((3 if masked else 0, int(np.prod(flat[1:]))), bool)
        cells, first = stack.cells(step, steps)
        all_finite = cut_patch(cells, first, at, *stack.codes, out, out.view(np.int32).reshape(3, -1), mask)
        got, finite = out.reshape(3, steps, *size)[list(channels)], np.isfinite(wanted)
        if masked:
            assert np.array_equal(mask.reshape(got.shape)[list(channels)], finite)
            wanted = np.where(finite, wanted, np.float32(0))
        else:
            assert all_finite == finite.all()
        assert np.array_equal(got, wanted, equal_nan=True)
        assert np.array_equal(np.signbit(got), np.signbit(wanted)) or not finite.all()


COARSE = Grid.latlon(0, 5, 10, 15, 0.25, "node", half_open=True)
FINE = Grid.latlon(0, 5, 10, 15, 0.1)


def make_store(path: Path, samples: int) -> Path:
    rng = np.random.default_rng(0)
    time = np.datetime64("2001-01-01", "ns") + np.arange(samples) * np.timedelta64(1, "h")
    rain = rng.gamma(0.5, 2, (samples, *FINE.shape)).astype("f4")
    rain[:, 3, 4] = np.nan
    groups = {
        "condition": xr.Dataset({n: (("time", "lat", "lon"), rng.normal(size=(samples, *COARSE.shape)).astype("f4"))
                                 for n in ("tp", "cape", "codes")}),
        "target": xr.Dataset({"rain": (("time", "lat", "lon"), rain)}),
    }  # fmt: skip
    groups = {
        name: groups[name].assign_coords(time=time, **grid.coords())
        for name, grid in (("condition", COARSE), ("target", FINE))
    }
    packing = {"rain": Packing(0.01), "codes": Packing(0.001, 2.0)}
    with StoreWriter.create(path, groups, packing=packing) as writer:
        for start in writer.missing():
            writer.write(start, {name: group.isel(time=writer.span(start)) for name, group in groups.items()})
        writer.finish()
    return path


@pytest.fixture(scope="module")
def source():
    with tempfile.TemporaryDirectory() as folder:
        yield FieldSource(make_store(Path(folder) / "made.zarr", 50))


def test_blocks_take_the_memory_of_those_that_are_done(source):
    loader = BlockLoader([source], batch_size=4, block_samples=3, resident_blocks=2, patch=PatchSpec(20))
    (lane,) = loader._epoch.lanes
    kept = [batch for _ in range(2) for batch in loader]
    held = {id(memory) for memory in lane._spare}
    again = list(loader)
    assert {id(memory) for memory in lane._spare} == held  # a later epoch touches no fresh memory
    assert sum(memory.nbytes for memory in lane._spare) <= loader.memory_bytes() + 64 * 4 * len(held)
    whole = source.read(0, 50)
    for batch in (*kept, *again):  # batches that are kept hold what they held
        index = loader.locate(batch.ids[0])[1]
        lat, lon = batch.target_grid.axes
        rows = FINE["lat"].select(lat.start, lat.stop), FINE["lon"].select(lon.start, lon.stop)
        truth = torch.from_numpy(whole["target"][index][:, rows[0], rows[1]])
        assert torch.equal(batch.mask[0], truth.isfinite())
        assert torch.equal(batch.target[0], truth.nan_to_num(0.0))
        lat, lon = batch.condition_grid.axes
        wide = COARSE.pad(2)
        rows = wide["lat"].select(lat.start, lat.stop), wide["lon"].select(lon.start, lon.stop)
        around = np.pad(whole["condition"][index], [(0, 0), (2, 2), (2, 2)], mode="edge")
        assert np.array_equal(batch.condition[0], around[:, rows[0], rows[1]])


def test_memory_of_a_stopped_epoch_is_let_go(source):
    loader = BlockLoader([source], batch_size=4, block_samples=3, resident_blocks=2, patch=PatchSpec(20))
    for _ in range(3):
        for number, _ in enumerate(loader):
            if number == 3:
                break
        loader.load_state_dict({**loader.state_dict(), "batches": 0})
    (lane,) = loader._epoch.lanes
    assert sum(memory.nbytes for memory in lane._spare) <= loader.memory_bytes()
