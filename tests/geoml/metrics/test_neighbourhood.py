"""Pooled CRPS and FSS against loops, a moving average of scipy's, and boxes whose score is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from geoml.errors import DataError, UserError
from geoml.metrics import Suite
from geoml.metrics.neighbourhood import fss
from geoml.metrics.probabilistic import fair_crps
from geoml.metrics.window_kernels import event_integrals


def boxes(shift: int, size: int = 8, field: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """A rainy box and the same box some cells to the east."""
    truth, prediction = np.zeros((2, field, field))
    truth[24 : 24 + size, 20 : 20 + size] = 5.0
    prediction[24 : 24 + size, 20 + shift : 20 + shift + size] = 5.0
    return prediction, truth


def test_integral_image_is_the_double_sum() -> None:
    rng = np.random.default_rng(0)
    values, counts = rng.normal(size=(3, 7, 11)), rng.random((7, 11)) < 0.7
    expected = ((values >= 0.3) & counts).cumsum(1).cumsum(2)
    made = event_integrals(values, counts, 0.3)
    assert np.array_equal(made[:, 1:, 1:], expected)
    assert not made[:, 0].any()
    assert not made[:, :, 0].any()


@pytest.mark.parametrize("window", [1, 2, 3, 4, 8, 16, 64])
def test_fss_is_that_of_a_moving_average(window: int) -> None:
    rng = np.random.default_rng(window)
    truth, prediction = ndimage.gaussian_filter(rng.normal(size=(2, 33, 40)), (0, 2, 2)) * 10
    for threshold in (0.5, 2.0):
        f, o = (
            ndimage.uniform_filter((field >= threshold).astype(float), window, mode="constant")
            for field in (prediction, truth)
        )
        expected = 1 - np.square(f - o).sum() / (np.square(f).sum() + np.square(o).sum())
        assert fss(prediction, truth, threshold, window) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("shift", "window"), [(2, 1), (4, 1), (8, 1), (8, 8), (8, 16), (8, 24), (12, 4)])
def test_fss_of_a_shifted_box_is_the_closed_form(shift: int, window: int) -> None:
    # Counts along x are the box convolved with the window: their products at lags 0 and `shift`; y cancels.
    profile = np.convolve(np.ones(8), np.ones(window))
    lagged = (profile[shift:] * profile[: len(profile) - shift]).sum() if shift < len(profile) else 0.0
    expected = lagged / np.square(profile).sum()
    assert fss(*boxes(shift), 1.0, window) == pytest.approx(expected, abs=1e-12)


def test_fss_grows_with_the_window_and_sums_come_before_the_ratio() -> None:
    prediction, truth = boxes(6)
    assert np.all(np.diff([fss(prediction, truth, 1.0, window) for window in (1, 2, 4, 8, 16)]) > 0)
    suite = Suite(("fss",), thresholds=(1.0,), windows=(4,))
    dry = np.zeros_like(truth)
    table = suite.update(np.stack([prediction, dry])[:, None], np.stack([truth, dry]), ids=[0, 1])
    assert suite.evaluate(table)["fss_1_4"] == pytest.approx(fss(prediction, truth, 1.0, 4), abs=1e-12)
    assert np.isnan(suite.evaluate(table.select([1]))["fss_1_4"])


def test_fss_of_members_pools_them_and_of_unknown_cells_sees_no_events() -> None:
    rng = np.random.default_rng(3)
    members, truth = rng.gamma(0.5, 2, (3, 20, 25)), rng.gamma(0.5, 2, (20, 25))
    mask = rng.random(truth.shape) < 0.8
    suite = Suite(("fss",), thresholds=(1.0,), windows=(3,))
    value = suite.evaluate(suite.update(members[None], truth[None], mask=mask[None], ids=[0]))["fss_1_3"]
    f = np.stack([ndimage.uniform_filter(((x >= 1) & mask).astype(float), 3, mode="constant") for x in members])
    o = ndimage.uniform_filter(((truth >= 1) & mask).astype(float), 3, mode="constant")
    expected = 1 - (np.square(f - o) * mask).sum() / ((np.square(f) + np.square(o)) * mask).sum()
    assert value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("how", ["mean", "max"])
@pytest.mark.parametrize("window", [1, 4, 5, 40])
def test_pooled_crps_is_that_of_pooled_fields(how: str, window: int) -> None:
    rng = np.random.default_rng(window)
    x, y = rng.gamma(0.5, 2, (6, 12, 14)), rng.gamma(0.5, 2, (12, 14))
    mask, weights = rng.random(y.shape) < 0.8, rng.uniform(1, 2, (12, 1))
    total = weight = 0.0
    for i in range(0, 12, window):
        for j in range(0, 14, window):
            cells = np.s_[i : i + window, j : j + window]
            known = mask[cells]
            area = np.broadcast_to(weights, y.shape)[cells][known]
            if not known.any():
                continue
            observed, members = y[cells][known], x[(slice(None), *cells)][:, known]
            pooled = (
                (np.average(members, axis=1, weights=area), np.average(observed, weights=area))
                if how == "mean"
                else (members.max(axis=1), observed.max())
            )
            total += area.sum() * fair_crps(pooled[0][:, None], np.array([pooled[1]]))[0]
            weight += area.sum()
    name = f"crps_fair_{how}"
    suite = Suite((name, "crps_fair"), windows=(window,))
    value = suite.evaluate(suite.update(x[None], y[None], mask=mask[None], weights=weights, ids=[0]))
    assert value[f"{name}_{window}"] == pytest.approx(total / weight, rel=1e-9)
    if window == 1:
        assert value[f"{name}_1"] == pytest.approx(value["crps_fair"], rel=1e-9)


def test_mistakes_are_answered() -> None:
    with pytest.raises(UserError, match="'fss' needs windows"):
        Suite(("fss",), thresholds=(1.0,))
    with pytest.raises(DataError, match=r"samples of shape \(5,\) are not fields"):
        Suite(("crps_fair_mean",), windows=(2,)).update(np.zeros((1, 2, 5)), np.zeros((1, 5)), ids=[0])
    for wrong in (0, 2.5, "4"):
        with pytest.raises(UserError, match="expected whole numbers of cells, 1 or more"):
            Suite(("fss",), thresholds=(1.0,), windows=(4, wrong))
    for wrong in (np.nan, "1 mm"):
        with pytest.raises(UserError, match="expected finite numbers"):
            Suite(("fss",), thresholds=(wrong,), windows=(4,))
