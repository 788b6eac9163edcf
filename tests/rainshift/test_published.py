"""RainShift's published layout: written from the synthetic planet, read back, prepared, fetched, refused."""

from __future__ import annotations

import functools
import http.server
import logging
import shutil
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from geoml.errors import DataError, UserError
from geoml.runs.files import sha256
from rainshift.data.archive import Archive
from rainshift.sources import open_source
from rainshift.sources.base import RegionData
from rainshift.sources.lag import best_lag, warn_of_lag
from rainshift.sources.published import file_of
from rainshift.sources.synthetic import block_starts
from rainshift.sources.time_blocks import TimeBlocks, validation_blocks, whole_blocks
from rainshift.sources.variables import PREDICTORS, VARIABLES

sys.path.insert(0, str(Path(__file__).parent))

from published_writer import write_part

REGION = "caribbean"  # in the Americas: longitudes 0–360
QUIET = {"validation_share": 0.0, "gap_hours": 0.0}


@functools.cache
def planet(region=REGION, days=10, start="2001-01-01", end="2003-01-01", size=2):
    source = open_source("synthetic", size_deg=size)
    data = source.blocks(region, block_starts(start, end, 24 * days))
    target = data.target["precipitation"].load()
    target[3, 4, 5] = np.inf
    target[7] = np.nan
    data.condition.load()
    return data


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    write_part(folder, planet(), "train")
    write_part(folder, planet(start="2021-01-01", end="2022-01-01", days=3), "test")
    return folder


def copy(published, folder):
    return shutil.copytree(published, folder / "copy")


# ---- the layout


def test_the_files_are_those_that_are_published(published):
    files = {str(path.relative_to(published)) for path in published.rglob("*") if path.is_file()}
    assert files == {
        "caribbean/train_data_in.zarr.zip", "caribbean/train_data_out.zarr.zip", "caribbean/static_variables.nc",
        "caribbean/test_data_in.zarr.zip", "caribbean/test_data_out.zarr.zip",
    }  # fmt: skip
    store = zarr.storage.ZipStore(published / file_of(REGION, "train", "in"))
    group = zarr.open_group(store, mode="r", use_consolidated=True, zarr_format=2)
    assert set(PREDICTORS) <= set(group.array_keys())
    for name in PREDICTORS:
        assert group[name].dtype == np.int16
        assert group[name].chunks == (200, 8, 8)
        assert {"scale_factor", "add_offset", "units"} <= set(group[name].attrs)
    latitude, longitude = group["lat"][:], group["lon"][:]
    assert (np.diff(latitude) < 0).all()
    assert longitude.min() > 180
    rain = zarr.open_group(zarr.storage.ZipStore(published / file_of(REGION, "train", "out")), mode="r")
    assert "time" not in rain
    assert rain["precipitation"].dtype == np.float32
    assert not np.isfinite(rain["precipitation"][:]).all()
    with zipfile.ZipFile(published / file_of(REGION, "train", "in")) as archive:
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}


def test_round_trip(published):
    source = open_source("rainshift", root=str(published), **QUIET)
    assert source.names == (REGION,)
    made, data = source.open(REGION, "train"), planet()
    assert made.coarse.matches(data.coarse)
    assert made.fine.matches(data.fine)
    np.testing.assert_array_equal(made.time, data.time)
    truth = data.target["precipitation"].values
    read = made.target["precipitation"].values
    np.testing.assert_array_equal(np.isnan(read), ~np.isfinite(truth))
    np.testing.assert_allclose(read, np.where(np.isfinite(truth), truth, np.nan), rtol=1e-6)
    for name in PREDICTORS:
        here, there = made.condition[name].values, data.condition[name].values
        step = (there.max() - there.min()) / 65_000
        np.testing.assert_allclose(here, there, atol=0.51 * step + 1e-6 * abs(there).max(), err_msg=name)
        assert made.condition[name].attrs["units"] == VARIABLES[name].units
    for name in ("lsm", "z"):
        np.testing.assert_allclose(made.static[name].values, data.static[name].values, rtol=1e-6)
    assert made.provenance["stamp"] == "end"


