"""Scores of classifiers: agreement beyond chance, calibration, risk against coverage, intervals over groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["accuracy", "calibration_error", "interval", "kappa", "risk_coverage"]

Labels = NDArray[np.int64]


def accuracy(truth: Labels, label: Labels) -> float:
    """Share of right labels."""
    return float(np.mean(truth == label))


def kappa(truth: Labels, label: Labels) -> float:
    """Cohen's kappa: agreement beyond that of independent labels with the same frequencies (Cohen 1960).

    >>> kappa(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 0]))
    0.5
    """
    classes = int(max(truth.max(), label.max())) + 1
    observed = np.mean(truth == label)
    shares = [np.bincount(values, minlength=classes) / len(values) for values in (truth, label)]
    chance = float(shares[0] @ shares[1])
    return float((observed - chance) / (1 - chance)) if chance < 1 else 0.0


def calibration_error(truth: Labels, probabilities: NDArray[Any], *, bins: int = 15) -> float:
    """Expected calibration error: mean gap of confidence and accuracy over equal bins of confidence (Guo et al. 2017).

    >>> calibration_error(np.array([0, 0, 0, 1]), np.array([[0.75, 0.25]] * 4))
    0.0
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    number = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(np.sum(right[number == one] - confidence[number == one])) for one in range(bins)]
    return float(np.sum(gaps) / len(truth))


def risk_coverage(truth: Labels, probabilities: NDArray[Any], coverages: tuple[float, ...]) -> dict[str, float]:
    """Share of wrong labels among the most confident share of channels, for each coverage."""
    order = np.argsort(-probabilities.max(axis=1), kind="stable")
    wrong = (probabilities.argmax(axis=1) != truth)[order]
    return {f"{coverage:g}": float(wrong[: max(1, round(coverage * len(wrong)))].mean()) for coverage in coverages}


def interval(
    score: Callable[[Labels, Labels], float],
    truth: Labels,
    label: Labels,
    group: NDArray[np.int64],
    *,
    draws: int = 400,
    seed: int = 0,
) -> tuple[float, float]:
    """The 95 % interval of a score by bootstrap over whole groups, whose members are alike."""
    rng = np.random.default_rng(seed)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    members = np.split(order, starts[1:])
    found = []
    for _ in range(draws):
        chosen = np.concatenate([members[index] for index in rng.integers(len(members), size=len(members))])
        found.append(score(truth[chosen], label[chosen]))
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)
