"""Preparing and benchmarking with the workers of a Dask cluster: the same as without."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from pathlib import Path

import distributed
import pytest
import xarray as xr

from geoml.cli.verbs import dask_workers
from geoml.data.store import StoreWriter, verify_store
from geoml.errors import UserError
from geoml.runs.files import read_json
from rainshift.__main__ import main
from rainshift.data.archive import Archive

DATA = {
    "source": "synthetic",
    "size_deg": 4,
    "splits_at": {"train": {"start": "2001-01-01", "end": "2003-01-01", "hours": 144}},
    "condition": ["tp"],
    "static": ["z"],
}


@pytest.fixture
def small_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    create = StoreWriter.create
    monkeypatch.setattr(StoreWriter, "create", lambda *args, **options: create(*args, **options, slab=24))


def prepared(folder: Path) -> dict:
    """The manifest of a store prepared in a folder of this name, anew."""
    shutil.rmtree(folder, ignore_errors=True)
    path = Archive(DATA, folder).prepare("melanesia", "train")
    verify_store(path)
    return read_json(path / "manifest.json")


def _kill_one(client: distributed.Client, folder: Path, killed: list[int]) -> None:
    """End a worker without warning as soon as the first slab is noted."""
    pids = list(client.run(os.getpid).values())
    while not list(folder.glob("*/melanesia-train.zarr/journal/*.json")):
        time.sleep(0.002)
    os.kill(pids[0], signal.SIGKILL)
    killed.append(pids[0])


@pytest.mark.usefixtures("small_slabs")
@pytest.mark.fault("Dask worker killed", "the same hashes as with one worker, two, or none")
def test_one_worker_two_and_one_killed_give_the_same_hashes(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    expected = prepared(folder)
    with dask_workers(1):
        assert prepared(folder) == expected
    with dask_workers(2):
        assert prepared(folder) == expected
        shutil.rmtree(folder)
        killed: list[int] = []
        killer = threading.Thread(target=_kill_one, args=(distributed.get_client(), folder, killed), daemon=True)
        killer.start()
        path = Archive(DATA, folder).prepare("melanesia", "train")
        killer.join(10)
        assert killed
        assert read_json(path / "manifest.json") == expected
        verify_store(path)


def test_what_is_no_cluster_is_refused() -> None:
    with pytest.raises(UserError, match="expected local, a number of workers, or an address"), dask_workers("many"):
        pass


def benchmark(test_hours: int) -> list[str]:
    """The settings of a benchmark of one small network on two regions of three degrees."""
    spans = {"train": (2001, 2003, 48), "validation": (2003, 2004, 24), "test": (2004, 2006, test_hours)}
    splits = ",".join(
        f"{name}:{{start:'{first}-01-01',end:'{last}-01-01',hours:{hours}}}"
        for name, (first, last, hours) in spans.items()
    )
    return [
        "data.size_deg=3",
        f"data.splits_at={{{splits}}}",
        "data.condition=[tp,tcw,u,v]",
        "shared_edges=warn",
        "train_regions=[melanesia,west-africa]",
        "models=[bilinear,{model:resnet,width:4,coarse_blocks:1,fine_blocks:1,name:tiny}]",
        "trainer.samples=48",
        "trainer.validate_every=0",
        "loader.patch=20",
        "analysis.replicates=100",
        "run.dir=bench",
    ]


@pytest.mark.slow
def test_a_benchmark_spread_over_workers_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = benchmark(test_hours=528)
    scores = {}
    for name, more in (("here", []), ("spread", ["dask=2"])):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        assert main(["benchmark", *words, *more]) == 0
        scores[name] = xr.open_dataset("bench/benchmark.nc")["score"].load()
    xr.testing.assert_allclose(scores["here"], scores["spread"], rtol=1e-6)
