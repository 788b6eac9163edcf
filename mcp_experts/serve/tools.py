"""The tools. Arguments are flat and few; descriptions say when to call which."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated

from mcp.server.mcpserver.tools.base import Tool
from mcp_types import CallToolResult
from pydantic import Field

from geoml.errors import UserError
from mcp_experts.channels.channel import Channel
from mcp_experts.channels.loading import channel_from_file, channel_from_lists, inside
from mcp_experts.channels.opening import FORMATS
from mcp_experts.channels.synthetic import synthesize
from mcp_experts.inference.registry import GATE, Expert
from mcp_experts.inference.verdicts import Verdict, describe, judge, judge_gate
from mcp_experts.serve.maps import query_map
from mcp_experts.serve.shapes import Card, Description, Dropped, ExpertList, Loaded, MapPoint
from mcp_experts.serve.state import State
from mcp_experts.serve.strict import answer, described, strict_tool

__all__ = ["tools"]

ChannelId = Annotated[str, Field(description="Handle that a wireless_load_… tool returned", max_length=64)]
BRIEF = ("expert", "label", "confidence", "likely", "interval_low", "interval_high", "unit", "abstained", "classical")
PAGE = 20


def tools(state: State) -> Iterator[Tool]:
    """The tools of the server's toolsets; listing and cards always."""
    yield from _catalog_tools(state)
    if "channels" in state.toolsets:
        yield from _loading_tools(state)
        yield _drop_tool(state)
    if "describe" in state.toolsets:
        yield _describe_tool(state)
    if "experts" in state.toolsets:
        yield from (_expert_tool(state, expert) for expert in state.registry.experts.values())
    if "maps" in state.toolsets:
        yield _map_tool(state)


def _catalog_tools(state: State) -> Iterator[Tool]:
    async def list_experts(
        cursor: Annotated[str | None, Field(description="next_cursor of the page before", max_length=16)] = None,
    ) -> Annotated[CallToolResult, ExpertList]:
        names = list(state.registry.experts)
        start = _page(cursor, len(names))
        chosen = [state.registry.experts[name].definition for name in names[start : start + PAGE]]
        rows = [
            {
                "name": definition.name,
                "tool": f"wireless_{definition.name}",
                "title": definition.title,
                "classes": list(definition.classes),
                "unit": definition.unit or None,
            }
            for definition in chosen
        ]
        following = str(start + PAGE) if start + PAGE < len(names) else None
        return answer({"experts": rows, "next_cursor": following})

    async def expert_card(
        expert: Annotated[str, Field(description="Name from wireless_list_experts", max_length=64)],
    ) -> Annotated[CallToolResult, Card]:
        found = state.registry.expert(expert)
        return answer({"expert": found.name, "card": found.card})

    yield strict_tool(
        list_experts,
        name="wireless_list_experts",
        title="List experts",
        description="Lists the wireless experts of this server with their tools and classes, a page at a time.",
    )
    yield strict_tool(
        expert_card,
        name="wireless_expert_card",
        title="Card of an expert",
        description=(
            "Returns an expert's card: what its classes mean, where it is valid, how accurate and calibrated it is, "
            "also against classical estimators. Use it to judge how far a verdict can be trusted."
        ),
    )


def _page(cursor: str | None, count: int) -> int:
    if cursor is None:
        return 0
    if not cursor.isdecimal() or int(cursor) % PAGE or int(cursor) >= count:
        raise UserError("cursor is none that this server gave; start again without one")
    return int(cursor)


def _loading_tools(state: State) -> Iterator[Tool]:
    """Arguments and defaults are those of the functions that make the channels."""

    def load_file(path: str, index: int = 0) -> Channel:
        with state.reading:
            return channel_from_file(inside(state.root, path), index)

    yield _loading_tool(
        state,
        load_file,
        {"path": f"File under the data root: {', '.join(FORMATS)}", "index": "Which channel of a file with several"},
        name="wireless_load_file",
        title="Load a channel from a file",
        description=(
            "Loads a measured or simulated channel from a file under the server's data root and returns a channel_id. "
            "The first step when the user names a file."
        ),
    )
    yield _loading_tool(
        state,
        channel_from_lists,
        {
            "csi_real": "Real parts; antenna fastest, subcarrier slowest",
            "csi_imag": "Imaginary parts in the same order",
            "subcarriers": "At least 64",
            "snapshots": "At least 14",
            "subcarrier_spacing_hz": "Spacing of the subcarriers given, Hz",
            "snapshot_interval_s": "Time between snapshots, s",
            "antennas": "Receive antennas",
        },
        name="wireless_load_inline",
        title="Load a small channel from numbers",
        description=(
            "Loads a channel (at most 16384 complex values) sent as flat lists and returns a channel_id. Only when the "
            "user pasted numbers; a file costs far fewer tokens."
        ),
    )
    yield _loading_tool(
        state,
        synthesize,
        {
            "delay_spread_s": "RMS delay spread, s",
            "doppler_hz": "Maximum Doppler shift, Hz",
            "k_factor_db": "K-factor of a direct path, dB; null: none",
            "snr_db": "Signal-to-noise ratio, dB",
            "bandwidth_hz": "Bandwidth, Hz",
            "duration_s": "Observed time, s",
            "antennas": "Receive antennas, 1 to 16",
            "seed": "Same seed, same channel",
        },
        name="wireless_load_synthetic",
        title="Make a channel from a specification",
        description=(
            "Makes a synthetic channel with a given delay spread, Doppler shift, K-factor and SNR and returns a "
            "channel_id. For what-if questions and for trying the experts."
        ),
    )


