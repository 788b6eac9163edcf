"""Order, mixing, windows, geometry and Dask clients of the loader."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.shuffle_quality import effective_sample_ratio
from geoml.data.blocks import ArraySource
from geoml.data.loader import BlockLoader
from geoml.data.patch_groups import sample_starts
from geoml.data.patches import PatchSpec, place
from geoml.data.shuffling import BlockOrder
from geoml.errors import DataError
from geoml.grids.grid import Grid
from geoml.models.base import Channels

GRID = Grid.latlon(0, 2, 0, 2, 1.0)
COARSE = Grid.latlon(0, 5, 10, 15, 0.25, "node", half_open=True)
FINE = Grid.latlon(0, 5, 10, 15, 0.1)


def tiny(count: int, *, block_samples: int = 27, **options) -> ArraySource:
    fields = np.zeros((count, 1, *GRID.shape), np.float32) + np.arange(count, dtype="f4")[:, None, None, None]
    return ArraySource(fields, GRID, GRID, target=fields, block_samples=block_samples, **options)


def remembering(samples: int, memory: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    values = rng.normal(size=samples)
    for step in range(1, samples):
        values[step] = memory * values[step - 1] + np.sqrt(1 - memory**2) * values[step]
    return values


@pytest.mark.parametrize("batch_size", [8, 32])
def test_default_mixes_within_ten_percent_of_a_global_shuffle(batch_size):
    values = remembering(9000, np.exp(-1 / 24))
    loader = BlockLoader([tiny(9000)], batch_size=batch_size)
    assert effective_sample_ratio(loader, values) >= 0.9
    few = BlockLoader([tiny(9000)], batch_size=batch_size, resident_blocks=2)
    assert effective_sample_ratio(few, values) < 0.5
    assert effective_sample_ratio(BlockLoader([tiny(9000)], batch_size=batch_size, shuffle=False), values) < 0.3


def test_uncorrelated_values_mix_in_any_order():
    values = np.random.default_rng(0).normal(size=(9000, 3))
    loader = BlockLoader([tiny(9000)], batch_size=32, shuffle=False)
    assert 0.8 < effective_sample_ratio(loader, values, epochs=1) < 1.25


@pytest.mark.parametrize("resident", [1, 3, 50])
def test_no_more_blocks_are_open_than_promised(resident):
    order = BlockOrder(np.full(20, 6), batch_size=4, resident=resident, key=(1, 2))
    opened, closed, most = 0, 0, 0
    for step in order:
        opened = max(opened, int(step.positions.max()) + 1)
        most = max(most, opened - closed)
        closed += len(step.finished)
    assert closed == opened == 20
    assert most <= max(resident, 2)


def test_windows_stay_within_equal_steps_and_selected_samples():
    hours = np.arange(20)
    hours[9:] += 5  # a gap after the ninth
    times = np.datetime64("2001-01-01", "ns") + hours * np.timedelta64(1, "h")
    source = tiny(20, times=times, samples=np.delete(np.arange(20), 15))
    starts = sample_starts(source, 4)
    assert starts.tolist() == [0, 4, 9, 16]
    seen = {}
    loader = BlockLoader([source], batch_size=2, window=4, block_samples=3)
    for batch in loader:
        assert batch.target_grid.names == ("time", "lat", "lon")
        assert batch.dims == 3
        assert batch.target_grid["time"].step == 3600
        for item, field in zip(batch.ids, batch.target[:, 0, :, 0, 0].tolist(), strict=True):
            seen[item] = field
    assert [seen[i] for i in sorted(seen)] == [[float(s + k) for k in range(4)] for s in starts]


def test_different_geometries_do_not_share_batches():
    rng = np.random.default_rng(0)

    def box(coarse: Grid, fine: Grid, samples: int) -> ArraySource:
        values = [rng.normal(size=(samples, 1, *grid.shape)) for grid in (coarse, fine)]
        return ArraySource(values[0], coarse, fine, target=values[1], block_samples=4)

    moved = [grid.moved(lat=20, lon=-50) for grid in (COARSE, FINE)]
    other = FINE.coarsen(2)
    sources = [box(COARSE, FINE, 13), box(*moved, 9), box(COARSE, other, 11)]
    loader = BlockLoader(sources, batch_size=4, patch=PatchSpec(10))
    owners = [{loader.locate(i)[0] for i in batch.ids} for batch in loader]
    assert {0, 1} in owners
    assert all(owner in ({0}, {1}, {0, 1}, {2}) for owner in owners)
    assert sorted(i for batch in loader for i in batch.ids) == list(range(33))


def test_strided_patches_cover_what_can_be_reached():
    places = place(PatchSpec(20, stride=10), COARSE, FINE)
    target, condition = places.offsets(np.arange(places.count))
    assert (np.diff(np.unique(target[:, 0])) <= 10).all()
    assert np.array_equal(condition * 5 - target * 2, np.broadcast_to((condition * 5 - target * 2)[0], condition.shape))
    with pytest.raises(DataError, match="stride 7 is not a multiple of the common period 5; try 5"):
        place(PatchSpec(20, stride=7), COARSE, FINE)
    with pytest.raises(DataError, match="no patch of 60 cells"):
        place(PatchSpec(60), COARSE, FINE)


def test_patch_and_its_condition_cover_the_same_ground():
    places = place(PatchSpec(20, halo=1), COARSE, FINE)
    for number in range(places.count):
        coarse, fine = places.grids(number)
        for name in ("lat", "lon"):
            assert coarse[name].edges[1] <= fine[name].edges[0] + 1e-6
            assert coarse[name].edges[-2] >= fine[name].edges[-1] - 1e-6
    assert len({coarse.relative_to(fine) for coarse, fine in map(places.grids, range(places.count))}) == 1


def test_channel_of_what_is_known():
    source = tiny(6, channels={"condition": ("gauge",), "target": ("rate",)})
    source._arrays["condition"][2, 0, 1, 1] = np.nan
    channels = Channels(("gauge_known", "gauge"), ("rate",))
    (batch,) = BlockLoader([source], batch_size=6, channels=channels, expected_gaps=["gauge"], shuffle=False)
    assert batch.condition.shape[1] == 2
    assert batch.condition[2, :, 1, 1].tolist() == [0, 0]
    assert batch.condition[2, :, 0, 1].tolist() == [1, 2]


def test_memory_stays_within_what_is_promised():
    source = tiny(400, block_samples=10)
    loader = BlockLoader([source], batch_size=4)
    assert loader.memory_bytes() >= (8 + 4) * 10 * source.sample_bytes
    assert loader.memory_bytes() < 400 * source.sample_bytes


def test_a_dask_client_reads_the_same_batches():
    distributed = pytest.importorskip("distributed")
    source = tiny(60, block_samples=5)
    expected = [batch.ids for batch in BlockLoader([source], batch_size=4)]
    with distributed.Client(processes=False, n_workers=1, threads_per_worker=2, dashboard_address=None) as client:
        given = list(BlockLoader([source], batch_size=4, client=client))
        ambient = [batch.ids for batch in BlockLoader([source], batch_size=4)]
    assert [batch.ids for batch in given] == ambient == expected
    assert all(batch.target[0, 0, 0, 0] == batch.ids[0] for batch in given)
