"""Rivals without a network: what they keep, and what they learn."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from geoml.data.fields import Batch
from geoml.errors import DataError, UserError
from geoml.grids.grid import Grid
from geoml.metrics.probabilistic import fair_crps
from geoml.models.base import Channels
from geoml.nn.conservation import conservation_for
from rainshift.baselines import Climatology, Interpolation, QuantileMappedInterpolation, RainFARM
from rainshift.baselines.rainfarm import power_law_noise, spectral_slope

CHANNELS = Channels(("u", "tp"), ("precipitation",), first_guess=(("precipitation", "tp"),))
COARSE = Grid.latlon(0, 8, 0, 8, 0.25, "node", half_open=True)
FINE = Grid.latlon(0, 8, 0, 8, 0.1)


@pytest.fixture(scope="module")
def batch():
    """Rain with a power spectrum, half of it dry, and a predictor that has nothing to do with it."""
    rng = np.random.default_rng(0)
    latent = power_law_noise(rng.normal(size=(6, *COARSE.shape)), np.full(6, 2.5))
    rain = np.maximum(np.exp(latent) - 1, 0)
    condition = np.stack((rng.normal(size=rain.shape), rain), axis=1).astype(np.float32)
    mask = torch.rand(6, 1, *FINE.shape, generator=torch.Generator().manual_seed(1)) > 0.1
    batch = Batch(torch.from_numpy(condition), COARSE, FINE, ids=tuple(range(6)))
    bilinear = Interpolation(CHANNELS).predict(batch)[0][:, 0]
    target = (2 * bilinear.square()).masked_fill(~mask, torch.nan)
    return batch.map(target=target, mask=mask)


def test_rainfarm_keeps_the_coarse_means(batch):
    members, clipped = RainFARM(CHANNELS).predict(batch, members=3, seed=1)
    assert members.shape == (6, 3, 1, *FINE.shape)
    assert clipped == 0
    assert float(members.min()) >= 0
    layer = conservation_for(FINE, COARSE)
    wanted = layer.inner(batch.condition[:, None, 1:].double())
    assert float((layer.means(members.double()) - wanted).abs().max()) < 1e-5 * float(wanted.max())
    assert float((members[:, 0] - members[:, 1]).abs().max()) > 0.1


def test_members_of_rainfarm_do_not_depend_on_the_batch(batch):
    model = RainFARM(CHANNELS)
    whole, _ = model.predict(batch, members=2, seed=4)
    part = Batch(batch.condition[2:3], COARSE, FINE, ids=batch.ids[2:3])
    torch.testing.assert_close(model.predict(part, members=3, seed=4)[0][:, :2], whole[2:3])


@pytest.mark.parametrize("slope", [1.0, 2.0, 3.0])
def test_noise_has_the_slope_and_variance_asked_for(slope):
    white = np.random.default_rng(0).normal(size=(40, 64, 80))
    fields = power_law_noise(white, np.full(40, slope))
    assert fields.var() == pytest.approx(1, rel=0.15)
    assert np.mean([spectral_slope(field) for field in fields]) == pytest.approx(slope, abs=0.2)


def test_rainfarm_carries_the_slope_on(batch):
    """In log space, where g lives, the fine field falls off as the coarse rain does, up to its own Nyquist number."""
    steep, flat = (RainFARM(CHANNELS, slope=s).predict(batch, members=2)[0] for s in (3.5, 1.0))

    def roughness(fields):
        rain = fields.double().numpy()
        return float(np.square(np.diff(rain, axis=-1)).mean())

    assert roughness(flat) > 2 * roughness(steep)


def test_dry_stays_dry(batch):
    dry = batch.map(condition=torch.zeros_like(batch.condition))
    assert not RainFARM(CHANNELS).predict(dry, members=2)[0].any()


def test_bcsd_learns_the_map_of_the_marginals(batch):
    """The truth is twice the square of the interpolation, which a map of marginals finds exactly."""
    model = QuantileMappedInterpolation(CHANNELS)
    model.fit([batch])
    other = QuantileMappedInterpolation(CHANNELS)
    other.load_state(json.loads(json.dumps(model.state())))
    rain, _ = other.predict(batch, members=2)
    wet = batch.mask[:, 0] & (batch.target[:, 0] > 0.05)
    ratio = (rain[:, 0, 0] / batch.target[:, 0])[wet]
    assert float(ratio.median()) == pytest.approx(1, abs=0.01)
    assert float((ratio - 1).abs().quantile(0.95)) < 0.05


def test_climatology_takes_over_its_state(batch):
    model, other = Climatology(CHANNELS), Climatology(CHANNELS)
    model.fit([batch])
    other.load_state(json.loads(json.dumps(model.state())))
    assert torch.equal(model.predict(batch, members=8)[0], other.predict(batch, members=8)[0])
    known = batch.target[:, 0][batch.mask[:, 0]].numpy()
    np.testing.assert_allclose(model.quantiles(np.array([0.9]))[0], np.quantile(known, [0.9]), rtol=0.02)


def test_climatology_scores_as_its_distribution_does(batch):
    """Over a truth of the pooled distribution the CRPS is half of Gini's mean difference, however many members."""
    model = Climatology(CHANNELS)
    model.fit([batch])
    pooled = np.sort(batch.target[:, 0][batch.mask[:, 0]].double().numpy())
    ranks = np.arange(1, len(pooled) + 1)
    half = float(((2 * ranks - len(pooled) - 1) * pooled).sum() / len(pooled) ** 2)  # E|X − X'| / 2
    truth = np.random.default_rng(3).choice(pooled, batch.target[:, 0].shape)
    for members in (2, 8):
        drawn = model.predict(batch, members=members, seed=2)[0][:, :, 0].numpy()
        assert fair_crps(drawn, truth, axis=1).mean() == pytest.approx(half, rel=0.03)
    part = Batch(batch.condition[2:3], COARSE, FINE, ids=batch.ids[2:3])
    assert np.array_equal(model.predict(part, members=3, seed=2)[0][0, :3, 0], drawn[2, :3])


def test_mistakes_are_named(batch):
    rain_alone = Channels(("u",), ("precipitation",))
    for kind in (Interpolation, QuantileMappedInterpolation, RainFARM):
        with pytest.raises(UserError, match="first_guess"):
            kind(rain_alone)
    with pytest.raises(UserError, match="slope"):
        RainFARM(CHANNELS, slope=-1)
    with pytest.raises(DataError, match="expected 1, one per target"):
        QuantileMappedInterpolation(CHANNELS).load_state({"counts": []})
    with pytest.raises(ValueError, match="fit first"):
        QuantileMappedInterpolation(CHANNELS).predict(batch)
