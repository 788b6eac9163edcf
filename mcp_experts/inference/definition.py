"""Definition of an expert: its question, its classes, and the source of its labels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mcp_experts.channels.channel import ChannelWindow

__all__ = ["Definition", "Example", "Scale"]

#: How a value in cells becomes physical: multiplied with or divided by the window's bandwidth or duration.
Scale = Literal["none", "over_bandwidth", "times_bandwidth", "over_duration", "times_duration"]


@dataclass(frozen=True)
class Example:
    """A synthetic channel, as arguments of `wireless_load_synthetic`, and the classes of which one must be likely."""

    specification: Mapping[str, float]
    likely: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Definition:
    """Definition of one expert.

    `truth` names a column of `mcp_experts.train.truths.TRUTHS`, `estimator` one of `ESTIMATORS`.

    With `edges`, `classes` are in ascending order, and edges are the limits between them in the truth's unit
    (`cells_unit`). Without edges the truth is the number of the class. `scale` converts values to `unit`. A language
    model chooses the expert by its `purpose`; `limits` says what the expert cannot know. Tests ask for `examples`
    through a client.

    `question` is the name of the question, by default that of the expert, and `aliases` are other words for it. `noun`
    is used in sentences about a value, and `says` holds the sentence for each class where that is another.
    `renamed` maps earlier names of classes to current ones. `widest_hz` limits the bandwidth of the card where verdicts
    do not hold on kinds of channels that training lacked.
    """

    name: str
    title: str
    purpose: str
    classes: tuple[str, ...]
    truth: str
    estimator: str
    edges: tuple[float, ...] = ()
    scale: Scale = "none"
    unit: str = ""
    cells_unit: str = ""
    meaning: str = ""
    limits: str = ""
    examples: tuple[Example, ...] = ()
    version: str = "1.0.0"
    kind: Literal["classifier", "gate"] = "classifier"
    question: str = ""
    aliases: tuple[str, ...] = ()
    noun: str = ""
    says: Mapping[str, str] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    needs_time: bool = False
    widest_hz: float = math.inf

    def __post_init__(self) -> None:
        object.__setattr__(self, "question", self.question or self.name)
        object.__setattr__(self, "noun", self.noun or self.title)
        if self.edges and len(self.edges) != len(self.classes) - 1:
            raise ValueError(f"expert {self.name}: {len(self.classes)} classes need {len(self.classes) - 1} edges")

    def current(self, name: str) -> str:
        """The current name of a class, given its current or an earlier name."""
        return self.renamed.get(name, name)

    def labels(self, truth: NDArray[np.float64]) -> NDArray[np.int64]:
        """The number of the class of each value; −1 if the truth is unknown."""
        number = np.digitize(truth, self.edges) if self.edges else np.nan_to_num(truth, nan=-1)
        return np.where(np.isnan(truth), -1, number).astype(np.int64)

    def factor(self, window: ChannelWindow) -> float:
        """Factor from cells to `unit`."""
        factors = {
            "none": 1.0,
            "over_bandwidth": 1 / window.bandwidth_hz,
            "times_bandwidth": window.bandwidth_hz,
            "over_duration": 1 / window.duration_s,
            "times_duration": window.duration_s,
        }
        return factors[self.scale]

    def interval(self, members: NDArray[np.bool_], window: ChannelWindow) -> tuple[float | None, float | None]:
        """Limits, in `unit`, of the classes from the first to the last of `members`; None if open."""
        if not self.edges or not members.any():
            return None, None
        first, last = (int(index) for index in np.flatnonzero(members)[[0, -1]])
        factor = self.factor(window)
        low = self.edges[first - 1] * factor if first > 0 else None
        high = self.edges[last] * factor if last < len(self.edges) else None
        return low, high

    def describe(self) -> dict[str, Any]:
        """The entries of the card about the classes."""
        return {
            "task": self.title,
            "purpose": self.purpose,
            "classes": list(self.classes),
            "edges": list(self.edges),
            "edges_unit": self.cells_unit,
            "answer_unit": self.unit,
            "meaning": self.meaning,
            "limits": self.limits,
            "classical_estimator": self.estimator,
        }
