"""Resources: catalogue, cards, and verdicts and pictures of loaded channels."""

from __future__ import annotations

import json

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ResourceNotFoundError

from geoml.errors import UserError
from mcp_experts.inference.verdicts import ChannelView, describe
from mcp_experts.report.picture import draw_channel
from mcp_experts.serve.frames import without_surrogates
from mcp_experts.serve.state import State

__all__ = ["add"]


def add(server: MCPServer, state: State) -> None:
    """Add the resources to the server."""

    @server.resource(
        "expert://catalog",
        name="expert_catalog",
        title="Experts",
        description="All experts: what each decides, its classes and their limits",
        mime_type="application/json",
    )
    def catalog() -> str:
        experts = state.registry.experts.values()
        return json.dumps([{"name": expert.name, **expert.definition.describe()} for expert in experts])

    @server.resource(
        "expert://{name}/card",
        name="expert_card",
        title="Card of an expert",
        description="Training data, accuracy in and out of distribution, calibration, limits, hashes",
        mime_type="application/json",
    )
    def card(name: str) -> str:
        try:
            return json.dumps(state.registry.expert(name).card)
        except UserError as error:
            raise ResourceNotFoundError(without_surrogates(str(error))) from error

    @server.resource(
        "channel://{source}/summary",
        name="channel_summary",
        title="Verdicts on a channel",
        description="All experts' full verdicts on a loaded channel",
        mime_type="application/json",
    )
    async def summary(source: str) -> str:
        return json.dumps(describe(state.registry, await _view(state, source)).to_dicts())

    @server.resource(
        "channel://{source}/picture",
        name="channel_picture",
        title="Picture of a channel",
        description="Power delay profile (above) and Doppler spectrum (below) of a loaded channel, 40 dB each",
        mime_type="image/png",
    )
    async def picture(source: str) -> bytes:
        return draw_channel((await _view(state, source)).window)


async def _view(state: State, source: str) -> ChannelView:
    """The channel of a handle or path whose reserved characters a client has percent-encoded."""
    try:
        return await state.channel(source)
    except UserError as error:
        raise ResourceNotFoundError(without_surrogates(str(error))) from error
