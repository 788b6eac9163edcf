"""Optional tools by toolset: loading channels, one tool per expert, cards, radio maps, design, traces."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

from mcp.server.mcpserver.tools.base import Tool
from mcp_types import CallToolResult
from pydantic import Field

from geoml.errors import UserError
from mcp_experts.channels.channel import Channel
from mcp_experts.channels.loading import channel_from_lists
from mcp_experts.channels.synthetic import synthesize
from mcp_experts.inference import sentences
from mcp_experts.inference.design import design
from mcp_experts.inference.link_budget import MODELS, link_budget
from mcp_experts.inference.registry import GATE, Expert
from mcp_experts.inference.verdicts import OUTSIDE, ChannelView, Verdict, judge, judge_gate
from mcp_experts.serve.shapes import Budget, Card, Design, Dropped, Loaded
from mcp_experts.serve.state import FILES, State
from mcp_experts.serve.strict import answer, described, strict_tool
from mcp_experts.serve.surveys import channel_survey, map_survey
from mcp_experts.serve.traces import trace_tool

__all__ = ["TOOLSETS", "Source", "short_card"]

Source = Annotated[str, Field(description="File under the data root, or a handle", max_length=512)]


def _channels(state: State) -> Iterator[Tool]:
    """Arguments and defaults are those of the functions that create channels."""

    yield _loading_tool(
        state,
        channel_from_lists,
        {
            "csi_real": "Real parts; antenna fastest, subcarrier slowest",
            "csi_imag": "Imaginary parts in the same order",
            "subcarriers": "At least 64",
            "snapshots": "At least 14",
            "subcarrier_spacing_hz": "Subcarrier spacing, Hz",
            "snapshot_interval_s": "Time between snapshots, s",
            "antennas": "Receive antennas",
        },
        name="wireless_load_inline",
        title="Load a small channel from numbers",
        description=(
            "Loads a channel (at most 16384 complex values) sent as flat lists and returns a handle. Only for numbers "
            "pasted by the user; a file costs far fewer tokens."
        ),
    )
    yield _loading_tool(
        state,
        synthesize,
        {
            "delay_spread_s": "RMS delay spread, s",
            "doppler_hz": "Maximum Doppler shift, Hz",
            "k_factor_db": "K-factor of a direct path, dB; null: no direct path",
            "snr_db": "Signal-to-noise ratio, dB",
            "bandwidth_hz": "Bandwidth, Hz",
            "duration_s": "Duration, s",
            "antennas": "Receive antennas, 1 to 16",
            "seed": "Seed of the random numbers",
        },
        name="wireless_load_synthetic",
        title="Make a channel from a specification",
        description=(
            "Makes a synthetic channel with a given delay spread, Doppler shift, K-factor and SNR and returns a "
            "handle. For what-if questions and for testing the experts."
        ),
    )
    yield channel_survey(state)
    yield _drop_tool(state)


def _loading_tool(
    state: State,
    make: Callable[..., Channel],
    arguments: Mapping[str, str],
    *,
    name: str,
    title: str,
    description: str,
) -> Tool:
    """A tool that creates a channel with `make` and returns its handle."""

    def keep(channel: Channel) -> CallToolResult:
        handle = state.handles.put(channel, state.owner())
        return _loaded(state, state.handles.get(handle, state.owner()))

    function = described(make, arguments, keep, Loaded)
    return strict_tool(function, name=name, title=title, description=description, read_only=False)


def _drop_tool(state: State) -> Tool:
    async def drop_channel(source: Source) -> Annotated[CallToolResult, Dropped]:
        state.handles.drop(source, state.owner() if source.startswith("ch_") else FILES)
        return answer({"source": source, "dropped": True})

    return strict_tool(
        drop_channel,
        name="wireless_drop_channel",
        title="Drop a channel",
        description="Drops a loaded channel. Not needed: channels expire by themselves.",
        read_only=False,
        destructive=True,
    )


def _loaded(state: State, view: ChannelView) -> CallToolResult:
    channel = view.channel
    return answer(
        {
            "channel_id": view.channel_id,
            "subcarriers": channel.csi.shape[0],
            "snapshots": channel.csi.shape[1],
            "antennas": channel.csi.shape[2],
            "bandwidth_hz": float(f"{channel.bandwidth_hz:.6g}"),
            "duration_s": float(f"{channel.duration_s:.6g}"),
            "lifetime_s": state.handles.limits.lifetime_s,
            "warnings": list(view.window.warnings),
        }
    )


def _experts(state: State) -> Iterator[Tool]:
    return (_expert_tool(state, expert) for expert in state.registry.experts.values())


def _expert_tool(state: State, expert: Expert) -> Tool:
    async def ask(source: Source) -> Annotated[CallToolResult, Verdict]:
        view = await state.channel(source)
        if expert.name == GATE:
            return answer(judge_gate(expert, view).to_dict())
        return answer(judge(expert, view, state.registry).to_dict())

    return strict_tool(
        ask, name=f"wireless_{expert.name}", title=expert.definition.title, description=expert.definition.purpose
    )


def _cards(state: State) -> Iterator[Tool]:
    async def card(
        expert: Annotated[str, Field(description="Question or expert, as line_of_sight", max_length=64)],
    ) -> Annotated[CallToolResult, Card]:
        return answer(short_card(state.registry.asked(expert)))

    yield strict_tool(
        card,
        name="wireless_expert_card",
        title="Card of an expert",
        description=(
            "Says how far an expert can be trusted: meaning of its labels, accuracy in and out of distribution, "
            "compared with the classical estimate, and limits. The full card is the resource expert://NAME/card."
        ),
    )


def short_card(expert: Expert) -> dict[str, Any]:
    """The part of a card that says how far a verdict can be trusted."""
    definition, card = expert.definition, expert.card
    scores = {}
    for place, found in card.get("metrics", {}).items():
        if isinstance(found, dict):
            rivals = {name: found[name]["accuracy"] for name in ("expert", "classical", "majority") if name in found}
            scores[place] = {name: round(value, 2) for name, value in rivals.items()}
    return {
        "question": definition.question,
        "labels": list(definition.classes),
        "edges": [f"{edge:g} {definition.cells_unit}" for edge in definition.edges],
        "meaning": definition.meaning,
        "limits": definition.limits,
        "share_right": scores,
        "calibration_error": card.get("metrics", {}).get("in_distribution", {}).get("calibration_error"),
        "version": definition.version,
        "resource": f"expert://{expert.name}/card",
    }


def _design(state: State) -> Iterator[Tool]:
    async def derive(source: Source) -> Annotated[CallToolResult, Design]:
        view = await state.channel(source)
        verdicts = {expert.name: judge(expert, view, state.registry) for expert in state.registry.classifiers}
        if view.ood_score(state.registry.gate) > OUTSIDE:
            raise UserError("this channel is unlike the training data, so no design is derived from its verdicts")
        rows = design(verdicts)
        first = "; ".join(f"{row['quantity']} {row['value']}" for row in rows)
        said = f"For the worst case within 90 % intervals of this channel: {first}."
        text = [said, *(f"{row['quantity']}: {row['rule']} ({row['source']})" for row in rows)]
        return answer({"answer": said, "rows": rows}, text="\n".join(text))

    yield strict_tool(
        derive,
        name="wireless_design",
        title="Design for a channel",
        description="Derives cyclic prefix, pilot spacing, numerology and coherence block for a channel, with rules.",
    )

    def budget(found: dict[str, Any]) -> CallToolResult:
        rate = sentences.scaled((found["rate_bit_s"],), "Hz")
        reach = "not even one metre" if found["range_m"] is None else f"{found['range_m']:.3g} m"
        said = (
            f"By {found['model']} the link has an SNR of {found['snr_db']:.1f} dB, with a path loss of "
            f"{found['path_loss_db']:.1f} dB, and carries about {rate[0][0]:g} {rate[1].removesuffix('Hz')}bit/s; "
            f"the range is {reach}."
        )
        rounded = {name: float(f"{value:.4g}") for name, value in found.items() if isinstance(value, float)}
        return answer({"answer": said, **found, **rounded}, text=said)

    arguments = {
        "distance_m": "Distance on the ground, m",
        "frequency_hz": "Carrier, Hz",
        "bandwidth_hz": "Bandwidth, Hz",
        "tx_power_dbm": "Transmitted power, dBm",
        "antenna_gains_db": "Sum of both antenna gains, dB",
        "noise_figure_db": "Noise figure, dB",
        "needed_snr_db": "SNR at the end of the range, dB",
        "model": "Path loss: free_space, or 3GPP TR 38.901 umi or uma",
    }
    yield strict_tool(
        described(link_budget, arguments, budget, Budget),
        name="wireless_link_budget",
        title="Link budget",
        description="Computes path loss, SNR, rate and range of a link with a standard model of path loss.",
        choices={"model": list(MODELS)},
    )


def _trace(state: State) -> Iterator[Tool]:
    yield trace_tool(state)


#: Name of the toolset → tools; those of `mcp_experts.serve.tools` are always listed.
TOOLSETS: dict[str, Callable[[State], Iterator[Tool]]] = {
    "channels": _channels,
    "experts": _experts,
    "cards": _cards,
    "maps": map_survey,
    "design": _design,
    "trace": _trace,
}
