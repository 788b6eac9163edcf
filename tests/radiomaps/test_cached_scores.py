"""Scores in a cache are of the code that is there: trainings are found again, scores made by other code are not."""

from geoml.cli.compose import compose
from geoml.runs.environment import code_hash
from geoml.runs.folder import plain
from radiomaps.benchmarking import run as benchmark
from radiomaps.benchmarking.run import Benchmark
from radiomaps.generation.generate import generate
from radiomaps.generation.plan import Placement, Plan, Window


def test_other_code_scores_again_and_trains_nothing(tmp_path, monkeypatch):
    scenes = ({"name": "procedural", "seed": 3, "count": 4, "size_m": 96},)
    window = Window(size_m=64, step_m=4, heights_m=(1.5, 4.5, 3))
    store = generate(Plan(scenes, Placement(count=1), window), tmp_path / "maps.zarr")
    config = plain(compose("radiomaps.conf", "benchmark", [f"store={store}"]))
    config |= {
        "tasks": [{"task": "aware", "targets": ["path_gain_db"]}],
        "models": ["log_distance"],
        "splits": [{"by": "scene", "parts": {"train": 0.5, "test": 0.5}}],
        "cache": str(tmp_path / "cache"),
    }
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "score_of_a_test.py").write_text("FACTOR = 1\n")
    monkeypatch.setattr(benchmark, "SCORED_BY", (*benchmark.SCORED_BY, "score_of_a_test"))

    def run():
        code_hash.cache_clear()
        made = Benchmark(config)
        made.run()
        made.prior_alone(made.cells[0])
        return tuple(
            {path: path.stat().st_mtime_ns for path in (tmp_path / "cache" / name).rglob("*") if path.is_file()}
            for name in ("scores", "models")
        )

    scores, trained = run()
    assert (len(scores), bool(trained)) == (2, True)
    assert run() == (scores, trained)
    (tmp_path / "score_of_a_test.py").write_text("FACTOR = 2\n")
    again, kept = run()
    assert kept == trained
    assert len(again) == 4
    assert scores.items() <= again.items()


def test_what_makes_a_score_is_named():
    """Scores, models and all that stands between; none is misspelt, and none trains."""
    code_hash(*benchmark.SCORED_BY)
    assert {"geoml.metrics", "geoml.models", "radiomaps.scores", "radiomaps.models"} <= set(benchmark.SCORED_BY)
    assert not {"geoml.train", "radiomaps.training"} & set(benchmark.SCORED_BY)
