"""The oracle of `synthetic_exact` is what theory says: exact members, unbeaten, flat in its ranks."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from scipy import stats

from geoml.cli.compose import compose
from geoml.data.fields import Batch
from geoml.errors import DataError, UserError
from geoml.metrics import METRICS, Suite, block_bootstrap
from geoml.metrics.significance import difference
from geoml.models.base import Channels
from rainshift.baselines import Interpolation
from rainshift.benchmarking.run import Experiment
from rainshift.models.oracle import Oracle
from rainshift.places.regions import region
from rainshift.planet.gaussian import STEP_MM_H, View
from rainshift.planet.rainfall import rate
from rainshift.report.tables import oracle_rows
from rainshift.sources.synthetic_exact import SyntheticExactSource

CHANNELS = Channels(("latent", "tp"), ("precipitation",), first_guess=(("precipitation", "tp"),))
SMALL = SyntheticExactSource(seed=5, size_deg=1.0)
WRONG = {"noise_factor": 0.3}, {"noise_factor": 3.0}, {"length_factor": 0.25}, {"length_factor": 4.0}


def sample(source, name, days):
    """A batch of all hours of the first days, with the truth."""
    weather = source.weather(name)
    blocks = [weather.block(day) for day in range(days)]
    rain, predictors = (np.concatenate([getattr(b, part) for b in blocks]) for part in ("rain", "predictors"))
    return Batch(
        torch.from_numpy(predictors),
        weather.coarse,
        weather.fine,
        target=torch.from_numpy(rain[:, None]),
        ids=tuple(range(len(rain))),
    )


@pytest.fixture(scope="module")
def hours():
    """3072 independent hours of a wet region on 10 × 10 cells."""
    return sample(SMALL, "melanesia", 128)


# ---- the law, against the closed form written out in full


def dense(view):
    """Σ between all fine cells and all wide cells, A and r² with no use of Kronecker products."""

    def covariance(a, b):
        law, out = view.law, 1.0
        for axis, (one, other) in enumerate(zip(a, b, strict=True)):
            scale = math.cos(math.radians(law.latitude)) if axis else 1.0
            d = math.sqrt(3) * 111.195 * scale * np.abs(one.ravel()[:, None] - other.ravel()[None, :]) / law.length_km
            out = out * (1 + d) * np.exp(-d)
        return out

    places = [np.meshgrid(*(axis.coordinates for axis in grid.axes), indexing="ij") for grid in (view.wide, view.fine)]
    means = np.zeros((view.coarse.size, view.wide.size))
    for row, (south, west) in enumerate(
        (i, j) for i in view.coarse["lat"].edges[:-1] for j in view.coarse["lon"].edges[:-1]
    ):
        shares = []
        for low, axis in ((south, view.wide["lat"]), (west, view.wide["lon"])):
            edges = np.clip(axis.edges, low, low + 0.25)
            edges = np.sin(np.radians(edges)) if axis.is_latitude else edges
            shares.append(np.diff(edges))
        weights = np.outer(*shares).ravel()
        means[row] = weights / weights.sum()
    return covariance(places[0], places[0]), covariance(places[1], places[0]), means


@pytest.fixture(scope="module")
def closed():
    """(view, gain K, posterior covariance, covariance of c) of a box of 10 × 10 cells."""
    view = SMALL.weather("west-africa").view
    prior, cross, means = dense(view)
    seen = means @ prior @ means.T + view.law.noise**2 * np.eye(len(means))
    gain = np.linalg.solve(seen, means @ cross.T).T
    n = view.fine.size
    rows = np.arange(view.wide.size).reshape(view.wide.shape)[view._inner].ravel()
    return view, gain, cross[:, rows] - gain @ means @ cross.T, seen, n


def test_the_view_of_the_field_has_the_covariance_of_the_area_means(closed):
    view, _, _, seen, _ = closed
    np.testing.assert_allclose(view.deviation.ravel() ** 2, np.diag(seen), rtol=1e-6)
    weather = SMALL.weather("west-africa")
    blocks = [weather.block(day).predictors[:, 0] for day in range(400)]
    c = np.concatenate(blocks).reshape(9600, -1).astype(float)
    # whitened with the covariance of theory, it is white
    white = np.linalg.solve(np.linalg.cholesky(seen), c.T)
    assert stats.kstest(white.ravel()[::7], "norm").pvalue > 1e-3
    assert np.abs(white @ white.T / len(c) - np.eye(len(seen))).max() < 5 / math.sqrt(len(c))


def test_posterior_moments_are_those_of_the_closed_form(closed):
    view, gain, covariance, _, n = closed
    rng = np.random.default_rng(0)
    c = SMALL.weather("west-africa").block(7).predictors[:1, 0].astype(float)
    np.testing.assert_allclose(view.expected(c).ravel(), gain @ c.ravel(), atol=1e-9)
    draws = 20_000
    whites = [rng.standard_normal((draws, *grid.shape)) for grid in (view.wide, view.coarse)]
    z = view.conditional(c, *whites).reshape(draws, n)
    error = z.mean(0) - gain @ c.ravel()
    assert (np.abs(error) / np.sqrt(np.diag(covariance) / draws)).max() < 5
    spread = np.sqrt((covariance**2 + np.outer(np.diag(covariance), np.diag(covariance))) / draws)
    assert (np.abs(np.cov(z.T) - covariance) / spread).max() < 5.5


def test_members_are_consistent_with_what_was_seen(closed):
    """c − A·Z of a member has the law of ε given c: mean r²·S⁻¹·c, covariance r²·(I − r²·S⁻¹)."""
    _, _, _, seen, _ = closed
    weather = SMALL.weather("west-africa")
    view = View(weather.law, weather.view.wide, weather.coarse)  # members with the rim that coarse cells reach
    c = weather.block(7).predictors[:1, 0].astype(float)
    draws, noise = 20_000, view.law.noise**2
    rng = np.random.default_rng(1)
    z = view.conditional(c, *(rng.standard_normal((draws, *grid.shape)) for grid in (view.wide, view.coarse)))
    left = (c - view.means[0] @ z @ view.means[1].T).reshape(draws, -1)
    inverse = np.linalg.inv(seen)
    covariance = noise * (np.eye(len(seen)) - noise * inverse)
    error = left.mean(0) - noise * inverse @ c.ravel()
    assert (np.abs(error) / np.sqrt(np.diag(covariance) / draws)).max() < 5
    spread = np.sqrt((covariance**2 + np.outer(np.diag(covariance), np.diag(covariance))) / draws)
    assert (np.abs(np.cov(left.T) - covariance) / spread).max() < 5.5


def test_rain_has_the_distribution_of_the_climate_in_whole_steps(hours):
    law, rain = SMALL.weather("melanesia").law, hours.target.numpy()
    assert (rain > 0).mean() == pytest.approx(region("melanesia").climate.wet_fraction, rel=0.05)
    assert rain[rain > 0].mean() == pytest.approx(law.mean_mm_h, rel=0.05)
    assert np.abs(rain / STEP_MM_H - np.rint(rain / STEP_MM_H)).max() < 1e-3


def test_the_first_guess_is_a_function_of_the_view(hours):
    weather = SMALL.weather("melanesia")
    latent, guess = hours.condition.numpy().astype(float).swapaxes(0, 1)
    law = weather.law
    again = rate(latent / weather.view.deviation, law.wet_fraction, law.mean_mm_h, law.shape)
    np.testing.assert_allclose(guess, again, rtol=1e-4, atol=1e-4)


# ---- the oracle


def ranks(members, truth, rng):
    """Ranks of the truth among the members, ties broken at random."""
    below, equal = (members < truth[:, None]).sum(1), (members == truth[:, None]).sum(1)
    return below + rng.integers(0, equal + 1)


def rank_p(oracle, batch):
    """p of a chi-square test that ranks are uniform, one random pixel a sample, 8 members."""
    rng = np.random.default_rng(2)
    rain, clipped = oracle.predict(batch, members=8, seed=1)
    assert clipped == 0
    cells = rng.integers(0, batch.target_grid.size, len(batch))
    rows = np.arange(len(batch))
    members = rain.numpy().reshape(len(batch), 8, -1)[rows, :, cells]
    truth = batch.target.numpy().reshape(len(batch), -1)[rows, cells]
    return stats.chisquare(np.bincount(ranks(members, truth, rng), minlength=9)).pvalue


def test_ranks_are_flat(hours):
    assert len(hours) >= 3000
    assert rank_p(Oracle(CHANNELS), hours) > 1e-3


@pytest.mark.parametrize("wrong", [WRONG[0], WRONG[1]], ids=str)
def test_the_test_of_ranks_sees_a_wrong_noise(hours, wrong):
    assert rank_p(Oracle(CHANNELS, **wrong), hours) < 1e-3


def scored(model, batch, members=8, seed=0):
    suite = Suite(("crps_fair", "spread_skill"))
    rain, _ = model.predict(batch, members=members, seed=seed)
    return suite, suite.update(rain[:, :, 0].numpy(), batch.target[:, 0].numpy(), ids=np.arange(len(batch)))


def beaten_by(model, reference, batch):
    """Interval of the fair CRPS of `model` less that of `reference`, paired; hours are independent."""
    tables = {"model": scored(model, batch)[1], "reference": scored(reference, batch)[1]}
    return block_bootstrap(tables, METRICS["crps_fair"](), difference, block=24)


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_a_wrong_covariance_is_punished(hours, wrong):
    assert beaten_by(Oracle(CHANNELS, **wrong), Oracle(CHANNELS), hours).low > 0


def test_interpolation_is_beaten_and_spread_is_as_large_as_the_error(hours):
    assert beaten_by(Interpolation(CHANNELS), Oracle(CHANNELS), hours).low > 0
    suite, table = scored(Oracle(CHANNELS), hours)
    assert suite.evaluate(table)["spread_skill"] == pytest.approx(1, abs=0.03)


def test_independent_members_score_the_same_whatever_their_number(hours):
    suite, few = scored(Oracle(CHANNELS), hours, members=3)
    _, many = scored(Oracle(CHANNELS), hours, members=12, seed=4)
    found = block_bootstrap({"model": few, "reference": many}, METRICS["crps_fair"](), difference, block=24)
    assert found.low < 0 < found.high
    assert suite.evaluate(few)["crps_fair"] == pytest.approx(suite.evaluate(many)["crps_fair"], rel=0.05)


def test_members_are_keyed_on_seed_sample_and_member(hours):
    part = hours.map(condition=hours.condition[:6], target=None, ids=(0, 1, 2, 3, 4, 5))
    oracle = Oracle(CHANNELS)
    rain, _ = oracle.predict(part, members=3, seed=9)
    assert rain.shape == (6, 3, 1, 10, 10)
    alone, _ = oracle.predict(part.map(condition=part.condition[4:5], ids=(4,)), members=2, seed=9)
    torch.testing.assert_close(alone[0], rain[4, :2], atol=1e-5, rtol=0)
    assert not torch.equal(oracle.predict(part, members=3, seed=10)[0], rain)
    assert not torch.equal(rain[:, 0], rain[:, 1])


def test_a_crop_has_its_own_exact_posterior():
    """Seen through fewer coarse cells, some of them reaching beyond the crop, ranks stay flat."""
    whole = sample(SMALL, "amazon-basin", 126)
    fine, coarse = whole.target_grid, whole.condition_grid
    rows, columns = fine.slices(lat=(float(coarse["lat"].coordinates[1]), 90.0))
    part = whole.map(
        condition=whole.condition[:, :, 1:],
        condition_grid=coarse.crop(lat=slice(1, None)),
        target=whole.target[:, :, rows, columns],
        target_grid=fine.crop(lat=rows, lon=columns),
    )
    assert rank_p(Oracle(CHANNELS), part) > 1e-3


def test_the_oracle_says_where_it_does_not_belong(hours):
    with pytest.raises(UserError, match="synthetic_exact"):
        Oracle(Channels(("tp",), ("precipitation",)))
    with pytest.raises(UserError, match="length_factor"):
        Oracle(CHANNELS, length_factor=0)
    nowhere = replace(
        hours, condition_grid=hours.condition_grid.moved(lat=60), target_grid=hours.target_grid.moved(lat=60)
    )
    with pytest.raises(DataError, match="needs a region with a climate"):
        Oracle(CHANNELS).predict(nowhere)


# ---- in the benchmark


def test_nobody_beats_the_oracle_in_the_benchmark(tmp_path):
    places = ["melanesia", "europe_west", "amazon-basin"]
    wrong = "{model: oracle, length_factor: 4.0, name: wrong}"
    config = compose(
        "rainshift.conf",
        "benchmark",
        [
            "data=synthetic_exact",
            "data.size_deg=1.0",
            "data.splits_at.train.hours=48",
            "data.splits_at.validation.hours=24",
            f"train_regions=[{','.join(places)}]",
            f"models=[bilinear,climatology,oracle,{wrong}]",
            "loader.patch=0",
            f"cache={tmp_path}",
        ],
    )
    results = Experiment(config).run().results
    score = results["score"].sel(metric="crps_fair", distribution="out")
    assert results["members"].sel(model="oracle").max() == 8
    for other in ("bilinear", "climatology", "wrong"):
        assert (score.sel(model="oracle") < score.sel(model=other)).all(), other
    skill = results.sel(distribution="out")
    assert (skill["skill_low"].sel(model="oracle") > 0).all()
    assert (skill["skill_low"].sel(model="oracle") > skill["skill_high"].sel(model="climatology")).all()


def test_the_page_gives_the_share_of_the_oracles_skill():
    coords = {"model": ["bilinear", "oracle", "mine"], "test_region": ["a", "b"], "distribution": ["in", "out"]}
    skill = [[[np.nan] * 2] * 2, [[0.5] * 2, [0.4] * 2], [[0.4, 0.25], [0.4, np.nan]]]
    results = xr.Dataset({"skill": (tuple(coords), skill)}, coords, {"reference": "bilinear"})
    inside, outside = oracle_rows(results)
    assert inside == {"model": "mine", "trained": "in", "a": 0.8, "b": 1.0, "mean": 0.9}
    assert outside["a"] == outside["mean"] == 0.5
    assert oracle_rows(results.sel(model=["bilinear", "mine"])) == []
