"""Every metric of the registry, by the same properties."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoml.errors import DataError
from geoml.metrics import METRICS, CellStatistic, Suite, merge
from geoml.metrics.base import CurveMetric

SEQUENCES = ("lag1_error", "wet_spell_ratio", "dry_spell_ratio")


def suite_of(names) -> Suite:
    return Suite(tuple(names), thresholds=(0.5, 2.0), windows=(2, 3))


def is_of_cells(name: str) -> bool:
    return all(isinstance(statistic, CellStatistic) for statistic in suite_of([name]).statistics.values())


#: Metrics that look at each cell by itself, at whole fields, at sequences; with the shape of the samples.
CELLS = suite_of(name for name in METRICS if is_of_cells(name))
FIELDS = suite_of(name for name in METRICS if not is_of_cells(name) and name not in SEQUENCES)
SUITES = {"cells": (CELLS, (4, 7)), "fields": (FIELDS, (9, 12)), "sequences": (suite_of(SEQUENCES), (9, 5))}
LABELS = [(kind, label) for kind, (suite, _) in SUITES.items() for label in suite.metrics]
#: Undefined where all is perfect, or of chance in so few samples; each has a test of its own.
SPECIAL = {"spread_skill", "rank_deviation", "diurnal_phase"}

every_metric = pytest.mark.parametrize(("kind", "label"), LABELS)
every_suite = pytest.mark.parametrize("kind", SUITES)


def test_each_metric_is_in_one_suite() -> None:
    assert sorted(METRICS) == sorted(
        {suite.metrics[label].name for suite, _ in SUITES.values() for label in suite.metrics}
    )
    assert {name for name in METRICS if is_of_cells(name)} >= {"crps_fair", "mae", "csi", "brier", "outlier_excess"}
    assert not any(map(is_of_cells, (*SEQUENCES, "fss", "ralsd", "crps_fair_mean", "variogram_score")))


@every_metric
def test_metric_is_described(kind: str, label: str) -> None:
    metric = SUITES[kind][0].metrics[label]
    assert METRICS[metric.name] is type(metric)
    assert metric.unit in ("field", "1")
    assert metric.direction in ("lower", "higher", "nearer")
    doc = inspect.cleandoc(vars(type(metric))["__doc__"])
    assert "`" in doc.split("\n")[0], "the first line holds the formula"


@every_metric
@pytest.mark.parametrize("members", [1, 4])
def test_perfect_prediction_has_the_perfect_value(case, scores, kind: str, label: str, members: int) -> None:
    suite, space = SUITES[kind]
    metric = suite.metrics[label]
    _, truth, mask = case(space=space)
    filled = np.where(mask, truth, 0)
    value = scores(suite, np.repeat(filled[:, None], members, axis=1), truth, mask)[label]
    if metric.name in ("spread_skill", "diurnal_phase"):  # 0/0, and hours of the day without samples
        assert math.isnan(value)
    elif metric.name not in SPECIAL:
        assert value == pytest.approx(metric.perfect, abs=1e-6)


@every_metric
def test_worse_prediction_has_a_worse_value(case, scores, kind: str, label: str) -> None:
    suite, space = SUITES[kind]
    metric = suite.metrics[label]
    if metric.name in ("rank_deviation", "diurnal_phase"):
        return
    prediction, truth, mask = case(space=space)
    good = scores(suite, prediction, truth, mask)[label]
    rng = np.random.default_rng(1)
    worse = prediction * np.float32(1.5) + rng.gamma(1, 1, prediction.shape).astype(np.float32)
    if metric.name in ("spread_skill", "outlier_excess"):  # an ensemble that is too sure of itself
        worse = prediction.mean(axis=1, keepdims=True) + 0.1 * (prediction - prediction.mean(axis=1, keepdims=True))
    if metric.name == "lag1_error":  # one that stands still
        worse = np.repeat(prediction[:, :, :1], prediction.shape[2], axis=2)
    bad = scores(suite, worse, truth, mask)[label]
    assert metric.worse(bad, good)
    assert not metric.worse(good, bad)
    assert not metric.worse(good, good)


@every_suite
def test_masked_cells_never_count(case, scores, kind: str) -> None:
    suite, space = SUITES[kind]
    prediction, truth, mask = case(space=space)
    expected = scores(suite, prediction, truth, mask)
    for junk in (np.nan, np.inf, -1e30):
        other_truth, other_prediction = truth.copy(), prediction.copy()
        other_truth[~mask] = junk
        other_prediction[np.repeat(~mask[:, None], prediction.shape[1], axis=1)] = junk
        assert scores(suite, other_prediction, other_truth, mask) == pytest.approx(expected, nan_ok=True, abs=0, rel=0)


def test_one_cell_is_scored_alone(case, scores) -> None:
    prediction, truth, mask = case()
    one = np.zeros_like(mask)
    one[2, 1, 3] = True
    truth = np.where(one, 2.0, np.nan)
    alone = scores(CELLS, prediction, truth, one)
    assert alone == pytest.approx(scores(CELLS, prediction[2:3, :, 1:2, 3:4], truth[2:3, 1:2, 3:4]), nan_ok=True)


@every_suite
def test_order_and_dtype_of_members_do_not_matter(case, scores, kind: str) -> None:
    suite, space = SUITES[kind]
    prediction, truth, mask = case(members=7, space=space)
    first = scores(suite, prediction, truth, mask)
    shuffled = np.random.default_rng(2).permuted(prediction, axis=1)
    if kind != "cells":  # members are fields or sequences: they keep together
        shuffled = np.random.default_rng(2).permutation(prediction, axis=1)
    assert scores(suite, shuffled, truth, mask) == pytest.approx(first, rel=1e-12, nan_ok=True)
    assert scores(suite, prediction.astype(np.float64), truth, mask) == pytest.approx(first, rel=1e-6, nan_ok=True)
    other = scores(suite, *(np.asfortranarray(array) for array in (prediction, truth, mask)))
    assert other == pytest.approx(first, rel=1e-12, nan_ok=True)


@every_suite
def test_constant_weights_do_not_matter_and_zero_is_a_mask(case, scores, kind: str) -> None:
    suite, space = SUITES[kind]
    prediction, truth, mask = case(space=space)
    expected = pytest.approx(scores(suite, prediction, truth, mask), rel=1e-12, nan_ok=True)
    assert scores(suite, prediction, truth, mask, 3.0) == expected
    weights = np.ones(space)
    weights[:, 3:5] = 0
    masked = scores(suite, prediction, truth, mask & (weights > 0))
    assert scores(suite, prediction, truth, mask, weights) == pytest.approx(masked, rel=1e-12, nan_ok=True)


def test_weights_repeat_cells_and_zero_cuts_them_off(case, scores) -> None:
    prediction, truth, mask = case()
    weights = np.random.default_rng(3).integers(1, 4, truth.shape[2])
    repeated = [np.repeat(array, weights, axis=-1) for array in (prediction, truth, mask)]
    assert scores(CELLS, prediction, truth, mask, weights) == pytest.approx(scores(CELLS, *repeated), rel=1e-9)
    weights = np.ones(truth.shape[1:])
    weights[:, 3:] = 0
    expected = scores(CELLS, prediction[..., :3], truth[..., :3], mask[..., :3])
    assert scores(CELLS, prediction, truth, mask, weights) == pytest.approx(expected, rel=1e-12)


@every_suite
@settings(max_examples=12, deadline=None)
@given(cuts=st.lists(st.integers(0, 9), max_size=4), order=st.permutations(range(9)), reverse=st.booleans())
def test_chunks_and_their_order_change_no_bit(case, kind, cuts: list[int], order: list[int], reverse: bool) -> None:
    suite, space = SUITES[kind]
    prediction, truth, mask = case(samples=9, space=space)
    times = np.datetime64("2021-01-01T00", "h") + np.arange(9)
    whole = suite.update(prediction, truth, mask=mask, ids=times)
    parts = [
        suite.update(prediction[rows], truth[rows], mask=mask[rows], ids=times[rows])
        for rows in map(np.array, np.split(np.array(order), sorted(cuts)))
        if len(rows)
    ]
    merged = suite.merge(parts[::-1] if reverse else parts)
    assert merged.names == whole.names
    assert np.array_equal(merged.sums, whole.sums)
    assert np.array_equal(merged.weights, whole.weights)


@every_suite
def test_small_steps_through_the_samples_change_no_bit(case, scores, kind: str, monkeypatch) -> None:
    suite, space = SUITES[kind]
    prediction, truth, mask = case(space=space)
    expected = scores(suite, prediction, truth, mask)
    monkeypatch.setattr("geoml.metrics.suite.VALUES_AT_A_TIME", 1)
    assert scores(suite, prediction, truth, mask) == pytest.approx(expected, nan_ok=True, abs=0, rel=0)


def test_tiles_of_space_add_up(case) -> None:
    prediction, truth, mask = case()
    weights = np.cos(np.radians(np.linspace(30, 60, 4)))[:, None]
    whole = CELLS.update(prediction, truth, mask=mask, weights=weights, ids=np.arange(6))
    tiles = [
        CELLS.update(
            prediction[..., cut, :], truth[..., cut, :], mask=mask[..., cut, :], weights=weights[cut], ids=np.arange(6)
        )
        for cut in (slice(0, 1), slice(1, 4))
    ]
    assert CELLS.evaluate(merge(tiles, tiles=True)) == pytest.approx(CELLS.evaluate(whole), rel=1e-9)
    with pytest.raises(DataError, match="sample 0 is scored twice"):
        merge(tiles)


def test_three_dims_are_scored_like_two(case, scores) -> None:
    prediction, truth, mask = case(space=(2, 3, 4))
    flat = (array.reshape(*array.shape[:-3], 6, 4) for array in (prediction, truth, mask))
    assert scores(CELLS, prediction, truth, mask) == scores(CELLS, *flat)


def test_planes_of_a_sample_are_scored_like_samples(case, scores) -> None:
    prediction, truth, mask = case(space=(2, 9, 12))
    suite = suite_of(
        metric.name for metric in FIELDS.metrics.values() if metric.name not in (*SPECIAL, "diurnal_error")
    )
    prediction[:, :, 1] *= 2
    each = (np.moveaxis(prediction, 2, 1).reshape(12, 5, 9, 12), truth.reshape(12, 9, 12), mask.reshape(12, 9, 12))
    # A spectrum is of a sample, each sample of the weight of its known cells: of planes all known, then, to agree.
    filled = [np.nan_to_num(each[0]), np.nan_to_num(each[1])]
    folded = scores(suite, np.nan_to_num(prediction), np.nan_to_num(truth))
    assert folded == pytest.approx(scores(suite, *filled), rel=1e-9)


@every_suite
def test_tables_of_other_models_are_paired(case, kind: str) -> None:
    suite, space = SUITES[kind]
    prediction, truth, mask = case(space=space)
    times = np.datetime64("2021-01-01T00", "h") + np.arange(6)
    many = suite.update(prediction, truth, mask=mask, ids=times)
    one = suite.update(np.zeros_like(prediction[:, :1]), truth, mask=mask, ids=times)
    assert many.names == one.names
    assert np.array_equal(many.weights, one.weights)


@every_suite
def test_values_of_many_groups_are_those_of_each(case, kind: str) -> None:
    """What a bootstrap does: the averages of many resamples at once."""
    suite, space = SUITES[kind]
    prediction, truth, mask = case(space=space)
    times = np.datetime64("2021-01-01T00", "h") + np.arange(6)
    table = suite.update(prediction, truth, mask=mask, ids=times)
    groups = [table.select(slice(0, 4)).means(), table.select(slice(2, 6)).means()]
    together = {name: np.array([group[name] for group in groups]) for name in table.names}
    for metric in suite.metrics.values():
        expected = [float(metric.compute(group)) for group in groups]
        assert np.asarray(metric.compute(together)).tolist() == pytest.approx(expected, nan_ok=True)


@every_suite
def test_curves_have_one_axis_and_stand_behind_their_number(case, kind: str) -> None:
    suite, space = SUITES[kind]
    prediction, truth, mask = case(space=space)
    times = np.datetime64("2021-01-01T00", "h") + np.arange(6)
    curves = suite.curves(suite.update(prediction, truth, mask=mask, ids=times))
    assert set(curves) == {label for label, metric in suite.metrics.items() if isinstance(metric, CurveMetric)}
    for curve in curves.values():
        (dim,) = curve.dims
        assert dim in curve.coords
        assert all(np.isfinite(line).any() for line in curve.data_vars.values())
