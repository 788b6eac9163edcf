"""Scores cell by cell against numpy, by hand and on the sphere."""

from __future__ import annotations

import math

import numpy as np
import pytest

from geoml.metrics import Suite

SUITE = Suite(("mae", "rmse", "bias", "mean_ratio", "correlation"))


def test_contingency_table_by_hand() -> None:
    truth = np.array([[1.0, 1.0, 1.0, 0.0, 0.0, 1.0]])
    prediction = np.array([[[1.0, 2.0, 0.0, 1.0, 0.0, 0.9]]])  # 2 hits, 2 misses, 1 false alarm
    suite = Suite(("csi", "frequency_bias", "exceedance_bias"), thresholds=(1,))
    value = suite.evaluate(suite.update(prediction, truth, ids=[0]))
    assert value == pytest.approx({"csi_1": 2 / 5, "frequency_bias_1": 3 / 4, "exceedance_bias_1": -1 / 6})
    none = suite.evaluate(suite.update(prediction * 0, truth * 0, ids=[0]))
    assert math.isnan(none["csi_1"])
    assert math.isnan(none["frequency_bias_1"])


def test_area_weights_of_a_latitude_grid_give_the_mean_over_the_sphere() -> None:
    # The mean of sin² of the latitude over a sphere is 1/3; over latitudes taken alike it would be 1/2.
    edges = np.radians(np.linspace(-90, 90, 181))
    lat = (edges[1:] + edges[:-1]) / 2
    area = np.diff(np.sin(edges))[:, None]
    error = np.broadcast_to(np.sin(lat)[:, None], (180, 4))
    suite = Suite(("rmse", "bias"))
    value = suite.evaluate(suite.update(error[None, None], np.zeros((1, 180, 4)), weights=area, ids=[0]))
    assert value["rmse"] ** 2 == pytest.approx(1 / 3, rel=1e-3)
    assert value["bias"] == pytest.approx(0, abs=1e-12)


def test_correlation_with_a_constant_is_undefined(scores) -> None:
    truth = np.random.default_rng(0).random((3, 40)).astype(np.float32)
    for constant in (0.1, 273.15):
        prediction = np.full((3, 1, 40), constant, np.float32)
        assert math.isnan(scores(SUITE, prediction, truth)["correlation"])


def test_pointwise_scores_against_numpy(scores, case) -> None:
    prediction, truth, mask = case()
    mean = prediction.astype(np.float64).mean(axis=1)
    x, y = mean[mask], truth[mask].astype(np.float64)
    value = scores(SUITE, prediction, truth, mask)
    assert value["mae"] == pytest.approx(np.abs(x - y).mean())
    assert value["rmse"] == pytest.approx(np.sqrt(np.square(x - y).mean()))
    assert value["bias"] == pytest.approx((x - y).mean())
    assert value["mean_ratio"] == pytest.approx(x.mean() / y.mean())
    assert value["correlation"] == pytest.approx(np.corrcoef(x, y)[0, 1], rel=1e-9)
