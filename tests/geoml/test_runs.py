import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest

from geoml.errors import DataError, UserError
from geoml.runs.folder import MetricsLog, RunFolder, config_hash, jsonable, plain

CONFIG = {"model": {"name": "unet", "width": 32}, "region": ["melanesia"], "run": {"dir": None}}
WIDER = CONFIG | {"model": {"name": "unet", "width": 64}}


def test_a_folder_has_everything_a_reader_looks_for(tmp_path):
    with RunFolder.open(tmp_path / "run", CONFIG) as folder:
        folder.metrics.append(samples=8, loss=0.5)
        assert not folder.finished
        folder.write_summary({"crps": np.float32(0.25), "bias": math.nan})
    names = {item.name for item in folder.path.iterdir()} - {".lock"}
    expected = "config.yaml environment.json log.txt metrics.jsonl summary.json checkpoints samples"
    assert names == set(expected.split())
    read = RunFolder.load(folder.path)
    assert read.config == CONFIG
    assert read.finished
    assert read.summary == {"crps": 0.25, "bias": None}
    assert read.metrics.rows() == [{"samples": 8, "loss": 0.5}]
    assert read.environment["packages"]["hydra-core"].startswith("1.3.")
    assert read.environment["python"] == sys.version.split()[0]
    assert read.environment["cpu"]["cores"] >= 1


def test_the_same_configuration_goes_on_and_another_is_refused(tmp_path):
    with RunFolder.open(tmp_path / "run", CONFIG) as folder:
        folder.metrics.append(samples=8)
    elsewhere = CONFIG | {"run": {"dir": "other"}}
    with RunFolder.open(tmp_path / "run", elsewhere) as again:
        assert len(again.metrics.rows()) == 1
    with pytest.raises(UserError, match=r"model\.width was 32, now 64"):
        RunFolder.open(tmp_path / "run", WIDER)
    with RunFolder.open(tmp_path / "run", WIDER, ignore=("run", "model.width")):
        pass
    with RunFolder.open(tmp_path / "run", WIDER, resume=False) as fresh:
        assert fresh.metrics.rows() == []
        assert RunFolder.load(fresh.path).config["model"]["width"] == 64


def test_a_run_that_stopped_before_it_made_anything_is_no_hindrance(tmp_path):
    with RunFolder.open(tmp_path, CONFIG) as folder:
        (folder.path / "log.txt").write_text("stopped: a setting was wrong")
    with RunFolder.open(tmp_path, WIDER) as again:
        assert RunFolder.load(again.path).config["model"]["width"] == 64


@pytest.mark.parametrize("made", ["checkpoints/8/model.safetensors", "samples/map.png", "metrics.jsonl", "maps.zarr/0"])
def test_whatever_a_run_made_keeps_its_folder(tmp_path, made):
    with RunFolder.open(tmp_path, CONFIG):
        (tmp_path / made).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / made).write_text('{"samples": 8}\n')
    with pytest.raises(UserError, match=r"model\.width was 32, now 64"):
        RunFolder.open(tmp_path, WIDER)


def test_a_finished_run_keeps_what_it_ran_on(tmp_path):
    path = tmp_path / "run"
    with RunFolder.open(path, CONFIG) as folder:
        folder.write_summary({"crps": 0.25})
    (path / "environment.json").write_text('{"python": "2.7"}')
    with RunFolder.open(path, CONFIG) as again:
        assert again.environment == {"python": "2.7"}  # looked at, not run
        again.write_summary({"crps": 0.2})
        assert again.environment["python"] == sys.version.split()[0]


def test_added_and_removed_keys_differ_too(tmp_path):
    with RunFolder.open(tmp_path, CONFIG) as folder:
        folder.metrics.append(samples=8)
    with pytest.raises(UserError, match="seed was 'absent', now 3"):
        RunFolder.open(tmp_path, CONFIG | {"seed": 3})
    with pytest.raises(UserError, match=r"region was \['melanesia'\], now 'absent'"):
        RunFolder.open(tmp_path, {key: CONFIG[key] for key in ("model",)})


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    for resume in (True, False):
        with pytest.raises(UserError, match="is not a run folder"):
            RunFolder.open(tmp_path, CONFIG, resume=resume)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    with pytest.raises(UserError, match="is a file"):
        RunFolder.open(tmp_path / "thesis.tex", CONFIG)


