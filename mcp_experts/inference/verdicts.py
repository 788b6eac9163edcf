"""Asking experts about a channel: one flat verdict each, with the classical estimate beside it."""

from __future__ import annotations

import math
import time
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcp_experts.channels.channel import Channel
from mcp_experts.inference.classical import ESTIMATORS, estimate
from mcp_experts.inference.definition import Definition
from mcp_experts.inference.features import extract, with_estimates
from mcp_experts.inference.network import Gate
from mcp_experts.inference.registry import GATE, Expert, Registry

__all__ = ["ChannelView", "describe", "judge", "judge_gate"]

#: Of estimates that count in windows: what they are multiples of. The others are in dB, or have no unit.
WINDOWS = {
    "delay_spread_cells": "1/bandwidth",
    "latest_cells": "1/bandwidth",
    "coherence_bandwidth": "bandwidth",
    "doppler_cells": "1/duration",
    "coherence_time": "duration",
}
#: Above this the gate calls a channel outside, and every expert abstains.
OUTSIDE = 1.0


class ChannelView:
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


def judge(expert: Expert, look: ChannelView, gate: Gate) -> dict[str, Any]:
    """What one expert says: label, calibrated probabilities, the set that holds nine truths of ten, limits in a unit.

    It abstains, `label` null, where the gate finds the channel outside, or where the set holds more or fewer than one
    class. `interval_low` and `interval_high` bound the set's classes in `unit`, null where a side is open, and both for
    a channel outside.
    """
    begin = time.perf_counter()
    definition, network = expert.definition, expert.network
    probabilities = network.probabilities(look.features)[0]
    outside = look.ood_score(gate) > OUTSIDE
    members = probabilities >= network.threshold
    likely = [name for name, member in zip(definition.classes, members, strict=True) if member]
    warnings = []
    if outside:
        warnings.append("the channel is unlike the training data: abstained; see the gate, ood")
    elif len(likely) != 1:
        warnings.append(f"the data do not decide: {' or '.join(likely) or 'no class is likely enough'}; abstained")
    # Sets hold the truth in nine cases of ten on data like that of training: outside, their limits would promise that.
    low, high = (None, None) if outside else definition.interval(members, look.window)
    classical = int(network.classical_label(look.estimates, _column(definition))[0])
    return _verdict(
        definition,
        look,
        label=None if warnings else likely[0],
        probabilities=dict(zip(definition.classes, probabilities.tolist(), strict=True)),
        likely=likely,
        interval=(low, high),
        score=look.ood_score(gate),
        classical=definition.classes[classical],
        warnings=warnings,
        begin=begin,
    )


def judge_gate(expert: Expert, look: ChannelView) -> dict[str, Any]:
    """The gate's own verdict, in the same shape."""
    begin = time.perf_counter()
    score = look.ood_score(expert.gate)
    # A logistic in the score's logarithm, half at the limit: a reading, not a calibrated probability.
    outside = 1 / (1 + (max(score, 1e-9) / OUTSIDE) ** -4.0)
    label = "outside" if score > OUTSIDE else "inside"
    return _verdict(
        expert.definition,
        look,
        label=label,
        probabilities={"inside": 1 - outside, "outside": outside},
        likely=[label],
        interval=(None, None),
        score=score,
        classical=None,
        warnings=[],
        begin=begin,
    )


def describe(registry: Registry, look: ChannelView) -> list[dict[str, Any]]:
    """The verdicts of the gate, first, and of all experts."""
    gate = registry.gate
    return [
        judge_gate(registry.expert(GATE), look),
        *(judge(expert, look, gate) for expert in registry.classifiers),
    ]


def _verdict(
    definition: Definition,
    look: ChannelView,
    *,
    label: str | None,
    probabilities: dict[str, float],
    likely: list[str],
    interval: tuple[float | None, float | None],
    score: float,
    classical: str | None,
    warnings: list[str],
    begin: float,
) -> dict[str, Any]:
    """The shape of all verdicts; `classical` is the class that the classical estimate alone gives."""
    estimate = float(look.estimates[0, _column(definition)])
    return {
        "expert": definition.name,
        "version": definition.version,
        "channel_id": look.channel_id,
        "label": label,
        "probabilities": {name: round(value, 4) for name, value in probabilities.items()},
        "confidence": _round(max(probabilities.values())),
        "likely": likely,
        "interval_low": _round(interval[0]),
        "interval_high": _round(interval[1]),
        "unit": definition.unit or None,
        "abstained": label is None,
        "ood_score": _round(score),
        "classical": {
            "estimator": definition.estimator.removesuffix("_db").removesuffix("_cells"),
            "label": classical,
            "value": _round(estimate * definition.factor(look.window)),
            "unit": definition.unit or _unit(definition.estimator),
        },
        "warnings": [*look.window.warnings, *warnings],
        "latency_ms": _round(1e3 * (time.perf_counter() - begin)),
    }


def _unit(estimator: str) -> str | None:
    return "dB" if estimator.endswith("_db") else WINDOWS.get(estimator)


def _column(definition: Definition) -> int:
    return list(ESTIMATORS).index(definition.estimator)


def _round(value: float | None) -> float | None:
    """Four significant digits: more would only cost a model tokens."""
    return None if value is None else float(f"{value:.4g}")
