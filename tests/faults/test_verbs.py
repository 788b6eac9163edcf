"""Twelve verbs on a machine that lacks something, or that stops them: one message, and nothing torn."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import xarray as xr

ROOT = Path(__file__).parent.parent.parent
NAMESPACE = ["unshare", "--mount", "--map-root-user"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
RAIN = [
    "data.size_deg=3",
    "region=melanesia",
    "data.splits_at={train:{start:'2001-01-01',end:'2003-01-01',hours:24},"
    "validation:{start:'2003-01-01',end:'2004-01-01',hours:24},test:{start:'2004-01-01',end:'2006-01-01',hours:48}}",
]
TRAINER = ["trainer.checkpoint_every=16", "trainer.validate_every=16", "loader.patch=20", "loader.batch_size=8"]
NETWORK = ["model=resnet", "model.width=4", "model.coarse_blocks=1", "model.fine_blocks=1", "trainer.samples=48"]
TINY = "models=[bilinear,{model:resnet,width:4,coarse_blocks:1,fine_blocks:1,name:tiny}]"
BENCHMARK = ["test_regions=[melanesia]", "train_regions=[melanesia,europe_west]", TINY, "trainer.samples=32"]
CITY = ["scene=procedural", "scene.size_m=64", "solver=dominant", "window.size_m=64", "window.step_m=8", "pictures=0"]
UNET = [
    "store=maps/maps.zarr",
    "model=unet3d",
    "model.network.base=4",
    "model.network.multipliers=[1,2]",
    "task.targets=[path_gain_db]",
    "split.by=file",
    "trainer.samples=48",
    "trainer.checkpoint_every=16",
    "trainer.validate_every=16",
    "loader.batch_size=2",
    "pictures=0",
]


@dataclass(frozen=True)
class Command:
    """A verb with its settings. `{disk}` in them is the folder that it writes to, `made` what it makes there."""

    words: Sequence[str]
    made: str

    def line(self, disk: Path | str) -> list[str]:
        """The command, for output under `disk`."""
        package, *rest = (word.replace("{disk}", str(disk)) for word in self.words)
        return [sys.executable, "-m", package, *rest]


COMMANDS = {
    "rainshift prepare": Command(
        ["rainshift", "prepare", *RAIN, "cache={disk}/cache", "run.dir={disk}/run"], "cache/data/*/*.zarr"
    ),
    "rainshift train": Command(
        ["rainshift", "train", *RAIN, *NETWORK, *TRAINER, "run.dir={disk}/run"], "run/checkpoints/0*/ema.safetensors"
    ),
    "rainshift predict": Command(
        ["rainshift", "predict", *RAIN, "checkpoint=trained", "samples=4", "run.dir={disk}/run"], "run/samples/*.nc"
    ),
    "rainshift evaluate": Command(
        ["rainshift", "evaluate", *RAIN, "checkpoint=trained", "samples=4", "run.dir={disk}/run"], "run/scores-*.nc"
    ),
    "rainshift benchmark": Command(
        ["rainshift", "benchmark", *RAIN[:1], RAIN[2], *BENCHMARK, *TRAINER, "run.dir={disk}/run"], "run/benchmark.nc"
    ),
    "rainshift report": Command(["rainshift", "report", "scored", "--output", "{disk}/page.html"], "page.html"),
    "radiomaps trace": Command(
        ["radiomaps", "trace", *CITY, "transmitters.count=10", "run.dir={disk}/run"], "run/maps.zarr"
    ),
    "radiomaps train": Command(
        ["radiomaps", "train", *UNET, "run.dir={disk}/run"], "run/checkpoints/0*/ema.safetensors"
    ),
    "radiomaps predict": Command(
        ["radiomaps", "predict", "checkpoint=radio", "store=maps/maps.zarr", "run.dir={disk}/run"], "run/samples/*.nc"
    ),
    "radiomaps export": Command(
        ["radiomaps", "export", "store=maps/maps.zarr", "format=netcdf", "target={disk}/maps.nc"], "maps.nc"
    ),
    "mcp-experts export": Command(["mcp_experts", "export", "los", "--file", "{disk}/los.onnx"], "los.onnx"),
    "geoml report": Command(["geoml", "report", "scored", "maps", "--output", "{disk}/page.html"], "page.html"),
}
every_verb = pytest.mark.parametrize("name", COMMANDS)
pytestmark = pytest.mark.slow


def run(command: Sequence[str], place: Path, before: Callable[[], None] | None = None) -> subprocess.CompletedProcess:
    """Run a command in `place`."""
    return subprocess.run(
        command, cwd=place, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, preexec_fn=before
    )


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the verbs read: prepared rain, maps, and a training of each."""
    folder = tmp_path_factory.mktemp("verbs")
    for words in (
        ["rainshift", "prepare", *RAIN, "regions=[melanesia,europe_west]", "run.dir=prepared"],
        ["rainshift", "train", *RAIN, *NETWORK, *TRAINER, "run.dir=trained"],
        ["rainshift", "evaluate", *RAIN, "checkpoint=trained", "samples=4", "run.dir=scored"],
        ["radiomaps", "trace", *CITY, "transmitters.count=10", "run.dir=maps"],
        ["radiomaps", "train", *UNET, "run.dir=radio"],
    ):
        done = run([sys.executable, "-m", *words], folder)
        assert done.returncode == 0, done.stderr
    return folder


def content(made: Path) -> object:
    """What a file or a store holds, without times and paths."""
    if made.suffix in (".nc", ".zarr"):
        groups = xr.open_datatree(made, engine="zarr" if made.suffix == ".zarr" else "netcdf4")
        return {node.path: node.to_dataset().load().drop_attrs() for node in groups.subtree}
    if made.suffix == ".html":  # its figures are drawn anew, with names of their own
        assert made.read_text(encoding="utf-8").rstrip().endswith("</html>")
        return None
    return made.read_bytes()


