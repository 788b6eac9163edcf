"""Tools about many values at once: all channels of a folder, and a radio map along a route or over an area."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Annotated, Any

import anyio
from mcp.server.mcpserver.tools.base import Tool
from mcp_types import CallToolResult
from pydantic import Field
from typing_extensions import TypedDict

from geoml.errors import UserError
from mcp_experts.channels.opening import sources_under
from mcp_experts.inference import sentences
from mcp_experts.inference.verdicts import OUTSIDE, ChannelView, judge
from mcp_experts.serve.frames import without_surrogates
from mcp_experts.serve.map_surveys import corners_of
from mcp_experts.serve.state import State
from mcp_experts.serve.strict import answer, strict_tool

__all__ = ["MapSurvey", "Survey", "channel_survey", "map_survey"]

#: Largest number of channels of one call, of files that are searched, and of names in a list.
MOST_CHANNELS, MOST_FILES, MOST_NAMES = 100, 2000, 10


class Survey(TypedDict):
    """Counts of verdicts over many channels."""

    answer: str
    channels: int
    counts: dict[str, dict[str, int]]
    classical_agrees: dict[str, float]
    outside: list[str]
    contradictory: list[str]
    unreadable: list[str]
    next_start: int | None


class MapSurvey(TypedDict, total=False):
    """Values at a point, or coverage along a route or over an area."""

    answer: str
    path_gain_db: float | None
    los: bool | None
    toa_s: float | None
    inside_building: bool
    no_path: bool
    distance_m: float
    uncertainty_db: float | None
    free_space_db: float | None
    warnings: list[str]
    cells: int
    share_outdoors: float
    share_covered: float
    share_clear: float | None
    gain_db: list[float] | None
    weakest_at: list[float]
    weakest_db: float | None
    servers: dict[str, float]
    gaps_m: list[list[float]]
    handovers: int


def channel_survey(state: State) -> Tool:
    """The tool for many channels."""

    async def describe_many(
        folder: Annotated[
            str, Field(description="Folder under the data root, or a file with several channels", max_length=512)
        ] = "",
        start: Annotated[int, Field(description="next_start of the previous call", ge=0)] = 0,
    ) -> Annotated[CallToolResult, Survey]:
        if state.root is None:
            raise UserError("this server has no data root; start it with --root FOLDER")
        names, one_file = await anyio.to_thread.run_sync(_names, state, folder, start)
        tally = _Tally(state)
        more = False
        for name in names[:MOST_CHANNELS]:
            try:
                found = await state.source(name)
            except UserError as error:
                if one_file and "beyond the last" in str(error):
                    break
                tally.unreadable.append(name)
                continue
            if isinstance(found, ChannelView):
                await anyio.to_thread.run_sync(tally.add, name, found)
        else:
            more = len(names) > MOST_CHANNELS
        return tally.result(start + MOST_CHANNELS if more else None)

    return strict_tool(
        describe_many,
        name="wireless_describe_many",
        title="Describe many channels",
        description=(
            "Counts the labels of all experts over the channels of a folder or file (100 a call), says how often the "
            "classical estimates agree, and names channels that are unlike the training data or contradictory."
        ),
    )


def _names(state: State, folder: str, start: int) -> tuple[list[str], bool]:
    """Return sources from number `start` on, one more than are read; True if they are channels of one file."""
    assert state.root is not None
    known = list(itertools.islice(sources_under(state.root), MOST_FILES))
    place = folder.strip().strip("/")
    if place in known:
        return [f"{place}#{number}" for number in range(start, start + MOST_CHANNELS + 1)], True
    inside = [name for name in known if not place or name.startswith(f"{place}/")]
    if not inside:
        folders = sorted({name.rpartition("/")[0] for name in known} - {""})
        listed = ", ".join(without_surrogates(name) for name in folders[:MOST_NAMES]) or "none"
        raise UserError(f"no channels there; folders with files: {listed}. Omit folder for all files")
    return inside[start : start + MOST_CHANNELS + 1], False


class _Tally:
    """Verdicts of channels, counted."""

    def __init__(self, state: State) -> None:
        self.registry = state.registry
        self.channels = 0
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)
        self.agreed: dict[str, list[bool]] = defaultdict(list)
        self.outside: list[str] = []
        self.contradictory: list[str] = []
        self.unreadable: list[str] = []

    def add(self, name: str, view: ChannelView) -> None:
        """Count the verdicts on one channel."""
        self.channels += 1
        if view.ood_score(self.registry.gate) > OUTSIDE:
            self.outside.append(name)
        verdicts = {expert.name: judge(expert, view, self.registry) for expert in self.registry.classifiers}
        for expert, verdict in verdicts.items():
            question = self.registry.expert(expert).definition.question
            label = verdict.label or ("abstained" if verdict.refused else "undecided")
            self.counts[question][label] += 1
            if verdict.label and verdict.classical.label:
                self.agreed[question].append(verdict.label == verdict.classical.label)
        if sentences.conflicts(verdicts):
            self.contradictory.append(name)

    def result(self, following: int | None) -> CallToolResult:
        """The counts, with a sentence that can be shown to a user."""
        counts = {question: dict(found.most_common()) for question, found in self.counts.items()}
        listed = {
            name: [without_surrogates(each) for each in getattr(self, name)[:MOST_NAMES]]
            for name in ("outside", "contradictory", "unreadable")
        }
        said = f"{self.channels} channels; {len(self.outside)} are unlike the training data"
        if self.unreadable:
            said += f"; {len(self.unreadable)} files hold no channel"
        first = counts.get("line_of_sight")
        if first:
            said += "; direct path: " + ", ".join(f"{sentences.words(name)} {n}" for name, n in first.items())
        agree = {name: round(sum(found) / len(found), 3) for name, found in self.agreed.items()}
        found: dict[str, Any] = {
            "answer": f"{said}.",
            "channels": self.channels,
            "counts": counts,
            "classical_agrees": agree,
            **listed,
            "next_start": following,
        }
        lines = [
            f"{name}: {', '.join(f'{sentences.words(label)} {n}' for label, n in every.items())}"
            + (f" (classical agrees on {100 * agree[name]:.0f} %)" if name in agree else "")
            for name, every in counts.items()
        ]
        lines += [f"{name}: {', '.join(names)}" for name, names in listed.items() if names]
        lines += [f"next_start: {following}"] if following is not None else []
        return answer(found, text="\n".join([found["answer"], *lines]))


def map_survey(state: State) -> Iterator[Tool]:
    """The tool for places of radio maps."""

    async def survey(
        path: Annotated[str, Field(description="Map under the data root: .npz, .nc or .zarr", max_length=512)],
        at: Annotated[str | None, Field(description="A point, 'x,y,z', in metres", max_length=64)] = None,
        route: Annotated[
            str | None, Field(description="Corners of a route, 'x,y; x,y; …', in metres", max_length=512)
        ] = None,
        area: Annotated[
            str | None, Field(description="Opposite corners of a rectangle, 'x,y; x,y', in metres", max_length=128)
        ] = None,
        z_m: Annotated[float, Field(description="Height of the receivers, metres")] = 1.5,
        least_gain_db: Annotated[float, Field(description="Path gain from which a place is covered, dB")] = -110.0,
        transmitter: Annotated[int, Field(description="Number of the transmitter, of a point", ge=0)] = 0,
    ) -> Annotated[CallToolResult, MapSurvey]:
        if sum(place is not None for place in (at, route, area)) != 1:
            raise UserError("give one of at, route and area")
        if at is not None:
            return answer(_at_point(await state.map_point(path, **_point(at), transmitter=transmitter)))
        corners = corners_of(route or area or "")
        found = await state.map_survey(
            path, corners=corners, area=area is not None, z_m=z_m, least_gain_db=least_gain_db
        )
        return answer(_said(found, area is not None, least_gain_db))

    yield strict_tool(
        survey,
        name="wireless_map",
        title="Radio map at a point, along a route or over an area",
        description=(
            "All values of a radio map at a point, next to free space; or the share of a route or area that is "
            "covered, its weakest place, shares of the strongest transmitters, and gaps and handovers along a route."
        ),
    )


def _point(text: str) -> dict[str, float]:
    try:
        x, y, z = (float(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"{text[:80]!r} is not a point; expected at='x,y,z' in metres") from None
    return {"x_m": x, "y_m": y, "z_m": z}


def _at_point(point: dict[str, Any]) -> dict[str, Any]:
    """The values of a point, with a sentence."""
    kept = {name: value for name, value in point.items() if name in MapSurvey.__annotations__}
    gain = point["path_gain_db"]
    said = "The map has no path gain at this point" if gain is None else f"The path gain at this point is {gain:g} dB"
    if point["los"] is not None:
        said += f"; the direct path is {'clear' if point['los'] else 'blocked'}"
    return {"answer": f"{said}.", **kept, "free_space_db": point["classical"]["value"]}


def _said(found: dict[str, Any], area: bool, least_gain_db: float) -> dict[str, Any]:
    place = "area" if area else "route"
    said = (
        f"{100 * found['share_covered']:.3g} % of the {place} outdoors has a path gain of {least_gain_db:g} dB or more"
    )
    if found["gain_db"]:
        said += f"; the median is {found['gain_db'][1]:.4g} dB"
    if len(found["servers"]) > 1:
        best = max(found["servers"], key=found["servers"].__getitem__)
        said += f"; transmitter {best} is strongest in {100 * found['servers'][best]:.3g} % of it"
    if found["gaps_m"]:
        said += f"; {len(found['gaps_m'])} gaps"
    return {"answer": f"{said}.", **found}
