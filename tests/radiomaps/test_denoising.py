"""Cheap traces as what a network denoises: the same maps with a hundredth of the rays, beside a store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from geoml.errors import UserError
from radiomaps.generation.generate import generate
from radiomaps.generation.plan import Placement, Plan, Window
from radiomaps.tasks import Task
from radiomaps.tasks.dataset import loader
from radiomaps.tasks.low_ray_prior import cheap_plan, cheap_store

WINDOW = Window(size_m=64, step_m=4, heights_m=(1, 10, 3))
SCENES = ({"name": "procedural", "seed": 3, "size_m": 64},)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = {"rays": 200_000, "batches": 2, "depth": 3}
    plan = Plan(SCENES, Placement(count=2), WINDOW, "sionna", options)
    return generate(plan, tmp_path_factory.mktemp("traced") / "maps.zarr")


def test_the_prior_is_the_cheap_trace_and_noisier_than_the_target(store: Path) -> None:
    task = Task(prior="cheap_trace")
    batch = next(iter(loader(store, None, task, batch_size=2, shuffle=False)))
    assert batch.target is not None
    assert batch.mask is not None
    prior = batch.condition[:, task.channels.condition.index("path_gain_db_prior")]
    assert torch.isfinite(prior).all()
    away = 77 * (prior - batch.target[:, 0]).abs()[batch.mask[:, 0]]
    assert float(away.median()) < 3
    assert 0.01 < float(away.mean()) < 20
    beside = cheap_store(store)
    before = (beside.path / "zarr.json").stat().st_mtime_ns
    assert cheap_store(store) == beside
    assert (beside.path / "zarr.json").stat().st_mtime_ns == before


def test_all_but_the_rays_stays(store: Path) -> None:
    plan = Plan(
        SCENES, Placement(count=3), WINDOW, "sionna", {"rays": 1_000_000, "depth": 5, "diffraction": True}, seed=4
    )
    cheap = cheap_plan(plan.describe(), store)
    assert cheap.options == {**plan.options, "rays": 10_000, "error_db": None}
    assert (cheap.scenes, cheap.placement, cheap.window, cheap.seed) == (plan.scenes, plan.placement, WINDOW, 4)
    np.testing.assert_array_equal(cheap.transmitters(0)[2].position, plan.transmitters(0)[2].position)


def test_what_has_no_rays_to_spare_is_refused(store: Path) -> None:
    with pytest.raises(UserError, match="traces no rays"):
        cheap_plan(Plan(SCENES, window=WINDOW).describe(), store)
    with pytest.raises(UserError, match="the minimum"):
        cheap_plan(Plan(SCENES, window=WINDOW, solver="sionna", options={"rays": 50_000}).describe(), store)
