"""Files that are written whole or not at all, and what is said where they cannot be."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from geoml.errors import MachineError, UserError
from geoml.runs import files
from geoml.runs.files import atomic_path, machine_error, writing

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("name", ["a.txt", "x" * 255, "é" * 127, "-.tmp", " "])
def test_names_up_to_the_limit_of_the_file_system(tmp_path: Path, name: str) -> None:
    with atomic_path(tmp_path / name) as partial:
        partial.write_text("whole")
        assert not (tmp_path / name).exists()
    assert (tmp_path / name).read_text() == "whole"
    assert os.listdir(tmp_path) == [name]


def test_a_name_that_is_too_long_is_said(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match="has 256 bytes; file systems take up to 255"),
        atomic_path(tmp_path / ("x" * 256)) as partial,
    ):
        partial.write_text("whole")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.ENOSPC, MachineError, "no space left while writing a/b"),
        (errno.EDQUOT, MachineError, "no space left while writing a/b"),
        (errno.EFBIG, MachineError, "no space left while writing a/b"),
        (errno.EROFS, UserError, "a cannot be written to"),
        (errno.EMFILE, MachineError, "too many open files, at a/b"),
    ],
)
def test_errors_of_the_system_are_messages(number: int, kind: type[UserError], words: str) -> None:
    error = machine_error(number, Path("a/b"))
    assert type(error) is kind
    assert words in str(error)
    assert machine_error(errno.EINVAL, Path("a/b")) is None


def test_an_error_without_a_cause_is_a_full_disk_only_if_it_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RuntimeError, match="HDF error"), writing(tmp_path / "a.nc"):
        raise RuntimeError("NetCDF: HDF error")
    monkeypatch.setattr(files, "_lack_of_space", lambda path: errno.EDQUOT)
    with pytest.raises(MachineError, match="no space left"), writing(tmp_path / "a.nc"):
        raise RuntimeError("NetCDF: HDF error")


def test_what_a_killed_process_left_is_swept_and_what_others_write_is_not(tmp_path: Path) -> None:
    left = (
        "import os, sys; from pathlib import Path; from geoml.runs.files import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as partial:\n    partial.write_text('half')\n    os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", left, str(tmp_path / "a.txt")], env=os.environ | {"PYTHONPATH": str(ROOT)})
    (torn,) = tmp_path.iterdir()
    own = tmp_path / files._partial_name("b.txt")
    foreign = tmp_path / f".c.txt.00000000-{torn.name.split('-')[-1]}"
    for path in (own, foreign):
        path.write_text("at work")
    files._sweep.cache_clear()
    with atomic_path(tmp_path / "a.txt") as partial:
        partial.write_text("whole")
    assert set(tmp_path.iterdir()) == {tmp_path / "a.txt", own, foreign}


def test_devices_are_written_to_and_never_replaced(tmp_path: Path) -> None:
    with (
        pytest.raises(MachineError, match="no space left while writing /dev/full"),
        atomic_path("/dev/full") as partial,
    ):
        partial.write_text("whole")
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)
    with atomic_path("/dev/null") as partial:
        partial.write_text("whole")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_an_object_that_may_not_be_written_is_refused_by_its_address() -> None:
    class Remote:
        def __str__(self) -> str:
            return "s3://bucket/rain"

    with pytest.raises(UserError, match="s3://bucket/rain cannot be written to"), writing(Remote()):
        raise PermissionError(errno.EACCES, "Access Denied")
