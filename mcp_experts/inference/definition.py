"""What an expert is, before it is trained: its question, its classes, and where the truth about them comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mcp_experts.channels.channel import ChannelWindow

__all__ = ["Definition", "Example", "Scale"]

#: How a value in cells becomes one with a unit: times or over the window's bandwidth or duration.
Scale = Literal["none", "over_bandwidth", "times_bandwidth", "over_duration", "times_duration"]


@dataclass(frozen=True)
class Example:
    """A synthetic channel, as arguments of `wireless_load_synthetic`; the expert finds one of the classes likely."""

    specification: Mapping[str, float]
    likely: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Definition:
    """One expert. `truth` names a column of `mcp_experts.train.truths.TRUTHS`, `estimator` one of `ESTIMATORS`.

    `classes` are in ascending order where `edges`, the limits between them in the truth's own unit (`cells_unit`), are
    given; without edges the truth is the number of the class. `scale` brings values to `unit`. `purpose` is what a
    language model chooses by; `limits` says what the expert cannot know. The tests run `examples` through a client.

    `question` is what the expert is asked for, by default its name, and `aliases` are other words for it. `noun` stands
    in sentences about a value, and `says` has the sentence of each class of an expert without edges. `renamed` maps
    earlier names of classes to those of today.
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

    def __post_init__(self) -> None:
        object.__setattr__(self, "question", self.question or self.name)
        object.__setattr__(self, "noun", self.noun or self.title)
        if self.edges and len(self.edges) != len(self.classes) - 1:
            raise ValueError(f"expert {self.name}: {len(self.classes)} classes need {len(self.classes) - 1} edges")

    def current(self, name: str) -> str:
        """The name of a class today, of one that may be an earlier name of it."""
        return self.renamed.get(name, name)

    def labels(self, truth: NDArray[np.float64]) -> NDArray[np.int64]:
        """The number of the class of each value; −1 where the truth is not known."""
        number = np.digitize(truth, self.edges) if self.edges else np.nan_to_num(truth, nan=-1)
        return np.where(np.isnan(truth), -1, number).astype(np.int64)

    def factor(self, window: ChannelWindow) -> float:
        """What a value in cells is to be multiplied with to have `unit`."""
        factors = {
            "none": 1.0,
            "over_bandwidth": 1 / window.bandwidth_hz,
            "times_bandwidth": window.bandwidth_hz,
            "over_duration": 1 / window.duration_s,
            "times_duration": window.duration_s,
        }
        return factors[self.scale]

    def interval(self, members: NDArray[np.bool_], window: ChannelWindow) -> tuple[float | None, float | None]:
        """The limits, in `unit`, of the classes from the first to the last of `members`; None where there is none."""
        if not self.edges or not members.any():
            return None, None
        first, last = (int(index) for index in np.flatnonzero(members)[[0, -1]])
        factor = self.factor(window)
        low = self.edges[first - 1] * factor if first > 0 else None
        high = self.edges[last] * factor if last < len(self.edges) else None
        return low, high

    def describe(self) -> dict[str, Any]:
        """What the card says of the classes."""
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
