"""What the tests of scores share: a case, and scores of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from geoml.metrics import Suite

TIMES = np.datetime64("2021-01-01T00", "h") + np.arange(5000)


def make_case(samples: int = 6, members: int = 5, space: tuple[int, ...] = (4, 7), seed: int = 0):
    """Prediction, truth and mask of a skilful but imperfect ensemble, with NaN at what is masked."""
    rng = np.random.default_rng(seed)
    signal = rng.gamma(0.7, 2.0, (samples, *space))
    truth = (signal * rng.lognormal(0, 0.3, signal.shape)).astype(np.float32)
    noise = rng.lognormal(0, 0.3, (samples, members, *space))
    prediction = (signal[:, None] * noise).astype(np.float32)
    mask = rng.random(truth.shape) < 0.8
    mask[:, 0, 0] = True
    return prediction, np.where(mask, truth, np.nan).astype(np.float32), mask


def make_scores(suite: Suite, prediction, truth, mask=None, weights=None) -> dict[str, float]:
    """Scores of samples of consecutive hours."""
    return suite.evaluate(suite.update(prediction, truth, mask=mask, weights=weights, ids=TIMES[: len(truth)]))


@pytest.fixture(scope="session")
def case() -> Callable:
    return make_case


@pytest.fixture(scope="session")
def scores() -> Callable:
    return make_scores
