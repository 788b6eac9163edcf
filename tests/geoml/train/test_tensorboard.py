"""Curves: the rows of the log, those of a killed continuation hidden."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from geoml.errors import UserError
from geoml.runs.folder import MetricsLog, RunFolder
from geoml.train.tensorboard import TensorBoardLog, log_of


def test_points_are_rows(tmp_path: Path) -> None:
    log = TensorBoardLog(MetricsLog(tmp_path / "metrics.jsonl"), tmp_path / "curves")
    for samples in (8, 16, 24):
        log.append({"samples": samples, "loss": samples / 8, "note": "no number"})
    log.keep_until(16)
    log.append({"samples": 24, "loss": 7.0})
    rows = MetricsLog(tmp_path / "metrics.jsonl").rows()
    assert [row["samples"] for row in rows] == [8, 16, 24]
    read = EventAccumulator(str(tmp_path / "curves")).Reload()
    assert read.Tags()["scalars"] == ["loss"]
    assert [(event.step, event.value) for event in read.Scalars("loss")] == [(8, 1.0), (16, 2.0), (24, 7.0)]


def test_without_tensorboard_the_way_out_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match=r"geoml\[launch\]"):
        TensorBoardLog(MetricsLog(tmp_path / "metrics.jsonl"), tmp_path / "curves")


def test_of_several_processes_the_first_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunFolder.open(tmp_path / "run", {}) as run:
        assert isinstance(log_of(run, tensorboard=False), MetricsLog)
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("MASTER_ADDR", "localhost")
        for rank, kind in (("0", TensorBoardLog), ("1", MetricsLog)):
            monkeypatch.setenv("RANK", rank)
            assert isinstance(log_of(run, tensorboard=True), kind)
