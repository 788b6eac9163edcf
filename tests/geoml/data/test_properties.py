"""What holds of any data: for every chunking, order of axes, number of processes and point of resuming."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from test_transforms import fitted

from geoml.data.blocks import ArraySource, FieldSource
from geoml.data.curves import TRANSFORMS
from geoml.data.loader import BlockLoader
from geoml.data.patches import PatchSpec
from geoml.data.store import StoreWriter
from geoml.grids.grid import Grid, conform

COARSE = Grid.latlon(0, 3, 10, 13, 0.5)
FINE = Grid.latlon(0, 3, 10, 13, 0.25)


def fields(grid: Grid, samples: int, name: str) -> xr.Dataset:
    rng = np.random.default_rng(samples)
    time = np.datetime64("2001-01-01", "ns") + np.arange(samples) * np.timedelta64(1, "h")
    values = rng.normal(size=(samples, *grid.shape)).astype("f4")
    return xr.Dataset({name: (("time", *grid.names), values)}, {"time": time, **grid.coords()})


@settings(max_examples=12, deadline=None)
@given(
    samples=st.integers(1, 12),
    slab=st.integers(1, 6),
    dims=st.permutations(["time", "lat", "lon"]),
    flipped=st.sets(st.sampled_from(["lat", "lon"])),
    block=st.integers(1, 7),
    size=st.sampled_from([2, 4, 6]),
)
def test_a_patch_is_the_slice_of_its_source(samples, slab, dims, flipped, block, size):
    """From files of any order of axes through a store of any chunks."""
    canonical = {"condition": fields(COARSE, samples, "tp"), "target": fields(FINE, samples, "rate")}
    files = {
        role: data.transpose(*dims).isel({name: slice(None, None, -1) for name in flipped})
        for role, data in canonical.items()
    }
    groups = {role: conform(data) for role, data in files.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.zarr"
        with StoreWriter.create(path, groups, slab=slab) as writer:
            for start in writer.missing():
                writer.write(start, {role: data.isel(time=writer.span(start)) for role, data in groups.items()})
            writer.finish()
        loader = BlockLoader(
            [FieldSource(path)], batch_size=3, block_samples=block, patch=PatchSpec(size, halo=0), patches_per_sample=2
        )
        seen = []
        for batch in loader:
            seen += batch.ids
            _, sample, _ = loader.locate(batch.ids[0])
            for role, grid in (("condition", batch.condition_grid), ("target", batch.target_grid)):
                (name,) = canonical[role].data_vars
                expected = canonical[role][name].isel(time=sample)
                expected = expected.sel({a.name: a.coordinates for a in grid.axes}, method="nearest", tolerance=1e-6)
                assert np.array_equal(getattr(batch, role)[0, 0], expected)
        assert sorted(seen) == list(range(2 * samples))


@settings(max_examples=60, deadline=None)
@given(
    samples=st.integers(1, 40),
    block=st.integers(1, 9),
    batch=st.integers(1, 12),
    before=st.integers(1, 5),
    after=st.integers(1, 5),
    stop=st.floats(0, 1),
    epoch=st.integers(0, 3),
)
def test_each_sample_comes_once_an_epoch(samples, block, batch, before, after, stop, epoch):
    """For any number of processes, stopped anywhere, gone on with by any other number."""
    grid = Grid.latlon(0, 2, 0, 2, 1.0)
    values = np.zeros((samples, 1, *grid.shape), np.float32)

    def loaders(size):
        source = ArraySource(values, grid, grid, target=values, block_samples=block)
        return [BlockLoader([source], batch_size=batch, rank=rank, world_size=size) for rank in range(size)]

    begun, seen, states = loaders(before), [], []
    for loader in begun:
        loader.set_epoch(epoch)
        batches = iter(loader)
        for _ in range(round(stop * len(loader))):
            seen += next(batches).ids
        states.append(loader.state_dict())
    assert all(state == states[0] for state in states)
    if states[0]["batches"] < len(begun[0]):
        for loader in loaders(after):
            loader.load_state_dict(states[0])
            seen += [i for batch in loader for i in batch.ids]
    assert sorted(seen) == list(range(samples))


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(sorted(set(TRANSFORMS) - {"decibel"})),
    values=st.lists(st.floats(0, 1e3, width=32), min_size=2, max_size=40),
)
def test_transforms_invert(kind, values):
    x = np.array([*values, 0.0, 1.0], np.float64)
    transform = fitted(kind, x)
    back = transform.inverse(transform.forward(x))
    np.testing.assert_allclose(back, x, rtol=1e-6, atol=1e-6 * x.max())