def test_it_is_prepared_and_resumed_like_any_data(published, tmp_path, monkeypatch):
    config = {"source": "rainshift", "root": str(published), "condition": ["tp"], "static": ["lsm"], **QUIET}
    archive = Archive(config, tmp_path)
    path = archive.prepare(REGION, "train")
    groups = archive.open(REGION, "train")
    truth = planet().target["precipitation"].values
    known = np.isfinite(truth)
    np.testing.assert_allclose(groups["target"]["precipitation"].values[known], truth[known], atol=0.006)
    assert np.isnan(groups["target"]["precipitation"].values[~known]).all()

    from geoml.data.store import StoreWriter

    other, write, create, seen = Archive(config, tmp_path / "other"), StoreWriter.write, StoreWriter.create, []

    def twice(self, start, data):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(start)
        write(self, start, data)

    monkeypatch.setattr(StoreWriter, "create", lambda *args, **options: create(*args, **options, slab=48))
    monkeypatch.setattr(StoreWriter, "write", twice)
    with pytest.raises(KeyboardInterrupt):
        other.prepare(REGION, "train")
    monkeypatch.setattr(StoreWriter, "write", write)
    again = other.prepare(REGION, "train")
    assert seen == [0, 48]
    for group in ("condition", "target"):
        xr.testing.assert_equal(
            xr.open_zarr(again, group=group, consolidated=False), xr.open_zarr(path, group=group, consolidated=False)
        )


# ---- hours


def test_years_hours_and_validation(published):
    source = open_source("rainshift", root=str(published), years=[2002], **QUIET)
    years = source.open(REGION, "train").time.astype("datetime64[Y]").astype(int) + 1970
    assert set(years) == {2002}
    assert len(open_source("rainshift", root=str(published), hours={"train": 100}, **QUIET).open(REGION)) == 100
    options = {"validation_share": 0.3, "validation_every_days": 300, "gap_hours": 48}
    source = open_source("rainshift", root=str(published), **options)
    assert source.splits == ("train", "validation", "test")
    train, validation = (source.open(REGION, split).time for split in ("train", "validation"))
    assert len(train) > len(validation) > 0
    assert np.abs(train[:, None] - validation[None]).min() >= np.timedelta64(48, "h")
    whole = planet().time
    assert max(train.max(), validation.max()) <= whole[-1] - np.timedelta64(48, "h")
    with pytest.raises(UserError, match="no hours in \\[1999\\]"):
        open_source("rainshift", root=str(published), years=[1999], **QUIET).open(REGION)


def test_training_and_test_of_the_published_years_do_not_leak():
    from rainshift.places.splits import check_leakage

    hours = np.arange("2001-01-01T00", "2021-01-01T00", dtype="datetime64[h]").astype("datetime64[ns]")
    parts = validation_blocks(hours, 0.1, 100, 48)
    test = np.arange("2021-01-01T00", "2023-01-01T00", dtype="datetime64[h]").astype("datetime64[ns]")
    for part in parts.values():
        check_leakage({"melanesia": hours[part]}, {"melanesia": test})
    check_leakage({"melanesia": hours[parts["train"]]}, {"melanesia": hours[parts["validation"]]})
    assert len(parts["validation"]) > 0.07 * len(hours)
    months = hours[parts["validation"]].astype("datetime64[M]").astype(int) % 12
    assert np.bincount(months, minlength=12).min() > 0.4 * np.bincount(months).mean()


