"""Arms: chance, classical estimator, expert; a language model without data, with raw data, statistics or tools."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from geoml.errors import UserError
from geoml.runs.files import atomic_path
from mcp_experts.client.agent import Transcript, connected, converse
from mcp_experts.client.endpoints import Endpoint
from mcp_experts.evaluate.distractors import distractors
from mcp_experts.evaluate.mock_experts import Kind, doctored
from mcp_experts.evaluate.questions import LETTERS, Question, QuestionSet
from mcp_experts.inference.classical import ESTIMATORS
from mcp_experts.inference.registry import Registry
from mcp_experts.inference.verdicts import describe

__all__ = ["ARMS", "MODEL_ARMS", "TOOL_ARMS", "Row", "answer_alone", "ask_model"]

ARMS = {
    "A0": "the most frequent answer",
    "A1": "language model, no data",
    "A2": "language model, raw coefficients as text",
    "A3": "language model, summary statistics and a primer",
    "A4": "classical estimator",
    "A5": "language model with the experts over MCP, and three other tools",
    "A6": "language model, all verdicts pasted",
    "A7": "expert alone",
    "A8": "as A5, with experts that know the truth",
    "A9": "as A5, with experts that give wrong labels (even channels) or abstain (odd ones)",
}
MODEL_ARMS = ("A1", "A2", "A3", "A5", "A6", "A8", "A9")
TOOL_ARMS = ("A5", "A8", "A9")
SYSTEM = (
    "You answer questions about a wireless channel that was observed on 64 subcarriers and 14 snapshots. The answer is "
    "one of the options, in the words of the list."
)
PRIMER = (
    "A direct path makes the K-factor large and the power steady; scattering alone gives K below 0 dB and a power "
    "variance near 1. Delay spread in cells is RMS delay spread times bandwidth; coherence bandwidth is about 1/(5 "
    "spread). Doppler in cells is the maximum shift times the duration; coherence time is about 0.24/shift. Profiles D "
    "and E have a direct path, A to C none. Delay spreads grow from InF and RMa over UMi to UMa."
)


@dataclass(frozen=True)
class Row:
    """One answer to one question; `model_kind` is "none" without a language model."""

    arm: str
    question: str
    task: str
    model: str
    model_kind: str
    letter: str
    right: bool
    seconds: float
    tokens_in: int = 0
    tokens_out: int = 0
    tools: tuple[str, ...] = ()
    wanted_tools: tuple[str, ...] = ()
    faithful: bool | None = None
    exchanges: tuple[dict[str, Any], ...] = field(default=(), repr=False)


def answer_alone(arm: str, questions: QuestionSet, registry: Registry) -> list[Row]:
    """Rows of A0, A4 or A7, which need no language model."""
    rows = []
    frequent: dict[str, str] = {}
    for question in questions.questions:
        begin = time.perf_counter()
        if arm == "A0":
            letter = question.letter(
                tuple(frequent.setdefault(question.task, _frequent(questions, question.task)).split(", "))
            )
        else:
            letter = _letter(question, questions, registry, classical=arm == "A4")
        seconds = time.perf_counter() - begin
        rows.append(
            Row(arm, question.identifier, question.task, "", "none", letter, letter == question.answer, seconds)
        )
    return rows


def _frequent(questions: QuestionSet, task: str) -> str:
    right = [q.options[LETTERS.index(q.answer)] for q in questions.questions if q.task == task]
    return max(sorted(set(right)), key=right.count)


async def ask_model(
    arm: str,
    question: Question,
    questions: QuestionSet,
    registry: Registry,
    endpoint: Endpoint,
    *,
    kind: str,
    root: Path,
) -> Row:
    """Ask a language model one question. In arms with tools, the server reads the channel from folder `root`."""
    begin = time.perf_counter()
    asked = f"{question.text}\nTerms: {_terms(question, registry)}."
    registry = _of_arm(arm, question, questions, registry)
    if arm in TOOL_ARMS:
        from mcp_experts.serve.server import build_server

        name = f"channel-{question.channel}.npz"
        _write(questions, question.channel, root / name)
        text = f"{asked}\nThe channel is in the file {name!r}."
        server = build_server(registry=registry, root=root, more=distractors())
        try:
            async with connected(server) as client:
                transcript = await converse(endpoint, client, SYSTEM, text)
        finally:
            server.close()
    else:
        if arm == "A6":
            data = json.dumps(describe(registry, questions.look(question.channel)).to_dicts())
        else:
            data = {"A1": _nothing, "A2": _raw, "A3": _statistics}[arm](questions, question.channel)
        transcript = await converse(endpoint, None, SYSTEM, f"{data}\n{asked}".strip())
    letter = parse_answer(transcript.answer, question.options)
    return Row(
        arm,
        question.identifier,
        question.task,
        endpoint.model,
        kind,
        letter,
        letter == question.answer,
        time.perf_counter() - begin,
        transcript.tokens_in,
        transcript.tokens_out,
        _called(transcript, registry),
        tuple(f"wireless_ask:{name}" for name in question.experts) if arm in TOOL_ARMS else (),
        # Whether the answer is the label with the highest probability by the experts.
        letter == _letter(question, questions, registry) if arm in TOOL_ARMS else None,
        tuple(transcript.exchanges),
    )


def _called(transcript: Transcript, registry: Registry) -> tuple[str, ...]:
    """Names of the tools called, with the name of the expert for tools that ask one question."""
    found = []
    for call in (call for entry in transcript.exchanges for call in entry.get("calls", ())):
        expert = ""
        if call["tool"] == "wireless_ask":
            with contextlib.suppress(UserError):
                expert = f":{registry.asked(str(call['arguments'].get('question', ''))).name}"
        found.append(call["tool"] + expert)
    return tuple(found)


def parse_answer(text: str, options: Sequence[str]) -> str:
    """The letter of the only option that an answer names; "" if it names none or several, which counts as unparsable.

    If there is a line with ANSWER:, the last one counts alone, and may hold a letter. A negated option is no answer.

    >>> parse_answer("The path is clear.", ("blocked", "clear")), parse_answer("not clear", ("blocked", "clear"))
    ('B', '')
    >>> parse_answer("slow\\nANSWER: below resolution", ("slow", "below_resolution")), parse_answer("ANSWER: a", ("x",))
    ('B', 'A')
    """
    _, marked, last = text.rpartition("ANSWER:")
    if marked and (letter := re.match(r"\s*\(?([A-Pa-p])\b", last)):
        return letter[1].upper() if LETTERS.index(letter[1].upper()) < len(options) else ""
    said = re.sub(r"[\s_-]+", " ", last).lower()
    named = [all(map(partial(_names, said), option.split(", "))) for option in options]
    return LETTERS[named.index(True)] if sum(named) == 1 else ""


def _names(said: str, label: str) -> bool:
    words = re.escape(re.sub(r"[\s_-]+", " ", label).lower())
    return re.search(rf"(?<!not )(?<!\w){words}(?!\w)", said) is not None


def _terms(question: Question, registry: Registry) -> str:
    terms = []
    for name in question.experts:
        definition = registry.expert(name).definition
        limits = f", limits {', '.join(map(str, definition.edges))} {definition.cells_unit}" if definition.edges else ""
        terms.append(f"{definition.title} ({', '.join(definition.classes)}{limits})")
    return "; ".join(terms)


def _of_arm(arm: str, question: Question, questions: QuestionSet, registry: Registry) -> Registry:
    """The experts of an arm."""
    if arm not in ("A8", "A9"):
        return registry
    kind: Kind = "oracle" if arm == "A8" else "abstaining" if question.channel % 2 else "lying"
    return doctored(registry, questions.labels(question.channel, registry), kind=kind)


def _nothing(questions: QuestionSet, number: int) -> str:
    return ""


def _raw(questions: QuestionSet, number: int) -> str:
    channel = questions.channel(number)
    grid = channel.csi[:, :, 0] / np.sqrt(np.mean(np.abs(channel.csi) ** 2))
    rows = [" ".join(f"{value.real:.2f}{value.imag:+.2f}j" for value in row) for row in grid]
    sampling = f"Bandwidth {channel.bandwidth_hz:.4g} Hz, duration {channel.duration_s:.4g} s."
    return f"{sampling} Coefficients, one line per subcarrier, one column per snapshot:\n" + "\n".join(rows)


def _statistics(questions: QuestionSet, number: int) -> str:
    look = questions.look(number)
    values = ", ".join(f"{name} {value:.3g}" for name, value in zip(ESTIMATORS, look.estimates[0], strict=True))
    return f"{PRIMER}\nEstimates: {values}."


def _write(questions: QuestionSet, number: int, path: Path) -> None:
    channel = questions.channel(number)
    if path.exists():
        return
    with atomic_path(path) as partial, open(partial, "wb") as stream:
        np.savez(
            stream,
            csi=channel.csi,
            subcarrier_spacing_hz=channel.subcarrier_spacing_hz,
            snapshot_interval_s=channel.snapshot_interval_s,
        )


def _letter(question: Question, questions: QuestionSet, registry: Registry, *, classical: bool = False) -> str:
    """Letter of the most likely answer by the experts, or by their classical estimators."""
    look, labels = questions.look(question.channel), []
    for name in question.experts:
        expert = registry.expert(name)
        if classical:
            column = list(ESTIMATORS).index(expert.definition.estimator)
            number = expert.network.classical_label(look.estimates, column)[0]
        else:
            number = np.argmax(expert.network.probabilities(look.features)[0])
        labels.append(expert.definition.classes[int(number)])
    return question.letter(tuple(labels))
