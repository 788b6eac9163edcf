"""A store is what its files say: their content, the settings and the code, wherever they lie."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from geoml.data.fingerprint import fingerprint
from geoml.errors import DataError
from rainshift.data.archive import Archive
from tests.rainshift.reading_cases import RAIN, dataset

CONFIG = {"source": "gridded", "condition": ["tp"], "static": [], "first_guess": {"precipitation": "tp"}}


@pytest.fixture(autouse=True)
def _own_table(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))


def archive(root: Path, cache: Path, **options) -> Archive:
    return Archive({**CONFIG, "root": str(root), **options}, cache, shared=bool(options.pop("shared", False)))


def write(folder: Path, values=RAIN, name="a.nc") -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    dataset(values).to_netcdf(folder / name)
    return folder


def rain(made: Archive, name="a") -> np.ndarray:
    made.prepare(name, "all")
    return made.open(name, "all")["target"]["precipitation"].values


def test_two_folders_of_equal_files_make_equal_stores(tmp_path):
    one, two = write(tmp_path / "here"), tmp_path / "there" / "deep"
    shutil.copytree(one, two)
    paths = [archive(folder, tmp_path / f"cache{i}").prepare("a", "all") for i, folder in enumerate((one, two))]
    assert paths[0].parent.name == paths[1].parent.name
    manifests = [(path / "manifest.json").read_text() for path in paths]
    assert manifests[0] == manifests[1]
    assert str(tmp_path) not in manifests[0] + (paths[0] / "zarr.json").read_text()


def test_other_content_settings_or_code_are_other_stores(tmp_path, monkeypatch):
    write(tmp_path / "one"), write(tmp_path / "two", RAIN * 2)
    paths = {archive(tmp_path / name, tmp_path / "c").path("a", "all") for name in ("one", "two")}
    paths.add(archive(tmp_path / "one", tmp_path / "c", coarse_step=0.5).path("a", "all"))
    monkeypatch.setattr("rainshift.data.archive.PREPARED_BY", 99)
    paths.add(archive(tmp_path / "one", tmp_path / "c").path("a", "all"))
    assert len(paths) == 4


def test_a_replaced_file_makes_a_new_store_and_clears_the_old_one(tmp_path):
    folder = write(tmp_path / "in")
    first = archive(folder, tmp_path / "c").prepare("a", "all")
    write(folder, RAIN * 2)
    assert rain(archive(folder, tmp_path / "c")).max() == pytest.approx(2 * RAIN[:, 5:25, 5:35].max())
    assert not first.exists()


def test_a_store_that_is_read_stays(tmp_path):
    folder = write(tmp_path / "in")
    reader = archive(folder, tmp_path / "c")
    before = rain(reader)
    write(folder, RAIN * 2)
    rain(archive(folder, tmp_path / "c"))
    np.testing.assert_array_equal(reader.open("a", "all")["target"]["precipitation"].values, before)
    assert reader.path("a", "all").exists()


def test_another_file_beside_it_makes_no_new_store(tmp_path):
    folder = write(tmp_path / "in")
    first = archive(folder, tmp_path / "c").path("a", "all")
    write(folder, RAIN * 3, "b.nc")
    assert archive(folder, tmp_path / "c").path("a", "all") == first


def test_a_file_that_changes_meanwhile_is_refused(tmp_path, monkeypatch):
    folder = write(tmp_path / "in")
    made = archive(folder, tmp_path / "c")
    path = made.path("a", "all")
    write(folder, RAIN * 2)
    with pytest.raises(DataError, match="changed while"):
        made.prepare("a", "all")
    assert not path.exists()


def test_files_are_hashed_once(tmp_path, monkeypatch):
    file = write(tmp_path / "in") / "a.nc"
    past = file.stat().st_mtime - 60
    os.utime(file, (past, past))
    found = fingerprint({"a.nc": file})
    monkeypatch.setattr("geoml.data.fingerprint.sha256", lambda path: pytest.fail(f"{path} is hashed again"))
    assert fingerprint({"a.nc": file}) == found


def test_content_of_equal_size_and_time_is_told_apart(tmp_path):
    file = tmp_path / "a.bin"
    file.write_bytes(b"1" * 100)
    os.utime(file, (1e9, 1e9))
    first = fingerprint({"a": file})
    file.write_bytes(b"2" * 100)
    os.utime(file, (1e9, 1e9))
    assert fingerprint({"a": file}) != first


def test_a_zarr_store_is_known_by_all_its_files(tmp_path):
    dataset().to_zarr(tmp_path / "a.zarr", zarr_format=3, consolidated=False)
    first = fingerprint({"a": tmp_path / "a.zarr"})
    xr.open_zarr(tmp_path / "a.zarr", consolidated=False)
    assert fingerprint({"a": tmp_path / "a.zarr"}) == first
    (tmp_path / "a.zarr/precipitation/c/0/0/0").unlink()
    assert fingerprint({"a": tmp_path / "a.zarr"}) != first
