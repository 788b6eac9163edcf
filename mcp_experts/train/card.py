"""Scores in an expert's card: the expert compared with baselines, in and out of distribution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcp_experts.inference.classical import ESTIMATORS
from mcp_experts.inference.definition import Definition
from mcp_experts.inference.network import Gate, Network, decided
from mcp_experts.train.dataset import Examples
from mcp_experts.train.scores import accuracy, calibration_error, confusions, interval, kappa, risk_coverage

__all__ = ["by_generator", "by_snr", "gate_card", "scores"]

LEAST = 50
SNR_BANDS = ((-5.0, 5.0), (5.0, 15.0), (15.0, 25.0), (25.0, 35.0), (35.0, 80.0))
COVERAGES = (0.5, 0.7, 0.8, 0.9, 1.0)


def scores(
    definition: Definition, network: Network, examples: Examples | None, boosted: Any, prior: int
) -> dict[str, Any] | str:
    """Scores of the expert and its baselines on one set; "not applicable" if too few truths are known.

    Baselines: most frequent class in training, classical estimator, and gradient boosting on classical estimates.
    """
    if examples is None:
        return "not measured"
    labels = definition.labels(examples.truth(definition.truth))
    if (labels >= 0).sum() < LEAST:
        return "not applicable"
    examples, labels = examples.rows(labels >= 0), labels[labels >= 0]
    probabilities = network.probabilities(examples.features)
    expert = probabilities.argmax(axis=1)
    rivals: dict[str, NDArray[np.int64] | None] = {
        "majority": np.full_like(labels, prior),
        "classical": network.classical_label(examples.estimates, list(ESTIMATORS).index(definition.estimator)),
        "boosted_classical": None if boosted is None else np.asarray(boosted.predict(examples.estimates), np.int64),
        "expert": expert,
    }
    members = network.members(probabilities)
    certain = decided(probabilities)
    return {
        "channels": len(labels),
        "class_counts": np.bincount(labels, minlength=len(definition.classes)).tolist(),
        **{
            name: _rival(confusions(labels, given, examples.group, len(definition.classes)))
            for name, given in rivals.items()
            if given is not None
        },
        "calibration_error": round(calibration_error(labels, probabilities), 4),
        "set_coverage": round(float(members[np.arange(len(labels)), labels].mean()), 4),
        "answered": round(float(certain.mean()), 4),
        "accuracy_answered": _share(labels[certain], expert[certain]),
        "risk_at_coverage": {
            key: round(risk, 4) for key, risk in risk_coverage(labels, probabilities, COVERAGES).items()
        },
        "by_snr_db": by_snr(labels, expert, examples),
        "by_generator": by_generator(definition, labels, expert, examples),
    }


def _rival(groups: NDArray[np.int64]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, score in (("accuracy", accuracy), ("kappa", kappa)):
        found[name] = round(float(score(groups.sum(axis=0))), 4)
        found[f"{name}_95"] = [round(bound, 4) for bound in interval(score, groups)]
    return found


def by_snr(labels: NDArray[np.int64], expert: NDArray[np.int64], examples: Examples) -> dict[str, float | None]:
    """Accuracy in bands of signal-to-noise ratio."""
    snr_db = examples.truth("snr_db")
    found: dict[str, float | None] = {}
    for low, high in SNR_BANDS:
        inside = (snr_db >= low) & (snr_db < high)
        key = f"{low:g} to {high:g}"
        found[key] = _share(labels[inside], expert[inside]) if inside.sum() >= LEAST else None
    return found


def by_generator(
    definition: Definition, labels: NDArray[np.int64], expert: NDArray[np.int64], examples: Examples
) -> dict[str, dict[str, float | int]]:
    """Accuracy and kappa on the links of each generator."""
    found: dict[str, dict[str, float | int]] = {}
    for name in np.unique(examples.source):
        own = examples.source == name
        table = confusions(labels[own], expert[own], np.zeros(int(own.sum()), int), len(definition.classes)).sum(axis=0)
        scored = {"accuracy": round(float(accuracy(table)), 4), "kappa": round(float(kappa(table)), 4)}
        found[str(name)] = {"channels": int(own.sum()), **scored}
    return found


def _share(labels: NDArray[np.int64], given: NDArray[np.int64]) -> float | None:
    return round(float(np.mean(labels == given)), 4) if len(labels) else None


def gate_card(gate: Gate, sets: Mapping[str, Examples], wrong: Mapping[str, Examples]) -> dict[str, Any]:
    """Share of channels of each set that the gate calls outside; about 1 % is expected for test channels."""

    def outside(examples: Examples | None) -> Any:
        if examples is None:
            return "not measured"
        return {"channels": len(examples), "outside": round(float(np.mean(gate.score(examples.features) > 1)), 4)}

    return {
        "test": outside(sets["test"]),
        "held_out_city": outside(sets.get("city")),
        "spoilt": {name: outside(each) for name, each in wrong.items()},
    }
