"""A newcomer's benchmark on real radar: a folder of fine and coarse files of events, and one file alone."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from rainshift.__main__ import main
from tests.rainshift.test_first_go import NETWORK, QUICK

REAL = Path(os.environ.get("GEOML_DATA", "")) / "precip"
FINLAND = "fmi_rate_finland_20160928"

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.slow,
    pytest.mark.skipif(not os.environ.get("GEOML_DATA") or not REAL.is_dir(), reason="GEOML_DATA has no precip/"),
]


def run(tmp_path: Path, root: Path, models: str, *words: str) -> dict:
    out = tmp_path / "run"
    settings = [f"data.root={root}", f"models={models}", f"run.dir={out}", f"cache={tmp_path / 'cache'}", *words]
    assert main(["benchmark", "data=gridded", *settings, *QUICK, "test_samples=4", "members=2"]) == 0
    assert (out / "report.html").exists()
    return json.loads((out / "summary.json").read_text())


def test_one_file_is_divided_and_trains(tmp_path):
    said = run(tmp_path, REAL / f"{FINLAND}_0p10.nc", f"[bilinear,{NETWORK}]")
    assert {row["model"] for row in said["scores"]} == {"bilinear", "tiny", "tiny+conserved"}
    notes = " ".join(said["notes"])
    assert "3.25 h of one place" in notes
    assert "4 blocks" in notes


def test_fine_and_coarse_files_of_events_are_understood(tmp_path):
    said = run(tmp_path, REAL, "[bilinear,nearest]")
    columns = set(said["scores"][0])
    assert {FINLAND, "radolan_rw_germany_20221018", "mrms_preciprate_conus_20190610"} <= columns
    notes = " ".join(said["notes"])
    assert "partner file" in notes
    assert "different time steps" in notes.lower()
