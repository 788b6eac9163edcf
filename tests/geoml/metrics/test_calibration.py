"""Ranks and probabilities of ensembles that are calibrated, too narrow or known by hand; against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from geoml.metrics import Suite
from geoml.metrics.ranks import RANK_BINS, SPACING, _uniform, rank_deviation_by_chance, ranked

TIMES = np.datetime64("2001-01-01T00", "h") + np.arange(5000)


def drawn(members: int, spread: float, samples: int = 5000, cells: int = 4):
    """Truth of variance 1 about a signal, members of another spread, and cells that share one fate."""
    rng = np.random.default_rng(members)
    signal = rng.normal(0, 2, (samples, 1, 1, 1))
    noise = np.repeat(rng.normal(0, 1, (samples, members + 1, 1, 1)), cells, axis=-1)
    return signal + spread * noise[:, 1:], (signal + noise[:, :1])[:, 0]


# --- ranks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("members", [1, 3, 8, 20])
def test_histogram_of_an_exchangeable_ensemble_is_flat(members: int) -> None:
    suite = Suite(("rank_deviation", "outlier_excess"))
    table = suite.update(*drawn(members, 1.0), ids=TIMES)
    value = suite.evaluate(table)
    assert value["rank_deviation"] < rank_deviation_by_chance(5000, level=0.999)
    assert value["outlier_excess"] == pytest.approx(0, abs=0.02)
    share = suite.curves(table)["rank_deviation"]["share"]
    assert float(share.sum()) == pytest.approx(1)
    assert stats.chisquare(share.values * 5000).pvalue > 1e-3


def test_ranks_of_eight_members_are_those_counted_by_hand() -> None:
    x, y = drawn(8, 0.5)
    suite = Suite(("rank_deviation", "outlier_excess"))
    table = suite.update(x, y, ids=TIMES)
    ranks = (x[:, :, 0, 0] < y[:, None, 0, 0]).sum(axis=1)
    counted = np.bincount(ranks, minlength=RANK_BINS) / 5000
    np.testing.assert_allclose(suite.curves(table)["rank_deviation"]["share"], counted, atol=1e-12)
    value = suite.evaluate(table)
    assert value["rank_deviation"] == pytest.approx(np.abs(counted * 9 - 1).max())
    assert value["rank_deviation"] > 0.5  # too narrow: a U
    assert value["outlier_excess"] == pytest.approx(counted[0] + counted[8] - 2 / 9, abs=1e-12)


def test_ties_are_resolved_evenly() -> None:
    suite = Suite(("rank_deviation", "outlier_excess"))
    value = suite.evaluate(suite.update(np.zeros((5000, 8, 2, 2)), np.zeros((5000, 2, 2)), ids=TIMES))
    assert value["rank_deviation"] < rank_deviation_by_chance(5000, level=0.999)
    assert value["outlier_excess"] == pytest.approx(0, abs=1e-12)


def test_chance_is_a_function_of_the_id() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 50, 8, 3, 3))[0], np.zeros((50, 3, 3))
    suite = Suite(("rank_deviation",))
    first = suite.update(x, y, ids=TIMES[:50])
    again = suite.update(x[20:30], y[20:30], ids=TIMES[20:30].astype("datetime64[ns]"))
    assert np.array_equal(first.sums[20:30], again.sums)
    assert not np.array_equal(first.sums, suite.update(x, y, ids=TIMES[100:150]).sums)


def test_cells_are_drawn_by_weight() -> None:
    weights = np.array([[0.0, 1.0, 3.0]])
    x = np.zeros((5000, 1, 1, 3)) + np.array([5.0, 1.0, -1.0])  # members above, above, below a truth of 0
    suite = Suite(("rank_deviation",))
    share = suite.curves(suite.update(x, np.zeros((5000, 1, 3)), weights=weights, ids=TIMES))["rank_deviation"]["share"]
    # Of one member, rank 1 is spread over the upper half of the bins, a ninth of it over that of the middle one.
    assert float(share[5:].sum()) == pytest.approx(0.75 * 8 / 9, abs=0.025)


def test_ranks_are_those_of_cells_spread_over_the_field() -> None:
    """A field gives many cells, each as often as any other, none of them near another."""
    shape = (3 * SPACING, 4 * SPACING + 5)
    truth = np.arange(np.prod(shape)).reshape(1, *shape).repeat(400, 0).astype(float)
    suite = Suite(("rank_deviation",))
    table = suite.update(truth[:, None] - 1.0, truth, ids=TIMES[:400])
    assert ranked(table) == pytest.approx(400 * np.prod(shape) / SPACING**2, rel=0.02)  # 13.5 cells a field
    # A truth above the one member in the right half alone: it is counted as often as it is.
    higher = np.where(np.arange(shape[1]) >= shape[1] // 2, -1.0, 1.0)
    share = suite.curves(suite.update(truth[:, None] + higher, truth, ids=TIMES[:400]))["rank_deviation"]["share"]
    assert float(share[5:].sum()) == pytest.approx(8 / 9 * 23 / 45, abs=0.02)


def test_a_histogram_of_ten_fields_of_many_cells_tells_a_narrow_ensemble() -> None:
    rng = np.random.default_rng(2)
    truth, members = rng.normal(size=(10, 200, 200)), 0.5 * rng.normal(size=(10, 8, 200, 200))
    suite = Suite(("rank_deviation",))
    table = suite.update(members, truth, ids=TIMES[:10])
    assert ranked(table) == 10 * 400
    assert suite.evaluate(table)["rank_deviation"] > 4 * rank_deviation_by_chance(4000)


def test_numbers_of_ids_are_uniform_and_unrelated() -> None:
    u = np.stack([_uniform(TIMES, stream) for stream in range(3)] + [_uniform(np.arange(5000), 0)])
    for row in u:
        assert stats.kstest(row, "uniform").pvalue > 1e-3
        assert abs(np.corrcoef(row[1:], row[:-1])[0, 1]) < 0.05
    assert np.abs(np.corrcoef(u) - np.eye(4)).max() < 0.05


def test_chance_of_deviation_as_known() -> None:
    counts = np.random.default_rng(5).multinomial(1000, np.full(9, 1 / 9), size=20_000)
    share = (np.abs(counts * 9 / 1000 - 1).max(axis=1) > 0.2).mean()
    assert rank_deviation_by_chance(1000, level=1 - share) == pytest.approx(0.2, abs=0.01)


# --- probabilities ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rain():
    rng = np.random.default_rng(7)
    signal = rng.gamma(0.6, 2, (12, 1, 9, 10))
    x = signal * rng.lognormal(0, 0.6, (12, 8, 9, 10))
    return (
        x,
        (signal * rng.lognormal(0, 0.6, signal.shape))[:, 0],
        rng.random((12, 9, 10)) < 0.8,
        rng.uniform(1, 2, (9, 1)),
    )


def test_areas_and_brier_are_those_of_scikit_learn(rain) -> None:
    x, y, mask, weights = rain
    suite = Suite(("brier", "roc_area", "average_precision"), thresholds=(1, 4))
    value = suite.evaluate(suite.update(x, y, mask=mask, weights=weights, ids=np.arange(12)))
    area = np.broadcast_to(weights, y.shape)[mask]
    for threshold in (1, 4):
        p, o = (x >= threshold).mean(axis=1)[mask], (y >= threshold)[mask]
        assert value[f"brier_{threshold}"] == pytest.approx(brier_score_loss(o, p, sample_weight=area))
        assert value[f"roc_area_{threshold}"] == pytest.approx(roc_auc_score(o, p, sample_weight=area))
        expected = average_precision_score(o, p, sample_weight=area)
        assert value[f"average_precision_{threshold}"] == pytest.approx(expected)


def test_brier_is_reliability_less_resolution_plus_uncertainty(rain) -> None:
    x, y, mask, weights = rain
    suite = Suite(("brier", "reliability", "resolution"), thresholds=(1,))
    table = suite.update(x, y, mask=mask, weights=weights, ids=np.arange(12))
    value = suite.evaluate(table)
    rate = np.average((y >= 1)[mask], weights=np.broadcast_to(weights, y.shape)[mask])
    uncertainty = rate * (1 - rate)
    expected = value["reliability_1"] - value["resolution_1"] * uncertainty + uncertainty
    assert value["brier_1"] == pytest.approx(expected, rel=1e-9)
    diagram = suite.curves(table)["reliability_1"]
    assert float(diagram["share"].sum()) == pytest.approx(1)
    assert float((diagram["share"] * diagram["observed"]).sum()) == pytest.approx(rate)


def test_probabilities_that_are_frequencies_are_reliable() -> None:
    rng = np.random.default_rng(0)
    p = rng.integers(0, 9, (1, 200_000)) / 8
    x = (np.arange(8)[:, None] < 8 * p[0]).astype(float)[None]
    y = (rng.random(p.shape) < p).astype(float)
    suite = Suite(("reliability", "resolution", "roc_area"), thresholds=(0.5,))
    table = suite.update(x, y, ids=[0])
    assert suite.evaluate(table)["reliability_0.5"] < 1e-4
    assert suite.evaluate(table)["resolution_0.5"] == pytest.approx(p.var() / 0.25, abs=0.01)
    diagram = suite.curves(table)["reliability_0.5"].dropna("probability")
    np.testing.assert_allclose(diagram["observed"], diagram["forecast"], atol=0.02)
    roc = suite.curves(table)["roc_area_0.5"]
    area = -np.trapezoid(np.append(roc["hit_rate"], 0), np.append(roc["false_alarm_rate"], 0))
    assert area == pytest.approx(suite.evaluate(table)["roc_area_0.5"], abs=1e-9)


def test_ignorance_is_chance() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random((1, 8, 40_000)), (rng.random((1, 40_000)) < 0.2) * 1.0
    suite = Suite(("roc_area", "average_precision", "resolution"), thresholds=(0.7,))
    value = suite.evaluate(suite.update(x, y, ids=[0]))
    assert value == pytest.approx({"roc_area_0.7": 0.5, "average_precision_0.7": 0.2, "resolution_0.7": 0}, abs=0.01)
    none = suite.evaluate(suite.update(x, y * 0, ids=[0]))
    assert all(map(np.isnan, none.values()))
