"""Time: autoregressive series, Markov chains of wet and dry hours, and daily waves, whose scores are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from geoml.errors import DataError
from geoml.metrics import Suite
from geoml.metrics.temporal import sequences

HOURS = np.datetime64("2021-06-01T00", "h") + np.arange(480)
SEQUENCES = Suite(("lag1_error", "wet_spell_ratio", "dry_spell_ratio"), thresholds=(0.5,))


def autoregressive(phi: float, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Series along the second last axis with correlation phi at lag 1, stationary from the first step."""
    noise = np.random.default_rng(seed).normal(size=shape)
    noise[..., 1:, :] *= np.sqrt(1 - phi**2)
    return lfilter([1], [1, -phi], noise, axis=-2)


def test_lag_1_of_an_autoregressive_series_is_its_coefficient() -> None:
    x, y = autoregressive(0.3, (20, 4, 24, 200), 0), autoregressive(0.8, (20, 24, 200), 1)
    suite = Suite(("lag1_error",))
    table = suite.update(x, y, ids=HOURS[::24][:20])
    assert suite.evaluate(table)["lag1_error"] == pytest.approx(-0.5, abs=0.02)
    curve = suite.curves(table)["lag1_error"]
    assert float(curve["predicted"][0]) == pytest.approx(0.3, abs=0.02)
    assert float(curve["observed"][0]) == pytest.approx(0.8, abs=0.02)


def chain(leave_wet: float, leave_dry: float, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Wet (1) and dry (0) steps along the second last axis."""
    rng = np.random.default_rng(seed)
    state = rng.random((*shape[:-2], shape[-1])) < leave_dry / (leave_dry + leave_wet)
    steps = []
    for _ in range(shape[-2]):
        steps.append(state)
        state = state ^ (rng.random(state.shape) < np.where(state, leave_wet, leave_dry))
    return np.stack(steps, axis=-2).astype(float)


def test_spells_of_a_markov_chain_have_their_mean_length() -> None:
    x, y = chain(0.5, 0.1, (20, 4, 12, 300), 0), chain(0.2, 0.05, (20, 12, 300), 1)
    table = SEQUENCES.update(x, y, ids=HOURS[::24])
    lengths = SEQUENCES.curves(table)["wet_spell_ratio_0.5"]
    np.testing.assert_allclose(lengths["predicted"], [2, 10], rtol=0.05)
    np.testing.assert_allclose(lengths["observed"], [5, 20], rtol=0.06)
    value = SEQUENCES.evaluate(table)
    assert value["wet_spell_ratio_0.5"] == pytest.approx(0.4, rel=0.06)
    assert value["dry_spell_ratio_0.5"] == pytest.approx(0.5, rel=0.06)


def test_spells_are_those_counted_in_whole_series() -> None:
    y = chain(0.3, 0.2, (1, 400, 50), 2)
    wet, ends = y[0, :-1].sum(), (np.diff(y[0], axis=0) < 0).sum()
    table = SEQUENCES.update(y[:, None], y, ids=HOURS[:1])
    assert float(SEQUENCES.curves(table)["wet_spell_ratio_0.5"]["observed"][0]) == pytest.approx(wet / ends)


def test_pairs_across_unknown_cells_do_not_count() -> None:
    y = np.array([[0.0, 1.0, np.nan, 1.0, 0.0]])[..., None]
    mask = np.isfinite(y)
    table = SEQUENCES.update(np.nan_to_num(y)[:, None], y, mask=mask, ids=HOURS[:1])
    lengths = SEQUENCES.curves(table)["wet_spell_ratio_0.5"]["observed"].values
    assert lengths.tolist() == [1, 1]  # one pair begins dry and turns wet, one begins wet and turns dry


def test_sequences_hold_no_gap() -> None:
    times = np.delete(HOURS, [5, 6, 30])
    rows = sequences(times, 4)
    assert (np.diff(times[rows], axis=1) == np.timedelta64(1, "h")).all()
    assert len(np.unique(rows)) == rows.size
    assert rows[:2].tolist() == [[0, 1, 2, 3], [5, 6, 7, 8]]
    assert sequences(HOURS[:3], 4).shape == (0, 4)
    with pytest.raises(ValueError, match="expected 2 or more"):
        sequences(times, 1)
    x, y = np.random.default_rng(0).normal(size=(2, len(times), 3, 5, 6))[0], np.zeros((len(times), 5, 6))
    table = SEQUENCES.update(np.moveaxis(x[rows], 1, 2), y[rows], ids=times[rows[:, 0]])
    assert len(table) == len(rows)


def test_a_daily_wave_that_is_late() -> None:
    hour = np.arange(480) % 24
    observed = 2 + np.cos(2 * np.pi * (hour - 16) / 24)
    for late in (-5, 0, 3.5):
        predicted = 2 + 0.5 * np.cos(2 * np.pi * (hour - 16 - late) / 24)
        suite = Suite(("diurnal_error", "diurnal_phase"))
        fields = [np.broadcast_to(series[:, None, None, None], (480, 1, 2, 3)) for series in (predicted, observed)]
        table = suite.update(fields[0], fields[1][:, 0], ids=HOURS)
        value = suite.evaluate(table)
        assert value["diurnal_phase"] == pytest.approx(late, abs=1e-9)
        assert value["diurnal_error"] == pytest.approx(np.sqrt(np.square(predicted - observed)[:24].mean()))
        cycle = suite.curves(table)["diurnal_error"]
        np.testing.assert_allclose(cycle["observed"], observed[:24])
        np.testing.assert_allclose(cycle["predicted"], predicted[:24])


def test_mistakes_are_answered() -> None:
    x, y = np.zeros((3, 2, 4)), np.zeros((3, 4))
    with pytest.raises(DataError, match="needs valid times as ids; these are of type int64"):
        Suite(("diurnal_error",)).update(x, y, ids=np.arange(3))
    with pytest.raises(DataError, match=r"samples of shape \(4,\) are not sequences"):
        Suite(("lag1_error",)).update(x, y, ids=np.arange(3))
