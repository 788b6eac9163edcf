"""Frozen questions: channels with known truth, in files with checked hashes, with options in random order."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoml.errors import DataError, UserError, unknown
from geoml.runs.files import read_json
from mcp_experts.channels.channel import SNAPSHOTS, Channel
from mcp_experts.evaluate.paraphrases import wording
from mcp_experts.inference.network import load_arrays
from mcp_experts.inference.registry import Registry
from mcp_experts.inference.verdicts import ChannelView

__all__ = ["CHANNELS", "FOLDER", "INDEX", "PAIRS", "Question", "QuestionSet", "encode", "load_questions"]

FOLDER = Path(__file__).parent / "questions"
CHANNELS, INDEX = "channels.npz", "index.json"
#: Questions that need two experts.
PAIRS = (("los", "delay_spread"), ("los", "doppler"))
LETTERS = "ABCDEFGHIJKLMNOP"


def encode(csi: NDArray[np.complex64]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantise channels to 8-bit real and imaginary parts with one scale per channel; the error is about −40 dB."""
    parts = np.stack([csi.real, csi.imag], axis=-1)
    scale = np.abs(parts).max(axis=(1, 2, 3, 4)) / 127
    return np.round(parts / scale[:, None, None, None, None]).astype(np.int8), scale.astype(np.float32)


@dataclass(frozen=True)
class Question:
    """One question on one channel: its options, and the letter of the correct one by their order."""

    identifier: str
    task: str
    experts: tuple[str, ...]
    channel: int
    options: tuple[str, ...]
    answer: str
    topics: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The question in one of its wordings, and its options."""
        options = "; ".join(option.replace("_", " ") for option in self.options)
        return f"{wording(self.identifier, self.topics)}\nOptions: {options}."

    def letter(self, labels: tuple[str, ...]) -> str:
        """Letter of the option that consists of these labels, one per expert."""
        return LETTERS[self.options.index(", ".join(labels))]


@dataclass(frozen=True, eq=False)
class QuestionSet:
    """All questions with their channels, and a hash of both."""

    questions: tuple[Question, ...]
    arrays: dict[str, NDArray[Any]]
    truths: dict[str, NDArray[np.float64]]
    digest: str
    looks: dict[int, ChannelView] = field(default_factory=dict, repr=False)

    def channel(self, number: int) -> Channel:
        """The channel with this number."""
        pair = self.arrays["csi"][number].astype(np.float32) * self.arrays["scale"][number]
        bandwidth, duration = (float(self.arrays[name][number]) for name in ("bandwidth_hz", "duration_s"))
        return Channel(
            csi=pair[..., 0] + 1j * pair[..., 1],
            subcarrier_spacing_hz=bandwidth / len(pair),
            snapshot_interval_s=duration / SNAPSHOTS,
        )

    def labels(self, number: int, registry: Registry) -> dict[str, int]:
        """Index of the true class of a channel, by name of each expert whose truth is known."""
        found = {}
        for expert in registry.classifiers:
            if expert.definition.truth in self.truths:
                found[expert.name] = int(expert.definition.labels(self.truths[expert.definition.truth][number]))
        return {name: label for name, label in found.items() if label >= 0}

    def look(self, number: int) -> ChannelView:
        """The channel with its features, computed once."""
        if number not in self.looks:
            self.looks[number] = ChannelView(self.channel(number))
        return self.looks[number]


def load_questions(
    registry: Registry, *, tasks: Any = "all", count: int = 300, seed: int = 0, folder: Path = FOLDER
) -> QuestionSet:
    """Load `count` questions per task, with classes as balanced as possible; `seed` shuffles the options.

    `tasks` are names of experts and pairs ("los+doppler"), or "all".
    """
    if count < 1 or not tasks:
        raise UserError(f"questions={count} of tasks={tasks}; expected 1 or more of at least one task")
    index = read_json(folder / INDEX)
    arrays = load_arrays(folder / CHANNELS, index["sha256"])
    known = {name: arrays["truths"][:, column] for column, name in enumerate(index["truths"])}
    labels = {
        expert.name: expert.definition.labels(known[expert.definition.truth])
        for expert in registry.classifiers
        if expert.definition.truth in known
    }
    offered: dict[str, tuple[str, ...]] = {name: (name,) for name in labels}
    offered |= {"+".join(pair): pair for pair in PAIRS if set(pair) <= set(labels)}
    chosen = offered if tasks == "all" else {name: offered[name] for name in _checked(tasks, offered)}
    questions: list[Question] = []
    for task, experts in chosen.items():
        numbers = np.stack([labels[name] for name in experts], axis=1)
        rng = np.random.default_rng([seed, sum(map(ord, task))])
        names = [registry.expert(name).definition.classes for name in experts]
        every = [", ".join(parts) for parts in itertools.product(*names)]
        for channel in _even(numbers, count):
            options = tuple(every[place] for place in rng.permutation(len(every)))
            right = ", ".join(classes[number] for classes, number in zip(names, numbers[channel], strict=True))
            letter = LETTERS[options.index(right)]
            topics = tuple(registry.expert(name).definition.question for name in experts)
            question = Question(f"{task}-{channel}", task, tuple(experts), int(channel), options, letter, topics)
            questions.append(question)
    mixed = np.random.default_rng([seed, 20]).permutation(len(questions))
    questions = [questions[int(number)] for number in mixed]
    text = "\n".join(f"{q.text} {q.identifier} {q.options} {q.answer}" for q in questions) + index["sha256"]
    return QuestionSet(tuple(questions), arrays, known, hashlib.sha256(text.encode()).hexdigest())


def _checked(tasks: Any, offered: dict[str, tuple[str, ...]]) -> list[str]:
    names = [tasks] if isinstance(tasks, str) else list(tasks)
    for name in names:
        if name not in offered:
            raise unknown("task", name, offered)
    return names


def _even(numbers: NDArray[np.int64], count: int) -> list[int]:
    """Select `count` channels with known truth, balanced over classes."""
    usable = np.flatnonzero((numbers >= 0).all(axis=1))
    if len(usable) < count:
        raise DataError(f"the question set has {len(usable)} channels with this truth; ask for at most that many")
    _, kind = np.unique(numbers[usable], axis=0, return_inverse=True)
    turn = np.zeros(len(usable), np.int64)
    for one in range(int(kind.max()) + 1):
        turn[kind == one] = np.arange(np.sum(kind == one))
    return sorted(int(usable[place]) for place in np.lexsort((kind, turn))[:count])
