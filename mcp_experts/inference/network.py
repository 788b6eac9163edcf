"""Dense networks in NumPy with their calibration, read from a file with a known hash."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoml.errors import DataError
from geoml.runs.files import sha256

__all__ = ["MOST_DEVIATIONS", "Gate", "Network", "decided", "load_arrays", "softmax", "standardised"]

Floats = NDArray[np.float32]
MOST_DEVIATIONS = 8.0
#: Probability that a class must exceed to be given as label: then it is more likely right than wrong.
LEAST_CONFIDENCE = 0.5
#: Default of the 90th percentile of calibration scores, for gates whose file lacks it.
USUAL = 0.55


def load_arrays(path: Path, digest: str) -> dict[str, NDArray[Any]]:
    """The arrays of an npz file with this SHA-256; a `DataError` for any other file. Nothing is unpickled."""
    try:
        found = sha256(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); reinstall, or train the expert again") from error
    if found != digest:
        raise DataError(
            f"{path} has SHA-256 {found[:12]}…, its card says {digest[:12]}…; the file is damaged or from another "
            "training: reinstall, or train the expert again"
        )
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is not a file of plain arrays ({error})") from error


def softmax(logits: NDArray[Any]) -> NDArray[Any]:
    """Softmax along the last axis.

    >>> softmax(np.array([0.0, np.log(3.0)])).round(2).tolist()
    [0.25, 0.75]
    """
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result: NDArray[Any] = shifted / shifted.sum(axis=-1, keepdims=True)
    return result


def decided(probabilities: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether one class is more likely than all others together, along the last axis.

    >>> decided(np.array([[0.6, 0.4], [0.5, 0.5]])).tolist()
    [True, False]
    """
    result: NDArray[np.bool_] = probabilities.max(axis=-1) > LEAST_CONFIDENCE
    return result


def standardised(features: NDArray[Any], mean: Floats, scale: Floats) -> Floats:
    """Features in standard deviations from the training mean, limited to ± `MOST_DEVIATIONS`."""
    return np.clip((features - mean) / scale, -MOST_DEVIATIONS, MOST_DEVIATIONS).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Network:
    """Standardised features, ReLU layers, a softmax with a temperature; `threshold` defines prediction sets.

    Weights are half precision in the file and single precision in memory; converting in each call would take as long as
    the call.

    A class belongs to the prediction set if it is the most probable one or its probability is at least `threshold`. On
    data like the calibration data, the set holds the truth in 90 % of cases (split conformal prediction; Vovk 2005,
    Sadinle 2019). `arrays` also holds the rule of the classical estimate: limits between classes (`cuts`, `cut_order`)
    or a linear discriminant on all estimators (`rule_…`).
    """

    mean: Floats
    scale: Floats
    layers: tuple[tuple[Floats, Floats], ...]
    temperature: float
    threshold: Floats
    arrays: dict[str, NDArray[Any]]

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> Network:
        """Create from the arrays of a weights file."""
        arrays = {name: x.astype(np.float32) if x.dtype == np.float16 else x for name, x in arrays.items()}
        count = sum(name.startswith("weight_") for name in arrays)
        return cls(
            arrays["mean"],
            arrays["scale"],
            tuple((arrays[f"weight_{index}"], arrays[f"bias_{index}"]) for index in range(count)),
            float(arrays["temperature"]),
            np.asarray(arrays["threshold"], np.float32),
            arrays,
        )

    def probabilities(self, features: Floats) -> Floats:
        """Probabilities `(n, classes)` for features `(n, FEATURES)`."""
        x = standardised(features, self.mean, self.scale)
        for index, (weight, bias) in enumerate(self.layers):
            x = x @ weight + bias
            if index < len(self.layers) - 1:
                x = np.maximum(x, 0)
        return softmax(x / self.temperature)

    def members(self, probabilities: Floats, nearness: float | NDArray[Any] = 1.0) -> NDArray[np.bool_]:
        """Return a mask of the classes in the prediction set, which always holds the most probable class.

        `nearness` is from `Gate.nearness`; it widens the sets of channels far from the calibration data.
        """
        limits = self.threshold * np.expand_dims(np.asarray(nearness), -1)
        most = probabilities >= probabilities.max(axis=-1, keepdims=True)
        result: NDArray[np.bool_] = (probabilities >= limits) | most
        return result

    def classical_label(self, estimates: NDArray[np.float64], column: int) -> NDArray[np.int64]:
        """The class by the classical estimator, with limits fitted on the training set."""
        if "rule_weight" in self.arrays:
            scores = (estimates - self.arrays["rule_mean"]) / self.arrays["rule_scale"] @ self.arrays["rule_weight"]
            return np.argmax(scores + self.arrays["rule_bias"], axis=1)
        order = self.arrays["cut_order"]
        result: NDArray[np.int64] = order[np.digitize(estimates[:, column], self.arrays["cuts"])]
        return result


@dataclass(frozen=True, eq=False)
class Gate:
    """Out-of-distribution detector: squared distance of features from the mean of the training data.

    The distance has two parts, along the principal directions and orthogonal to them, each in units of its spread.
    `score` is the distance divided by `limit`; above 1 a channel is outside the training distribution.
    """

    mean: Floats
    scale: Floats
    directions: Floats
    spread: Floats
    residual: float
    limit: float
    usual: float = USUAL

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> Gate:
        """Create from the arrays of a weights file."""
        plain = (float(arrays.get(name, USUAL)) for name in ("residual", "limit", "usual"))
        return cls(arrays["mean"], arrays["scale"], arrays["directions"], arrays["spread"], *plain)

    def score(self, features: Floats) -> NDArray[np.float64]:
        """Scores `(n,)`; above 1 a channel is outside."""
        x = (features - self.mean) / self.scale
        along = x @ self.directions
        beside = np.sum((x - along @ self.directions.T) ** 2, axis=1)
        distance = np.mean((along / self.spread) ** 2, axis=1) + beside / self.residual
        result: NDArray[np.float64] = (distance / self.limit).astype(np.float64)
        return result

    def nearness(self, score: float | NDArray[np.float64]) -> NDArray[np.float64]:
        """Weight that is 1 up to the 90th percentile of the calibration scores and falls linearly to 0 at a score of 1.

        Thresholds of prediction sets are multiplied by it, so that sets widen with distance from the calibration data.
        """
        return np.clip((1 - np.asarray(score)) / max(1 - self.usual, 1e-6), 0, 1)
