"""Alignments as rows of a benchmark: trained once, aligned where the region is unknown, on training hours."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from geoml.cli.compose import compose
from geoml.errors import UserError
from rainshift.__main__ import main
from rainshift.alignment import inputs_of
from rainshift.benchmarking.run import Experiment
from rainshift.data.archive import Archive

SPLITS = (
    "data.splits_at={train:{start:'2001-01-01',end:'2003-01-01',hours:48},"
    "validation:{start:'2003-01-01',end:'2004-01-01',hours:24},test:{start:'2004-01-01',end:'2006-01-01',hours:48}}"
)
TINY = "{model:resnet,width:4,coarse_blocks:1,fine_blocks:1,name:tiny}"
OPTIONS = [
    "data.size_deg=2",
    SPLITS,
    "data.condition=[tp,tcw,u]",
    "train_regions=[europe_west,west-africa]",
    f"models=[bilinear,bcsd,rainfarm,{TINY}]",
    "alignment=[quantile_mapping,target_statistics,coral]",
    "alignment.quantile_mapping.hours=24",
    "trainer.samples=48",
    "loader.patch=0",
    "loader.validation_samples=4",
    "test_samples=12",
    "members=3",
    "analysis.replicates=100",
]
ROWS = ["tiny", "tiny+quantile_mapping", "tiny+target_statistics", "tiny+coral"]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alignment")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["benchmark", *OPTIONS, "run.dir=bench"]) == 0
    return folder


def test_rows_stand_side_by_side(workplace):
    results = xr.open_dataset(workplace / "bench" / "benchmark.nc")
    assert list(results["model"].values) == ["bcsd", *ROWS, "bilinear", "rainfarm"]  # what was trained comes first
    score = results["score"].sel(metric="crps_fair")
    assert np.isfinite(score).all()
    inside, outside = (score.sel(distribution=side, model=ROWS) for side in ("in", "out"))
    for row in ROWS[1:]:  # where the model knows the region nothing is aligned
        assert np.array_equal(inside.sel(model=row), inside.sel(model="tiny"))
        assert not np.allclose(outside.sel(model=row), outside.sel(model="tiny"))
    assert (results["members"].sel(model="rainfarm", train_set="none") == 3).all()
    # each set was trained once, and what is in distribution scored once
    trainings = list((workplace / "runs/cache/trainings").iterdir())
    assert len([path for path in trainings if path.name.startswith("tiny")]) == 3
    assert not [path for path in trainings if "+" in path.name]
    # nothing had to be bounded, and that stands beside every score
    assert results["largest_clipped_share"].dims == score.dims
    assert (results["largest_clipped_share"] == 0).all()
    page = (workplace / "bench" / "report.md").read_text()
    assert all(f"| {row} " in page for row in ROWS)


def test_no_test_hour_is_opened(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    experiment = Experiment(compose("rainshift.conf", "benchmark", OPTIONS))
    asked = []
    real = Archive.field_source

    def watched(self, name, role, *args, **kwargs):
        asked.append((name, role))
        return real(self, name, role, *args, **kwargs)

    monkeypatch.setattr(Archive, "field_source", watched)
    inputs = inputs_of(experiment.archive, {"europe_west": 30, "west-africa": 10}, hours=20)
    assert asked == [("europe_west", "train"), ("west-africa", "train")]
    assert [len(fields) for fields in inputs.fields] == [15, 5]
    assert inputs.channels == ("tp", "tcw", "u")
    stored = experiment.archive.open("west-africa", "train")["condition"]["tp"].values
    taken = inputs.fields[1][:, 0]
    assert all((np.abs(stored - hour).max(axis=(1, 2)) < 1e-6).any() for hour in taken)


def test_another_option_is_another_score_of_the_same_training(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    config = [*OPTIONS, "alignment.quantile_mapping.channels=all"]
    one, other = (Experiment(compose("rainshift.conf", "benchmark", options)) for options in (OPTIONS, config))
    for cell in one.plan.cells:
        same = one.score_file(cell) == other.score_file(cell)
        assert same is not (cell.model == ROWS[1] and not cell.in_distribution)
        assert one.trained_in(cell) == other.trained_in(cell)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["alignment.quantile_mapping.channels=tpp"], "did you mean 'tp'"),
        (["alignment.quantile_mapping.channels=tcw"], "inverse=false"),
        (["alignment.coral.channels=rain"], "rain"),
        (["models=[bilinear,{model:resnet,conservation:additiv}]"], "did you mean 'additive'"),
    ],
)
def test_mistakes_are_said_before_anything_is_trained(workplace, monkeypatch, words, message):
    monkeypatch.chdir(workplace)
    with pytest.raises(UserError, match=message):
        Experiment(compose("rainshift.conf", "benchmark", [*OPTIONS, *words]))


def test_events_have_no_hours_to_be_aligned_by(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    with pytest.raises(UserError, match="protocol is 'events'"):
        Experiment(compose("rainshift.conf", "benchmark", [*OPTIONS, "protocol=events"]))
