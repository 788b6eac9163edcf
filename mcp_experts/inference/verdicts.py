"""Verdicts of experts on a channel: one flat, typed record each, with the classical estimate for comparison."""

from __future__ import annotations

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
from mcp_experts.inference.network import Gate, Network, decided
from mcp_experts.inference.registry import GATE, Expert, Registry
from mcp_experts.inference.validity import contradiction, invalid

__all__ = ["ChannelView", "Classical", "Verdict", "Verdicts", "describe", "judge", "judge_gate"]

#: Units of estimates that are relative to the window. All other estimates are in dB or dimensionless.
WINDOWS = {
    "delay_spread_cells": "1/bandwidth",
    "latest_cells": "1/bandwidth",
    "coherence_bandwidth": "bandwidth",
    "doppler_cells": "1/duration",
    "coherence_time": "duration",
}
#: Scores of the gate above this are outside, and every expert abstains.
OUTSIDE = 1.0
#: Prefix of warnings with the reason for an abstention, and reason for channels outside the training data.
ABSTAINED, UNLIKE = "abstained: ", "the channel is unlike the training data (see the gate, ood)"


@dataclass(frozen=True)
class Classical:
    """Classical estimate of an expert's quantity: class, `value` and unit of the value.

    `label` is None for the gate, which has no classical estimator, and with `value` where the snapshots do not show it.
    """

    estimator: str
    label: str | None
    value: float | None
    unit: str | None


@dataclass(frozen=True)
class Verdict:
    """The verdict of one expert on one channel.

    Attributes:
        expert, version: name and version of the expert.
        channel_id: handle of a channel held by a server, otherwise empty.
        label: the most probable class; None if the expert abstains, or if it is no more likely than all others
            together.
        probabilities: probabilities by class, calibrated on kinds of channels that training lacked.
        confidence: the largest probability.
        likely: the prediction set, which holds the label and, for 90 % of the channels that calibrated it, the truth.
            It widens with the distance from them, and nothing is known of its coverage on other kinds.
        interval_low, interval_high: limits of the likely classes in `unit`; None if open or outside the training data.
        ood_score: distance from the training data; above 1 is outside.
        classical: the classical estimate.
        warnings: why the expert abstains, and limits of the channel.
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
    def refused(self) -> str | None:
        """Reason for the abstention; None if there is none, or if the reason is that no class exceeds 50 %."""
        reasons = [each.removeprefix(ABSTAINED) for each in self.warnings if each.startswith(ABSTAINED)]
        return reasons[0] if reasons and not reasons[0].startswith("the data do not decide") else None

    @property
    def interval(self) -> str:
        """The interval as text; "" if it has no limits.

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
        """The verdict in JSON types."""
        return asdict(self)

    def row(self) -> dict[str, Any]:
        """The verdict as a row of a table."""
        classical = self.classical
        known = classical.value is not None
        estimate = (classical.estimator, f"{classical.value:g}", classical.unit) if known else ()
        # Warnings about the channel are the same in every verdict: only the gate's row, the first, has them.
        own = [each.removeprefix(ABSTAINED) for each in self.warnings if self.expert == GATE or ABSTAINED in each]
        others = [name for name in self.likely if name != self.label]
        open_ = f"undecided: {' or '.join(self.likely)}"
        named = f"{self.label} (or {' or '.join(others)})" if others else self.label
        return {
            "expert": self.expert,
            "label": named if self.label else ("abstained" if self.refused else open_),
            "confidence": None if self.refused else self.confidence,
            "interval": self.interval,
            "classical": classical.label if known else None,
            "estimate": " ".join(filter(None, estimate)),
            "warnings": "; ".join(own),
        }


class Verdicts(Sequence[Verdict]):
    """Verdicts of all experts on one channel, that of the gate first; prints as a table, also in notebooks.

    `verdicts["los"]` is the verdict of one expert; `in_distribution` says whether the channel is like the training
    data.
    """

    def __init__(self, verdicts: Iterable[Verdict]) -> None:
        self._verdicts = tuple(verdicts)

    @property
    def in_distribution(self) -> bool:
        """Whether the gate finds the channel like the training data; otherwise every expert abstains."""
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
        """All verdicts in JSON types."""
        return [verdict.to_dict() for verdict in self]


