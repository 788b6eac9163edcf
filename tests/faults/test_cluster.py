"""A scheduler, workers and an S3 server of their own processes: what they make, and what becomes of odd workers."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from distributed import Client

import geoml
from geoml.errors import UserError
from geoml.runs.workers import installed, spread
from radiomaps.__main__ import main as radiomaps
from radiomaps.maps.store import open_maps
from rainshift.__main__ import main as rainshift
from tests.geoml.data.object_store import s3_server
from tests.rainshift.test_workers import benchmark

ROOT = Path(__file__).parents[2]
TRACE = ["trace", "scene=procedural", "scene.count=4", "solver=dominant", "window.size_m=64"]


class Cluster:
    """A scheduler of its own process; workers join and leave as they would on other machines."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self.stack = folder, stack
        file = folder / "scheduler.json"
        self._start("scheduler", "--port", "0", "--scheduler-file", str(file), "--no-dashboard")
        _wait_for(file.exists)
        # Not the default: only what names the scheduler uses its workers.
        self.client = stack.enter_context(Client(scheduler_file=str(file), timeout="30s", set_as_default=False))
        self.address = self.client.scheduler.address

    def add(self, packages: Path = ROOT) -> subprocess.Popen[bytes]:
        """One more worker, which imports what lies in this folder."""
        before = len(self.client.nthreads())
        worker = self._start("worker", self.address, "--nthreads", "1", "--no-nanny", "--no-dashboard", path=packages)
        _wait_for(lambda: len(self.client.nthreads()) > before)
        return worker

    def _start(self, *words: str, path: Path = ROOT) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(path), "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "dask", *words, "--local-directory" if words[0] == "worker" else "--host"]
        command.append(str(self.folder) if words[0] == "worker" else "127.0.0.1")
        process = subprocess.Popen(command, cwd=self.folder, env=environment, stderr=subprocess.DEVNULL)
        self.stack.callback(process.wait)
        self.stack.callback(process.kill)
        return process


def _wait_for(what: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    (tmp_path / "cluster").mkdir()
    with ExitStack() as stack:
        yield Cluster(tmp_path / "cluster", stack)


def _kill_when_training(worker: subprocess.Popen[bytes], folder: Path) -> None:
    """The first training that is begun is not the last thing that is done."""
    _wait_for(lambda: any(folder.rglob("trainings/*")), 240)
    worker.send_signal(signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.fault("worker of a cluster killed in a benchmark whose data are in S3", "the scores of one process")
def test_data_in_s3_cells_on_workers_and_one_of_them_killed(tmp_path, monkeypatch):
    scores = {}
    (tmp_path / "cluster").mkdir()
    with s3_server() as server, ExitStack() as stack:
        cluster = Cluster(tmp_path / "cluster", stack)
        workers = [cluster.add(), cluster.add()]
        for name, more in (("here", []), ("there", ["archive=s3://rain-store/rain", f"dask={cluster.address}"])):
            (tmp_path / name).mkdir()
            monkeypatch.chdir(tmp_path / name)
            if more:
                killer = threading.Thread(target=_kill_when_training, args=(workers[0], tmp_path / "there"))
                killer.start()
            assert rainshift(["benchmark", *benchmark(test_hours=72), *more]) == 0
            scores[name] = xr.open_dataset("bench/benchmark.nc")["score"].load()
        killer.join()
        assert workers[0].wait(10) == -signal.SIGKILL
        assert any(method == "PUT" and "rain" in path for method, path in server.requests)
    xr.testing.assert_allclose(scores["here"], scores["there"], rtol=1e-6)


@pytest.mark.slow
def test_radio_maps_of_workers_of_a_scheduler(cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cluster.add()
    cluster.add()
    assert radiomaps([*TRACE, "run.dir=here"]) == 0
    assert radiomaps([*TRACE, "run.dir=there", f"dask={cluster.address}"]) == 0
    here, there = (open_maps(tmp_path / name / "maps.zarr").load() for name in ("here", "there"))
    np.testing.assert_array_equal(here["path_gain_db"], there["path_gain_db"])


def _other(folder: Path, first_line: str) -> Path:
    """A copy of the core whose first line of code is another."""
    shutil.copytree(ROOT / "geoml", folder / "geoml", ignore=shutil.ignore_patterns("__pycache__"))
    file = folder / "geoml" / "__init__.py"
    file.write_text(file.read_text().replace(f'__version__ = "{geoml.__version__}"', first_line))
    return folder


@pytest.mark.fault(
    "Dask worker of another version, or without the package", "refused with its address and both versions"
)
def test_workers_of_another_version_are_refused_by_name(cluster, tmp_path):
    cluster.add()
    jobs = [(value,) for value in range(3)]
    done = {job: result() for job, result in spread(divmod, [(7, 2)], client=cluster.client)}
    assert done == {(7, 2): (3, 1)}
    for first_line, told in (('__version__ = "0.0.9"', "runs geoml 0.0.9 "), ('raise ImportError("gone")', "gone")):
        worker = cluster.add(_other(tmp_path / told.split()[-1], first_line))
        with pytest.raises(UserError, match=rf"Dask worker tcp://[\d.:]+ .*{told}") as refused:
            next(spread(divmod, jobs, client=cluster.client))
        assert installed() in str(refused.value)
        worker.kill()
        _wait_for(lambda: len(cluster.client.nthreads()) == 1)


@pytest.mark.fault("Dask worker that cannot see the working folder", "refused with its address and the folder")
def test_workers_without_the_folder_are_refused(cluster, tmp_path, monkeypatch):
    cluster.add()
    (tmp_path / "shared").mkdir()
    monkeypatch.chdir(tmp_path / "shared")
    ((_, result),) = spread(os.getcwd, [()], client=cluster.client)
    assert result() == str(tmp_path / "shared")
    (tmp_path / "shared").rmdir()
    monkeypatch.setattr(os, "getcwd", lambda: str(tmp_path / "shared"))
    ((_, result),) = spread(os.getpid, [()], client=cluster.client)
    with pytest.raises(UserError, match=r"worker tcp://.* cannot enter .*shared \(No such file"):
        result()
