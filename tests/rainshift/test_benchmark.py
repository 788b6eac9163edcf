"""A whole small benchmark, from the synthetic planet to the page, through the verbs and from Python."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
import xarray as xr

import rainshift
from geoml.__main__ import main as geoml_main
from geoml.errors import UserError
from geoml.models.predictor import load_predictor
from rainshift.__main__ import main
from rainshift.benchmarking.plan import Cell
from rainshift.evaluation import Scores
from rainshift.training import TrainSet
from tests.rainshift.reading_cases import dataset

SMALL = [
    "data.size_deg=3",
    "data.splits_at={train:{start:'2001-01-01',end:'2003-01-01',hours:48},"
    "validation:{start:'2003-01-01',end:'2004-01-01',hours:24},test:{start:'2004-01-01',end:'2006-01-01',hours:528}}",
    "data.condition=[tp,tcw,u,v]",
]
TINY_NETWORK = "{model:resnet,width:4,coarse_blocks:1,fine_blocks:1,name:tiny}"
BENCHMARK = [
    *SMALL,
    "train_regions=[melanesia,europe_west,west-africa]",
    "test_regions=[melanesia,west-africa]",
    f"models=[bilinear,conservative,climatology,{TINY_NETWORK}]",
    "metrics.metrics=[crps_fair,mae,rank_deviation,reliability]",
    "metrics.thresholds=[1]",
    "trainer.samples=96",
    "trainer.validate_every=48",
    "trainer.checkpoint_every=48",
    "loader.patch=20",
    "loader.batch_size=16",
    "loader.validation_samples=4",
    "analysis.replicates=200",
    "shift_hours=48",
    "transfer=true",
    "run.dir=bench",
]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder in which one benchmark has run; later tests find its data and trainings in the cache."""
    folder = tmp_path_factory.mktemp("benchmark")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["benchmark", *BENCHMARK]) == 0
    return folder


