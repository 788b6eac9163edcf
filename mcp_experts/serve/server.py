"""Putting the server together: which tools, resources and prompt it has, and who owns what."""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mcp.server import MCPServer
from mcp.server.auth.provider import TokenVerifier
from mcp.server.auth.settings import AuthSettings
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS

from geoml.errors import unknown
from mcp_experts.channels.handles import Handles, Limits
from mcp_experts.inference.registry import Registry
from mcp_experts.serve import prompts, resources, tools
from mcp_experts.serve.frames import without_surrogates
from mcp_experts.serve.state import TOOLSETS, State

__all__ = ["INSTRUCTIONS", "ExpertServer", "build_server"]

INSTRUCTIONS = """\
Trained experts that answer questions about one wireless channel (line of sight, fading, delay spread, Doppler, \
coherence, profile, scenario, SNR), each with calibrated probabilities, its limits, and a classical estimate beside it.
1. Load a channel: wireless_load_file, wireless_load_inline or wireless_load_synthetic gives a channel_id.
2. Call wireless_describe_channel first; single experts only for detail.
3. Respect abstained: label null means that the data do not decide; say so instead of guessing. Intervals \
(interval_low, interval_high, unit) hold with 90 % confidence; null is an open side."""

MOST_TEXT = 200


class ExpertServer(MCPServer):
    """The SDK's server, with errors of prompts as the protocol's "invalid params"; the SDK's are bugs of the server."""

    async def get_prompt(self, name: str, arguments: dict[str, Any] | None = None, context: Any = None) -> Any:
        """As the SDK's."""
        try:
            return await super().get_prompt(name, arguments, context)
        except ValueError as error:
            known = ", ".join(prompt.name for prompt in await self.list_prompts())
            wrong = f"{without_surrogates(str(error))[:MOST_TEXT]}; prompts: {known}"
            raise MCPError(code=INVALID_PARAMS, message=wrong) from None


def build_server(
    *,
    registry: Registry | None = None,
    limits: Limits | None = None,
    root: Path | None = None,
    toolsets: Sequence[str] = TOOLSETS,
    token_verifier: TokenVerifier | None = None,
    auth: AuthSettings | None = None,
) -> ExpertServer:
    """The server with these toolsets, ready to run on either transport or to be handed to a client in memory."""
    for name in toolsets:
        if name not in TOOLSETS:
            raise unknown("toolset", name, TOOLSETS)
    state = State(registry or Registry(), Handles(limits), root, tuple(toolsets))
    server = ExpertServer(
        "wireless-experts",
        title="Wireless experts",
        instructions=INSTRUCTIONS,
        version=importlib.metadata.version("geoml"),
        tools=list(tools.tools(state)),
        token_verifier=token_verifier,
        auth=auth,
        log_level="WARNING",
        subscriptions=False,  # nothing that could be subscribed to changes, and each would hold a connection open
    )
    # At INFO the SDK logs the errors that clients were told, with what they sent.
    logging.getLogger("mcp").setLevel(logging.WARNING)
    resources.add(server, state)
    prompts.add(server)
    return server
