"""Stores: whole or refused, resumable, damage found and named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from geoml.data.blocks import FieldSource
from geoml.data.loader import BlockLoader
from geoml.data.patches import PatchSpec
from geoml.data.store import Packing, StoreWriter, open_store, read_dataset, verify_store, write_netcdf
from geoml.errors import DataError, UserError
from geoml.grids.grid import Grid

COARSE = Grid.latlon(0, 5, 10, 15, 0.25, "node", half_open=True)
FINE = Grid.latlon(0, 5, 10, 15, 0.1)
COMMAND = "rainbow prepare region=here"


def make_groups(samples: int = 26) -> dict[str, xr.Dataset]:
    rng = np.random.default_rng(0)
    time = np.datetime64("2001-01-01", "ns") + np.arange(samples) * np.timedelta64(1, "h")

    def field(grid: Grid, units: str, *, lead: bool = True) -> xr.DataArray:
        shape = (samples, *grid.shape) if lead else grid.shape
        coords = {**({"time": time} if lead else {}), **grid.coords()}
        dims = (*(("time",) if lead else ()), *grid.names)
        return xr.DataArray(rng.gamma(0.3, 3, shape).astype("f4"), coords, dims, attrs={"units": units})

    target = field(FINE, "mm h-1")
    target[3, 4, 5] = np.nan
    return {
        "condition": xr.Dataset({"tp": field(COARSE, "mm h-1"), "cape": field(COARSE, "J kg-1")}),
        "target": xr.Dataset({"rate": target}),
        "static": xr.Dataset({"z": field(FINE, "m2 s-2", lead=False)}),
    }


def begin(path: Path, groups: dict[str, xr.Dataset], **options) -> StoreWriter:
    options = {"slab": 8, "packing": {"rate": Packing(0.01), "tp": Packing(0.01)}, **options}
    return StoreWriter.create(path, groups, prepare_command=COMMAND, **options)


def write_slabs(writer: StoreWriter, groups: dict[str, xr.Dataset], starts) -> None:
    for start in starts:
        slab = {g: d.isel(time=writer.span(start)) for g, d in groups.items() if "time" in d.dims}
        writer.write(start, slab)


def make_store(path: Path, **options) -> dict[str, xr.Dataset]:
    groups = make_groups()
    with begin(path, groups, **options) as writer:
        write_slabs(writer, groups, writer.missing())
        writer.finish()
    return groups


@pytest.fixture
def store(tmp_path: Path) -> Path:
    make_store(tmp_path / "a.zarr")
    return tmp_path / "a.zarr"


def test_round_trip(tmp_path):
    groups = make_store(tmp_path / "a.zarr")
    opened = open_store(tmp_path / "a.zarr")
    assert set(opened) == {"condition", "target", "static"}
    rate = opened["target"].rate
    assert rate.attrs["units"] == "mm h-1"
    assert opened["target"].attrs["Conventions"] == "CF-1.11"
    assert np.array_equal(opened["target"].time, groups["target"].time)
    assert float(abs(rate - groups["target"].rate).max()) <= 0.00501
    assert np.isnan(rate[3, 4, 5])
    assert int(np.isnan(rate).sum()) == 1
    assert np.array_equal(opened["condition"].cape, groups["condition"].cape)
    assert np.array_equal(opened["static"].z, groups["static"].z)
    assert verify_store(tmp_path / "a.zarr") > 10


def test_source_reads_what_xarray_reads(store):
    source = FieldSource(store, condition=["tp", "cape"])
    read = source.read(5, 19)
    groups = open_store(store)
    assert read["target"].shape == (14, 1, 50, 50)
    assert np.allclose(read["target"][:, 0], groups["target"].rate[5:19], atol=1e-5, equal_nan=True)
    assert np.allclose(read["condition"][:, 0], groups["condition"].tp[5:19], atol=1e-5)
    assert np.array_equal(read["condition"][:, 1], groups["condition"].cape[5:19])


def test_loader_from_a_store_with_workers_of_a_process_that_has_it_open(store):
    opened = open_store(store)
    float(opened["target"].rate.mean())
    source = FieldSource(store)
    source.read(0, 8)

    def ids(workers):
        return [
            (batch.ids, float(batch.target.sum()), float(batch.condition.sum()))
            for batch in BlockLoader([source], batch_size=4, patch=PatchSpec(20), workers=workers)
        ]

    assert ids(0) == ids(2)
    assert sorted(i for batch in ids(0) for i in batch[0]) == list(range(26))


@pytest.mark.fault("store without its manifest", "refused, with the command that finishes it")
def test_unfinished_store_is_refused_with_the_command(tmp_path):
    groups = make_groups()
    with begin(tmp_path / "a.zarr", groups) as writer:
        write_slabs(writer, groups, [0])
        with pytest.raises(ValueError, match="first at sample 8"):
            writer.finish()
    with pytest.raises(DataError, match=f"not complete.*{COMMAND}"):
        open_store(tmp_path / "a.zarr")


@pytest.mark.fault("torn note in the journal", "the slab counts as not written and is written again")
def test_preparation_resumes(tmp_path):
    groups = make_groups()
    with begin(tmp_path / "a.zarr", groups) as writer:
        write_slabs(writer, groups, [0, 16])
    (tmp_path / "a.zarr" / "journal" / "0000000008.json").write_text('{"target/ra')  # torn, as by a failing disk
    with begin(tmp_path / "a.zarr", groups) as writer:
        assert writer.missing() == [8, 24]
        write_slabs(writer, groups, [8, 24, 8])
        writer.finish()
    make_store(tmp_path / "b.zarr")
    assert read_manifest(tmp_path / "a.zarr") == read_manifest(tmp_path / "b.zarr")
    with begin(tmp_path / "a.zarr", groups) as writer:
        assert writer.complete
        assert writer.missing() == []
        writer.finish()


def read_manifest(path: Path) -> dict:
    return json.loads((path / "manifest.json").read_text())


def test_preparation_killed_in_the_middle_resumes(tmp_path):
    """kill -9 in the middle of a slab: what the journal does not name is written again."""
    script = (
        "import sys, os; sys.path.insert(0, sys.argv[1]); import test_store as t; from pathlib import Path\n"
        "from geoml.data.slabs import SlabWriter\n"
        "groups = t.make_groups(); writer = t.begin(Path(sys.argv[2]), groups)\n"
        "t.write_slabs(writer, groups, [0, 8])\n"
        "inner = SlabWriter._write_array\n"
        "def dying(self, group, name, *rest):\n"
        "    inner(self, group, name, *rest)\n"
        "    if name == 'tp': os.kill(os.getpid(), 9)\n"
        "SlabWriter._write_array = dying\n"
        "t.write_slabs(writer, groups, [16])\n"
    )
    path = tmp_path / "a.zarr"
    done = subprocess.run([sys.executable, "-c", script, str(Path(__file__).parent), str(path)], check=False)
    assert done.returncode == -9
    with pytest.raises(DataError, match="not complete"):
        verify_store(path)
    groups = make_groups()
    with begin(path, groups) as writer:
        assert writer.missing() == [16, 24]
        write_slabs(writer, groups, writer.missing())
        writer.finish()
    make_store(tmp_path / "b.zarr")
    assert read_manifest(path) == read_manifest(tmp_path / "b.zarr")


def test_other_settings_do_not_continue_a_store(store):
    with pytest.raises(UserError, match="other variables, samples or settings"):
        begin(store, make_groups(), packing={})


@pytest.mark.fault("two writers on one store", "the second waits for the first, and says for which process")
def test_two_writers(tmp_path, caplog):
    groups = make_groups()
    with ThreadPoolExecutor(1) as other:
        with begin(tmp_path / "a.zarr", groups) as writer:
            second = other.submit(begin, tmp_path / "a.zarr", groups)
            write_slabs(writer, groups, writer.missing())
            writer.finish()
            with pytest.raises(TimeoutError):
                second.result(timeout=0.5)
        with second.result(timeout=10) as late:
            assert late.complete
    assert f"written by process {os.getpid()}" in caplog.text
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


@pytest.mark.fault("overflow of packed rain", "refused, with variable, cell, value and limits")
def test_overflow_names_value_and_maximum(tmp_path):
    groups = make_groups()
    groups["target"].rate[2, 3, 4] = 400.0
    with (
        begin(tmp_path / "a.zarr", groups) as writer,
        pytest.raises(DataError, match=r"rate.*\[2, 3, 4\] is 400.*327.67"),
    ):
        write_slabs(writer, groups, [0])


def test_slabs_of_nothing_but_missing_values_are_files_too(tmp_path):
    groups = make_groups()
    groups["target"]["rate"][:] = np.nan
    groups["condition"]["tp"][:] = 0.0
    with begin(tmp_path / "a.zarr", groups) as writer:
        write_slabs(writer, groups, writer.missing())
        writer.finish()
    assert (tmp_path / "a.zarr/target/rate/c/0/0/0").exists()
    assert bool(open_store(tmp_path / "a.zarr", "target").rate.isnull().all())


@pytest.mark.fault("missing chunk", "refused by name, never read as fill values")
def test_missing_chunk_is_an_error_never_fill(store):
    source = FieldSource(store)
    chunk = store / "target/rate/c/1/0/0"
    chunk.unlink()
    for attempt in (lambda: open_store(store), lambda: verify_store(store), lambda: source.read(0, 16)):
        with pytest.raises(DataError, match=r"target/rate/c/1/0/0 is missing.*rainbow prepare"):
            attempt()


@pytest.mark.parametrize("at", [0, 5, 40, -1])
@pytest.mark.fault("flipped bit in a chunk", "refused by name when read or verified")
def test_a_flipped_bit_is_found_and_named(store, at):
    source = FieldSource(store)
    chunk = store / "target/rate/c/0/0/0"
    data = bytearray(chunk.read_bytes())
    data[at] ^= 4
    chunk.write_bytes(data)
    with pytest.raises(DataError, match="target/rate/c/0/0/0"):
        source.read(0, 8)
    with pytest.raises(DataError, match="target/rate/c/0/0/0"):
        verify_store(store)


@pytest.mark.fault("truncated chunk", "refused, with both sizes")
def test_truncated_chunk(store):
    source = FieldSource(store)
    chunk = store / "condition/cape/c/0/0/0"
    chunk.write_bytes(chunk.read_bytes()[:-7])
    with pytest.raises(DataError, match="condition/cape/c/0/0/0 has"):
        source.read(0, 8)


@pytest.mark.parametrize("damage", ["", "{", '{"version": 1}', '{"version": 9, "files": {}}'])
@pytest.mark.fault("broken manifest", "refused, with the command that makes the store")
def test_broken_manifest(store, damage):
    (store / "manifest.json").write_text(damage)
    with pytest.raises(DataError, match="rainbow prepare"):
        open_store(store)


def test_chunk_sizes(tmp_path):
    time = np.arange(500)
    fields = {
        group: xr.Dataset({"v": (("sample", "y", "x"), np.broadcast_to(np.float32(0), (500, n, n)))})
        .assign_coords(sample=time, y=np.arange(n) + 0.0, x=np.arange(n) + 0.0)
        for group, n in (("condition", 80), ("target", 200))
    }  # fmt: skip
    with StoreWriter.create(tmp_path / "a.zarr", fields, packing={}) as writer:
        groups = json.loads((tmp_path / "a.zarr/plan.json").read_text())["groups"]
        for group, n in (("condition", 80), ("target", 200)):
            length = groups[group]["v"]["chunk"]
            assert 0.4e6 <= length * n * n * 4 <= 1e6
            assert writer.slab % length == 0


def test_volumes(tmp_path):
    grid = Grid.box({"z": 0, "y": 0, "x": 0}, {"z": 4, "y": 16, "x": 16}, 1)
    values = np.random.default_rng(1).normal(size=(5, *grid.shape)).astype("f4")
    data = xr.Dataset({"gain": (("sample", *grid.names), values)}, {"sample": np.arange(5), **grid.coords()})
    with StoreWriter.create(tmp_path / "v.zarr", {"condition": data, "target": data}, slab=2) as writer:
        write = {start: data.isel(sample=writer.span(start)) for start in writer.missing()}
        for start, slab in write.items():
            writer.write(start, {"condition": slab, "target": slab})
        writer.finish()
    batches = list(BlockLoader([FieldSource(tmp_path / "v.zarr")], batch_size=2, patch=PatchSpec((4, 8, 8), halo=0)))
    assert batches[0].dims == 3
    assert all(np.array_equal(b.condition, b.target) for b in batches)


@pytest.mark.fault("truncated NetCDF", "refused by name, as is a file that is not a data set")
def test_netcdf_round_trip_and_foreign_files(tmp_path):
    groups = make_groups()
    path = tmp_path / "a.nc"
    write_netcdf(path, groups["target"])
    assert np.array_equal(read_dataset(path).rate, groups["target"].rate, equal_nan=True)
    assert [p.name for p in tmp_path.iterdir()] == ["a.nc"]
    data = path.read_bytes()
    (tmp_path / "cut.nc").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.nc").write_text("latitude, longitude")
    (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04 no more")
    (tmp_path / "empty").mkdir()
    for name in ("cut.nc", "text.nc", "bad.zip", "empty", "absent.nc"):
        with pytest.raises(DataError, match=name):
            read_dataset(tmp_path / name).load()


def test_zarr_zip(tmp_path, store):
    import zarr

    with zarr.storage.ZipStore(tmp_path / "a.zarr.zip", mode="w") as zipped:
        make_groups()["target"].to_zarr(zipped, zarr_format=2, mode="w-", consolidated=False)
    assert read_dataset(tmp_path / "a.zarr.zip").rate.shape == (26, 50, 50)
    assert read_dataset(store, group="target").rate.shape == (26, 50, 50)
