"""Scores of sequences are those of the whole sequences, however the hours come."""

import numpy as np
import pytest

from geoml.metrics import Suite
from rainshift.evaluation import Scores
from rainshift.sequences import SequenceScores

SUITE = Suite(("lag1_error", "wet_spell_ratio"), thresholds=(0.5,))
START = np.datetime64("2021-01-01T00", "ns")
HOUR = np.timedelta64(1, "h")


def red_noise(rng, correlation, shape):
    """Steps along the first axis with this lag-1 correlation."""
    steps = rng.normal(size=shape)
    for i in range(1, shape[0]):
        steps[i] = correlation * steps[i - 1] + np.sqrt(1 - correlation**2) * steps[i]
    return steps


@pytest.fixture
def day():
    rng = np.random.default_rng(0)
    times = START + np.arange(50) * HOUR
    times[30:] += 5 * HOUR  # 30 hours in a row, then 20
    prediction = red_noise(rng, 0.9, (50, 3, 4, 5))
    truth = red_noise(rng, 0.9, (50, 4, 5))
    return times, prediction, truth, rng.random((50, 4, 5)) > 0.1


@pytest.mark.parametrize("cuts", [[50], [7, 9, 34], [1] * 50])
@pytest.mark.parametrize("order", ["forward", "shuffled"])
def test_hours_may_come_in_any_parts_and_order(day, cuts, order):
    times, prediction, truth, known = day
    scores = SequenceScores(SUITE, times, 10, np.ones((4, 5)))
    hours = np.arange(50) if order == "forward" else np.random.default_rng(1).permutation(50)
    for part in np.split(hours, np.cumsum(cuts)[:-1]):
        scores.add(part, prediction[part], truth[part], known[part])
    table = scores.table()
    assert table.ids.tolist() == times[[0, 10, 20, 30, 40]].tolist()
    rows = np.arange(50).reshape(5, 10)
    whole = SUITE.update(prediction[rows].swapaxes(1, 2), truth[rows], ids=times[rows[:, 0]], mask=known[rows])
    np.testing.assert_allclose(table.sums, whole.sums)
    assert not scores._waiting


def test_members_that_do_not_hang_together_are_found_out(day):
    rng = np.random.default_rng(2)
    times = START + np.arange(480) * HOUR
    truth, known = red_noise(rng, 0.8, (480, 4, 5)), np.ones((480, 4, 5), bool)
    found = {}
    for name, correlation in (("together", 0.8), ("apart", 0.0)):
        scores = SequenceScores(SUITE, times, 24, np.ones((4, 5)))
        scores.add(np.arange(480), red_noise(rng, correlation, (480, 2, 4, 5)), truth, known)
        found[name] = SUITE.evaluate(scores.table())
    assert abs(found["together"]["lag1_error"]) < 0.03
    assert found["apart"]["lag1_error"] == pytest.approx(-0.8, abs=0.05)
    assert found["apart"]["wet_spell_ratio_0.5"] < 0.7 < found["together"]["wet_spell_ratio_0.5"]


def test_hours_too_few_for_a_sequence_give_no_table(day):
    times, prediction, truth, known = day
    scores = SequenceScores(SUITE, times[:9], 10, np.ones((4, 5)))
    scores.add(np.arange(9), prediction[:9], truth[:9], known[:9])
    assert scores.table() is None


def test_they_are_kept_with_the_scores_of_hours(day, tmp_path):
    times, prediction, truth, known = day
    scores = SequenceScores(SUITE, times, 10, np.ones((4, 5)))
    scores.add(np.arange(50), prediction, truth, known)
    of_hours = Suite(("mae",)).update(prediction, truth, ids=times, mask=known)
    Scores(of_hours, 3, 0.0, scores.table()).save(tmp_path / "scores.nc")
    loaded = Scores.load(tmp_path / "scores.nc")
    np.testing.assert_array_equal(loaded.sequences.sums, scores.table().sums)
    np.testing.assert_array_equal(loaded.table.sums, of_hours.sums)
    Scores(of_hours, 3, 0.0).save(tmp_path / "hours.nc")
    assert Scores.load(tmp_path / "hours.nc").sequences is None
