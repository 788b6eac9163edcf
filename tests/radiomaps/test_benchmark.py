"""Benchmarks end to end on small stores: every table, resumed cells, probes, the verbs."""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from geoml.cli import app
from geoml.cli.compose import compose
from geoml.errors import UserError
from geoml.runs.folder import plain
from radiomaps.__main__ import APP
from radiomaps.baselines import baseline
from radiomaps.benchmarking.ablations import probed
from radiomaps.benchmarking.entries import Contender, task_of
from radiomaps.benchmarking.run import PLAIN, Benchmark, Cell
from radiomaps.benchmarking.tables import (
    gap_rows,
    prior_rows,
    probe_rows,
    score_rows,
    sight_rows,
    uncertainty_rows,
)
from radiomaps.generation.generate import generate
from radiomaps.generation.plan import Placement, Plan, Window
from radiomaps.report.html import report as browser_report
from radiomaps.scores import score
from radiomaps.tasks import Observations, Task

TINY = {"base": 4, "multipliers": [1, 2]}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five scenes of two transmitters on 16 × 16 × 2 voxels."""
    scenes = ({"name": "procedural", "seed": 3, "count": 5, "size_m": 96},)
    window = Window(size_m=64, step_m=4, heights_m=(1.5, 4.5, 3))
    return generate(Plan(scenes, Placement(count=2), window), tmp_path_factory.mktemp("benchmark") / "maps.zarr")


def settings(store: Path, cache: Path, **changes: Any) -> dict[str, Any]:
    config = plain(compose("radiomaps.conf", "benchmark", [f"store={store}", "trainer.samples=16"]))
    config["trainer"] |= {"validate_every": 0, "checkpoint_every": 0, "device": "cpu"}
    config["loader"] |= {"batch_size": 4, "validation_samples": 0}
    parts = {"train": 0.6, "test": 0.4}
    return config | {
        "tasks": [
            {"task": "aware", "targets": ["path_gain_db", "doa_azimuth"]},
            {"task": "unaware", "observations": {"rate": 0.05}},
        ],
        "models": ["free_space", "log_distance", "idw", {"model": "unet3d", **TINY}, {"model": "radiodiff3d", **TINY}],
        "splits": [{"by": "scene", "parts": parts}, {"by": "file", "parts": parts}],
        "members": 2, "cache": str(cache), **changes,
    }  # fmt: skip


def test_a_benchmark_has_every_table_and_is_found_again(store: Path, tmp_path: Path):
    config = settings(store, tmp_path)
    made = Benchmark(config)
    assert {(cell.task, cell.row) for cell in made.cells} == {
        *(("aware", row) for row in ("free_space", "log_distance", "unet3d", "radiodiff3d")),
        *(("unaware", row) for row in ("idw", "unet3d", "radiodiff3d")),
    }
    outcome = made.run()
    assert not outcome.failures
    rows = score_rows(made, outcome)
    assert len(rows) == 7
    assert all(np.isfinite(value) for row in rows for value in row.values() if isinstance(value, float))
    assert {row["inputs"] for row in probe_rows(made, outcome)} == {"shuffled", "without_buildings"}
    assert [row["model"] for row in prior_rows(made, outcome)] == ["unet3d", "radiodiff3d"] * 2
    assert len(gap_rows(made, outcome)) == 4 * 2 + 3
    assert {row["model"] for row in uncertainty_rows(made, outcome)} == {"radiodiff3d"}
    assert len(made.leaks("scene")) == 0 < len(made.leaks("file"))

    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    started = time.monotonic()
    again = Benchmark(config).run()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == files
    assert time.monotonic() - started < 60
    for key, scores in outcome.scores.items():
        assert again.scores[key].values("path_gain_db") == scores.values("path_gain_db")

    cell = next(cell for cell in made.cells if (cell.row, cell.task) == ("unet3d", "aware"))
    made.file(cell, PLAIN).unlink()  # one cell scored anew comes to the same
    assert made.scored(cell).values("doa_azimuth") == outcome.scores[cell, PLAIN].values("doa_azimuth")


def test_every_table_is_of_all_seeds():
    def scored(value: float) -> Any:
        return SimpleNamespace(values=lambda *_: defaultdict(lambda: value), groups=lambda _: ("los",), members=8)

    cells = [Cell("aware", "edm", "scene", seed) for seed in (0, 1)]
    made: Any = SimpleNamespace(tasks={"aware": Task()}, splits={"scene": None}, cells=cells)
    scores = {(cell, PLAIN): scored(cell.seed + 1.0) for cell in cells}
    outcome: Any = SimpleNamespace(failures={}, scores=scores)
    assert sight_rows(made, outcome)[0]["path_gain_db los, dB"] == 1.5
    assert uncertainty_rows(made, outcome)[0]["spread"] == 1.5


def test_what_a_training_depends_on_names_its_folder(store: Path, tmp_path: Path):
    cells = {}
    row = {"model": "unet3d", **TINY}
    for name, changes in {
        "same": {},
        "members": {"members": 5},
        "trainer": {"models": [row | {"trainer": {"samples": 8}}]},
        "network": {"models": [row | {"base": 6}]},
        "task": {"tasks": [{"task": "aware", "prior": None}]},
    }.items():
        made = Benchmark(settings(store, tmp_path, **({"models": [row]} | changes)))
        cell = made.cells[0]
        cells[name] = (made.folder(cell), made.file(cell, PLAIN))
    assert cells["same"][0] == cells["members"][0]
    assert len({folder for folder, _ in cells.values()}) == len(cells) - 1
    assert len({file for _, file in cells.values()}) == len(cells)


def test_wrong_settings_are_refused_at_once(store: Path, tmp_path: Path):
    for changes, hint in (
        ({"models": ["unet3", "idw"]}, "unet3"),
        ({"models": ["idw", "idw"]}, "two rows with the name"),
        ({"models": [{"model": "unet3d", "los": "mse"}]}, "did you mean 'loss'"),
        ({"models": [{"_target_": "mine.Model"}]}, r"allow_targets=\[mine\] would allow it"),
        ({"tasks": ["aware", "aware"]}, "names aware twice"),
        ({"probes": ["shuffle"]}, "did you mean 'shuffled'"),
        ({"precision": "fp8"}, "precision 'fp8' unknown"),
        ({"tasks": [{"task": "aware", "target": ["toa_s"]}]}, "did you mean 'targets'"),
    ):
        with pytest.raises(UserError, match=hint):
            Benchmark(settings(store, tmp_path, **changes))
    made = Benchmark(settings(store, tmp_path, part="tests"))
    with pytest.raises(UserError, match="part 'tests' unknown"):
        made.test_samples("scene")


def test_a_row_sees_tasks_as_it_is_told():
    row = Contender.of(
        {
            "model": "radiodiff3d_paper",
            "task": {"constants": ["power"]},
            "by_task": {"far": {"prior": None}},
            "tasks": ["far"],
        }
    )
    task = task_of({"task": "aware", "prior": "dominant"})
    assert row.task_for("near", task) is None
    seen = row.task_for("far", task)
    assert seen is not None
    assert (seen.prior, seen.constants, seen.transmitter) == (None, ("power",), ("distance", "direction"))
    assert task_of({"task": "unaware", "observations": {"rate": 0.1}}).observations == Observations(rate=0.1)
    assert Contender.of("umi").task_for("unaware", task_of("unaware")) is None
    for options, hint in (({"sigh": "roofs"}, "did you mean 'sight'"), ({"sight": "roof"}, "did you mean 'roofs'")):
        with pytest.raises(UserError, match=hint):
            Contender.of({"model": "umi", **options}).task_for("aware", task)


def test_shuffling_is_felt_by_what_uses_the_transmitter(store: Path):
    made = baseline("free_space", Task())
    plain_score = score(made, store, range(10)).nmse("path_gain_db")
    assert probed(made, "shuffled", store, list(range(10))).nmse("path_gain_db") > 1.02 * plain_score
    assert probed(made, "without_buildings", store, list(range(10))).nmse("path_gain_db") == plain_score
    dominant = baseline("dominant", Task())
    assert score(dominant, store, range(4)).nmse("path_gain_db") < 1e-9
    empty = probed(dominant, "without_buildings", store, list(range(4))).nmse("path_gain_db")
    assert empty == pytest.approx(score(made, store, range(4)).nmse("path_gain_db"))


def test_evaluate_scores_a_baseline_and_a_checkpoint(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["evaluate", f"store={store}", "baseline=log_distance", f"run.dir={tmp_path / 'a'}", "pictures=1"]
    assert app.main(APP, [*words, "split={by: scene, parts: {train: 0.6, test: 0.4}}"]) == 0
    out = capsys.readouterr().out
    assert "nlos" in out
    assert "within" in out
    assert len(list((tmp_path / "a" / "samples").glob("*.png"))) == 1
    assert (tmp_path / "a" / "scores.nc").exists()
    train = [
        "train",
        f"store={store}",
        "model=unet3d",
        "model.network.base=4",
        "model.network.multipliers=[1,2]",
        "trainer.samples=8",
    ]
    more = ["pictures=0", "loader.batch_size=4", "split={by: scene, parts: {train: 0.6, validation: 0.2, test: 0.2}}"]
    assert app.main(APP, [*train, *more, f"run.dir={tmp_path / 'b'}"]) == 0
    words = ["evaluate", f"store={store}", f"checkpoint={tmp_path / 'b'}", f"run.dir={tmp_path / 'c'}", "pictures=0"]
    assert app.main(APP, words) == 0
    capsys.readouterr()
    assert app.main(APP, ["evaluate", f"store={store}", f"run.dir={tmp_path / 'd'}"]) != 0
    assert "either checkpoint" in capsys.readouterr().err


def test_the_verb_writes_its_page(store: Path, tmp_path: Path):
    words = ["benchmark", f"store={store}", "models=[free_space,umi,idw]", "tasks=[aware,unaware]"]
    split = "splits=[{by: scene, parts: {train: 0.6, test: 0.4}}]"
    assert app.main(APP, [*words, split, f"cache={tmp_path / 'cache'}", f"run.dir={tmp_path / 'run'}"]) == 0
    browsed = browser_report(tmp_path / "run")
    assert browsed is not None
    assert {"Scores", "Maps and splits"} <= {section.title for section in browsed.sections}
    assert browsed.sections[0].blocks[0].rows
    page = (tmp_path / "run" / "report.md").read_text()
    assert "| unaware | idw | 1 |" in page
    assert "In line of sight and out of it" in page