def test_two_processes_do_not_write_to_one_folder(tmp_path):
    code = f"from geoml.runs.folder import RunFolder; RunFolder.open({str(tmp_path)!r}, {CONFIG!r})"
    with RunFolder.open(tmp_path, CONFIG):
        busy = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert busy.returncode != 0
        assert f"being written by process {os.getpid()}" in busy.stderr
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_missing_and_broken_pieces_are_named(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        RunFolder.load(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"config\.yaml is missing"):
        RunFolder.load(tmp_path)
    with RunFolder.open(tmp_path, CONFIG) as folder, pytest.raises(DataError, match="has not finished"):
        _ = folder.summary
    (tmp_path / "summary.json").write_text('{"crps": 0.')
    with pytest.raises(DataError, match="not valid JSON"):
        _ = folder.summary
    (tmp_path / "summary.json").write_text("[]")
    with pytest.raises(DataError, match="not an object"):
        _ = folder.summary
    for broken in ("a: [1", "- 1\n- 2\n"):
        (tmp_path / "config.yaml").write_text(broken)
        with pytest.raises(DataError, match=r"config\.yaml"):
            RunFolder.load(tmp_path)


class TestMetricsLog:
    def test_rows_come_back_in_order(self, tmp_path):
        log = MetricsLog(tmp_path / "deep" / "metrics.jsonl")
        assert log.rows() == []
        log.append({"samples": 1}, loss=np.float64(2.5), rate=math.inf)
        log.append(samples=2, note="validated")
        rows = [{"samples": 1, "loss": 2.5, "rate": None}, {"samples": 2, "note": "validated"}]
        assert log.rows() == rows == MetricsLog(log.path).rows()
        assert [json.loads(line) for line in log.path.read_text().splitlines()] == rows

    def test_every_cut_of_the_last_line_leaves_the_rows_before(self, tmp_path):
        log = MetricsLog(tmp_path / "metrics.jsonl")
        log.append(samples=1)
        first = log.path.read_bytes()
        log.append(samples=2, loss=0.5)
        whole = log.path.read_bytes()
        for cut in range(len(first), len(whole)):
            log.path.write_bytes(whole[:cut])
            again = MetricsLog(log.path)
            assert again.rows() == [{"samples": 1}]
            again.append(samples=2)
            assert again.rows() == [{"samples": 1}, {"samples": 2}]

    def test_rows_past_the_resumed_point_go(self, tmp_path):
        log = MetricsLog(tmp_path / "metrics.jsonl")
        for samples in (8, 16, 24):
            log.append(samples=samples)
        log.append(event="validated")
        log.keep_until(16)
        assert log.rows() == [{"samples": 8}, {"samples": 16}, {"event": "validated"}]

    def test_a_broken_line_in_the_middle_is_not_passed_over(self, tmp_path):
        (tmp_path / "metrics.jsonl").write_text('{"samples": 1}\n{"samp\n{"samples": 3}\n')
        with pytest.raises(DataError, match="line 2"):
            MetricsLog(tmp_path / "metrics.jsonl").rows()


def test_hash_follows_meaning(tmp_path):
    from omegaconf import OmegaConf

    node = OmegaConf.create({"width": 8, "twice": ["${width}", {"deep": "${width}"}]})
    assert plain(node) == {"width": 8, "twice": [8, {"deep": 8}]}
    assert config_hash(node) == config_hash({"twice": (8, {"deep": 8}), "width": 8})
    assert config_hash(node) != config_hash({"twice": [8, {"deep": 9}], "width": 8})
    assert config_hash(CONFIG) == config_hash(CONFIG | {"run": {"name": "x"}})
    assert config_hash(CONFIG, ignore=()) != config_hash(CONFIG | {"run": {"name": "x"}}, ignore=())
    assert len(config_hash({})) == 12


def test_what_json_has_no_word_for(tmp_path):
    odd = {"path": tmp_path, "array": np.array([1.0, math.nan]), 3: {1}, "flag": np.bool_(True), "n": np.int64(4)}
    assert jsonable(odd) == {"path": str(tmp_path), "array": [1.0, None], "3": [1], "flag": True, "n": 4}
