"""Scores in a cache are of the code that is there: trainings are found again, scores made by other code are not."""

from geoml.cli.compose import compose
from geoml.runs.environment import code_hash
from rainshift.benchmarking import run as experiment
from rainshift.benchmarking.run import Experiment

WORDS = [
    "data.size_deg=2",
    "data.splits_at={train:{start:'2001-01-01',end:'2003-01-01',hours:24},"
    "validation:{start:'2003-01-01',end:'2004-01-01',hours:24},test:{start:'2004-01-01',end:'2006-01-01',hours:24}}",
    "train_regions=[melanesia,west-africa]",
    "test_regions=[melanesia]",
    "models=[bilinear,climatology]",
    "metrics.metrics=[crps_fair]",
    "loader.patch=0",
    "data.condition=[tp]",
]


def test_other_code_scores_again_and_trains_nothing(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "metric_of_a_test.py").write_text("FACTOR = 1\n")
    monkeypatch.setattr(experiment, "SCORED_BY", (*experiment.SCORED_BY, "metric_of_a_test"))

    def run():
        code_hash.cache_clear()
        made = Experiment(compose("rainshift.conf", "benchmark", [*WORDS, f"cache={tmp_path / 'cache'}"]))
        for cell in made.plan.cells:
            if cell.train_set is not None:
                made.trained(cell.model, cell.train_set, cell.seed)
            made.scored(cell)
        files = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*") if path.is_file()}
        scores = {path: when for path, when in files.items() if path.parent.name == "scores"}
        trained = {path: when for path, when in files.items() if path.parent.name == "checkpoints"}
        assert trained
        return scores, trained

    scores, trained = run()
    assert run() == (scores, trained)
    (tmp_path / "metric_of_a_test.py").write_text("FACTOR = 2\n")
    again, kept = run()
    assert kept == trained
    assert len(again) == 2 * len(scores)
    assert scores.items() <= again.items()


def test_what_makes_a_score_is_named():
    """Metrics, models and the domain's own way from weights to scores; none is misspelt, and none trains."""
    code_hash(*experiment.SCORED_BY)
    assert {"geoml.metrics", "geoml.models", "rainshift.evaluation"} <= set(experiment.SCORED_BY)
    assert not {"geoml.train", "rainshift.training"} & set(experiment.SCORED_BY)