class ChannelView:
    """A channel with its window, features and classical estimates, computed once for all experts."""

    def __init__(self, channel: Channel, channel_id: str = "") -> None:
        self.channel, self.channel_id = channel, channel_id
        self.window = channel.window()
        self._scores: dict[Gate, float] = {}
        self._probabilities: dict[Network, NDArray[np.float32]] = {}

    @cached_property
    def features(self) -> NDArray[np.float32]:
        """Features, one row `(1, FEATURES)`."""
        return with_estimates(extract(self.window.csi[None], self.window.snapshots), self.estimates)

    @cached_property
    def estimates(self) -> NDArray[np.float64]:
        """Classical estimates, one row with a column per entry of `ESTIMATORS`."""
        window = self.window
        return estimate(window.csi[None], np.array([window.bandwidth_hz]), window.snapshots)

    @property
    def snr_db(self) -> float:
        """The classical estimate of the SNR."""
        return float(self.estimates[0, list(ESTIMATORS).index("snr_db")])

    def ood_score(self, gate: Gate) -> float:
        """Score of the gate: distance from the training data, above 1 is outside. Cached, since all experts need it."""
        if gate not in self._scores:
            self._scores[gate] = float(gate.score(self.features)[0])
        return self._scores[gate]

    def probabilities(self, expert: Expert) -> NDArray[np.float32]:
        """Class probabilities of an expert. Cached, since the check for contradictions uses several experts."""
        network = expert.network
        if network not in self._probabilities:
            self._probabilities[network] = network.probabilities(self.features)[0]
        return self._probabilities[network]


def judge(expert: Expert, look: ChannelView, registry: Registry) -> Verdict:
    """Verdict of one expert: label, calibrated probabilities, prediction set, limits in a unit.

    The label is the most probable class. The expert abstains (`label` is None) in four cases: the channel is outside
    the training data, the expert's card does not cover the channel, another expert contradicts it, or no class has a
    probability above 50 %. `interval_low` and `interval_high` bound the classes of the prediction set in `unit`. They
    are None for an open end, and in the first three cases.
    """
    begin = time.perf_counter()
    definition, network, gate = expert.definition, expert.network, expert.own_gate or registry.gate
    probabilities = look.probabilities(expert)
    score = look.ood_score(gate)
    members = network.members(probabilities, float(gate.nearness(score)))
    likely = [name for name, member in zip(definition.classes, members, strict=True) if member]
    refused = _refused(expert, look, score, registry)
    warnings = []
    if refused:
        warnings.append(f"{ABSTAINED}{refused}")
    elif not decided(probabilities):
        warnings.append(f"{ABSTAINED}the data do not decide ({' or '.join(likely)})")
    classical = int(network.classical_label(look.estimates, _column(definition))[0])
    return _verdict(
        definition,
        look,
        label=None if warnings else definition.classes[int(probabilities.argmax())],
        probabilities=dict(zip(definition.classes, probabilities.tolist(), strict=True)),
        likely=likely,
        interval=(None, None) if refused else definition.interval(members, look.window),
        score=score,
        classical=definition.classes[classical],
        warnings=warnings,
        begin=begin,
    )


def _refused(expert: Expert, look: ChannelView, score: float, registry: Registry) -> str | None:
    """Reason for the expert to abstain: gate, limits of its card or contradiction to others; None if it may answer."""
    if score > OUTSIDE:
        return UNLIKE
    reason = invalid(expert, look.window, look.snr_db)
    if reason is None and registry.consistent and expert.own_gate is None:
        reason = contradiction(expert.name, registry.experts, look.probabilities)
    return reason


def judge_gate(expert: Expert, look: ChannelView) -> Verdict:
    """The verdict of the gate, in the same form."""
    begin = time.perf_counter()
    score = look.ood_score(expert.gate)
    # Logistic in the logarithm of the score, 0.5 at the limit: an indication, not a calibrated probability.
    outside = 1 / (1 + (max(score, 1e-9) / OUTSIDE) ** -4.0)
    reason = invalid(expert, look.window, look.snr_db)
    outside = 1.0 if reason else outside
    label = "outside" if score > OUTSIDE or reason else "inside"
    return _verdict(
        expert.definition,
        look,
        label=label,
        probabilities={"inside": 1 - outside, "outside": outside},
        likely=[label],
        interval=(None, None),
        score=score,
        classical=None,
        warnings=[reason] if reason else [],
        begin=begin,
    )


def describe(registry: Registry, look: ChannelView) -> Verdicts:
    """Verdicts of the gate, first, and of all experts."""
    others = (judge(expert, look, registry) for expert in registry.classifiers)
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
    """A verdict with rounded numbers; `classical` is the class by the classical estimate alone."""
    estimate = float(look.estimates[0, _column(definition)])
    shown = look.window.shows_time or not definition.needs_time
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
            classical if shown else None,
            _round(estimate * definition.factor(look.window)) if shown else None,
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
    """Round to four significant digits: more would cost a model tokens without use."""
    return None if value is None else float(f"{value:.4g}")
