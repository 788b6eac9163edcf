"""The three tools that are always listed: ask one question, describe a channel, list files and questions.

Arguments are flat and few. An answer begins with a sentence that can be shown to a user. Other tools are in toolsets.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from mcp.server.mcpserver.tools.base import Tool
from mcp_types import CallToolResult
from pydantic import Field

from geoml.errors import UserError
from mcp_experts.channels.opening import sources_under
from mcp_experts.inference import sentences
from mcp_experts.inference.registry import GATE, Expert
from mcp_experts.inference.verdicts import OUTSIDE, ChannelView, Verdict, judge, judge_gate
from mcp_experts.serve.frames import without_surrogates
from mcp_experts.serve.shapes import Answer, Description, Listing
from mcp_experts.serve.state import MapCover, State
from mcp_experts.serve.strict import answer, strict_tool
from mcp_experts.serve.toolsets import TOOLSETS, Source

__all__ = ["tools", "unlisted"]

PAGE, MOST_LISTED = 20, 2000
#: Questions that are asked most, which come first in the schema.
FIRST = ("line_of_sight", "doppler", "delay_spread", "fading")
POINT = re.compile(r"[-+0-9.eE\s,()]+")
#: Questions that a radio map answers, with the value of `query_map` for each.
MAP_QUESTIONS = {"line_of_sight": "los", "path_gain": "path_gain_db", "delay": "toa_s"}


def tools(state: State) -> Iterator[Tool]:
    """The tools that the server lists: these three, and those of its toolsets."""
    yield _ask_tool(state)
    yield _describe_tool(state)
    yield _list_tool(state)
    for name in state.toolsets:
        yield from TOOLSETS[name](state)


def unlisted(state: State) -> Iterator[dict[str, Tool]]:
    """The tools of the other toolsets by name, built one toolset at a time."""
    for name, make in TOOLSETS.items():
        if name not in state.toolsets:
            yield {tool.name: tool for tool in make(state)}


def _ask_tool(state: State) -> Tool:
    # The gate can be asked, but is not listed: small models take in_distribution for anything that begins with "in".
    listed = [expert.definition.question for expert in state.registry.classifiers]
    questions = [*(name for name in FIRST if name in listed), *(name for name in listed if name not in FIRST)]

    async def ask(
        source: Source,
        question: Annotated[str, Field(description="What to find out", max_length=256)],
        at: Annotated[str | None, Field(description="Only for radio maps: point in metres", max_length=64)] = None,
    ) -> Annotated[CallToolResult, Answer]:
        found = await state.source(source)
        if isinstance(found, MapCover):
            return await _map_answer(state, found, question, at)
        if question in MAP_QUESTIONS and question != "line_of_sight":
            raise UserError(f"{question} is for radio maps, and this is a channel; its questions are in wireless_list")
        return _channel_answer(state, found, state.registry.asked(question), at)

    return strict_tool(
        ask,
        name="wireless_ask",
        title="Ask an expert",
        description=(
            "Answers one question about a channel file (line of sight, Doppler, delay spread, fading, coherence, "
            "profile, scenario, noise), or about a point of a radio map, with a sentence for the user. Where the data "
            "do not decide, say so."
        ),
        choices={"question": [*questions, "path_gain", "delay"]},
    )


def _channel_answer(state: State, view: ChannelView, expert: Expert, at: str | None) -> CallToolResult:
    gate = expert.own_gate or state.registry.gate
    outside = view.ood_score(gate) > OUTSIDE
    verdict = judge_gate(expert, view) if expert.name == GATE else judge(expert, view, state.registry)
    said = sentences.sentence(expert.definition, verdict, outside=outside) + sentences.disagrees(verdict)
    notes = [*view.window.warnings, *(["at is for radio maps and was ignored"] if POINT.fullmatch(at or "") else [])]
    if notes:
        said = f"{said} Note: {'; '.join(notes)}."
    low, high = verdict.interval_low, verdict.interval_high
    interval, unit = sentences.scaled((low, high), verdict.unit or "")
    bounded = low is not None or high is not None
    found = {
        "answer": said,
        "question": expert.definition.question,
        "label": verdict.label,
        "confidence": None if verdict.refused and expert.name != GATE else float(f"{verdict.confidence:.2g}"),
        "interval": list(interval) if bounded else None,
        "unit": unit if bounded else None,
        "reason": sentences.reason(verdict, outside),
        "classical": sentences.classical(verdict),
    }
    undecided = verdict.label is None and not verdict.refused and expert.name != GATE
    return answer(found, text=_lines(found, sentences.likeliest(verdict) if undecided else None))


def _lines(found: dict[str, Any], likeliest: str | None = None) -> str:
    """Return the answer's sentence and a line of values. Labels other than the answer are omitted.

    Small language models repeat the last line, so it also contains the label, or the likeliest label.
    """
    rest = {"label": found["label"], "likeliest": likeliest, "confidence": found["confidence"]}
    if found["reason"] and found["reason"] not in found["answer"]:
        rest["reason"] = found["reason"]
    if found["classical"]:
        rest["classical"] = found["classical"].partition(": ")[0]
    return f"{found['answer']}\n" + "; ".join(f"{name}: {value}" for name, value in rest.items() if value is not None)


async def _map_answer(state: State, found: MapCover, question: str, at: str | None) -> CallToolResult:
    """The answer about a point of a radio map, in the form of answers about channels."""
    asked = next((name for name in MAP_QUESTIONS if name == question.strip().lower().replace(" ", "_")), None)
    if asked is None:
        asked = "line_of_sight" if state.registry.asked(question).name == "los" else None
    if asked is None:
        raise UserError(f"a radio map answers {', '.join(MAP_QUESTIONS)}; other questions need a channel")
    x, y, z = _point(found, at)
    point = await state.map_point(found.path, x_m=x, y_m=y, z_m=z)
    said, label = _said_of_point(asked, point)
    reason = "; ".join(point["warnings"]) or None
    free = f"free space {point['classical']['value']:g} dB at {point['distance_m']:g} m"
    content = {
        "answer": said,
        "question": asked,
        "label": label,
        "confidence": None,
        "interval": None,
        "unit": None,
        "reason": reason,
        "classical": free,
    }
    return answer(content, text=_lines(content))


def _point(found: MapCover, at: str | None) -> tuple[float, float, float]:
    limits = ", ".join(f"{axis} {low:g} to {high:g}" for axis, (low, high) in found.covers["limits_m"].items())
    try:
        values = [float(part) for part in (at or "").split(",")]
        x, y, z = values if len(values) == 3 else (*values, 1.5)
    except ValueError:
        raise UserError(f"a radio map needs a point: at='x,y,z' in metres; this one covers {limits}") from None
    return x, y, z


def _said_of_point(asked: str, point: dict[str, Any]) -> tuple[str, str | None]:
    """Sentence and label for a point."""
    if point["inside_building"]:
        return "The point is inside a building, where the map has no values.", None
    if asked == "line_of_sight" and point["los"] is not None:
        label = "clear" if point["los"] else "blocked"
        return f"The direct path from the transmitter to the point is {label} in this map.", label
    if point["no_path"]:
        return "No path reaches the point in this map; there may be paths that the map does not model.", None
    if asked == "delay" and point["toa_s"] is not None:
        return f"The first path arrives after {sentences.natural(point['toa_s'], 's')}.", None
    if asked == "path_gain" and point["path_gain_db"] is not None:
        spread = "" if point["uncertainty_db"] is None else f" ± {point['uncertainty_db']:.2g}"
        return f"The path gain at the point is {point['path_gain_db']:.1f}{spread} dB.", None
    return f"This map does not hold the {asked.replace('_', ' ')} at the point.", None


def _describe_tool(state: State) -> Tool:
    async def describe(source: Source) -> Annotated[CallToolResult, Description]:
        found = await state.source(source)
        if isinstance(found, MapCover):
            return _cover(found)
        return _description(state, found)

    return strict_tool(
        describe,
        name="wireless_describe",
        title="Describe a channel or radio map",
        description=(
            "Overview of a file when no single question is asked: a sentence per expert, or the extent of a radio map."
        ),
    )


def _description(state: State, view: ChannelView) -> CallToolResult:
    gate = state.registry.gate
    outside = view.ood_score(gate) > OUTSIDE
    verdicts = {expert.name: judge(expert, view, state.registry) for expert in state.registry.classifiers}
    answers = {}
    for name, verdict in verdicts.items():
        definition = state.registry.expert(name).definition
        answers[definition.question] = (
            "Abstained." if outside else sentences.sentence(definition, verdict, outside=outside)
        )
    decided = sum(verdict.label is not None for verdict in verdicts.values())
    channel = view.channel
    size = f"{sentences.natural(channel.bandwidth_hz, 'Hz')} over {sentences.natural(channel.duration_s, 's')}"
    said = (
        f"This channel ({size}) is unlike the training data: all experts abstain."
        if outside
        else f"{decided} of {len(verdicts)} experts decide on this channel ({size})."
    )
    notes = [
        *view.window.warnings,
        *sentences.conflicts(verdicts),
        *_estimates(dict(zip(answers, verdicts.values(), strict=True))),
    ]
    found = {"answer": said, "handle": view.channel_id, "answers": answers, "notes": notes}
    shown = {} if outside else answers
    text = [said, *(f"{name}: {value}" for name, value in shown.items()), *(f"Note: {note}" for note in notes)]
    return answer(found, text="\n".join(text))


def _estimates(verdicts: Mapping[str, Verdict]) -> list[str]:
    """Return a line with all classical estimates in physical units, and the questions on which they differ."""
    known = {name: str(sentences.classical(verdict)).partition(": ")[0] for name, verdict in verdicts.items()}
    values = dict.fromkeys(value for value in known.values() if value != "None" and "/bandwidth" not in value)
    differ = [name for name, verdict in verdicts.items() if sentences.disagrees(verdict)]
    otherwise = f"; they alone would say otherwise on {', '.join(differ)}" if differ else ""
    return [f"classical estimates: {', '.join(values)}{otherwise}"] if values else []


def _cover(found: MapCover) -> CallToolResult:
    covers = found.covers
    limits = ", ".join(f"{axis} {low:g} to {high:g} m" for axis, (low, high) in covers["limits_m"].items())
    said = (
        f"A radio map at {covers['frequency_ghz']:g} GHz of {covers['transmitters']} transmitter"
        f"{'s' if covers['transmitters'] > 1 else ''}; it covers {limits}. Pass at to ask about a point."
    )
    return answer({"answer": said, "handle": found.path, "answers": {}, "notes": []}, text=said)


def _list_tool(state: State) -> Tool:
    def list_sources(
        cursor: Annotated[str | None, Field(description="next_cursor of the previous page", max_length=16)] = None,
    ) -> Annotated[CallToolResult, Listing]:
        names = [] if state.root is None else list(itertools.islice(sources_under(state.root), MOST_LISTED))
        start = _page(cursor, len(names))
        shown = [without_surrogates(name) for name in names[start : start + PAGE]]
        following = str(start + PAGE) if start + PAGE < len(names) else None
        questions = {
            expert.definition.question: list(expert.definition.classes) for expert in state.registry.experts.values()
        }
        said = f"{len(names)} files" if state.root is not None else "This server has no data root"
        lines = [f"{name}: {' | '.join(labels)}" for name, labels in questions.items()]
        text = [f"{said}: {', '.join(shown)}" if shown else f"{said}.", "Questions and labels:", *lines]
        found = {"answer": text[0], "sources": shown, "questions": questions, "next_cursor": following}
        return answer(found, text="\n".join(text))

    return strict_tool(
        list_sources,
        name="wireless_list",
        title="List files and questions",
        description="Lists the available files, and the questions with their possible labels.",
    )


def _page(cursor: str | None, count: int) -> int:
    if cursor is None:
        return 0
    if not cursor.isdecimal() or int(cursor) % PAGE or int(cursor) >= count:
        raise UserError("invalid cursor; start again without a cursor")
    return int(cursor)
