"""Evaluation of the server: latency of calls, and conformance with both eras of the protocol."""

from __future__ import annotations

import math
import time
from typing import Any

from mcp import Client

from mcp_experts.inference.registry import Registry
from mcp_experts.serve.server import build_server

__all__ = ["conformance", "latency"]

CALLS = 100


async def latency(registry: Registry) -> dict[str, float]:
    """Median and 99th percentile, in ms, of calls to one expert and to all, from a client in this process."""
    found: dict[str, float] = {}
    async with Client(build_server(registry=registry)) as client:
        loaded = await client.call_tool("wireless_load_synthetic", {})
        arguments = {"source": (loaded.structured_content or {})["channel_id"]}
        one = arguments | {"question": "line_of_sight"}
        calls = (("one_expert", "wireless_ask", one), ("all_experts", "wireless_describe", arguments))
        for name, tool, arguments in calls:
            taken = []
            for _ in range(CALLS):
                begin = time.perf_counter()
                await client.call_tool(tool, arguments)
                taken.append(1e3 * (time.perf_counter() - begin))
            taken.sort()
            found |= {f"{name}_p50_ms": taken[CALLS // 2], f"{name}_p99_ms": taken[math.ceil(0.99 * CALLS) - 1]}
    return found


async def conformance(registry: Registry) -> dict[str, bool]:
    """Check the server with the current ("auto") and the previous ("legacy") MCP handshake.

    Returns, by description of each check, True if the server passes.
    """
    checks: dict[str, bool] = {}
    for era in ("auto", "legacy"):
        async with Client(build_server(registry=registry), mode=era) as client:
            tools = (await client.list_tools()).tools
            checks[f"{era}: every tool has a description, input and output schema"] = all(
                tool.description and tool.input_schema.get("type") == "object" and tool.output_schema for tool in tools
            )
            checks[f"{era}: every tool has hints"] = all(tool.annotations is not None for tool in tools)
            loaded = await client.call_tool("wireless_load_synthetic", {"seed": 1})
            content: dict[str, Any] = loaded.structured_content or {}
            checks[f"{era}: structured and text content"] = bool(content.get("channel_id")) and bool(loaded.content)
            asked = {"source": content.get("channel_id"), "question": "line_of_sight"}
            for name, arguments in (
                ("an unknown argument", asked | {"colour": "red"}),
                ("a missing argument", {}),
                ("a foreign handle", asked | {"source": "ch_" + "0" * 32}),
                ("a wrong type", asked | {"source": 3}),
            ):
                checks[f"{era}: {name} is refused"] = bool((await client.call_tool("wireless_ask", arguments)).is_error)
            checks[f"{era}: resources are listed and read"] = bool(
                (await client.read_resource("expert://catalog")).contents
            ) and bool((await client.list_resource_templates()).resource_templates)
            prompts = (await client.list_prompts()).prompts
            checks[f"{era}: the prompt is described"] = all(prompt.description for prompt in prompts) and bool(prompts)
    return checks
