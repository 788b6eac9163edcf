"""Calibration in NumPy: the temperature of a network, and the thresholds of its prediction sets."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["COVERAGE", "class_thresholds", "conformal_threshold", "temperature"]

#: Coverage of the prediction sets on channels like the calibration channels.
COVERAGE = 0.9


def temperature(logits: NDArray[Any], labels: NDArray[np.int64]) -> float:
    """Return the temperature with the smallest log loss (Guo et al. 2017), by a grid search with one refinement."""

    def loss(temperature: float) -> float:
        scaled = logits / temperature
        scaled = scaled - scaled.max(axis=1, keepdims=True)
        return float(np.mean(np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(len(labels)), labels]))

    best = min(np.geomspace(0.5, 4, 60), key=loss)
    return float(min(np.linspace(0.95 * best, 1.05 * best, 60), key=loss))


def conformal_threshold(probabilities: NDArray[Any], labels: NDArray[np.int64], coverage: float = COVERAGE) -> float:
    """Return the threshold on probabilities for prediction sets of this coverage (split conformal prediction).

    It is the ⌊(1 − coverage)(n + 1)⌋-th smallest of the n probabilities of the true classes. For exchangeable data, the
    probability of a new true class is below it in at most 1 − coverage of cases.
    """
    reached = np.sort(probabilities[np.arange(len(labels)), labels])
    rank = int(np.floor((1 - coverage) * (len(reached) + 1)))
    return float(reached[rank - 1]) if rank >= 1 else 0.0


def class_thresholds(probabilities: NDArray[Any], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return a conformal threshold per class, from the channels of that class only, so that rare classes are covered.

    A class with fewer than ten channels gets 0 and is in every prediction set (Vovk 2012, label-conditional).
    """
    classes = range(probabilities.shape[1])
    return np.array([conformal_threshold(probabilities[labels == one], labels[labels == one]) for one in classes])
