"""The exact law of rain given stations, against its dense closed form: what `benchmarks/guided.py` compares with."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.station_worlds import Residuals, StationLaw, fair_crps
from geoml.grids.grid import Grid
from geoml.metrics import Suite
from rainshift.places.regions import region
from rainshift.planet.gaussian import GaussianLaw, View

CELLS = np.array([[1, 2], [4, 4], [7, 8]])


@pytest.fixture(scope="module")
def world() -> StationLaw:
    fine, coarse = Grid.latlon(-6, -5, 140, 141, 0.1), Grid.latlon(-6, -5, 140, 141, 0.25)
    return StationLaw(View(GaussianLaw.of(region("melanesia")), fine, coarse), CELLS, 0.1)


def test_columns_are_those_of_the_covariance_given_the_coarse_view(world) -> None:
    view = world.view
    assert view.wide.shape == view.fine.shape
    prior = np.kron(*(view.law.covariance(axis) for axis in view.fine.axes))
    means = np.kron(*view.means)
    seen = means @ prior @ means.T + view.law.noise**2 * np.eye(len(means))
    dense = prior - prior @ means.T @ np.linalg.solve(seen, means @ prior)
    np.testing.assert_allclose(world.columns(CELLS), dense[world.flat], atol=1e-8)


def test_members_are_near_wet_stations_and_dry_at_dry_ones(world) -> None:
    rng = np.random.default_rng(1)
    _, coarse = world.view.draw(rng.standard_normal((1, *world.view.wide.shape)), rng.standard_normal((1, 4, 4)))
    wet = np.array([[5.0, 2.0, 1.0]])
    _, given = world.draws(coarse, wet, 300, rng)
    at = world.latent(given[0][:, CELLS[:, 0], CELLS[:, 1]])
    own = world.columns(CELLS)[:, world.flat]
    mean = world.view.expected(coarse)[0].ravel()[world.flat]
    gain = np.linalg.solve(own + 0.01 * np.eye(3), own).T
    np.testing.assert_allclose(at.mean(0), mean + gain @ (world.latent(wet)[0] - mean), atol=0.03)
    np.testing.assert_allclose(np.cov(at.T), own - gain @ own, atol=3e-3)
    readings = np.array([[5.0, 0.0, 1.0]])
    _, given = world.draws(coarse, readings, 300, rng)
    assert (given[0][:, 4, 4] > 0.1).mean() < 0.15
    exact = world.with_exact_denoiser(coarse, readings, 8, 0)
    off = world.latent(exact[0][:, CELLS[:, 0], CELLS[:, 1]])[:, [0, 2]] - world.latent(readings)[0, [0, 2]]
    assert np.abs(off).mean() < 0.2


def test_the_fair_score_is_that_of_the_suite() -> None:
    rng = np.random.default_rng(2)
    rain, truth = rng.gamma(0.5, size=(3, 4, 5, 6)), rng.gamma(0.5, size=(3, 5, 6))
    suite = Suite(("crps_fair",))
    wanted = suite.evaluate(suite.update(rain, truth, ids=np.arange(3)))["crps_fair"]
    assert fair_crps(rain, truth, np.ones(truth.shape, bool)) == pytest.approx(wanted)


def test_kriged_rain_is_that_of_the_stations_at_their_cells() -> None:
    residuals = Residuals(1.0, 0.0, sill=0.5, reach=4.0, nugget=0.0)
    one, many = residuals.members(np.full((9, 9), 1.0), np.array([16.0, 0.0, 1.0]), CELLS)
    np.testing.assert_allclose(one[0][CELLS[:, 0], CELLS[:, 1]], [16, 0, 1], atol=1e-6)
    assert many.shape == (16, 9, 9)
