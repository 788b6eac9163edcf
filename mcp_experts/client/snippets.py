"""`mcp-experts config`: what other programs want in their configuration to start the server."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
from collections.abc import Sequence
from typing import Any

__all__ = ["CLIENTS", "config", "snippet"]

#: Client → where its snippet goes.
CLIENTS = {
    "claude": "claude_desktop_config.json of Claude Desktop (Settings, Developer, Edit Config)",
    "vscode": ".vscode/mcp.json of VS Code",
    "cursor": ".cursor/mcp.json of Cursor",
    "mcp-json": ".mcp.json of Claude Code and others",
    "registry": "server.json for the MCP registry",
}
NAME = "wireless-experts"
SCHEMA = "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json"


def config(arguments: Sequence[str]) -> int:
    """Print the snippet of one client; where it goes is said on standard error."""
    parser = argparse.ArgumentParser(
        prog="mcp-experts config", description="Print what a client needs to start the server."
    )
    parser.add_argument("client", choices=CLIENTS)
    parser.add_argument("--root", default="", metavar="FOLDER", help="the folder whose files the model may load")
    parser.add_argument("--uvx", action="store_true", help="start it with uvx, nothing installed beforehand")
    flags = parser.parse_args(arguments)
    print(CLIENTS[flags.client], file=sys.stderr)
    print(json.dumps(snippet(flags.client, root=flags.root, uvx=flags.uvx), indent=2))
    return 0


def snippet(client: str, *, root: str = "", uvx: bool = False) -> dict[str, Any]:
    """The configuration of one client as it stands in its file.

    >>> snippet("vscode")["servers"]["wireless-experts"]["args"]
    ['serve']
    """
    serve = ["serve", *(["--root", root] if root else [])]
    if client == "registry":
        return _registry_entry()
    server: dict[str, Any] = (
        {"command": "uvx", "args": ["--from", "geoml[mcp]", "mcp-experts", *serve]}
        if uvx
        else {"command": "mcp-experts", "args": serve}
    )
    if client == "vscode":
        return {"servers": {NAME: {"type": "stdio", **server}}}
    return {"mcpServers": {NAME: server}}


def _registry_entry() -> dict[str, Any]:
    """Clients start `uvx RUNTIME_ARGUMENTS geoml PACKAGE_ARGUMENTS`: the command is named as the distribution is."""
    version = importlib.metadata.version("geoml")
    return {
        "$schema": SCHEMA,
        "name": f"io.github.geoml/{NAME}",
        "title": "Wireless experts",
        "description": "Calibrated experts on a wireless channel: LoS, fading, delay spread, Doppler, SNR, maps",
        "version": version,
        "packages": [
            {
                "registryType": "pypi",
                "identifier": "geoml",
                "version": version,
                "runtimeHint": "uvx",
                "runtimeArguments": [{"type": "named", "name": "--from", "value": f"geoml[mcp]=={version}"}],
                "packageArguments": [
                    {"type": "positional", "value": word} for word in ("exec", "mcp-experts", "serve")
                ],
                "transport": {"type": "stdio"},
            }
        ],
    }
