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

#: Conversion from cells to a physical unit: multiplication with, or division by, the window's bandwidth or duration.
Scale = Literal["none", "over_bandwidth", "times_bandwidth", "over_duration", "times_duration"]


@dataclass(frozen=True)
class Example:
    """A test case: arguments of `wireless_load_synthetic`, and classes. One of these must be in the prediction set."""

    specification: Mapping[str, float]
    likely: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Definition:
    """Definition of one expert.

    `truth` names a column of `mcp_experts.train.truths.TRUTHS`, `estimator` one of `ESTIMATORS`.

    If `edges` are given, `classes` are in ascending order, and `edges` are the limits between them in the unit of the
    truth (`cells_unit`). Without `edges` the truth is the index of the class. `scale` converts values to `unit`. A
    language model chooses the expert by its `purpose`. `limits` states known limitations. Tests run `examples` through
    a client.

    `question` is the name of the question, by default the name of the expert; `aliases` are synonyms. `noun` is the
    subject of sentences about a value; `says` holds sentences for classes that need another wording. `renamed` maps
    former names of classes to current names. `needs_time` is True if the answer depends on changes over time.
    `widest_hz` is an upper limit of the bandwidth, for experts that are unreliable on wider channels of new kinds.
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
        """Class index of each truth value; −1 if the truth is unknown (NaN)."""
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
        """Lower and upper limit, in `unit`, of the classes marked in the mask `members`; None for an open end."""
        if not self.edges or not members.any():
            return None, None
        first, last = (int(index) for index in np.flatnonzero(members)[[0, -1]])
        factor = self.factor(window)
        low = self.edges[first - 1] * factor if first > 0 else None
        high = self.edges[last] * factor if last < len(self.edges) else None
        return low, high

    def describe(self) -> dict[str, Any]:
        """Return the card's entries about the question and its classes."""
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
