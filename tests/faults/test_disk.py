"""A disk that is full or may not be written to: one message, and what was there before is whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent.parent
NAMESPACE = ["unshare", "--mount", "--map-root-user"]

SCRIPT = """
import sys
from pathlib import Path
sys.path[:0] = [{data!r}, {train!r}]
from geoml.errors import UserError
from geoml.runs.folder import RunFolder
place = Path(sys.argv[1])
def attempt(work):
    try:
        work()
    except UserError as error:
        print("refused:", error)
    else:
        print("done")
"""
PREPARE = "import test_store as stores; attempt(lambda: stores.make_store(place / 'a.zarr'))\n"
TRAIN = "import toy; attempt(lambda: toy.run(place / 'checkpoints', 96, keep=0))\n"
RUN = "attempt(lambda: RunFolder.open(place / 'run', {'a': 1}))\n"


def in_mount(place: Path, options: str, body: str) -> str:
    """What a script prints with a file system of its own on `place`; the test is skipped where none may be mounted."""
    place.mkdir(exist_ok=True)
    if subprocess.run([*NAMESPACE, "mount", "-t", "tmpfs", "none", str(place)], capture_output=True).returncode:
        pytest.skip("no file system may be mounted here")
    script = SCRIPT.format(data=str(HERE / "geoml/data"), train=str(HERE / "geoml/train")) + body
    shell = f'mount -t tmpfs -o {options} none "$0" && exec "$1" -c "$2" "$0"'
    command = [*NAMESPACE, "sh", "-c", shell, str(place), sys.executable, script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.fault("disk full in preparation", "one message with the store; preparation resumes when there is space")
def test_full_while_preparing(tmp_path: Path) -> None:
    shown = in_mount(tmp_path / "disk", "size=120k", PREPARE)
    assert shown.startswith("refused: no space left while writing")
    assert "a.zarr" in shown


@pytest.mark.fault("disk full in training", "one message with the checkpoint; earlier checkpoints are complete")
def test_full_while_training(tmp_path: Path) -> None:
    check = (
        "from geoml.train import checkpoint\n"
        "for path in checkpoint.found(place / 'checkpoints'): checkpoint.verify(path); print('whole')\n"
        "print(len(list((place / 'checkpoints').glob('.*'))), 'left over')\n"
    )
    shown = in_mount(tmp_path / "disk", "size=600k", TRAIN + check)
    first, *rest, last = shown.splitlines()
    assert first.startswith("refused: no space left while writing")
    assert "checkpoints/0000" in first
    assert rest
    assert set(rest) == {"whole"}
    assert last == "0 left over"


@pytest.mark.fault("read-only folder", "one message with the folder, before anything is computed")
def test_read_only(tmp_path: Path) -> None:
    shown = in_mount(tmp_path / "disk", "ro,size=1m", PREPARE + TRAIN + RUN).splitlines()
    assert len(shown) == 3
    for line in shown:
        assert line.startswith("refused:")
        assert "choose another folder" in line
        assert str(tmp_path / "disk") in line


@pytest.mark.fault(
    "installation and home that cannot be written", "one line; compiled functions go to a temporary folder"
)
def test_read_only_installation(tmp_path: Path) -> None:
    root = HERE.parent
    script = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$1" -m radiomaps scenes procedural'
    command = [*NAMESPACE, "sh", "-c", script, str(root), sys.executable]
    if subprocess.run([*NAMESPACE, "mount", "--bind", str(root), str(root)], capture_output=True).returncode:
        pytest.skip("no file system may be mounted here")
    keep = {name: value for name, value in os.environ.items() if name not in ("NUMBA_CACHE_DIR", "DRJIT_CACHE_DIR")}
    nowhere = {"HOME": "/proc/none", "XDG_CACHE_HOME": "/proc/none", "TMPDIR": str(tmp_path), "PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd="/", env=keep | nowhere, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("caches are in") == 1
    assert list(tmp_path.glob("geoml-numba-*/*"))
