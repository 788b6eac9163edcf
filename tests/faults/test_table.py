"""The table of faults is whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
#: What has to be there, by a word of its name.
WANTED = (
    "truncated chunk", "flipped bit in a chunk", "missing chunk", "missing shard", "truncated NetCDF", "disk full",
    "read-only", "kill -9 in preparation", "kill -9 in training", "Dask worker killed", "process of several killed",
    "S3 error 500", "S3 error 404", "slow S3", "two writers", "flipped latitude", "0–360", "duplicated time",
    "unsorted time", "calendar", "time zone", "wrong units", "scaled twice", "undeclared fill value", "all-NaN sample",
    "grid mismatch", "checkpoint with a flipped bit", "pickle payload", "another architecture", "hostile _target_",
    "NaN loss", "overflow of packed rain", "reading process killed",
)  # fmt: skip


def test_every_fault_that_was_asked_for_has_a_row() -> None:
    done = subprocess.run([sys.executable, "-m", "tests.faults"], cwd=ROOT, capture_output=True, text=True, check=True)
    rows = [line for line in done.stdout.splitlines() if "::" in line]
    names = [row.split("|")[1].strip() for row in rows]
    assert len(set(names)) == len(names)
    assert done.stdout.splitlines()[-1] == f"{len(names)} faults"
    assert [word for word in WANTED if not any(word in name for name in names)] == []


def test_the_page_of_faults_is_the_table() -> None:
    done = subprocess.run([sys.executable, "-m", "tests.faults"], cwd=ROOT, capture_output=True, text=True, check=True)
    page = (ROOT / "docs" / "faults.md").read_text()
    assert page.endswith(done.stdout), "type: python -m tests.faults --page"