def test_few_hours_are_spread_over_all_years():
    positions = np.arange(0, 20 * 8760)
    chosen = whole_blocks(positions, 4000, 200)
    assert len(chosen) == 4000
    assert len(np.unique(chosen // 200)) == 20
    assert set(chosen // 8760) == set(range(20))
    assert np.ptp((chosen // 200) * 200 % 8760) > 4000


def test_each_chunk_is_decoded_once_for_slabs_of_any_length():
    values = np.random.default_rng(0).random((100, 2, 3)).astype("f4")
    seen = []

    def read(part):
        seen.append(part)
        return values[part]

    lazy = TimeBlocks(read, values.shape, 30).lazy()
    got = np.concatenate([lazy[start : start + 7].compute() for start in range(0, 100, 7)])
    np.testing.assert_array_equal(got, values)
    assert seen == [slice(0, 30), slice(30, 60), slice(60, 90), slice(90, 100)]


# ---- the rule of the hour


def paired(name, middle, shift):
    """Winter rain of a region whose fine rain follows the coarse one `shift` hours late."""
    rng = np.random.default_rng(3)
    series = np.convolve(rng.gamma(0.3, 1.0, 310), np.ones(6) / 6, "same")
    time = np.datetime64("2001-01-05", "ns") + np.arange(300) * np.timedelta64(1, "h")

    def field(values, step):
        coords = {"time": time, "lat": middle + step * np.arange(4), "lon": 10 + step * np.arange(4)}
        return xr.DataArray(values[:, None, None] * np.ones((4, 4), "f4"), coords, ("time", "lat", "lon"))

    coarse = xr.Dataset({"tp": field(series[8:308] + 0.5, 0.25), "cp": field(np.full(300, 0.5), 0.25)})
    noise = 0.05 * rng.normal(size=300)
    return RegionData(
        name, coarse, field(series[8 - shift : 308 - shift] + noise, 0.1).to_dataset(name="precipitation")
    )


def test_a_shifted_pairing_is_warned_of_and_not_mended(caplog):
    with caplog.at_level(logging.WARNING):
        assert warn_of_lag(paired("right", 50.05, 0)) == 0
        assert warn_of_lag(paired("tropics", 5.05, 2)) is None  # rain there tells nothing
        assert not caplog.records
        assert warn_of_lag(paired("shifted", 50.05, 2)) == 2
    assert "shifted: fine rain correlates best with the coarse rain 2 h earlier" in caplog.text


def test_lag_steps_over_gaps():
    rng = np.random.default_rng(1)
    hours = np.flatnonzero(rng.random(900) < 0.7)
    series = rng.normal(size=900)
    assert best_lag(series[hours], series[(hours - 1) % 900], hours)[0] == 1
    assert best_lag(np.zeros(5), np.zeros(5), np.arange(5))[0] == 0


# ---- elsewhere


class _Folder(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def served(published):
    handler = functools.partial(_Folder, directory=str(published))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_files_are_fetched_checked_and_kept(published, served, tmp_path):
    options = {"root": str(tmp_path / "data"), "fetch": True, "base_url": served, **QUIET}
    source = open_source("rainshift", include=[REGION], **options)
    data = source.open(REGION, "test")
    assert len(data) == 72
    held = {path.name for path in (tmp_path / "data" / REGION).iterdir()}
    assert held == {"static_variables.nc", "test_data_in.zarr.zip", "test_data_out.zarr.zip"}
    sums = (tmp_path / "data" / "SHA256SUMS").read_text()
    assert sha256(published / file_of(REGION, "test", "in")) in sums
    (tmp_path / "data" / file_of(REGION, "test", "in")).unlink()
    wrong = {file_of(REGION, "test", "in"): "0" * 64}
    with pytest.raises(DataError, match="expected 0000"):
        open_source("rainshift", include=[REGION], checksums=wrong, **options).open(REGION, "test")
    assert not (tmp_path / "data" / file_of(REGION, "test", "in")).exists()
    with pytest.raises(DataError, match="cannot be downloaded"):
        open_source("rainshift", include=["melanesia"], **options).open("melanesia", "test")
    with pytest.raises(DataError, match="not a SHA-256"):
        open_source("rainshift", include=[REGION], checksums={"a": "xyz"}, **options).open(REGION, "test")


def test_a_url_is_read_in_place(published):
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(str(published), "/there", recursive=True)
    try:
        source = open_source("rainshift", root="memory://there", include=[REGION], **QUIET)
        here = open_source("rainshift", root=str(published), **QUIET).open(REGION, "test")
        there = source.open(REGION, "test")
        xr.testing.assert_equal(here.condition.load(), there.condition.load())
        xr.testing.assert_equal(here.target.load(), there.target.load())
        xr.testing.assert_equal(here.static, there.static)
    finally:
        memory.rm("/there", recursive=True)


def test_another_file_system_is_fetched_from(published, tmp_path):
    options = {"root": str(tmp_path), "fetch": True, "base_url": f"file://{published}", **QUIET}
    assert len(open_source("rainshift", include=[REGION], **options).open(REGION, "test")) == 72


# ---- refusals


def rewrite(path, change):
    """The zip with `change(dict of entries)` applied."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in entries.items():
            archive.writestr(name, value)


def opened(folder, split="train"):
    return open_source("rainshift", root=str(folder), **QUIET).open(REGION, split)


@pytest.mark.fault("truncated or foreign published file", "refused by name")
def test_truncated_missing_and_foreign_files_are_named(published, tmp_path):
    folder = copy(published, tmp_path)
    path = folder / file_of(REGION, "train", "in")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"train_data_in.zarr.zip cannot be read; it may be truncated"):
        opened(folder)
    path.write_bytes(whole)
    (folder / file_of(REGION, "train", "out")).unlink()
    with pytest.raises(DataError, match=r"train_data_out.zarr.zip does not exist.*data.fetch"):
        opened(folder)
    shutil.copy(folder / file_of(REGION, "test", "out"), folder / file_of(REGION, "train", "out"))
    with pytest.raises(DataError, match=r"has 72 hours .* 240.*paired by index"):
        opened(folder)
    (folder / file_of(REGION, "", "static")).write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(DataError, match=r"static_variables.nc cannot be read"):
        opened(folder, "test")


@pytest.mark.fault("missing chunk in a published file", "refused by name")
def test_a_missing_chunk_is_no_rain_but_an_error(published, tmp_path):
    folder = copy(published, tmp_path)
    rewrite(folder / file_of(REGION, "train", "out"), lambda entries: entries.pop("precipitation/1.0.0"))
    with pytest.raises(DataError, match="'precipitation' has 1 of 2 chunks"):
        opened(folder)


def test_a_damaged_chunk_is_found_when_it_is_read(published, tmp_path):
    folder = copy(published, tmp_path)
    path = folder / file_of(REGION, "test", "out")
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo("precipitation/0.0.0")
    raw = bytearray(path.read_bytes())
    raw[entry.header_offset + 30 + len(entry.filename) + entry.compress_size // 2] ^= 1
    path.write_bytes(bytes(raw))
    with pytest.raises(DataError, match=r"test_data_out.zarr.zip: 'precipitation' cannot be read at hours"):
        opened(folder, "test").target.load()


@pytest.mark.fault("integers without a scale", "refused, with the variable")
def test_integers_without_a_scale_and_zero_as_fill(published, tmp_path):
    import json

    folder = copy(published, tmp_path)

    def unscaled(entries):
        meta = json.loads(entries[".zmetadata"])
        for key in ("scale_factor", "add_offset"):
            del meta["metadata"]["tp/.zattrs"][key]
        meta["metadata"]["tp/.zarray"]["fill_value"] = None
        entries[".zmetadata"] = json.dumps(meta).encode()

    def zero_fill(entries):
        meta = json.loads(entries[".zmetadata"])
        meta["metadata"]["precipitation/.zarray"]["fill_value"] = 0.0
        meta["metadata"]["precipitation/.zattrs"].pop("_FillValue", None)
        entries[".zmetadata"] = json.dumps(meta).encode()

    rewrite(folder / file_of(REGION, "test", "out"), zero_fill)
    rain = opened(folder, "test").target["precipitation"].values
    assert (rain == 0).sum() > 100  # dry hours stay dry
    rewrite(folder / file_of(REGION, "train", "in"), unscaled)
    with pytest.raises(DataError, match="integers without a scale_factor"):
        opened(folder)


def test_files_of_another_region_and_a_missing_variable(published, tmp_path):
    folder = copy(published, tmp_path)
    shutil.move(folder / REGION, folder / "melanesia")
    with pytest.raises(DataError, match=r"lat covers .*; expected melanesia within"):
        open_source("rainshift", root=str(folder), **QUIET).open("melanesia", "test")
    shutil.copy(folder / file_of("melanesia", "test", "out"), folder / file_of("melanesia", "test", "in"))
    with pytest.raises(DataError, match="cape is missing"):
        open_source("rainshift", root=str(folder), **QUIET).open("melanesia", "test")


def test_what_the_user_forgot_is_said(tmp_path):
    with pytest.raises(UserError, match=r"data.root is not set"):
        _ = open_source("rainshift").names
    with pytest.raises(UserError, match=r"data.fetch=true"):
        _ = open_source("rainshift", root=str(tmp_path)).names
    with pytest.raises(UserError, match="did you mean 'caribbean'"):
        _ = open_source("rainshift", root="https://example.org/x", include=["caribean"]).names
    with pytest.raises(UserError, match=r"data.hours split 'trian'"):
        open_source("rainshift", hours={"trian": 3})
