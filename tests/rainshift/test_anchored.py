"""Anchored models: bounded by the coarse rain, free of statistics of a place, and whole with any predictors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geoml.data.fields import Batch
from geoml.errors import UserError
from geoml.models.base import Channels
from rainshift.models.amounts import compressed, from_latent, to_latent
from rainshift.models.anchored import BOUND
from rainshift.models.slots import COARSE_SLOTS, LOSE_ALL, LOSE_EACH, PREDICTOR_SLOTS, SLOT_FIELDS, Slots
from rainshift.models.spec import ModelSpec
from rainshift.places.regions import Region, grids
from rainshift.sources import open_source

NAMES = ("anchored", "anchored-regression")
GUESS = (("precipitation", "tp"),)
RAIN = Channels(("tp",), ("precipitation",), (), GUESS)
ALL = Channels(("tp", *COARSE_SLOTS, "exact"), ("precipitation",), ("lsm", "z"), GUESS)


def batch_of(channels: Channels, samples: int = 3) -> Batch:
    """Hours of a drawn climate."""
    data = open_source("synthetic_climates", size_deg=2).blocks("climate-0003", np.array([12001]))
    hours = list(range(0, 24, 24 // samples))[:samples]
    condition = np.stack([data.condition[name].values[hours] for name in channels.condition], 1)
    static = None
    if channels.static:
        wide = np.stack([data.static[name].values for name in channels.static])
        static = torch.from_numpy(np.broadcast_to(wide, (samples, *wide.shape)).copy())
    target = torch.from_numpy(data.target["precipitation"].values[hours][:, None].copy())
    return Batch(torch.from_numpy(condition), data.coarse, data.fine, target, static, ids=tuple(range(samples)))


def built(name: str, channels: Channels, gain: float = 0.0):
    """A model of a few weights; with `gain` its last layer is not 0."""
    torch.manual_seed(0)
    model = ModelSpec.of({"model": name, "network": {"base": 4, "multipliers": [1, 2]}}).build(channels)
    if gain:
        for parameter in model.parameters():
            if parameter.ndim > 1 and not parameter.any():
                torch.nn.init.normal_(parameter, std=gain)
    return model.eval()


def test_dry_and_wet_stay_apart_and_amounts_return():
    rain = torch.tensor([0.0, 0.02, 0.1, 1.0, 40.0])
    latent = to_latent(rain)
    assert latent[:2].max() < 0 < latent[2:].min()
    assert torch.allclose(from_latent(latent), torch.tensor([0.0, 0.0, 0.1, 1.0, 40.0]), rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", [RAIN, ALL], ids=["rain", "all"])
def test_no_prediction_leaves_the_bound(name, channels):
    batch = batch_of(channels)
    model = built(name, channels, gain=3.0)
    rain = model.predict(batch, members=2, seed=1)
    assert rain.shape == (3, 2, 1, *batch.target_grid.shape)
    least = compressed(model.slots.smooth(batch.condition[:, :1], batch.condition_grid, batch.target_grid))
    assert (compressed(rain) <= least.unsqueeze(1) + BOUND + 1e-4).all()
    assert ((rain == 0) | (rain >= 0.1 - 1e-6)).all()


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_all_predictors_serve_rain_alone(name, tmp_path):
    """The same weights load for any channels; what lacks a predictor equals what empties its slot."""
    full, alone = built(name, ALL, gain=0.1), built(name, RAIN)
    alone.load_state_dict(full.state_dict())
    batch = batch_of(ALL)
    bare = batch.map(condition=batch.condition[:, :1], static=None)
    fields = full.slots(batch)
    flags = slice(SLOT_FIELDS - len(PREDICTOR_SLOTS) - 1, SLOT_FIELDS - 1)
    assert (fields[:, flags] == 1).all()
    assert not alone.slots(bare)[:, 2:].any()
    assert torch.equal(alone.slots(bare)[:, :2], fields[:, :2])
    assert torch.isfinite(alone.predict(bare, members=2)).all()


def test_slots_are_emptied_in_training_as_often_as_said():
    batch = batch_of(ALL, samples=24)
    slots = Slots(ALL).train()
    first = SLOT_FIELDS - len(PREDICTOR_SLOTS) - 1
    kept = torch.cat([
        slots(batch, torch.Generator().manual_seed(seed))[:, first:-1].mean((-2, -1)) for seed in range(12)
    ])  # fmt: skip
    assert float((kept == 0).all(1).float().mean()) == pytest.approx(LOSE_ALL, abs=0.1)
    assert float(kept.mean()) == pytest.approx((1 - LOSE_ALL) * (1 - LOSE_EACH), abs=0.1)


def test_a_predictor_beyond_the_training_counts_as_unknown():
    batch = batch_of(ALL)
    slots = Slots(ALL).train()
    slots(batch, torch.Generator().manual_seed(0))
    slots.eval()
    column = ALL.condition.index("tclw")
    strange = batch.condition.clone()
    strange[:, column] = 500.0
    usual, novel = slots(batch), slots(batch.map(condition=strange))
    flag = SLOT_FIELDS - len(PREDICTOR_SLOTS) - 1 + PREDICTOR_SLOTS.index("tclw")
    assert (usual[:, flag] == 1).all()
    assert (novel[:, flag] == 0).all()
    assert slots.outside > 0.1
    same = [i for i in range(SLOT_FIELDS) if i not in (flag, 2 + COARSE_SLOTS.index("tclw"))]
    assert torch.equal(usual[:, same], novel[:, same])


def test_the_regression_learns_how_much_is_wet():
    """Its level moves until as many cells are wet as in the truth, whatever the log odds are."""
    batch = batch_of(RAIN, samples=8)
    model = built("anchored-regression", RAIN).train()
    optimiser = torch.optim.SGD([model.level], lr=0.3)
    for step in range(150):
        optimiser.zero_grad()
        model.loss(batch, generator=torch.Generator().manual_seed(step)).backward()
        optimiser.step()
    odds, _ = model.eval()(batch)
    wet, true = float((odds > model.level).float().mean()), float((batch.target >= 0.05).float().mean())
    assert wet == pytest.approx(true, abs=0.05)


def test_the_temperature_is_that_of_exact_means_or_of_errors():
    batch = batch_of(RAIN)
    spreads = {}
    for exact in (False, True):
        model = built("anchored", RAIN)
        model.temperatures, model.slots.exact = (1.5, 0.5), exact
        spreads[exact] = float(model.predict(batch, members=4, seed=1).std(1).mean())
        model.temperatures = (0.5, 0.5)
        spreads[exact, "low"] = float(model.predict(batch, members=4, seed=1).std(1).mean())
    assert spreads[False] > 1.2 * spreads[False, "low"]
    assert spreads[True] == spreads[True, "low"]
    with pytest.raises(UserError, match="two numbers"):
        ModelSpec.of({"model": "anchored", "temperatures": [1.0, 0.0]}).build(RAIN)


def test_other_targets_are_refused():
    from geoml.errors import UserError

    with pytest.raises(UserError, match="first_guess"):
        ModelSpec.of("anchored").build(Channels(("cape",), ("precipitation",)))


def test_one_more_region_changes_nothing_of_the_grid_in_between():
    """The slots of a batch do not depend on the other samples in it."""
    batch = batch_of(ALL)
    slots = Slots(ALL).eval()
    alone = slots(batch.map(**{key: getattr(batch, key)[:1] for key in ("condition", "target", "static")}, ids=(0,)))
    assert torch.allclose(slots(batch)[:1], alone, atol=1e-6)
    assert grids(Region("x", 0, 2, 0, 2))[0].shape == batch.condition_grid.shape
