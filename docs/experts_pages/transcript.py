"""A session of a client with the server, as a page: `python docs/experts_pages/transcript.py > PAGE`.

The server is a child process on stdio; its output is not edited.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from mcp import Client, StdioServerParameters

from mcp_experts.channels.synthetic import synthesize

__all__ = ["CALLS", "session"]

#: Calls in order. The last call is wrong, to show the error.
CALLS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("wireless_list", {}),
    ("wireless_ask", {"source": "link.npz", "question": "line_of_sight"}),
    ("wireless_ask", {"source": "link.npz", "question": "doppler"}),
    ("wireless_describe", {"source": "link.npz"}),
    ("wireless_ask", {"source": "noise.npz", "question": "snr"}),
    ("wireless_ask", {"file": "link.npz", "question": "snr"}),
)
HEAD = """\
# A session with the experts

A client starts `mcp-experts serve` on a folder with two channels, `link.npz` and `noise.npz`, lists its tools, and \
asks. `python docs/experts_pages/transcript.py > docs/experts-transcript.md` writes this page of their messages; a \
test compares. `→` is the client, `←` the text that a language model reads.
"""


async def session() -> str:
    """Run the session and return the page."""
    lines = [HEAD, "```text"]
    with tempfile.TemporaryDirectory() as folder:
        _write_channels(Path(folder))
        server = StdioServerParameters(command=sys.executable, args=["-m", "mcp_experts", "serve", "--root", folder])
        async with Client(server) as client:
            lines.append("→ tools/list")
            lines += [f"← {tool.name}: {tool.description}" for tool in (await client.list_tools()).tools]
            for name, arguments in CALLS:
                result = await client.call_tool(name, arguments)
                lines += ["", f"→ {name} {json.dumps(arguments)}"]
                said = "\n".join(getattr(block, "text", "") for block in result.content)
                lines += [f"← {'error: ' if result.is_error else ''}{line}" for line in said.splitlines()]
    return "\n".join([*lines, "```", ""])


def _write_channels(folder: Path) -> None:
    """Write a link with a direct path, and a channel of noise only."""
    link = synthesize(delay_spread_s=3e-7, doppler_hz=120, k_factor_db=9, snr_db=22)
    real, imag = np.random.default_rng(0).normal(size=(2, *link.csi.shape))
    sampling = {name: getattr(link, name) for name in ("subcarrier_spacing_hz", "snapshot_interval_s")}
    np.savez(folder / "link.npz", csi=link.csi, **sampling)
    np.savez(folder / "noise.npz", csi=real + 1j * imag, **sampling)


if __name__ == "__main__":
    import anyio

    print(anyio.run(session), end="")
