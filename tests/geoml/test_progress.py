"""Progress is seen where nobody looks at a terminal, and threads leave busy cores alone."""

import os
import re
import time

import pytest

from geoml.cli import progress
from geoml.runs import threads


@pytest.fixture
def quick(monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY_S", 0.05)
    return lambda: capsys.readouterr().err


def test_a_log_gets_a_line_with_the_time_left(quick):
    for _ in progress.track(range(4), "sampling", unit="maps"):
        time.sleep(0.08)
    lines = quick().splitlines()
    assert len(lines) >= 3
    assert re.fullmatch(r"sampling \d/4 maps, \d s so far, \d s left", lines[-1])


def test_a_long_unit_is_reported_while_it_runs(quick):
    with progress.progress_bar("tracing", 1, unit="maps") as bar:
        time.sleep(0.2)
        bar.advance()
    assert quick().splitlines()[0] == "tracing 0/1 maps, 0 s so far"


def test_bars_within_bars_share_a_line(quick):
    for _ in progress.track(range(2), "cells", unit="cells"):
        for _ in progress.track(range(3), "training", unit="samples"):
            time.sleep(0.05)
    lines = quick().splitlines()
    assert any("; training" in line for line in lines)
    assert all(line.startswith("cells ") for line in lines)
    assert not progress._running


def test_what_is_quick_says_nothing(quick):
    assert list(progress.track(range(3), "reading")) == [0, 1, 2]
    assert quick() == ""


def _stat(path, idle, busy):
    path.write_text(f"cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\ncpu0 1\n")


@pytest.mark.parametrize(
    ("idle", "busy", "cores"), [(400, 0, 4), (200, 200, 2), (100, 300, 1), (0, 400, 1), (310, 90, 3)]
)
def test_busy_cores_are_left_alone(idle, busy, cores, tmp_path, monkeypatch):
    monkeypatch.setattr(threads, "usable_cores", lambda: 4)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    stat = tmp_path / "stat"
    _stat(stat, 1000, 1000)
    monkeypatch.setattr(time, "sleep", lambda _: _stat(stat, 1000 + idle, 1000 + busy))
    assert threads.free_cores(stat=stat) == cores


def test_a_system_that_says_nothing_has_all_its_cores(tmp_path, monkeypatch):
    monkeypatch.setattr(threads, "usable_cores", lambda: 4)
    assert threads.free_cores(0.0, stat=tmp_path / "none") == 4


def test_a_number_that_is_set_holds(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads.limit_threads() is None
    for name in threads.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(threads, "free_cores", lambda: 2)
    assert threads.limit_threads()[0] == 2
    assert {os.environ[name] for name in threads.VARIABLES} == {"2"}
