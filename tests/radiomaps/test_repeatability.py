"""Ray-traced sets are the same to 0.01 dB whoever makes them and whoever is killed meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from geoml.errors import DataError
from radiomaps.generation.generate import generate
from radiomaps.generation.plan import Placement, Plan, Window
from radiomaps.maps.store import open_maps

PLAN = Plan(
    ({"name": "procedural", "seed": 30, "count": 3},),
    Placement(count=2, height_m=10.0),
    Window(size_m=96, step_m=4, heights_m=(1.5, 9.5, 4), centre_m=(128, 128)),
    "sionna",
    {"rays": 200_000, "depth": 2, "estimator": "axis"},
)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory):
    return open_maps(generate(PLAN, tmp_path_factory.mktemp("alone") / "maps.zarr")).load()


def assert_same(path: Path, alone) -> None:
    maps = open_maps(path).load()
    for name in ("los", "no_path", "building"):
        assert (maps[name].values == alone[name].values).all(), name
    apart = np.abs(maps["path_gain_db"].values - alone["path_gain_db"].values)
    assert np.nanmax(apart) <= 0.0101
    assert np.nanmax(np.abs(maps["toa_s"].values - alone["toa_s"].values)) < 1e-10


def when_begun(path: Path, act) -> threading.Thread:
    """Call `act` once the store holds its first finished slab."""

    def watch() -> None:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            if next((path / "journal").glob("[0-9]*.json"), None):
                act()
                return
            time.sleep(0.01)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True])
def test_two_workers_make_what_one_process_makes(alone, tmp_path: Path, killed: bool):
    from distributed import Client, LocalCluster

    path, kills = tmp_path / "two.zarr", []
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        victim = next(iter(client.run(os.getpid).values()))

        def kill() -> None:
            os.kill(victim, signal.SIGKILL)
            kills.append(victim)

        thread = when_begun(path, kill) if killed else None
        generate(PLAN, path)
        if thread is not None:
            thread.join()
    assert bool(kills) == killed
    assert_same(path, alone)


@pytest.mark.slow
def test_a_killed_command_goes_on(alone, tmp_path: Path):
    path = tmp_path / "killed.zarr"
    program = (
        "import time\n"
        "from radiomaps.generation import generate as module\n"
        "from tests.radiomaps.test_repeatability import PLAN\n"
        "compute = module.compute\n"
        "def slowly(*arguments):\n    time.sleep(1)\n    return compute(*arguments)\n"
        f"module.compute = slowly\nmodule.generate(PLAN, {str(path)!r})\n"
    )
    root = Path(__file__).parents[2]
    child = subprocess.Popen([sys.executable, "-c", program], cwd=root, env={**os.environ, "PYTHONPATH": str(root)})
    when_begun(path, lambda: os.kill(child.pid, signal.SIGKILL)).join()
    assert child.wait() == -signal.SIGKILL
    with pytest.raises(DataError, match="not complete"):
        open_maps(path)
    assert list((path / "journal").glob("[0-9]*.json"))
    generate(PLAN, path)
    assert_same(path, alone)