@pytest.fixture
def inside(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    return workplace


def test_benchmark_writes_results_page_and_figures(inside):
    results = xr.open_dataset(inside / "bench" / "benchmark.nc")
    assert results.attrs["Conventions"] == "CF-1.11"
    assert set(results["matrix"].dims) == {"metric", "model", "train_set", "test_region", "seed"}
    score = results["score"].sel(metric="crps_fair")
    assert np.isfinite(score).all()
    # what learns nothing is the same inside and outside, what learns is not
    for model in ("bilinear", "conservative"):
        assert np.array_equal(score.sel(model=model, distribution="in"), score.sel(model=model, distribution="out"))
    assert not np.allclose(score.sel(model="tiny", distribution="in"), score.sel(model="tiny", distribution="out"))
    assert results["trained_on"].sel(test_region="melanesia", distribution="out").item() == "europe_west+west-africa"
    # 528 test hours are 22 days: enough for an interval
    assert (results["blocks"] >= 20).all()
    assert np.isfinite(results["skill_low"].sel(model="tiny")).all()
    page = (inside / "bench" / "report.md").read_text()
    assert "## Climate distance and loss" in page
    assert (inside / "bench" / "climate-distance-and-loss.png").exists()
    with xr.open_dataset(inside / "bench" / "shift.nc") as shifts:
        assert (shifts["wasserstein"] > 0).all()
        assert list(shifts["region"].values) == ["melanesia", "west-africa"]
    assert "Skill lost out of distribution" in page
    assert "they do not include training noise, which can be larger" in page
    drawn = {path.stem for path in (inside / "bench").glob("*.png")}
    assert drawn == {
        "in-and-out-of-distribution",
        "transfer-between-regions",
        "transfer-between-regions-2",
        "maps",
        "calibration-and-spectra",
        "climate-distance-and-loss",
    }
    assert json.loads((inside / "bench" / "summary.json").read_text())["failures"] == {}


def test_the_page_for_a_browser_holds_what_the_run_found(inside, tmp_path):
    page = (inside / "bench" / "report.html").read_text()
    for title in (
        "Leaderboard",
        "In and out of distribution",
        "Transfer between regions",
        "Maps",
        "Climate distance and loss",
    ):
        assert f">{title}</h2>" in page
    assert len(page) < 15e6
    output = tmp_path / "both.html"
    assert geoml_main(["report", "bench", "bench", "--output", str(output), "--title", "Twice"]) == 0
    assert output.read_text().count(">Leaderboard</h2>") == 2
    assert output.read_text().count('<p class="group">') == 1  # both are called the same


def test_skill_and_loss_follow_from_the_scores(inside):
    results = xr.open_dataset(inside / "bench" / "benchmark.nc").sel(test_region="west-africa")
    crps = results["score"].sel(metric="crps_fair")
    skill = 1 - crps.sel(model="tiny") / crps.sel(model="bilinear")
    assert np.allclose(results["skill"].sel(model="tiny"), skill)
    inner, outer = (float(skill.sel(distribution=side)) for side in ("in", "out"))
    lost = float(results["skill_lost"].sel(model="tiny"))
    # skill that cannot be told from none cannot be lost
    if float(results["skill_low"].sel(model="tiny", distribution="in")) > 0:
        assert math.isclose(lost, (inner - outer) / inner, rel_tol=1e-4, abs_tol=1e-5)  # scores in single precision
    else:
        assert math.isnan(lost)
    worse = 100 * (crps.sel(distribution="out") / crps.sel(distribution="in") - 1)
    assert np.isclose(results["degradation"].sel(model="tiny"), worse.sel(model="tiny"), rtol=1e-3)  # single precision


def test_the_mean_loss_is_that_of_the_mean_skill(inside):
    results = xr.open_dataset(inside / "bench" / "benchmark.nc").sel(model="tiny")
    mean = results["skill"].mean("test_region")
    inner, outer = (float(mean.sel(distribution=side)) for side in ("in", "out"))
    if inner > 0:
        assert math.isclose(float(results["mean_skill_lost"]), 1 - outer / inner, rel_tol=1e-4)
    else:
        assert math.isnan(float(results["mean_skill_lost"]))


def test_a_model_of_ones_own_is_a_row(inside, tmp_path, monkeypatch, capsys):
    (tmp_path / "ownmodels.py").write_text(
        "from geoml.models.resnet import ResNetRegression\n\n"
        "class Mine(ResNetRegression):\n"
        "    def __init__(self, channels, dims, *, wide=4):\n"
        "        super().__init__(channels, dims, width=wide, coarse_blocks=1, fine_blocks=1)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    words = [word for word in BENCHMARK if not word.startswith(("models=", "transfer=", "shift_hours=", "run.dir="))]
    words += ["test_regions=[melanesia]", "allow_targets=[ownmodels]", "run.dir=own"]
    assert main(["benchmark", *words, "models=[bilinear,{_target_: ownmodels.Mine, wied: 8}]"]) == 2
    assert "did you mean 'wide'" in capsys.readouterr().err
    assert main(["benchmark", *words, "models=[bilinear,{_target_: ownmodels.Mine, wide: 8}]"]) == 0
    assert "Mine" in capsys.readouterr().out


def test_the_same_command_finds_every_cell_again(inside):
    before = {path: path.stat().st_mtime_ns for path in (inside / "runs" / "cache").rglob("*.safetensors")}
    scores = {path: path.stat().st_mtime_ns for path in (inside / "runs" / "cache" / "scores").iterdir()}
    assert before
    assert scores
    assert main(["benchmark", *BENCHMARK]) == 0
    assert before == {path: path.stat().st_mtime_ns for path in (inside / "runs" / "cache").rglob("*.safetensors")}
    assert scores == {path: path.stat().st_mtime_ns for path in (inside / "runs" / "cache" / "scores").iterdir()}


def test_report_needs_only_the_run_folder(inside, tmp_path, monkeypatch, capsys):
    shutil.copytree(inside / "bench", tmp_path / "bench")
    page = (tmp_path / "bench" / "report.md").read_text()
    (tmp_path / "bench" / "report.html").unlink()
    monkeypatch.chdir(tmp_path)
    assert main(["report", "bench"]) == 0
    assert main(["report", "bench", "--output", "printed/report.md"]) == 0
    assert (tmp_path / "printed" / "report.md").read_text() == page
    assert ">Leaderboard</h2>" in (tmp_path / "bench" / "report.html").read_text()
    assert not (tmp_path / "runs").exists()
    (tmp_path / "bench" / "benchmark.nc").write_bytes(b"torn")
    assert main(["report", "bench"]) == 2
    (tmp_path / "bench" / "summary.json").unlink()
    assert main(["report", "bench"]) == 2
    assert "has not finished" in capsys.readouterr().err


def test_scores_do_not_depend_on_how_hours_are_cut(inside, monkeypatch):
    from geoml.cli.compose import compose
    from rainshift import evaluation as scoring
    from rainshift.benchmarking.run import Experiment
    from rainshift.data import selection as hours
    from rainshift.training import load

    made = []
    for size in (4, 7):
        monkeypatch.setattr(hours, "FIELDS_AT_A_TIME", size)
        experiment = Experiment(compose("rainshift.conf", "benchmark", BENCHMARK))
        cell = next(cell for cell in experiment.plan.cells if cell.model == "climatology")
        folder, _ = experiment.training_folder(cell.model, cell.train_set, cell.seed)
        climatology = load(experiment.specs[cell.model], folder / "checkpoints", experiment.archive.channels)
        options = {"suite": experiment.suite, "samples": 11}
        made.append(scoring.score(climatology, experiment.archive, cell.test_region, **options).table)
    assert np.array_equal(made[0].sums, made[1].sums)
    assert np.array_equal(made[0].ids, made[1].ids)


def test_train_predict_evaluate_agree(inside, capsys):
    words = [*SMALL, "cache=runs/cache"]
    trained = ["train", *words, "region=melanesia", "model=resnet", "model.width=4", "model.coarse_blocks=1"]
    assert main([*trained, "trainer.samples=48", "loader.patch=20", "run.dir=trained"]) == 0
    chosen = [*words, "region=west-africa", "samples=24", "checkpoint=trained"]
    assert main(["predict", *chosen, "members=3", "run.dir=predicted"]) == 0
    file = inside / "predicted" / "samples" / "west-africa-test.nc"
    rain = xr.open_dataset(file)["precipitation"]
    assert rain.dims == ("member", "time", "lat", "lon")
    assert rain.attrs["units"] == "mm h-1"
    assert float(rain.min()) >= 0
    capsys.readouterr()
    assert main(["evaluate", *chosen, "run.dir=direct"]) == 0
    assert main(["evaluate", *words, "region=west-africa", f"prediction={file}", "run.dir=fromfile"]) == 0
    direct, from_file = (Scores.load(inside / name / "scores-west-africa.nc") for name in ("direct", "fromfile"))
    assert np.allclose(direct.table.sums, from_file.table.sums, rtol=1e-5)


def test_python_gives_the_same_as_the_command_line(inside):
    tree = rainshift.open("melanesia", "test", size_deg=3, splits_at=_splits())
    assert set(tree.children) == {"condition", "target", "static"}
    assert tree["target"]["precipitation"].sizes["lat"] == 30
    results = rainshift.benchmark(*BENCHMARK)
    stored = xr.open_dataset(inside / "bench" / "benchmark.nc")
    assert np.allclose(results["matrix"], stored["matrix"], equal_nan=True)


def _splits():
    return {
        "train": {"start": "2001-01-01", "end": "2003-01-01", "hours": 48},
        "validation": {"start": "2003-01-01", "end": "2004-01-01", "hours": 24},
        "test": {"start": "2004-01-01", "end": "2006-01-01", "hours": 528},
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train_regions=[melanesa]"], "did you mean 'melanesia'"),
        (["models=[bilinear,unett]"], "did you mean 'unet'"),
        (["models=[resnet]"], "add it"),
        (["precision=half"], "precision 'half' unknown"),
        (["models=[bilinear,bilinear]"], "two rows with the name"),
        (["metrics.metrics=[mae]"], "crps_fair"),
        (["analysis.replicates=50"], "need 100 or more"),
        (["analysis.level=95"], "between 0 and 1"),
        (["analysis.block_hours=0"], "positive number of hours"),
        (["protocol=leave"], "expected auto"),
        (["data.condition=[tp,wind]"], "'wind'"),
        (["data.first_guess={precipitation: rain}"], "first_guess"),
    ],
)
def test_wrong_settings_say_the_way_out(inside, capsys, words, message):
    assert main(["benchmark", *BENCHMARK, *words, "run.dir=wrong", "run.fresh=true"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_a_checkpoint_that_is_none_is_refused(inside, capsys):
    assert main(["predict", *SMALL, "checkpoint=nowhere", "run.dir=p"]) == 2
    assert "nowhere does not exist" in capsys.readouterr().err
    with pytest.raises(UserError, match="unknown"):
        rainshift.open("atlantis")


@pytest.mark.parametrize("key", ["data.blocks=7", "data.purge_hours=3", "data.expected_gaps=[tp]", "data.static=[lsm]"])
def test_a_changed_way_of_reading_never_meets_old_trainings_or_scores(inside, key, tmp_path):
    from geoml.cli.compose import compose
    from rainshift.benchmarking.run import Experiment

    for name in "abc":
        dataset().to_netcdf(tmp_path / f"{name}.nc")
    words = ["data=gridded", f"data.root={tmp_path}", "protocol=leave_one_out", *BENCHMARK[len(SMALL) :]]
    keys = []
    for more in ([], [key]):
        experiment = Experiment(compose("rainshift.conf", "benchmark", [*words, *more]))
        cell = Cell("tiny", TrainSet(("a", "b"), 8), "c")
        keys.append((experiment.training_folder(cell.model, cell.train_set, 0)[0], experiment.score_file(cell)))
    assert keys[0][0] != keys[1][0]
    assert keys[0][1] != keys[1][1]


def test_a_model_that_diverges_is_marked_and_the_others_go_on(inside):
    wild = f"models=[bilinear,{TINY_NETWORK}]"
    words = [*BENCHMARK, wild, "trainer.learning_rate=1e30", "trainer.clip=0", "run.dir=wild"]
    assert main(["benchmark", *words]) == 0
    failures = json.loads((inside / "wild" / "summary.json").read_text())["failures"]
    assert failures
    assert all("tiny" in where for where in failures)
    results = xr.open_dataset(inside / "wild" / "benchmark.nc")
    assert np.isnan(results["score"].sel(model="tiny")).all()
    assert np.isfinite(results["score"].sel(model="bilinear", metric="crps_fair")).all()
    assert "Failed, excluded from all" in (inside / "wild" / "report.md").read_text()


def test_a_prediction_that_is_not_finite_is_a_divergence(inside):
    from geoml.cli.compose import compose
    from geoml.errors import Diverged
    from rainshift.benchmarking.run import Experiment
    from rainshift.evaluation import score

    class Lost:
        stochastic = False

        def predict(self, batch, *, members=1, seed=0):
            import torch

            return torch.full((len(batch), members, 1, *batch.target_grid.shape), torch.nan), 1.0

    experiment = Experiment(compose("rainshift.conf", "benchmark", BENCHMARK))
    with pytest.raises(Diverged, match="melanesia"):
        score(Lost(), experiment.archive, "melanesia", suite=experiment.suite, samples=4)


def test_a_mistake_in_the_settings_of_a_training_is_no_result(inside, capsys):
    words = [*BENCHMARK, "transforms.default.kind=zscor", "run.dir=mistaken"]
    assert main(["benchmark", *words]) == 2
    assert "zscor" in capsys.readouterr().err
    assert not (inside / "mistaken" / "summary.json").exists()


def test_a_training_goes_on_from_another_ones_weights(inside, capsys):
    words = ["region=melanesia", *SMALL, "loader.patch=20", "loader.validation_samples=0", "loader.batch_size=16",
             "model=resnet", "model.width=4", "model.coarse_blocks=1", "model.fine_blocks=1",
             "trainer.validate_every=0"]  # fmt: skip
    assert main(["train", *words, "trainer.samples=96", "run.dir=first"]) == 0
    still = ["trainer.samples=16", "trainer.learning_rate=1e-12", "trainer.weight_decay=0"]
    assert main(["train", *words, *still, "start=first", "run.dir=second", "data.seed=3"]) == 0
    first, second = (load_predictor(inside / name) for name in ("first", "second"))
    for name, value in second.model.state_dict().items():
        assert torch.allclose(value, first.model.state_dict()[name], atol=1e-6), name
    assert second.transforms.to_dict() == first.transforms.to_dict()  # not those of the other planet
    capsys.readouterr()
    assert main(["train", *words, "start=nowhere", "run.dir=third"]) == 2
    assert "nowhere is not a checkpoint" in capsys.readouterr().err
