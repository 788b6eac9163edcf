"""Histograms and quantiles against numpy and known distributions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from geoml.metrics import Suite
from geoml.metrics.distribution import EDGES, LARGEST, _bins

SUITE = Suite(("quantile_error_95", "quantile_error_99", "quantile_error_999", "log_histogram_distance"))


def evaluate(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    return SUITE.evaluate(SUITE.update(x, y, ids=np.arange(len(y))))


def test_bins_are_those_of_their_edges() -> None:
    values = np.concatenate([[0, 1e-9, 1e9], np.random.default_rng(0).lognormal(0, 3, 5000)])
    assert np.array_equal(_bins(values), np.digitize(values, EDGES))
    assert np.diff(np.log(EDGES)) == pytest.approx(np.log(10) / 20)
    assert EDGES[-1] == pytest.approx(LARGEST)


@pytest.mark.parametrize("scale", [0.3, 1.0, 8.0])
def test_quantile_errors_are_those_of_the_values(scale: float) -> None:
    rng = np.random.default_rng(1)
    x, y = scale * rng.gamma(0.4, 3, (4, 5, 9000)), scale * rng.gamma(0.5, 2, (4, 9000)) * (rng.random((4, 9000)) < 0.6)
    found = evaluate(x, y)
    for level in (0.95, 0.99, 0.999):
        expected = np.quantile(x, level) - np.quantile(y, level)
        assert found[f"quantile_error_{level:g}".replace("0.", "")] == pytest.approx(
            expected, abs=0.01 * np.quantile(x, level)
        )


def test_quantiles_of_an_exponential_are_the_closed_form() -> None:
    y = stats.expon(scale=2).ppf((np.arange(200_000) + 0.5) / 200_000)[None]
    found = evaluate(np.zeros((1, 1, 200_000)), y)
    for level in (95, 99, 99.9):
        expected = 2 * np.log(1 - level / 100)
        assert found[f"quantile_error_{level:g}".replace(".", "")] == pytest.approx(expected, rel=0.01)


def test_quantiles_within_the_outer_bins() -> None:
    dry = evaluate(np.full((1, 1, 1000), 0.001), np.zeros((1, 1000)))
    assert dry["quantile_error_99"] == 0
    huge = evaluate(np.full((1, 1, 1000), 1e6), np.zeros((1, 1000)))
    assert huge["quantile_error_95"] == pytest.approx(LARGEST)


def test_distance_of_histograms_by_hand() -> None:
    y = np.repeat([1.05, 10.5], [500, 500])[None]  # two bins, half of all values each
    x = np.repeat([1.05, 10.5], [250, 750])[None, None]
    expected = np.sqrt((10 * np.log10(0.5)) ** 2 / 2 + (10 * np.log10(1.5)) ** 2 / 2)
    assert evaluate(x, y)["log_histogram_distance"] == pytest.approx(expected, rel=1e-4)
    curve = SUITE.curves(SUITE.update(x, y, ids=[0]))["log_histogram_distance"]
    assert curve["predicted"].values[curve["predicted"].values > 0].tolist() == [0.25, 0.75]
    assert curve["value"].values[curve["observed"].values > 0] == pytest.approx([1.05, 10.5], rel=0.1)


def test_missing_extremes_show_in_the_distance() -> None:
    y = np.random.default_rng(0).gamma(0.5, 4, (1, 100_000))
    capped = np.minimum(y, np.quantile(y, 0.999))
    assert evaluate(capped[:, None], y)["log_histogram_distance"] > 3
    assert evaluate(y[:, None], y)["log_histogram_distance"] == 0
