"""Scores: closed forms, perfect values, invariance, and a second opinion on structural similarity."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from geoml.data.fields import Batch
from geoml.errors import Diverged
from geoml.metrics import Suite
from radiomaps.baselines import baseline
from radiomaps.generation.generate import generate
from radiomaps.generation.plan import Placement, Plan, Window
from radiomaps.scores import MapScores, published_suite, score
from radiomaps.scores.normalised import similarity
from radiomaps.scores.physical import CircularCRPSFair, degrees_apart, laid_flat, suite_of
from radiomaps.tasks import TARGETS, Task

TASK = Task(targets=TARGETS)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three scenes of two transmitters."""
    scenes = ({"name": "procedural", "seed": 3, "count": 3, "size_m": 96},)
    window = Window(size_m=64, step_m=4, heights_m=(1.5, 7.5, 3))
    return generate(Plan(scenes, Placement(count=2), window), tmp_path_factory.mktemp("scores") / "maps.zarr")


class Made:
    """A builder whose maps are a function of the batch that was scored, truth included."""

    stochastic = True

    def __init__(self, task: Task, make: Callable[[Batch, int], torch.Tensor]) -> None:
        self.task, self.make, self.truth = task, make, {}

    def remember(self, batch: Batch) -> Batch:
        self.truth = {item: batch.target[row] for row, item in enumerate(batch.ids)}
        return batch

    def predict(self, batch: Batch, members: int = 1, seed: int = 0) -> tuple[torch.Tensor, float]:
        target = torch.stack([self.truth[item] for item in batch.ids])
        return self.make(batch.map(target=target), members), 0.0


def scored(made: Made, store: Path, **options: object) -> MapScores:
    return score(made, store, range(6), change=made.remember, **options)  # type: ignore[arg-type]


def test_the_truth_has_perfect_scores(store: Path):
    found = scored(
        Made(TASK, lambda batch, members: batch.target[:, None].repeat(1, members, 1, 1, 1, 1)), store, members=3
    )
    for (target, group), table in found.tables.items():
        suite = found.suite(target, group)
        if not (table.weights > 0).any():
            continue
        for label, metric in suite.metrics.items():
            value = found.values(target, group)[label]
            if label in ("spread_skill", "rank_deviation", "outlier_excess"):
                continue  # three equal members are no ensemble
            assert value == pytest.approx(metric.perfect, abs=2e-4), (target, group, label)


def test_a_constant_error_has_its_closed_forms(store: Path):
    def shifted(batch: Batch, members: int) -> torch.Tensor:
        step = torch.tensor([0.1, 0.2, 0.0, 0.0, 0.05])[:, None, None, None]
        return (batch.target + step)[:, None]

    found = scored(Made(TASK, shifted), store)
    gain, delay, zenith = (found.values(name, "all") for name in ("path_gain_db", "toa_s", "doa_zenith"))
    assert (gain["rmse"], gain["mae"]) == pytest.approx((7.7, 7.7), rel=1e-4)
    assert gain["within_3"] == 0
    assert delay["bias"] == pytest.approx(236.0, rel=1e-4)
    assert zenith["rmse"] == pytest.approx(np.rad2deg(0.05 * 1.75), rel=1e-4)
    published = found.values("path_gain_db")
    assert (published["rmse"], published["rmse_of_maps"]) == pytest.approx((0.1, 0.1), rel=1e-4)
    assert published["psnr"] == pytest.approx(20.0, abs=1e-3)
    truth = torch.cat([b.target[:, 0][b.mask[:, 0]] for b in _batches(store)]).double()
    assert published["nmse"] == pytest.approx(float(0.01 / truth.square().mean()), rel=1e-4)


def _batches(store: Path) -> list[Batch]:
    from radiomaps.tasks.dataset import loader

    return list(loader(store, None, TASK, batch_size=2, shuffle=False))


def test_averages_over_maps_are_not_those_over_voxels():
    prediction = np.zeros((2, 1, 1, 8, 8))
    truth = np.stack([np.full((1, 8, 8), 0.5), np.full((1, 8, 8), 1.0)])
    prediction[1] += 0.5
    values = published_suite().evaluate(published_suite().update(prediction, truth, ids=[0, 1]))
    assert values["rmse_of_maps"] == pytest.approx(0.5)
    assert values["nmse"] == pytest.approx(0.25 / 0.625)
    assert values["nmse_of_maps"] == pytest.approx((1 + 0.25) / 2)


