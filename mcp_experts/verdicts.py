"""Asking experts about a channel: one flat verdict each, with the classical estimate beside it."""

from __future__ import annotations

import math
import time
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcp_experts.channels import Channel
from mcp_experts.classical import ESTIMATORS, estimate
from mcp_experts.features import extract, with_estimates
from mcp_experts.network import Gate
from mcp_experts.registry import GATE, Expert, Registry

__all__ = ["Look", "describe", "judge", "judge_gate"]

#: Above this the gate calls a channel outside, and every expert abstains.
OUTSIDE = 1.0


class Look:
    """A channel with what all experts share, computed once: window, features, classical estimates."""

    def __init__(self, channel: Channel, channel_id: str = "") -> None:
        self.channel, self.channel_id = channel, channel_id
        self.window = channel.window()
        self._gate: Gate | None = None
        self._score = math.nan

    @cached_property
    def features(self) -> NDArray[np.float32]:
        """One row."""
        return with_estimates(extract(self.window.csi[None]), self.estimates)

    @cached_property
    def estimates(self) -> NDArray[np.float64]:
        """One row of the columns of `ESTIMATORS`."""
        return estimate(self.window.csi[None], np.array([self.window.bandwidth_hz]))

    def ood_score(self, gate: Gate) -> float:
        """How far outside the training channels; above 1 is outside. Kept, since all experts ask for it."""
        if gate is not self._gate:
            self._gate, self._score = gate, float(gate.score(self.features)[0])
        return self._score


def judge(expert: Expert, look: Look, gate: Gate) -> dict[str, Any]:
    """What one expert says: label, calibrated probabilities, the set that holds nine truths of ten, limits in a unit.

    It abstains, `label` null, where the gate finds the channel outside, or where the set holds more or fewer than one
    class. `interval_low` and `interval_high` bound the set's classes in `unit`, null where a side is open.
    """
    begin = time.perf_counter()
    definition, network = expert.definition, expert.network
    probabilities = network.probabilities(look.features)[0]
    score = look.ood_score(gate)
    members = probabilities >= network.threshold
    warnings = list(look.window.warnings)
    if score > OUTSIDE:
        warnings.append("the channel is unlike the training data: abstained; see the gate, ood")
    elif members.sum() != 1:
        likely = " or ".join(name for name, member in zip(definition.classes, members, strict=True) if member)
        warnings.append(f"the data do not decide: {likely or 'no class is likely enough'}; abstained")
    abstained = score > OUTSIDE or members.sum() != 1
    low, high = definition.interval(members, look.window)
    return {
        "expert": definition.name,
        "version": definition.version,
        "channel_id": look.channel_id,
        "label": None if abstained else definition.classes[int(np.argmax(probabilities))],
        "probabilities": _rounded(dict(zip(definition.classes, probabilities.tolist(), strict=True))),
        "confidence": _round(float(probabilities.max())),
        "likely": [name for name, member in zip(definition.classes, members, strict=True) if member],
        "interval_low": _round(low),
        "interval_high": _round(high),
        "unit": definition.unit or None,
        "abstained": bool(abstained),
        "ood_score": _round(score),
        "classical": _classical(expert, look),
        "warnings": warnings,
        "latency_ms": _round(1e3 * (time.perf_counter() - begin)),
    }


def judge_gate(expert: Expert, look: Look) -> dict[str, Any]:
    """The gate's own verdict, in the same shape."""
    begin = time.perf_counter()
    score = look.ood_score(expert.gate)
    # A logistic in the score's logarithm, half at the limit: a reading, not a calibrated probability.
    outside = 1 / (1 + (max(score, 1e-9) / OUTSIDE) ** -4.0)
    label = "outside" if score > OUTSIDE else "inside"
    return {
        "expert": expert.definition.name,
        "version": expert.definition.version,
        "channel_id": look.channel_id,
        "label": label,
        "probabilities": _rounded({"inside": 1 - outside, "outside": outside}),
        "confidence": _round(max(outside, 1 - outside)),
        "likely": [label],
        "interval_low": None,
        "interval_high": None,
        "unit": None,
        "abstained": False,
        "ood_score": _round(score),
        "classical": {
            "estimator": "snr",
            "label": None,
            "value": _round(float(look.estimates[0, list(ESTIMATORS).index(expert.definition.estimator)])),
            "unit": "dB",
        },
        "warnings": list(look.window.warnings),
        "latency_ms": _round(1e3 * (time.perf_counter() - begin)),
    }


def describe(registry: Registry, look: Look) -> list[dict[str, Any]]:
    """The verdicts of the gate, first, and of all experts."""
    gate = registry.gate
    return [
        judge_gate(registry.expert(GATE), look),
        *(judge(expert, look, gate) for expert in registry.classifiers),
    ]


def _classical(expert: Expert, look: Look) -> dict[str, Any]:
    definition = expert.definition
    column = list(ESTIMATORS).index(definition.estimator)
    number = int(expert.network.classical_label(look.estimates, column)[0])
    value = float(look.estimates[0, column])
    return {
        "estimator": definition.estimator.removesuffix("_db").removesuffix("_cells"),
        "label": definition.classes[number],
        "value": _round(value * definition.factor(look.window)),
        "unit": definition.unit or ("dB" if definition.estimator.endswith("_db") else "1/bandwidth"),
    }


def _round(value: float | None) -> float | None:
    """Four significant digits: more would only cost a model tokens."""
    return None if value is None else float(f"{value:.4g}")


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}