def _loading_tool(
    state: State,
    make: Callable[..., Channel],
    arguments: Mapping[str, str],
    *,
    name: str,
    title: str,
    description: str,
) -> Tool:
    """A tool that holds the channel that `make` gives."""
    function = described(make, arguments, lambda channel: _loaded(state, channel), Loaded)
    return strict_tool(function, name=name, title=title, description=description, read_only=False)


def _drop_tool(state: State) -> Tool:
    async def drop_channel(channel_id: ChannelId) -> Annotated[CallToolResult, Dropped]:
        state.handles.drop(channel_id, state.owner())
        return answer({"channel_id": channel_id, "dropped": True})

    return strict_tool(
        drop_channel,
        name="wireless_drop_channel",
        title="Drop a channel",
        description="Forgets a loaded channel. Not needed: channels expire by themselves.",
        read_only=False,
        destructive=True,
    )


def _loaded(state: State, channel: Channel) -> CallToolResult:
    name = state.handles.put(channel, state.owner())
    look = state.handles.get(name, state.owner())
    return answer(
        {
            "channel_id": name,
            "subcarriers": channel.csi.shape[0],
            "snapshots": channel.csi.shape[1],
            "antennas": channel.csi.shape[2],
            "bandwidth_hz": float(f"{channel.bandwidth_hz:.6g}"),
            "duration_s": float(f"{channel.duration_s:.6g}"),
            "lifetime_s": state.handles.limits.lifetime_s,
            "warnings": list(look.window.warnings),
        }
    )


def _describe_tool(state: State) -> Tool:
    async def describe_channel(channel_id: ChannelId) -> Annotated[CallToolResult, Description]:
        look = state.handles.get(channel_id, state.owner())
        verdicts = describe(state.registry, look)
        inside_training = verdicts.in_distribution
        hint = (
            "label null: the data do not decide; likely holds the classes that remain"
            if inside_training
            else "the channel is unlike the training data: all experts abstain, trust the classical values only"
        )
        return answer(
            {
                "channel_id": channel_id,
                "in_distribution": inside_training,
                "verdicts": [{key: verdict[key] for key in BRIEF} for verdict in verdicts[1:].to_dicts()],
                "hint": hint,
            }
        )

    return strict_tool(
        describe_channel,
        name="wireless_describe_channel",
        title="Describe a channel",
        description=(
            "Asks all experts about a loaded channel at once: line of sight, fading and K-factor, delay spread, "
            "Doppler, coherence bandwidth and time, profile, scenario, SNR. The usual first call after loading."
        ),
    )


def _expert_tool(state: State, expert: Expert) -> Tool:
    async def ask(channel_id: ChannelId) -> Annotated[CallToolResult, Verdict]:
        look = state.handles.get(channel_id, state.owner())
        if expert.name == GATE:
            return answer(judge_gate(expert, look).to_dict())
        return answer(judge(expert, look, state.registry.gate).to_dict())

    return strict_tool(
        ask,
        name=f"wireless_{expert.name}",
        title=expert.definition.title,
        description=expert.definition.purpose,
    )


def _map_tool(state: State) -> Tool:
    def radio_map(  # reads a file: no coroutine, so that the SDK takes a thread for it
        path: Annotated[str, Field(description="Map under the server's data root: .npz, .nc or .zarr", max_length=512)],
        x_m: Annotated[float, Field(description="Receiver, metres east in the map's frame")],
        y_m: Annotated[float, Field(description="Receiver, metres north in the map's frame")],
        z_m: Annotated[float, Field(description="Receiver's height, metres")] = 1.5,
        transmitter: Annotated[int, Field(description="Number of the transmitter in the map", ge=0)] = 0,
    ) -> Annotated[CallToolResult, MapPoint]:
        with state.reading:
            at = inside(state.root, path, whole=False)
            found = query_map(at, x_m=x_m, y_m=y_m, z_m=z_m, transmitter=transmitter)
        return answer({"expert": "radio_map", "path": path, **found})

    return strict_tool(
        radio_map,
        name="wireless_query_map",
        title="Radio map at a point",
        description=(
            "Reads path gain, line of sight and time of arrival at a point of a radio map (ray-traced or learnt) under "
            "the data root, with free space beside it. For questions about coverage at a place, without a channel."
        ),
    )
