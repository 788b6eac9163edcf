"""Intervals hold what they promise: coverage on series whose mean and memory are known."""

from __future__ import annotations

import datetime
import json
import math

import numpy as np
import pytest

from geoml.errors import DataError
from geoml.metrics import METRICS, StatisticsTable
from geoml.metrics.significance import (
    Interval,
    average,
    block_bootstrap,
    combine,
    degradation_percent,
    difference,
    skill,
    skill_lost,
)

MAE, RMSE = METRICS["mae"](), METRICS["rmse"]()


def table(values: np.ndarray, ids: np.ndarray | None = None, name: str = "absolute_error_of_mean") -> StatisticsTable:
    ids = np.arange(len(values)) if ids is None else ids
    return StatisticsTable(ids, (name,), values[:, None] * 2.0, np.full((len(values), 1), 2.0))


def ar1(rng: np.random.Generator, series: int, length: int, phi: float) -> np.ndarray:
    """Stationary AR(1) of mean 0 and variance 1."""
    out = np.empty((series, length))
    out[:, 0] = rng.normal(size=series)
    for i in range(1, length):
        out[:, i] = phi * out[:, i - 1] + math.sqrt(1 - phi**2) * rng.normal(size=series)
    return out


def mean(*, x):
    return x


def covered(series: np.ndarray, truth: float, block: int) -> tuple[float, float]:
    """Share of the intervals that hold the truth, and how many there are."""
    found = [
        block_bootstrap({"x": table(s)}, MAE, mean, block=block, replicates=500, seed=i) for i, s in enumerate(series)
    ]
    given = [part for part in found if part.low is not None]
    return float(np.mean([part.low <= truth <= part.high for part in given])), len(given) / len(found)


def test_coverage_on_ar1_with_long_blocks() -> None:
    series = 5 + ar1(np.random.default_rng(0), 400, 900, 0.7)
    share, given = covered(series, 5.0, 30)
    assert given > 0.9
    assert 0.92 <= share <= 0.98  # 95 % ± 2.7 standard errors of 400 trials


def test_short_blocks_are_found_out() -> None:
    # Blocks of 4 h are correlated by about 0.4: taken for independent they would cover 76 %.
    series = 5 + ar1(np.random.default_rng(1), 300, 1200, 0.8)
    share, given = covered(series, 5.0, 4)
    assert given > 0.9
    assert share >= 0.92


def test_intervals_reach_farther_than_their_resamples() -> None:
    # Blocks of 6 h are correlated by about 0.8: the quantiles due are beyond 500 resamples, whose ends cover 63 %.
    series = 9 + ar1(np.random.default_rng(3), 100, 4000, 0.97)
    share, given = covered(series, 9.0, 6)
    assert given > 0.9
    assert share >= 0.92


def test_resampled_spread_is_that_of_the_mean_of_an_ar1() -> None:
    phi, length = 0.6, 2000
    lags = np.arange(1, length)
    theory = math.sqrt((1 + 2 * np.sum((1 - lags / length) * phi**lags)) / length)
    series = ar1(np.random.default_rng(2), 30, length, phi)
    drawn = [block_bootstrap({"x": table(s)}, MAE, mean, block=40).replicates for s in series]
    spread = [values.std() for values in drawn if len(values)]
    assert len(spread) > 25
    assert np.mean(spread) == pytest.approx(theory, rel=0.08)


def test_pairing_cancels_what_models_share() -> None:
    rng = np.random.default_rng(3)
    weather = np.exp(0.8 * ar1(rng, 1, 1500, 0.8)[0])
    model, reference = 0.8 * weather * rng.lognormal(0, 0.05, 1500), weather * rng.lognormal(0, 0.05, 1500)
    paired = block_bootstrap({"model": table(model), "reference": table(reference)}, MAE, skill, block=30)
    assert paired.low < 0.2 < paired.high
    assert paired.high - paired.low < 0.02
    alone = block_bootstrap({"x": table(model)}, MAE, mean, block=30)
    assert (alone.high - alone.low) / alone.estimate > 10 * (paired.high - paired.low)


def test_skill_lost_covers_its_true_value() -> None:
    rng = np.random.default_rng(4)
    hits = []
    for i in range(300):
        weather = np.exp(0.5 * ar1(rng, 1, 600, 0.5)[0])
        scores = {
            name: table(level * weather * rng.lognormal(-0.02, 0.2, 600))
            for name, level in (("inside", 0.6), ("outside", 0.7), ("reference", 1.0))
        }
        part = block_bootstrap(scores, MAE, skill_lost, block=20, replicates=400, seed=i)
        if part.low is not None:
            hits.append(part.low <= 0.25 <= part.high)
    assert len(hits) > 270
    assert 0.915 <= np.mean(hits) <= 0.985


def test_root_is_taken_after_the_mean_in_every_resample() -> None:
    squares = np.random.default_rng(5).chisquare(1, 800)
    part = block_bootstrap({"x": table(squares, name="squared_error_of_mean")}, RMSE, mean, block=10)
    assert part.estimate == pytest.approx(math.sqrt(squares.mean()))
    assert part.low < 1 < part.high


