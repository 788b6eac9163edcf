"""CRPS and spread, against scoringrules, closed forms and what is known of ensembles."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scoringrules
from hypothesis import given, settings
from hypothesis import strategies as st

from geoml.metrics import Suite
from geoml.metrics.kernels import NETWORK, ROW, crps_terms, ensemble_terms, sorting_network
from geoml.metrics.probabilistic import fair_crps

SUITE = Suite(("crps", "crps_fair", "mae", "spread", "spread_skill"))


@pytest.mark.parametrize("size", [*range(1, 13)])
def test_sorting_network_sorts(size: int) -> None:
    # A network that sorts all lists of zeros and ones sorts all lists (Knuth, vol. 3, sect. 5.3.4, theorem Z).
    lists = (np.arange(2**size) >> np.arange(size)[:, None]) & 1
    for i, j in sorting_network(size):
        lists[[i, j]] = np.minimum(lists[i], lists[j]), np.maximum(lists[i], lists[j])
    assert (np.diff(lists, axis=0) >= 0).all()


@pytest.mark.parametrize("members", [2, 3, 8, 16, NETWORK, NETWORK + 1, 50, 100])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_crps_agrees_with_scoringrules(members: int, dtype: type) -> None:
    rng = np.random.default_rng(members)
    x = (rng.normal(280, 20, (members, 700)) * rng.choice([0, -1, 1], (members, 700))).astype(dtype)
    y = rng.normal(280, 20, 700)
    mean, variance, error, difference = ensemble_terms(x, y)
    wide = x.T.astype(np.float64)
    for estimator, value in (
        ("nrg", error - difference / 2),
        ("fair", error - difference / 2 * members / (members - 1)),
    ):
        expected = scoringrules.crps_ensemble(y, wide, estimator=estimator, backend="numpy")
        np.testing.assert_allclose(value, expected, rtol=3e-6, atol=3e-6 * 280)
    np.testing.assert_allclose(mean, wide.mean(axis=1), rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(variance, wide.var(axis=1, ddof=1), rtol=1e-10)


@pytest.mark.parametrize("members", [1, 2, 7, 50, NETWORK, NETWORK + 1])
@pytest.mark.parametrize("cells", [1, ROW - 1, ROW, 3 * ROW + 5])
def test_terms_are_those_of_each_cell_in_any_layout(members: int, cells: int) -> None:
    rng = np.random.default_rng(members)
    x = np.maximum(rng.normal(0, 3, (members, cells)), -1).astype(np.float32)  # many are equal
    x[rng.random(x.shape) < 0.1] = -0.0
    y = rng.normal(0, 3, cells)
    for values in (x, x.astype(np.float64)):
        wide = np.repeat(values.T, 3, axis=1)  # `(cell, 3 members)`, of which every third is taken
        made = ensemble_terms(values, y)
        assert np.array_equal(crps_terms(values, y), made[2:])
        for layout in (np.asfortranarray(values), wide[:, ::3].T, values[:, ::-1][:, ::-1]):
            assert np.array_equal(ensemble_terms(layout, y), made)
        pairs = np.abs(values[:, None].astype(np.float64) - values[None]).mean(axis=(0, 1))
        np.testing.assert_allclose(made[2], np.abs(values - y).mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(made[3], pairs, rtol=1e-12, atol=1e-15)


def test_a_cell_with_nan_leaves_its_neighbours_alone() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 300)).astype(np.float32), rng.normal(size=300)
    expected = crps_terms(x, y)
    x[3, 7] = np.nan
    made = crps_terms(x, y)
    assert np.isnan(made[0, 7])
    assert np.array_equal(np.delete(made, 7, axis=1), np.delete(expected, 7, axis=1))


def gaussian_crps(mean: float, std: float, y: np.ndarray) -> np.ndarray:
    """Closed form (Gneiting et al. 2005, eq. 5)."""
    z = (y - mean) / std
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    cumulative = 0.5 * (1 + np.vectorize(math.erf)(z / math.sqrt(2)))
    return std * (z * (2 * cumulative - 1) + 2 * density - 1 / math.sqrt(math.pi))


def test_crps_of_a_gaussian_ensemble_is_the_closed_form() -> None:
    rng = np.random.default_rng(5)
    y = np.linspace(-2, 5, 40)
    members = rng.normal(1.0, 1.5, (1, 2000, 40))
    suite = Suite(("crps", "crps_fair"))
    value = suite.evaluate(suite.update(members, y[None], ids=[0]))
    expected = gaussian_crps(1.0, 1.5, y).mean()
    assert value["crps_fair"] == pytest.approx(expected, rel=0.01)
    assert value["crps"] == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("members", [2, 4, 8, 16])
def test_fair_crps_does_not_depend_on_the_number_of_members(members: int) -> None:
    rng = np.random.default_rng(members)
    cells = 100_000
    y = rng.normal(0, 1, cells)
    x = rng.normal(0.3, 0.8, (members, cells))
    _, _, error, difference = ensemble_terms(x, y)
    fair = error - difference / 2 * members / (members - 1)
    standard = error - difference / 2
    # y − x ~ N(−0.3, 1 + 0.8²): the expectation of |y − x| less half that of |x − x'| = 2·0.8/√π.
    std = math.hypot(1, 0.8)
    folded = std * math.sqrt(2 / math.pi) * math.exp(-(0.3**2) / (2 * std**2)) + 0.3 * math.erf(
        0.3 / (std * math.sqrt(2))
    )
    gmd = 2 * 0.8 / math.sqrt(math.pi)
    expected = folded - gmd / 2
    assert abs(fair.mean() - expected) < 4 * fair.std() / math.sqrt(cells)
    assert abs(standard.mean() - expected - gmd / (2 * members)) < 4 * standard.std() / math.sqrt(cells)


@settings(max_examples=40, deadline=None)
@given(members=st.integers(2, 20), seed=st.integers(0, 10_000), scale=st.sampled_from([1e-3, 1.0, 1e4]))
def test_bounds_and_identity_of_the_two_estimators(members: int, seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    x, y = scale * rng.gamma(0.5, 1, (members, 30)), scale * rng.gamma(0.5, 1, 30)
    suite = Suite(("crps", "crps_fair", "mae"))
    value = suite.evaluate(suite.update(x[None], y[None], ids=[0]))
    _, _, error, difference = ensemble_terms(x, y)
    crps = error - difference / 2
    assert (crps >= -1e-12 * scale).all()
    assert (crps <= error + 1e-12 * scale).all()
    gmd = difference.mean() * members / (members - 1)
    assert value["crps"] - value["crps_fair"] == pytest.approx(gmd / (2 * members), rel=1e-9, abs=1e-12 * scale)


def test_one_member_is_a_point_forecast(scores, case) -> None:
    prediction, truth, mask = case(members=1)
    value = scores(SUITE, prediction, truth, mask)
    assert value["crps"] == value["crps_fair"] == value["mae"]
    assert value["spread"] == value["spread_skill"] == 0


@pytest.mark.parametrize("members", [2, 8])
def test_exchangeable_ensemble_has_spread_skill_1(members: int) -> None:
    rng = np.random.default_rng(members)
    signal = rng.normal(0, 2, (20, 1, 5000))
    drawn = signal + rng.normal(0, 1.3, (20, members + 1, 5000))
    suite = Suite(("spread_skill", "spread", "rmse"))
    value = suite.evaluate(suite.update(drawn[:, 1:], drawn[:, 0], ids=np.arange(20)))
    assert value["spread_skill"] == pytest.approx(1, abs=0.02)
    assert value["spread"] == pytest.approx(1.3, rel=0.02)
    assert value["rmse"] == pytest.approx(1.3 * math.sqrt(1 + 1 / members), rel=0.02)


@pytest.mark.parametrize("members", [2, 9, NETWORK + 8])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_fair_crps_of_any_layout_is_that_of_the_suite(members: int, axis: int) -> None:
    rng = np.random.default_rng(members)
    x, y = rng.gamma(0.5, 2, (members, 60, 200)).astype(np.float32), rng.gamma(0.5, 2, (60, 200)).astype(np.float32)
    made = fair_crps(np.ascontiguousarray(np.moveaxis(x, 0, axis)), y, axis=axis)
    expected = scoringrules.crps_ensemble(
        y, np.moveaxis(x, 0, -1).astype(np.float64), estimator="fair", backend="numpy"
    )
    np.testing.assert_allclose(made, expected, rtol=1e-9, atol=1e-9)
    suite = Suite(("crps_fair",))
    value = suite.evaluate(suite.update(x[None], y[None], ids=[0]))["crps_fair"]
    assert made.mean() == pytest.approx(value, rel=1e-9)


def test_fair_crps_keeps_nan_where_it_is_and_refuses_other_shapes() -> None:
    x, y = np.random.default_rng(0).random((2, 40, 3, 4))[:, :, 0], np.zeros((40, 4))
    x[1, 5, 2] = np.nan
    assert np.argwhere(np.isnan(fair_crps(x, y))).tolist() == [[5, 2]]
    with pytest.raises(ValueError, match="two members or more"):
        fair_crps(x[:1], y)
    with pytest.raises(ValueError, match="must be"):
        fair_crps(x, y, axis=1)
