"""Assemble the server from its tools, resources and prompt."""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mcp.server import MCPServer
from mcp.server.auth.provider import TokenVerifier
from mcp.server.auth.settings import AuthSettings
from mcp.server.caching import CacheHint
from mcp.server.mcpserver.context import Context
from mcp.server.mcpserver.tools.base import Tool
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS

from geoml.errors import unknown
from mcp_experts.channels.handles import Handles, Limits
from mcp_experts.inference.registry import Registry
from mcp_experts.serve import prompts, resources, tools
from mcp_experts.serve.frames import without_surrogates
from mcp_experts.serve.readers import Readers
from mcp_experts.serve.state import State
from mcp_experts.serve.toolsets import TOOLSETS

__all__ = ["INSTRUCTIONS", "ExpertServer", "build_server"]

INSTRUCTIONS = """\
Trained experts on a wireless channel. For a question about a file call wireless_ask with the file and the question. \
wireless_describe gives an overview when no single question is asked, wireless_list the files and questions. A null \
label means that the data do not decide: say so, and give the likeliest label with its confidence. Intervals hold \
with 90 % confidence on channels like the training data. The classical estimate is a textbook formula; if it differs, \
say so."""

MOST_TEXT = 200
#: Time in ms for which clients may cache lists of tools, resources and prompts, which do not change.
FRESH_MS = 3_600_000


class ExpertServer(MCPServer):
    """The SDK's server, but with "invalid params" for errors in prompts, which the SDK reports as internal errors."""

    def __init__(self, state: State, name: str, **settings: Any) -> None:
        super().__init__(name, **settings)
        self.state = state
        self._listed = {tool.name for tool in settings["tools"]}
        self._made: dict[str, Tool] = {}
        self._unlisted = tools.unlisted(state)

    async def call_tool(self, name: str, arguments: dict[str, Any], context: Any = None) -> Any:
        """Call a tool. Tools of toolsets that are not listed, which would cost a model tokens, can be called, too."""
        while name not in self._listed and name not in self._made and (more := next(self._unlisted, None)):
            self._made |= more
        tool = self._made.get(name)
        if tool is None:
            return await super().call_tool(name, arguments, context)
        return await tool.run(arguments, context or Context(mcp_server=self), convert_result=True)

    def close(self) -> None:
        """End the processes that the server has started."""
        self.state.readers.close()

    async def get_prompt(self, name: str, arguments: dict[str, Any] | None = None, context: Any = None) -> Any:
        """Return a prompt; errors are reported as invalid parameters."""
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
    options: Mapping[str, str] | None = None,
    toolsets: Sequence[str] = (),
    more: Iterable[Tool] = (),
    token_verifier: TokenVerifier | None = None,
    auth: AuthSettings | None = None,
) -> ExpertServer:
    """Build the server, for either transport or for a client in the same process.

    It lists three tools. `toolsets` adds some of `TOOLSETS`, or "all"; `more` are additional tools. Tools of other
    toolsets can be called without being listed. `options` are import options of channel files (`channels.importing`).
    """
    names = tuple(TOOLSETS) if "all" in toolsets else tuple(dict.fromkeys(toolsets))
    for name in names:
        if name not in TOOLSETS:
            raise unknown("toolset", name, (*TOOLSETS, "all"))
    state = State(registry or Registry(), Handles(limits), root, names, Readers(options))
    fresh = CacheHint(ttl_ms=FRESH_MS, scope="public")
    lists = ("tools/list", "resources/list", "resources/templates/list", "prompts/list", "server/discover")
    server = ExpertServer(
        state,
        "wireless-experts",
        title="Wireless experts",
        instructions=INSTRUCTIONS,
        version=importlib.metadata.version("geoml"),
        tools=[*tools.tools(state), *more],
        token_verifier=token_verifier,
        auth=auth,
        log_level="WARNING",
        subscriptions=False,  # nothing to subscribe to ever changes, and each subscription would hold a connection open
        cache_hints=dict.fromkeys(lists, fresh) | {"resources/read": CacheHint(ttl_ms=FRESH_MS // 60)},
    )
    # At level INFO the SDK logs error responses together with what clients sent.
    logging.getLogger("mcp").setLevel(logging.WARNING)
    resources.add(server, state)
    prompts.add(server)
    return server
