"""Alignments against closed forms: gamma to gamma, equal laws, covariances; and what they may look at."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from geoml.data.fields import Batch
from geoml.errors import DataError, UserError
from geoml.grids.grid import Grid
from geoml.models.base import Channels
from rainshift.alignment import Coral, Inputs, QuantileMapping, TargetStatistics
from rainshift.alignment.statistics import recolouring
from rainshift.baselines import Interpolation
from rainshift.baselines.quantile_map import QuantileMap

CHANNELS = Channels(("tp", "u"), ("precipitation",), first_guess=(("precipitation", "tp"),))
COARSE = Grid.latlon(0, 2, 0, 2, 0.25, "node", half_open=True)
FINE = Grid.latlon(0, 2, 0, 2, 0.1)


def gamma(shape, scale, size, seed=0):
    return stats.gamma(shape, scale=scale).rvs(size, random_state=seed)


@pytest.mark.parametrize("kind", ["multiplicative", "additive"])
def test_gamma_to_gamma_is_the_analytic_map(kind):
    start, to = stats.gamma(0.8, scale=2.0), stats.gamma(1.5, scale=3.0)
    fitted = QuantileMap.fit(gamma(0.8, 2.0, 200_000), gamma(1.5, 3.0, 200_000, 1), kind=kind)
    x = start.ppf(np.linspace(0.02, 0.99, 50))
    np.testing.assert_allclose(fitted(x), to.ppf(start.cdf(x)), rtol=0.02)
    np.testing.assert_allclose(fitted.inverse(fitted(x)), x, rtol=1e-3)


def test_a_change_of_scale_is_mapped_exactly_into_the_tail():
    values = gamma(0.8, 2.0, 10_000)
    x = np.array([0.001, 1.0, 10 * values.max()])
    np.testing.assert_allclose(QuantileMap.fit(values, 3 * values)(x), 3 * x)
    np.testing.assert_allclose(QuantileMap.fit(values, values + 3, kind="additive")(x), x + 3)


def test_the_tail_rule():
    values = np.linspace(1, 2, 1000)
    far = np.array([5.0])
    assert QuantileMap.fit(values, 2 * values)(far) == pytest.approx(10)
    assert QuantileMap.fit(values, 2 * values, kind="additive")(far) == pytest.approx(7, abs=0.01)
    assert QuantileMap.fit(values, 2 * values, tail="clip")(far) == pytest.approx(4, abs=0.01)


@pytest.mark.parametrize("dry", [-np.inf, 0.01])
@pytest.mark.parametrize("kind", ["multiplicative", "additive"])
def test_equal_laws_change_nothing(kind, dry):
    rain = np.where(np.arange(5000) % 3 == 0, gamma(0.7, 1.0, 5000), 0.0).astype(np.float32)
    fitted = QuantileMap.fit(rain, rain, kind=kind, dry=dry)
    x = np.concatenate(([0, 0.005, 50], rain[:100])).astype(np.float32)
    mapped = fitted(x)
    assert mapped.dtype == np.float32
    np.testing.assert_allclose(mapped, x, rtol=1e-6)


def test_zeros_belong_to_the_law_unless_it_is_that_of_wet_cells():
    """A wet half becomes a wet quarter; the law of wet cells alone keeps every wet cell wet."""
    amounts = gamma(1.0, 1.0, 40_000)
    half, quarter = (np.where(np.arange(40_000) % n == 0, amounts, 0.0) for n in (2, 4))
    assert np.mean(QuantileMap.fit(half, quarter, quantiles=4000)(half) > 0) == pytest.approx(0.25, abs=0.005)
    assert np.mean(QuantileMap.fit(half, quarter, dry=0.01)(half) > 0.01) == pytest.approx(0.5, abs=0.02)
    assert not QuantileMap.fit(quarter, half)(np.zeros(3)).any()


def test_nothing_is_changed_where_one_side_is_dry():
    fitted = QuantileMap.fit(np.zeros(100), gamma(1, 1, 100), dry=0.01)
    assert np.array_equal(fitted(np.array([0.0, 3.0])), [0.0, 3.0])


# ---- on downscalers


def inputs(scale, seed, hours=60, shift=0.0):
    rng = np.random.default_rng(seed)
    rain = scale * rng.gamma(0.8, 1.0, (hours, 1, *COARSE.shape))
    wind = rng.normal(shift, 3.0, (hours, 1, *COARSE.shape))
    return Inputs(CHANNELS.condition, (np.concatenate((rain, wind), axis=1).astype(np.float32),))


def batch_of(sample):
    return Batch(torch.from_numpy(sample.fields[0]), COARSE, FINE, ids=tuple(range(len(sample.fields[0]))))


class Seen:
    """A downscaler that answers with the interpolated rain, and keeps what it was given."""

    stochastic = False

    def __init__(self):
        self.base, self.batch = Interpolation(CHANNELS), None

    def predict(self, batch, members=1, seed=0):
        self.batch = batch
        return self.base.predict(batch, members=members, seed=seed)


@pytest.mark.parametrize("per_pixel", [False, True])
def test_a_downscaler_sees_the_source_and_answers_in_the_target(per_pixel):
    source, target, seen = inputs(5.0, 0, 300), inputs(1.0, 1, 300), Seen()
    aligned = QuantileMapping(per_pixel=per_pixel).align(seen, source, target, CHANNELS)
    batch = batch_of(target)
    rain, _ = aligned.predict(batch, members=2)
    tp = seen.batch.condition[:, 0]
    assert float(tp.mean()) == pytest.approx(5 * 0.8, rel=0.05)
    assert torch.equal(seen.batch.condition[:, 1], batch.condition[:, 1])
    assert rain.shape == (300, 2, 1, *FINE.shape)
    # The law back is that of the scale alone here, which interpolation commutes with.
    expected, _ = Interpolation(CHANNELS).predict(batch, members=2)
    assert float((rain - expected).abs().mean()) < (0.1 if per_pixel else 0.05) * float(expected.mean())
    raw, _ = QuantileMapping(per_pixel=per_pixel, inverse=False).align(seen, source, target, CHANNELS).predict(batch)
    assert float(raw.mean()) == pytest.approx(5 * float(expected.mean()), rel=0.05)


def test_all_predictors_are_mapped_and_those_of_two_signs_additively():
    seen, target = Seen(), inputs(1.0, 1, shift=-4.0)
    QuantileMapping(channels="all").align(seen, inputs(2.0, 0, shift=4.0), target, CHANNELS).predict(batch_of(target))
    assert float(seen.batch.condition[:, 1].mean()) == pytest.approx(4.0, abs=0.1)
    assert float(seen.batch.condition[:, 1].std()) == pytest.approx(3.0, rel=0.03)


def test_recolouring_gives_the_covariance_of_the_source():
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(3, 3))
    source, target = rng.normal(size=(5000, 3)) @ mix + [1, 2, 3], rng.normal(size=(4000, 3)) * [1, 5, 0.2] - 4
    matrix, offset = recolouring(source, target)
    mapped = target @ matrix + offset
    np.testing.assert_allclose(mapped.mean(0), source.mean(0), atol=1e-6)
    np.testing.assert_allclose(np.cov(mapped.T), np.cov(source.T), rtol=1e-3, atol=1e-3)
    matrix, offset = recolouring(source, source)
    np.testing.assert_allclose(source @ matrix + offset, source, atol=1e-6)


def test_mistakes_are_named():
    source, target = inputs(1.0, 0), inputs(1.0, 1)
    with pytest.raises(UserError, match="did you mean 'tp'"):
        QuantileMapping(channels="tpp").align(Seen(), source, target, CHANNELS)
    with pytest.raises(UserError, match="inverse=false"):
        QuantileMapping(channels="u").align(Seen(), source, target, CHANNELS)
    with pytest.raises(UserError, match="did you mean 'additive'"):
        QuantileMapping(kind="aditive")
    for alignment in (Coral(), TargetStatistics()):
        with pytest.raises(UserError, match="needs a network"):
            alignment.align(Seen(), source, target, CHANNELS)
    aligned = QuantileMapping(per_pixel=True).align(Seen(), source, target, CHANNELS)
    part = COARSE.crop(lat=slice(0, 4), lon=slice(0, 8))
    with pytest.raises(DataError, match="complete regions"):
        aligned.predict(Batch(torch.ones(1, 2, 4, 8), part, FINE))