def test_similarity_agrees_with_scikit_image():
    structural_similarity = pytest.importorskip("skimage.metrics").structural_similarity
    random = np.random.default_rng(0)
    truth = np.cumsum(random.normal(size=(64, 64)), axis=1)
    truth = (truth - truth.min()) / np.ptp(truth)
    prediction = np.clip(truth + 0.1 * random.normal(size=truth.shape), 0, 1)
    _, peer = structural_similarity(
        truth, prediction, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    ours = similarity(prediction, truth, np.ones_like(truth))
    assert np.allclose(ours[5:-5, 5:-5], peer[5:-5, 5:-5], atol=1e-9)


def test_similarity_does_not_see_what_does_not_count():
    random = np.random.default_rng(0)
    truth, prediction = random.random((2, 24, 24))
    weights = (random.random((24, 24)) < 0.7).astype(float)
    spoilt = np.where(weights > 0, prediction, 99.0)
    first, second = (similarity(field, truth, weights)[weights > 0] for field in (prediction, spoilt))
    assert np.allclose(first, second, atol=1e-9)


def test_angles_go_around_the_circle(store: Path):
    def turned(batch: Batch, members: int) -> torch.Tensor:
        fields = batch.target.clone()
        angle = torch.atan2(2 * fields[:, 2] - 1, 2 * fields[:, 3] - 1) + np.deg2rad(5)
        fields[:, 2], fields[:, 3] = (1 + angle.sin()) / 2, (1 + angle.cos()) / 2
        return fields[:, None]

    found = scored(Made(TASK, turned), store)
    assert found.values("doa_azimuth", "all")["rmse"] == pytest.approx(5.0, rel=1e-3)
    assert found.values("doa_azimuth", "all")["within_10"] == 1
    circular = found.nmse("doa_azimuth")
    assert circular < found.values("doa_azimuth")["nmse"]  # as if linear, some go the long way round


def test_circular_crps_of_two_members_by_hand():
    suite = Suite.of([CircularCRPSFair()])
    members = np.array([[350.0, 20.0]])[..., None]
    flat, zero = laid_flat(members, np.array([[10.0]]))
    value = suite.evaluate(suite.update(flat, zero, ids=[0]))["crps_fair"]
    assert value == pytest.approx((20 + 10) / 2 - 30 / 2)
    assert np.allclose(degrees_apart(flat[0, :, 0], 0), [-20, 10])


def test_a_calibrated_ensemble_is_told_from_a_narrow_one():
    random = np.random.default_rng(0)
    centre, suite = random.normal(size=(400, 1, 60)), suite_of("path_gain_db", members=8)
    truth = (centre + random.normal(size=centre.shape))[:, 0]
    values = {}
    for width in (1.0, 0.3):
        prediction = centre + width * random.normal(size=(400, 8, 60))
        values[width] = suite.evaluate(suite.update(prediction, truth, ids=np.arange(400)))
    assert values[1.0]["spread_skill"] == pytest.approx(1.0, abs=0.03)
    assert values[1.0]["outlier_excess"] == pytest.approx(0.0, abs=0.01)
    assert values[0.3]["spread_skill"] < 0.4 < 0.4 + values[0.3]["outlier_excess"]
    assert values[1.0]["crps_fair"] < values[0.3]["crps_fair"]


def test_scores_do_not_depend_on_batches_and_merge(store: Path, tmp_path: Path):
    made = baseline("free_space", TASK)
    whole = score(made, store, range(6), batch_size=4)
    parts = score(made, store, [0, 1, 2], batch_size=1).merged(score(made, store, [3, 4, 5], batch_size=3))
    assert parts.samples == [0, 1, 2, 3, 4, 5]
    for key, table in whole.tables.items():
        assert np.array_equal(table.sums, parts.tables[key].sums), key
    whole.save(tmp_path / "scores.nc")
    again = MapScores.load(tmp_path / "scores.nc")
    assert again.values("path_gain_db", "nlos") == whole.values("path_gain_db", "nlos")
    assert again.select([1, 2]).values("toa_s", "all") == score(made, store, [1, 2]).values("toa_s", "all")


def test_groups_part_the_voxels(store: Path):
    found = score(baseline("free_space", TASK), store, range(6))
    weights = {
        group: found.tables["toa_s", group].weights[:, 0] for group in found.groups("toa_s") if group != "published"
    }
    assert np.allclose(weights["all"], weights["los"] + weights["nlos"])
    for mark in ("z = ", "–"):
        parts = [part for group, part in weights.items() if mark in group]
        rest = weights["from 800 m"] if mark == "–" else 0
        assert np.allclose(weights["all"], np.sum(parts, axis=0) + rest)
    assert found.values("toa_s", "los")["rmse"] < 1e-3 < found.values("toa_s", "nlos")["rmse"]


def test_what_does_not_count_may_hold_anything(store: Path):
    def wild(batch: Batch, members: int) -> torch.Tensor:
        return torch.where(batch_mask[tuple(batch.ids)], batch.target, 1e6)[:, None]

    batch_mask = {}

    def remember(batch: Batch) -> Batch:
        batch_mask[tuple(batch.ids)] = batch.mask
        return made.remember(batch)

    made = Made(TASK, wild)
    found = score(made, store, range(6), change=remember)
    assert found.values("path_gain_db", "all")["rmse"] < 1e-4
    assert found.values("path_gain_db")["ssim"] > 0.999


def test_a_prediction_that_is_not_finite_has_diverged(store: Path):
    with pytest.raises(Diverged, match="map 0"):
        scored(Made(TASK, lambda batch, members: batch.target[:, None] * torch.nan), store)
