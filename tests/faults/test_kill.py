"""kill -9, again and again: what goes on from there comes to the same bytes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent.parent / "geoml/data"))
sys.path.insert(0, str(Path(__file__).parent.parent / "geoml/train"))
import test_loader as loaders
import test_store as stores
import together
import toy
from test_loop import digest

from geoml.data.loader import BlockLoader
from geoml.data.store import verify_store
from geoml.errors import UserError
from geoml.train import checkpoint

HERE = Path(__file__).parent.parent
PREPARE = """
import sys, time
sys.path.insert(0, {data!r})
import test_store as stores
from pathlib import Path
path, groups = Path(sys.argv[1]), stores.make_groups(104)
with stores.begin(path, groups, slab=2) as writer:
    for start in writer.missing():
        stores.write_slabs(writer, groups, [start])
        time.sleep(0.05)
    writer.finish()
"""
TIMES = [3, pytest.param(20, marks=pytest.mark.slow)]


def kill_when(command: list[str], enough: Callable[[], bool], delay_s: float) -> bool:
    """Kill the process some time after it has come far enough; whether it was still at work."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 120
        while process.poll() is None and not enough():
            assert time.monotonic() < deadline, "it never came far enough to be killed"
            time.sleep(0.002)
        time.sleep(delay_s)
    finally:
        process.kill()
        process.wait()
    return process.returncode == -signal.SIGKILL


def noted(path: Path) -> int:
    return len(list(path.glob("journal/*.json")))


@pytest.mark.fault("kill -9 in preparation", "what was noted is kept; the hashes are those of an undisturbed one")
@pytest.mark.parametrize("times", TIMES)
def test_preparation(tmp_path: Path, times: int) -> None:
    path, rng = tmp_path / "a.zarr", np.random.default_rng(times)
    command = [sys.executable, "-c", PREPARE.format(data=str(HERE / "geoml/data")), str(path)]
    for _ in range(times):
        before = noted(path)
        assert kill_when(command, lambda before=before: noted(path) > before, rng.uniform(0, 0.02))
        assert not (path / "manifest.json").exists()
    subprocess.run(command, check=True)
    verify_store(path)
    groups = stores.make_groups(104)
    with stores.begin(tmp_path / "b.zarr", groups, slab=2) as writer:
        stores.write_slabs(writer, groups, writer.missing())
        writer.finish()
    assert stores.read_manifest(path) == stores.read_manifest(tmp_path / "b.zarr")


@pytest.mark.fault(
    "kill -9 in training", "resumes from the newest complete checkpoint, to the hash of an uninterrupted training"
)
@pytest.mark.parametrize("times", TIMES)
def test_training(tmp_path: Path, times: int) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder, rng = tmp_path / "killed", np.random.default_rng(times)
    samples = 8 * (6 * times + 6)
    command = [sys.executable, str(HERE / "geoml/train/toy.py"), str(folder), str(samples), "0.05"]
    for _ in range(times):
        seen = {path.name for path in checkpoint.found(folder)}
        assert kill_when(
            command, lambda seen=seen: {p.name for p in folder.glob("[0-9]*")} - seen != set(), rng.uniform(0, 0.05)
        )
    assert not (folder / checkpoint.name_of(samples)).exists()
    resumed, whole = toy.run(folder, samples), toy.run(tmp_path / "whole", samples)
    torch.set_num_threads(threads)
    assert digest(resumed.checkpoint) == digest(whole.checkpoint)


@pytest.mark.fault("process of several killed", "the others end too; two processes or one resume to the same weights")
def test_one_of_two_processes(tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = [*launcher, together.__file__, str(tmp_path / "two"), "240"]
    process = subprocess.Popen([*script, "32", "0.1"], stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 120
        while not list((tmp_path / "two").glob("[0-9]*")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        children = psutil.Process(process.pid).children()
        ranks = [child for child in children if together.__file__ in child.cmdline()]
        os.kill(ranks[-1].pid, signal.SIGKILL)
        _, shown = process.communicate(timeout=90)
    finally:
        process.kill()
    assert process.returncode != 0
    assert "Signal 9" in shown
    assert not (tmp_path / "two" / checkpoint.name_of(240)).exists()
    shutil.copytree(tmp_path / "two", tmp_path / "alone")
    subprocess.run([*script, "32"], check=True, capture_output=True, timeout=240)
    together.run(tmp_path / "alone", 240)  # what is left of the machine goes on by itself
    together.run(tmp_path / "one", 240)
    two, alone, one = (
        load_file(checkpoint.latest(tmp_path / name) / "model.safetensors") for name in ("two", "alone", "one")
    )
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-6)
        torch.testing.assert_close(alone[name], one[name], rtol=0, atol=1e-6)


@pytest.mark.fault("reading process killed", "one message; other processes continue the epoch")
def test_a_reading_process() -> None:
    loader, seen = BlockLoader([loaders.make_source(40)], batch_size=2, workers=2), []

    def read(kill: bool) -> None:
        for batch in loader:
            if kill and not seen:
                os.kill(loader._processes._iterator._workers[0].pid, signal.SIGKILL)
            seen.extend(batch.ids)

    with pytest.raises(UserError, match="a reading process ended unexpectedly"):
        read(kill=True)
    read(kill=False)
    assert sorted(seen) == [*range(40)]
