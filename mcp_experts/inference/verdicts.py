"""Verdicts of experts on a channel: typed, one flat record each, with the classical estimate for comparison."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from html import escape
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from geoml.cli.tables import cell, text
from geoml.errors import unknown
from mcp_experts.channels.channel import Channel
from mcp_experts.inference.classical import ESTIMATORS, estimate
from mcp_experts.inference.definition import Definition
from mcp_experts.inference.features import extract, with_estimates
from mcp_experts.inference.network import Gate
from mcp_experts.inference.registry import GATE, Expert, Registry

__all__ = ["ChannelView", "Classical", "Verdict", "Verdicts", "describe", "judge", "judge_gate"]

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


@dataclass(frozen=True)
class Classical:
    """What the classical estimator of an expert's quantity gives: its class, its `value` and the unit of that.

    `label` is None for the gate, which has no classes of a classical estimate.
    """

    estimator: str
    label: str | None
    value: float | None
    unit: str | None


@dataclass(frozen=True)
class Verdict:
    """What one expert says of one channel.

    Attributes:
        expert, version: of the expert.
        channel_id: of a channel held by a server, else empty.
        label: the class, None where the expert abstains.
        probabilities: calibrated, by class.
        confidence: the largest of them.
        likely: the classes that together hold the truth in nine of ten channels like those of calibration.
        interval_low, interval_high: limits of the likely classes in `unit`, None where open or outside the training.
        ood_score: distance from the training channels; above 1 is outside.
        classical: the classical estimate.
        warnings: why it abstains, and what limits the channel.
    """

    expert: str
    version: str
    channel_id: str
    label: str | None
    probabilities: dict[str, float]
    confidence: float
    likely: list[str]
    interval_low: float | None
    interval_high: float | None
    unit: str | None
    abstained: bool
    ood_score: float
    classical: Classical
    warnings: list[str]
    latency_ms: float

    @property
    def interval(self) -> str:
        """The limits as text, "" where there are none.

        >>> import mcp_experts
        >>> mcp_experts.describe(mcp_experts.synthetic_channel(snr_db=35))["snr"].interval
        '> 25 dB'
        """
        low, high, unit = self.interval_low, self.interval_high, self.unit or ""
        if low is None and high is None:
            return ""
        if low is None:
            return f"< {high:g} {unit}"
        return f"> {low:g} {unit}" if high is None else f"{low:g} … {high:g} {unit}"

    def to_dict(self) -> dict[str, Any]:
        """The verdict in the types of JSON."""
        return asdict(self)

    def row(self) -> dict[str, Any]:
        """The verdict as a row of a table."""
        classical = self.classical
        return {
            "expert": self.expert,
            "label": self.label or f"undecided: {' or '.join(self.likely) or 'nothing is likely'}",
            "confidence": self.confidence,
            "interval": self.interval,
            "classical": classical.label,
            "estimate": " ".join(filter(None, (classical.estimator, f"{classical.value:g}", classical.unit))),
            "warnings": "; ".join(self.warnings),
        }


class Verdicts(Sequence[Verdict]):
    """The verdicts of all experts on one channel, the gate's first; shows as a table, in a notebook too.

    `verdicts["los"]` is that of one expert, `in_distribution` whether the channel is like those of the training.
    """

    def __init__(self, verdicts: Iterable[Verdict]) -> None:
        self._verdicts = tuple(verdicts)

    @property
    def in_distribution(self) -> bool:
        """Whether the gate finds the channel like those of the training; else every expert abstains."""
        return self[GATE].label == "inside"

    @overload
    def __getitem__(self, key: int | str) -> Verdict: ...
    @overload
    def __getitem__(self, key: slice) -> Verdicts: ...
    def __getitem__(self, key: int | str | slice) -> Verdict | Verdicts:
        if isinstance(key, slice):
            return Verdicts(self._verdicts[key])
        if isinstance(key, int):
            return self._verdicts[key]
        named: Mapping[str, Verdict] = {verdict.expert: verdict for verdict in self._verdicts}
        if key not in named:
            raise unknown("expert", key, named)
        return named[key]

    def __len__(self) -> int:
        return len(self._verdicts)

    def __repr__(self) -> str:
        return text([verdict.row() for verdict in self])

    def _repr_html_(self) -> str:
        rows = [verdict.row() for verdict in self]
        head = "".join(f"<th>{escape(name)}</th>" for name in rows[0])
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(cell(value))}</td>" for value in row.values()) + "</tr>" for row in rows
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def to_dicts(self) -> list[dict[str, Any]]:
        """Every verdict in the types of JSON."""
        return [verdict.to_dict() for verdict in self]


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


def judge(expert: Expert, look: ChannelView, gate: Gate) -> Verdict:
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


def judge_gate(expert: Expert, look: ChannelView) -> Verdict:
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


def describe(registry: Registry, look: ChannelView) -> Verdicts:
    """The verdicts of the gate, first, and of all experts."""
    gate = registry.gate
    others = (judge(expert, look, gate) for expert in registry.classifiers)
    return Verdicts((judge_gate(registry.expert(GATE), look), *others))


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
) -> Verdict:
    """A verdict with rounded numbers; `classical` is the class that the classical estimate alone gives."""
    estimate = float(look.estimates[0, _column(definition)])
    return Verdict(
        expert=definition.name,
        version=definition.version,
        channel_id=look.channel_id,
        label=label,
        probabilities={name: round(value, 4) for name, value in probabilities.items()},
        confidence=float(f"{max(probabilities.values()):.4g}"),
        likely=likely,
        interval_low=_round(interval[0]),
        interval_high=_round(interval[1]),
        unit=definition.unit or None,
        abstained=label is None,
        ood_score=float(f"{score:.4g}"),
        classical=Classical(
            definition.estimator.removesuffix("_db").removesuffix("_cells"),
            classical,
            _round(estimate * definition.factor(look.window)),
            definition.unit or _unit(definition.estimator),
        ),
        warnings=[*look.window.warnings, *warnings],
        latency_ms=float(f"{1e3 * (time.perf_counter() - begin):.4g}"),
    )


def _unit(estimator: str) -> str | None:
    return "dB" if estimator.endswith("_db") else WINDOWS.get(estimator)


def _column(definition: Definition) -> int:
    return list(ESTIMATORS).index(definition.estimator)


def _round(value: float | None) -> float | None:
    """Four significant digits: more would only cost a model tokens."""
    return None if value is None else float(f"{value:.4g}")
