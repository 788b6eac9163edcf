"""Baselines: closed forms, exactness where observed, what is fitted comes back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from geoml.data.fields import Batch
from geoml.data.store import open_store
from geoml.errors import DataError, UserError
from geoml.grids.grid import Grid
from radiomaps.baselines import BASELINES, baseline, load_baseline, save_baseline
from radiomaps.baselines.kriging import fit_exponential
from radiomaps.baselines.physics import clear_of_roofs, sight_probability, street_loss_db
from radiomaps.generation.generate import generate
from radiomaps.generation.plan import Placement, Plan, Window
from radiomaps.maps.layout import friis_gain_db
from radiomaps.scores import score
from radiomaps.tasks import TARGETS, Observations, Task
from radiomaps.tasks.conditions import HEIGHT_M
from radiomaps.tasks.dataset import TaskSource, loader

AWARE = Task(targets=TARGETS)
UNAWARE = Task(targets=TARGETS, radiation="unaware", observations=Observations(rate=0.04), transmitter=())
INTERPOLATION = ("idw", "knn", "kriging", "regression_kriging", "rbf")


def traced(folder: Path, **scene: object) -> Path:
    scenes = ({"name": "procedural", "seed": 3, "count": 2, "size_m": 96, **scene},)
    window = Window(size_m=64, step_m=4, heights_m=(1.5, 7.5, 3))
    return generate(Plan(scenes, Placement(count=2), window), folder / "maps.zarr")


@pytest.fixture(scope="module")
def plain_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Maps over a plain without buildings: free space."""
    return traced(tmp_path_factory.mktemp("plain"), empty=1.0)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Maps of two small cities."""
    return traced(tmp_path_factory.mktemp("city"))


def batches(store: Path, task: Task) -> Iterator[Batch]:
    return iter(loader(store, None, task, batch_size=4, shuffle=False))


def test_free_space_errs_by_nothing_where_space_is_free(plain_store: Path):
    found = score(baseline("free_space", AWARE), plain_store, range(4))
    assert found.values("path_gain_db", "all")["rmse"] < 0.006  # stored to 0.01 dB
    assert found.values("toa_s", "all")["rmse"] < 1e-3
    assert found.values("doa_azimuth", "all")["rmse"] < 0.01
    assert found.values("doa_zenith", "all")["rmse"] < 0.01
    assert found.values("path_gain_db", "all")["within_3"] == 1


def test_log_distance_finds_the_law_of_free_space(plain_store: Path, tmp_path: Path):
    made = baseline("log_distance", AWARE)
    made.fit(batches(plain_store, made.task))
    state = made.state()
    assert state["exponent"] == pytest.approx(2.0, abs=1e-3)
    assert state["intercept_db"] == pytest.approx(float(friis_gain_db(1.0, 5.9e9)), abs=0.02)
    save_baseline(made, "log_distance", {}, tmp_path)
    again = load_baseline(tmp_path, AWARE)
    batch = next(batches(plain_store, made.task))
    assert torch.equal(made.predict(batch)[0], again.predict(batch)[0])
    with pytest.raises(DataError, match="two or more distances"):
        made.fit([])
    with pytest.raises(UserError, match=r"not in task\.targets"):
        baseline("log_distance", AWARE.changed(targets=("toa_s",)))


@pytest.mark.parametrize("name", INTERPOLATION)
def test_interpolation_honours_observations_and_comes_back(store: Path, name: str, tmp_path: Path):
    given = {"smoothing": 0.0} if name == "rbf" else {}
    made = baseline(name, UNAWARE, **given)
    made.fit(batches(store, made.task))
    batch = next(batches(store, made.task))
    fields, clipped = made.predict(batch, members=2)
    assert clipped == 0
    assert fields.shape == (4, 2, 5, 3, 16, 16)
    assert torch.equal(fields[:, 0], fields[:, 1])
    assert fields.isfinite().all()
    seen = made.channel(batch, "observed") > 0
    exact = name != "knn" or made.state()["k"] == 1
    if exact:
        values = np.moveaxis(made.channels(batch, "_observed"), 1, -1)[seen]
        assert np.abs(np.moveaxis(fields[:, 0].numpy(), 1, -1)[seen] - values).max() < 1e-4
    save_baseline(made, name, given, tmp_path)
    assert torch.equal(load_baseline(tmp_path, UNAWARE).predict(batch)[0], fields[:, :1])


def test_interpolation_does_not_look_at_the_truth(store: Path):
    made = baseline("kriging", UNAWARE)
    made.fit(batches(store, made.task))
    batch = next(batches(store, made.task))
    spoilt = batch.map(target=torch.rand_like(batch.target))
    assert torch.equal(made.predict(batch)[0], made.predict(spoilt)[0])


def test_kriging_of_a_linear_variogram_on_a_line_is_linear():
    """Between two observations ordinary kriging in a nearly linear variogram is the straight line."""
    made = baseline("kriging", UNAWARE)
    made.load_state({"variograms": {name: [1.0, 1e5] for name in UNAWARE.target_channels}})
    places = np.array([[0.0, 0, 0], [0, 0, 10]])
    values = np.repeat([[1.0], [3.0]], 5, axis=1)
    wanted = np.array([[0.0, 0, x] for x in (0, 2.5, 5, 10)])
    grid = Grid.box({"z": 0, "y": 0, "x": 0}, {"z": 1, "y": 1, "x": 1}, 1.0)
    batch = Batch(torch.zeros(1, len(UNAWARE.channels.condition), 1, 1, 1), grid, grid)
    found = made.fill(places, values, wanted, 0, batch)  # type: ignore[attr-defined]
    assert np.allclose(found[:, 0], [1.0, 1.5, 2.0, 3.0], atol=0.01)


def test_a_variogram_is_found_again():
    lag = np.random.default_rng(0).uniform(0, 100, 200_000)
    gamma = 2.0 * (1 - np.exp(-3 * lag / 30)) * np.random.default_rng(1).chisquare(1, lag.size)
    sill, reach = fit_exponential(lag, gamma)
    assert sill == pytest.approx(2.0, rel=0.03)
    assert reach == pytest.approx(30.0, rel=0.08)
    assert fit_exponential(lag, np.full(len(lag), 1e-15))[0] == 1e-12  # constant but for rounding


def test_3gpp_losses_are_those_of_the_report():
    """By hand from table 7.4.1-1 of TR 38.901 at 100 m, 3.5 GHz, 25 and 10 m above 1.5 m."""
    at, carrier, terminal = np.array(100.0), np.array(3.5), np.array(1.5)
    tone = 20 * np.log10(3.5)
    seen, hidden = street_loss_db("uma", at, at, carrier, np.array(25.0), terminal)
    assert seen == pytest.approx(28 + 44 + tone)
    assert hidden == pytest.approx(13.54 + 2 * 39.08 + tone)
    seen, hidden = street_loss_db("umi", at, at, carrier, np.array(10.0), terminal)
    assert seen == pytest.approx(32.4 + 42 + tone)
    assert hidden == pytest.approx(22.4 + 2 * 35.3 + 21.3 * np.log10(3.5))
    far = np.array(5000.0)  # beyond the breakpoint of 4 · 24 · 0.5 · 3.5e9 / c = 560 m
    beyond, _ = street_loss_db("uma", far, far, carrier, np.array(25.0), terminal)
    breakpoint_m = 4 * 24 * 0.5 * 3.5e9 / 299_792_458
    assert beyond == pytest.approx(28 + 40 * np.log10(5000) + tone - 9 * np.log10(breakpoint_m**2 + 23.5**2))
    chance = sight_probability("uma", np.array([10.0, 63.0]), terminal)
    assert chance.tolist() == pytest.approx([1.0, 18 / 63 + np.exp(-1) * (1 - 18 / 63)])


def test_roofs_in_the_way_are_those_that_the_solver_sees(store: Path):
    task = baseline("umi", AWARE, sight="roofs").task
    batch = next(batches(store, task))
    source = TaskSource(store, task)
    names = task.channels.condition
    roofs = batch.condition[:, names.index("roof"), 0].numpy() * HEIGHT_M
    vector = np.stack([source.site(n).towards(source.target_grid) for n in range(4)])[:, ::-1]
    clear = clear_of_roofs(roofs, np.moveaxis(vector, 1, -1), batch.target_grid) > 0
    outdoors = batch.condition[:, names.index("building")].numpy() == 0
    truth = open_store(store, "target")["los"].values[:4] > 0.5
    assert (clear == truth)[outdoors].mean() > 0.93  # columns of 4 m are coarser than walls


def test_baselines_refuse_tasks_they_cannot_do(store: Path):
    for name in BASELINES:
        refused = []
        for task in (AWARE, UNAWARE):
            try:
                baseline(name, task)
            except UserError as error:
                refused.append(str(error))
        assert refused or name == "prior", name
    with pytest.raises(UserError, match="did you mean 'kriging'"):
        baseline("krigging", UNAWARE)
    with pytest.raises(UserError, match="has no 'order'"):
        baseline("idw", UNAWARE, order=2)


def test_the_prior_alone_is_its_channels(store: Path):
    task = AWARE.changed(prior="dominant")
    found = score(baseline("prior", task), store, range(4))
    assert all(found.nmse(target) < 1e-9 for target in TARGETS)
