"""The loader: what it yields is what the source holds, once an epoch, in an order that can be resumed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geoml.data.loader import BlockLoader
from geoml.data.patches import PatchSpec
from geoml.data.patches import place as place_of
from geoml.data.sources import ArraySource
from geoml.errors import DataError, UserError
from geoml.grids.grid import Grid
from geoml.nn.upsampling import GridUpsample

COARSE = Grid.latlon(0, 5, 10, 15, 0.25, "node", half_open=True)
FINE = Grid.latlon(0, 5, 10, 15, 0.1)


def make_source(samples: int = 30, *, block_samples: int = 4, seed: int = 0, times=None, **options) -> ArraySource:
    rng = np.random.default_rng(seed)
    condition = rng.normal(size=(samples, 2, *COARSE.shape)).astype(np.float32)
    target = rng.normal(size=(samples, 1, *FINE.shape)).astype(np.float32)
    static = rng.normal(size=(1, *FINE.shape)).astype(np.float32)
    options.setdefault("channels", {"condition": ("tp", "cape"), "target": ("rate",), "static": ("z",)})
    return ArraySource(
        condition, COARSE, FINE, target=target, static=static, times=times, block_samples=block_samples, **options
    )


def same(a, b) -> bool:
    return (
        a.ids == b.ids
        and a.target_grid == b.target_grid
        and all(torch.equal(getattr(a, n), getattr(b, n)) for n in ("condition", "target", "static", "mask"))
    )


@settings(max_examples=25, deadline=None)
@given(
    samples=st.integers(1, 25),
    block=st.integers(1, 9),
    batch=st.integers(1, 8),
    resident=st.integers(1, 8),
    size=st.integers(2, 20),
    patches=st.integers(1, 3),
)
def test_every_patch_is_the_slice_of_its_source(samples, block, batch, resident, size, patches):
    source = make_source(samples)
    loader = BlockLoader(
        [source], batch_size=batch, block_samples=block, resident_blocks=resident, patch=PatchSpec(size),
        patches_per_sample=patches,
    )  # fmt: skip
    whole, seen = source.read(0, samples), []
    for data in loader:
        seen += data.ids
        _, index, _ = loader.locate(data.ids[0])
        lat, lon = data.target_grid.axes
        rows = FINE["lat"].select(lat.start, lat.stop), FINE["lon"].select(lon.start, lon.stop)
        assert np.array_equal(data.target[0], whole["target"][index][:, rows[0], rows[1]])
        assert np.array_equal(data.static[0], source.read_static()[:, rows[0], rows[1]])
        lat, lon = data.condition_grid.axes
        wide = COARSE.pad(2)  # beyond the rim are the outermost values
        rows = wide["lat"].select(lat.start, lat.stop), wide["lon"].select(lon.start, lon.stop)
        around = np.pad(whole["condition"][index], [(0, 0), (2, 2), (2, 2)], mode="edge")
        assert np.array_equal(data.condition[0], around[:, rows[0], rows[1]])
    assert sorted(seen) == list(range(samples * patches))
    assert loader.items == samples * patches


def test_patches_reach_every_cell_and_see_there_what_the_whole_field_sees():
    source = make_source(1)
    whole = next(iter(BlockLoader([source], batch_size=1, shuffle=False)))
    upsample, seen = GridUpsample(), np.zeros(FINE.shape, int)
    interpolated = upsample(whole.condition, whole.condition_grid, whole.target_grid)[0]
    for data in BlockLoader([source], batch_size=1, patch=PatchSpec(10, stride=5)):
        lat, lon = data.target_grid.axes
        where = FINE["lat"].select(lat.start, lat.stop), FINE["lon"].select(lon.start, lon.stop)
        seen[where] += 1
        patch = upsample(data.condition, data.condition_grid, data.target_grid)[0]
        torch.testing.assert_close(patch, interpolated[:, where[0], where[1]])
    assert seen.min() == 1
    assert seen.max() == 4


@pytest.mark.parametrize("size", [35, 38, 40, 43, 45])
def test_a_condition_as_large_as_its_field_is_moved_with_its_patch(size):
    """From a patch whose condition has as many cells as the whole, moved by one, to one that is larger."""
    source = make_source(1)
    around = np.pad(source.read(0, 1)["condition"][0], [(0, 0), (2, 2), (2, 2)], mode="edge")
    batches = list(BlockLoader([source], batch_size=1, patch=PatchSpec(size, stride=5)))
    assert batches
    for data in batches:
        lat, lon = data.condition_grid.axes
        rows = COARSE.pad(2)["lat"].select(lat.start, lat.stop), COARSE.pad(2)["lon"].select(lon.start, lon.stop)
        assert np.array_equal(data.condition[0], around[:, rows[0], rows[1]])


def test_no_patch_reaches_beyond_a_pole():
    polar = Grid.latlon(85, 90, 10, 15, 0.25, "node"), Grid.latlon(85, 90, 10, 15, 0.1)
    places = place_of(PatchSpec(30, stride=20), *polar)
    reached = [max(abs(grid["lat"].coordinates)) for place in range(4) for grid in places.grids(place)]
    assert 89 < max(reached) <= 90


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("shuffle", [True, False])
def test_ranks_together_see_every_item_once(world_size, shuffle):
    source, seen = make_source(37), []
    for rank in range(world_size):
        loader = BlockLoader([source], batch_size=5, rank=rank, world_size=world_size, shuffle=shuffle)
        batches = list(loader)
        assert len(batches) == len(loader)
        seen += [i for batch in batches for i in batch.ids]
    assert sorted(seen) == list(range(37))


@pytest.mark.parametrize("stop", [0, 1, 3, 7, 10])
def test_a_saved_state_continues_bit_for_bit(stop):
    def make():
        return BlockLoader([make_source(50)], batch_size=5, patch=PatchSpec(10), seed=3)

    loader = make()
    loader.set_epoch(2)
    everything = list(loader)
    iterator = iter(loader)
    for _ in range(stop):
        next(iterator)
    state = loader.state_dict()
    again = make()
    again.load_state_dict(state)
    rest = list(again)
    assert len(rest) == len(everything) - stop
    assert all(same(a, b) for a, b in zip(everything[stop:], rest, strict=True))


def test_epochs_differ_and_repeat():
    loader = BlockLoader([make_source(40)], batch_size=8, patch=PatchSpec(10))
    first, again = [b.ids for b in loader], [b.ids for b in loader]
    loader.set_epoch(1)
    assert first == again
    assert [b.ids for b in loader] != first


def test_workers_give_the_same_sequence_and_resume():
    def make(workers):
        return BlockLoader(
            [make_source(40), make_source(21, seed=1)], batch_size=6, patch=PatchSpec(10), workers=workers
        )

    alone, shared = make(0), make(2)
    expected = list(alone)
    assert all(same(a, b) for a, b in zip(expected, shared, strict=True))
    iterator = iter(shared)
    for _ in range(4):
        next(iterator)
    alone.load_state_dict(shared.state_dict())
    assert all(same(a, b) for a, b in zip(expected[4:], alone, strict=True))
    again = make(2)
    again.load_state_dict({**alone.state_dict(), "batches": 4})
    assert all(same(a, b) for a, b in zip(expected[4:], again, strict=True))


def test_a_state_of_other_settings_is_refused():
    state = BlockLoader([make_source()], batch_size=4).state_dict()
    with pytest.raises(UserError, match="batch_size=4, now it is 5"):
        BlockLoader([make_source()], batch_size=5).load_state_dict(state)


@pytest.mark.fault("missing predictor where none is expected", "refused, with variable, time and cell")
def test_unexpected_gap_stops_with_the_place():
    source = make_source(9, name="box.zarr", times=np.arange("2001-01-01T00", "2001-01-01T09", dtype="datetime64[h]"))
    source._arrays["condition"][5, 1, 3, 7] = np.nan
    with pytest.raises(DataError, match=r"box.zarr: condition variable 'cape'.*2001-01-01T05:00, lat\[3\]=1, lon\[7\]"):
        list(BlockLoader([source], batch_size=4))
    batches = list(BlockLoader([source], batch_size=4, expected_gaps=["cape"], shuffle=False))
    assert batches[1].condition[1, 1, 3, 7] == 0


def test_target_gaps_are_masked():
    source = make_source(3)
    source._arrays["target"][1, 0, 2] = np.nan
    source._arrays["target"][2, 0, 4, 4] = np.inf
    (batch,) = BlockLoader([source], batch_size=3, shuffle=False)
    assert not batch.mask[1, 0, 2].any()
    assert not batch.mask[2, 0, 4, 4]
    assert int((~batch.mask).sum()) == FINE.shape[1] + 1
    assert torch.all(batch.target[~batch.mask] == 0)
    assert torch.isfinite(batch.target).all()


@pytest.mark.fault("error in a loader's worker", "the same message as without workers")
def test_an_error_in_a_worker_is_the_same_message():
    source = make_source(9, name="box.zarr")
    source._arrays["condition"][5, 1, 3, 7] = np.nan
    with pytest.raises(DataError, match=r"^box.zarr: condition variable 'cape' is not finite at sample 5, lat\[3\]"):
        list(BlockLoader([source], batch_size=4, workers=2))


def test_a_state_of_other_patches_is_refused():
    state = BlockLoader([make_source()], batch_size=4, patch=PatchSpec(10)).state_dict()
    with pytest.raises(UserError, match="patches"):
        BlockLoader([make_source()], batch_size=4, patch=PatchSpec(15)).load_state_dict(state)
