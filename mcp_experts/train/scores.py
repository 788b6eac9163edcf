"""Scores of classifiers: agreement beyond chance, calibration, risk against coverage, intervals over groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["accuracy", "calibration_error", "confusions", "interval", "kappa", "risk_coverage"]

Labels = NDArray[np.int64]


def accuracy(confusion: NDArray[Any]) -> Any:
    """Share of correct labels; `confusion[…, truth, label]` counts.

    >>> float(accuracy(np.array([[2, 0], [1, 1]])))
    0.75
    """
    return np.trace(confusion, axis1=-2, axis2=-1) / confusion.sum(axis=(-2, -1))


def kappa(confusion: NDArray[Any]) -> Any:
    """Cohen's kappa: agreement beyond that of independent labels with the same frequencies (Cohen 1960).

    >>> float(kappa(np.array([[2, 0], [1, 1]])))
    0.5
    """
    total = confusion.sum(axis=(-2, -1))
    chance = np.sum(confusion.sum(axis=-1) * confusion.sum(axis=-2), axis=-1) / total**2
    return (accuracy(confusion) - chance) / np.maximum(1 - chance, 1e-12)


def confusions(truth: Labels, label: Labels, group: Labels, classes: int) -> NDArray[np.int64]:
    """Counts `[group, truth, label]`, a matrix for each group of channels."""
    _, number = np.unique(group, return_inverse=True)
    size = int(number.max()) + 1
    place = (number * classes + truth) * classes + label
    return np.bincount(place, minlength=size * classes**2).reshape(size, classes, classes)


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
    score: Callable[[NDArray[Any]], Any], groups: NDArray[np.int64], *, draws: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """The 95 % interval of a score by bootstrap over groups of correlated channels, given their confusions."""
    # Groups with equal confusions are merged and drawn with their multiplicity: the same distribution.
    kinds, count = np.unique(groups, axis=0, return_counts=True)
    weights = np.random.default_rng(seed).multinomial(len(groups), count / len(groups), size=draws)
    low, high = np.quantile(score(np.tensordot(weights, kinds, axes=1)), [0.025, 0.975])
    return float(low), float(high)
