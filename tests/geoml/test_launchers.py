"""A sweep through the launchers that spread it: over the cores of this machine, and as jobs of a batch system."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from geoml.runs.folder import RunFolder

TOY = Path(__file__).parent / "toy"


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_a_sweep_is_spread_and_comes_back_as_one_table(tmp_path: Path, launcher: str) -> None:
    command = [sys.executable, "-m", "toyapp", "fit", "-m", "model=small,large", f"hydra/launcher={launcher}"]
    environment = {**os.environ, "PYTHONPATH": str(TOY)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith(("model", "small", "large"))]
    assert rows == [["model", "region", "loss"], ["small", "north", "0.25"], ["large", "north", "0.125"]]
    runs = [RunFolder.load(path.parent) for path in tmp_path.rglob("runs/fit/*/config.yaml")]
    assert len(runs) == 2
    assert all(run.finished for run in runs)
