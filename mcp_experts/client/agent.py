"""Agent loop: a language model that calls the experts' tools through an MCP client."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mcp import Client

from geoml.errors import UserError
from mcp_experts.client.endpoints import Endpoint

__all__ = ["Transcript", "connected", "converse"]

MOST_TURNS = 8
MOST_RESULT = 20_000


@dataclass
class Transcript:
    """Record of a conversation: the answer, all exchanges, tools called and tokens used."""

    answer: str = ""
    exchanges: list[dict[str, Any]] = field(default_factory=list)
    tools: list[str] = field(default_factory=list)
    tokens_in: int = 0
    tokens_out: int = 0
    finished: bool = False


@contextlib.asynccontextmanager
async def connected(server: Any) -> AsyncIterator[Client]:
    """Connect a client to a server. A `UserError` raised in the `with` block is not wrapped in an exception group."""
    trouble: UserError | None = None
    async with Client(server) as client:
        try:
            yield client
        except UserError as error:
            trouble = error
    if trouble is not None:
        raise trouble


async def converse(
    endpoint: Endpoint, client: Client | None, system: str, question: str, *, turns: int = MOST_TURNS
) -> Transcript:
    """Let the model call tools until it answers or the largest number of turns is reached.

    Without a client there are no tools. With one, the server's instructions follow `system`. In the last turn, and
    after a call that repeats an earlier one, the model is asked to answer without a call: small models otherwise repeat
    a call for ever. Exchanges are recorded in order, as sent and received.
    """
    listed = await _tools(client)
    if client is not None and client.instructions:
        system = f"{system}\n\n{client.instructions}"
    names = {tool["name"] for tool in listed}
    messages: list[Any] = [endpoint.user(question)]
    transcript = Transcript(exchanges=[{"user": question}])
    made: list[Any] = []
    final = False
    for turn in range(turns):
        reply = await endpoint.reply(system, messages, listed, final=final or turn == turns - 1)
        transcript.tokens_in += reply.tokens_in
        transcript.tokens_out += reply.tokens_out
        calls = [{"tool": call.tool, "arguments": call.arguments} for call in reply.calls]
        transcript.exchanges.append({"assistant": reply.text, "calls": calls})
        if not reply.calls:
            transcript.answer, transcript.finished = reply.text, True
            break
        final = final or any(call in made for call in calls)
        made += calls
        messages.append(reply.message)
        results = []
        for call in reply.calls:
            text, failed = await _call(client, names, call.tool, call.arguments)
            transcript.tools.append(call.tool)
            transcript.exchanges.append({"tool": call.tool, "result": text, "failed": failed})
            results.append((call, text, failed))
        messages.extend(endpoint.results(results))
    return transcript


async def _tools(client: Client | None) -> Sequence[Mapping[str, Any]]:
    if client is None:
        return []
    found, cursor = [], None
    while True:
        page = await client.list_tools(cursor=cursor)
        found += [
            {"name": tool.name, "description": tool.description or "", "schema": tool.input_schema}
            for tool in page.tools
        ]
        cursor = page.next_cursor
        if cursor is None:
            return found


async def _call(client: Client | None, names: set[str], tool: str, arguments: dict[str, Any]) -> tuple[str, bool]:
    if client is None or tool not in names:
        return f"there is no tool {tool}; tools: {', '.join(sorted(names)) or 'none'}", True
    result = await client.call_tool(tool, arguments)
    text = "\n".join(getattr(block, "text", "") for block in result.content)
    return text[:MOST_RESULT], bool(result.is_error)