def contents(command: Command, disk: Path) -> dict[str, object]:
    """All that a command made, by its place under `disk`."""
    found = {str(path.relative_to(disk)): content(path) for path in sorted(disk.glob(command.made))}
    assert found, f"nothing at {command.made}"
    return found


def is_one_message(done: subprocess.CompletedProcess, code: int) -> str:
    """The message of a command that was refused."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    (message,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return message


def in_file_system(place: Path, disk: Path, options: str, command: Sequence[str]) -> subprocess.CompletedProcess:
    """Run a command with a file system of its own at `disk`; the test is skipped where none may be mounted."""
    disk.mkdir()
    if subprocess.run([*NAMESPACE, "mount", "-t", "tmpfs", "none", str(disk)], capture_output=True).returncode:
        pytest.skip("no file system may be mounted here")
    shell = f'mount -t tmpfs -o {options} none "$0" && exec "$@"'
    return run([*NAMESPACE, "sh", "-c", shell, str(disk), *command], place)


@pytest.mark.fault("12 verbs with a full disk", "one message with the file, exit code 1")
@every_verb
def test_a_full_disk(place: Path, tmp_path: Path, name: str) -> None:
    disk = tmp_path / "disk"
    message = is_one_message(in_file_system(place, disk, "size=24k", COMMANDS[name].line(disk)), 1)
    assert "no space left" in message
    assert str(disk) in message


@pytest.mark.fault("12 verbs with a limit on the size of files", "one message with the file, exit code 1; none is torn")
@every_verb
def test_a_limit_of_size(place: Path, tmp_path: Path, name: str) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    message = is_one_message(run(COMMANDS[name].line(tmp_path), place, limit), 1)
    assert "no space left" in message
    torn = [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size == 2000]
    assert [path.name for path in torn if path.name != "log.txt"] == []


@pytest.mark.fault("12 verbs in a read-only folder", "one message with the folder")
@every_verb
def test_a_read_only_folder(place: Path, tmp_path: Path, name: str) -> None:
    disk = tmp_path / "disk"
    message = is_one_message(in_file_system(place, disk, "ro", COMMANDS[name].line(disk)), 2)
    assert f"{disk}" in message
    assert "choose another folder" in message


@pytest.mark.fault("12 verbs with 64 open files", "they work")
@every_verb
def test_few_descriptors(place: Path, tmp_path: Path, name: str) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    done = run(COMMANDS[name].line(tmp_path), place, limit)
    assert done.returncode == 0, done.stderr
    contents(COMMANDS[name], tmp_path)


@pytest.mark.fault("12 verbs with little address space", "they work within 1.5 of the largest that they had")
@every_verb
def test_little_address_space(place: Path, tmp_path: Path, name: str) -> None:
    for folder in ("free", "bounded"):
        (tmp_path / folder).mkdir()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(COMMANDS[name].line(tmp_path / "free"), cwd=place, env=ENVIRONMENT, **quiet)
    largest = 0
    while process.poll() is None:
        try:
            largest = max(largest, psutil.Process(process.pid).memory_info().vms)
        except psutil.NoSuchProcess:
            break
        time.sleep(0.005)
    assert process.wait() == 0
    limit = largest * 3 // 2
    done = run(
        COMMANDS[name].line(tmp_path / "bounded"),
        place,
        lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert done.returncode == 0, done.stderr
    contents(COMMANDS[name], tmp_path / "bounded")


def stopped(command: Sequence[str], place: Path, number: signal.Signals, after_s: float) -> tuple[int, str]:
    """Exit code and standard error of a command that gets a signal after a while."""
    process = subprocess.Popen(
        command, cwd=place, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        _, errors = process.communicate(timeout=after_s)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
    return process.returncode, errors


def assert_goes_on(place: Path, tmp_path: Path, name: str, number: signal.Signals) -> None:
    """Stop a command at three random moments, and compare what it makes in the end with an undisturbed one."""
    command = COMMANDS[name]
    for folder in ("whole", "cut"):
        (tmp_path / folder).mkdir()
    start = time.monotonic()
    assert run(command.line(tmp_path / "whole"), place).returncode == 0
    took = time.monotonic() - start
    moments = random.Random(name)
    for _ in range(3):
        code, errors = stopped(command.line(tmp_path / "cut"), place, number, moments.uniform(0.3, 1.0) * took)
        if number == signal.SIGTERM:
            assert "Traceback" not in errors
            assert code in (0, 128 + number, -number), errors
    done = run(command.line(tmp_path / "cut"), place)
    assert done.returncode == 0, done.stderr
    made, wanted = contents(command, tmp_path / "cut"), contents(command, tmp_path / "whole")
    assert set(made) == set(wanted)
    for path, value in wanted.items():
        if isinstance(value, dict):
            for group, dataset in value.items():
                xr.testing.assert_identical(made[path][group], dataset)
        else:
            assert made[path] == value, path
    left = list((tmp_path / "cut").rglob(".*.tmp"))
    assert left == []


@pytest.mark.fault("12 verbs stopped by SIGTERM", "the same command goes on to what an undisturbed one makes")
@every_verb
def test_sigterm(place: Path, tmp_path: Path, name: str) -> None:
    assert_goes_on(place, tmp_path, name, signal.SIGTERM)


@pytest.mark.fault("12 verbs stopped by kill -9", "the same command goes on to what an undisturbed one makes")
@every_verb
def test_kill_9(place: Path, tmp_path: Path, name: str) -> None:
    assert_goes_on(place, tmp_path, name, signal.SIGKILL)
