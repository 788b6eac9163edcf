"""A session of a real client with the server, as a page: `python -m mcp_experts.client.transcript > PAGE`.

The server is a child process on stdio. Handles, which are random, and times of calls are replaced, nothing else.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from typing import Any

from mcp import Client, StdioServerParameters

__all__ = ["CALLS", "session"]

#: What is asked, in order; "CHANNEL" is the handle that loading gave. The last call is wrong, to show what comes back.
CALLS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("wireless_list_experts", {}),
    ("wireless_load_synthetic", {"delay_spread_s": 3e-7, "doppler_hz": 120, "k_factor_db": 9, "snr_db": 22}),
    ("wireless_describe_channel", {"channel_id": "CHANNEL"}),
    ("wireless_doppler", {"channel_id": "CHANNEL"}),
    ("wireless_doppler", {"channel": "CHANNEL"}),
    ("wireless_drop_channel", {"channel_id": "CHANNEL"}),
)
HEAD = """\
# A session with the experts

A client starts `mcp-experts serve`, lists its tools, makes a channel, and asks. Below stands what the two said, as \
`python -m mcp_experts.client.transcript > docs/experts-transcript.md` wrote it; a test runs that and compares. Only \
handles, which are random, and the times of calls are replaced. `→` is the client, `←` the server.
"""


async def session() -> str:
    """Hold the session and return the page."""
    lines = [HEAD, "```text"]
    server = StdioServerParameters(command=sys.executable, args=["-m", "mcp_experts", "serve"])
    async with Client(server) as client:
        lines.append("→ tools/list")
        lines += [f"← {tool.name}: {tool.description}" for tool in (await client.list_tools()).tools]
        handle = ""
        for name, arguments in CALLS:
            arguments = {key: handle if value == "CHANNEL" else value for key, value in arguments.items()}
            result = await client.call_tool(name, arguments)
            content: Mapping[str, Any] = result.structured_content or {}
            handle = str(content.get("channel_id") or handle)
            lines += ["", f"→ {name} {json.dumps(arguments)}"]
            if result.is_error:
                lines += [f"← error: {getattr(block, 'text', '')}" for block in result.content]
            else:
                lines += _answer(content)
    page = "\n".join([*lines, "```", ""])
    return re.sub(r'"latency_ms": [^,}]+', '"latency_ms": 0.0', page.replace(handle, "ch_0123456789abcdef"))


def _answer(content: Mapping[str, Any]) -> list[str]:
    """A line a value, and a line an item of a list of mappings."""
    lines = []
    for key, value in content.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            lines += [f"← {key}: {json.dumps(item, ensure_ascii=False)}" for item in value]
        else:
            lines.append(f"← {key}: {0.0 if key == 'latency_ms' else json.dumps(value, ensure_ascii=False)}")
    return lines


if __name__ == "__main__":
    import anyio

    print(anyio.run(session), end="")