def test_no_interval_from_few_blocks() -> None:
    values = np.random.default_rng(6).normal(size=190)
    part = block_bootstrap({"x": table(values)}, MAE, mean, block=10)
    assert (part.low, part.high, part.blocks) == (None, None, 19)
    assert part.reason == "19 independent blocks; an interval needs 20"
    assert part.estimate == pytest.approx(values.mean())
    # 300 hours, but four events of less than a day: a day's block holds them whole.
    hours = np.concatenate([np.arange(20) + 1000 * event for event in range(4)])
    event = block_bootstrap({"x": table(np.ones(80), hours)}, MAE, mean, block=24)
    assert event.low is None
    assert event.blocks == 4
    single = block_bootstrap({"x": table(np.ones(5))}, MAE, mean, block=24)
    assert "1 independent blocks" in single.reason


def test_masked_samples_make_no_blocks() -> None:
    whole = table(np.random.default_rng(10).random(240))
    weights = whole.weights * (np.arange(240) < 190)[:, None]
    part = StatisticsTable(whole.ids, whole.names, np.where(weights > 0, whole.sums, 0.0), weights)
    assert block_bootstrap({"x": whole}, MAE, mean, block=10).low is not None
    assert block_bootstrap({"x": part}, MAE, mean, block=10).blocks == 19
    with pytest.raises(DataError, match="nothing to resample"):
        block_bootstrap({"x": whole.select(slice(0, 0))}, MAE, mean, block=10)


def test_persistent_series_has_no_independent_blocks() -> None:
    part = block_bootstrap({"x": table(np.linspace(0, 1, 600))}, MAE, mean, block=20)
    assert part.low is None
    assert "correlated by 0.9" in part.reason


def test_times_as_ids() -> None:
    values = np.random.default_rng(7).normal(size=24 * 40)
    times = np.datetime64("2021-06-01T00", "ns") + np.arange(24 * 40) * np.timedelta64(1, "h")
    by_time = block_bootstrap({"x": table(values, times)}, MAE, mean, block=np.timedelta64(24, "h"))
    by_number = block_bootstrap({"x": table(values)}, MAE, mean, block=24)
    assert (by_time.low, by_time.high) == (by_number.low, by_number.high)
    by_day = block_bootstrap({"x": table(values, times)}, MAE, mean, block=datetime.timedelta(days=1))
    assert by_day.to_dict() == by_time.to_dict()
    assert json.loads(json.dumps(by_day.to_dict(), allow_nan=False))["blocks"] == 40
    for ids, block in ((times, 24), (None, np.timedelta64(1, "D")), (None, 0), (None, -3)):
        with pytest.raises(ValueError, match="block length"):
            block_bootstrap({"x": table(values, ids)}, MAE, mean, block=block)


def test_undefined_functional_gives_a_reason() -> None:
    scores = {
        name: table(np.full(400, level)) for name, level in (("inside", 1.2), ("outside", 1.3), ("reference", 1.0))
    }
    part = block_bootstrap(scores, MAE, skill_lost, block=10)
    assert math.isnan(part.estimate)
    assert part.reason == "undefined on these samples"
    rng = np.random.default_rng(8)
    scores["inside"] = table(0.97 + rng.normal(0, 0.5, 400))
    part = block_bootstrap(scores, MAE, skill_lost, block=10)
    assert math.isfinite(part.estimate)
    assert part.low is None
    assert "% of the resamples" in part.reason


def test_unpaired_tables_are_refused() -> None:
    with pytest.raises(DataError, match="not of the same samples"):
        block_bootstrap({"model": table(np.ones(40)), "reference": table(np.ones(41))}, MAE, difference, block=1)


def test_functionals_agree_with_their_definitions() -> None:
    inside, outside, reference = 0.21, 0.27, 0.4
    lost = (skill(model=inside, reference=reference) - skill(model=outside, reference=reference)) / skill(
        model=inside, reference=reference
    )
    assert skill_lost(inside=inside, outside=outside, reference=reference) == pytest.approx(lost)
    assert degradation_percent(inside=inside, outside=outside) == pytest.approx(100 * (0.27 / 0.21 - 1))


def test_average_of_regions() -> None:
    rng = np.random.default_rng(9)
    parts = [block_bootstrap({"x": table(rng.normal(i, 1, 900))}, MAE, mean, block=15, seed=i) for i in range(4)]
    whole = average(parts)
    assert whole.low < 1.5 < whole.high
    width = np.mean([part.high - part.low for part in parts])
    assert whole.high - whole.low == pytest.approx(width / 2, rel=0.15)  # four independent regions
    none = Interval(1.0, None, None, 0.95, 3, "3 independent blocks; an interval needs 20")
    assert average([*parts, none]).low is None
    assert "part 5 of 5: 3 independent blocks" in average([*parts, none]).reason


def test_combined_intervals_leave_out_what_is_undefined() -> None:
    rng = np.random.default_rng(11)
    parts = [block_bootstrap({"x": table(rng.normal(3, 1, 900))}, MAE, mean, block=15) for _ in range(2)]
    whole = combine(lambda a, b: a / b, parts)
    assert whole.low < 1 < whole.high
    parts[1].replicates[0] = 0.0
    parts[0].replicates[0] = 0.0
    again = combine(lambda a, b: a / b, parts)
    assert (again.low, again.high) == pytest.approx((whole.low, whole.high), abs=2e-3)
    parts[1].replicates[:100] = parts[0].replicates[:100] = 0.0
    assert "undefined in 5% of the resamples" in combine(lambda a, b: a / b, parts).reason
