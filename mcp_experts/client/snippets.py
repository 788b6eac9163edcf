"""`mcp-experts config`: the configuration with which other programs start the server."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from geoml.errors import UserError

__all__ = ["CLIENTS", "config", "snippet"]

#: Client → file for its snippet.
CLIENTS = {
    "claude": "claude_desktop_config.json of Claude Desktop (Settings, Developer, Edit Config)",
    "claude-code": ".mcp.json in the project's folder, of Claude Code",
    "vscode": ".vscode/mcp.json in the project's folder, of VS Code",
    "cursor": ".cursor/mcp.json in the project's folder, or ~/.cursor/mcp.json, of Cursor",
    "codex": "~/.codex/config.toml of Codex",
    "gemini": "~/.gemini/settings.json, or .gemini/settings.json in the project's folder, of Gemini CLI",
    "registry": "server.json for the MCP registry",
}
#: Key of the servers in a client's configuration, if not mcpServers.
KEYS = {"vscode": "servers", "codex": "mcp_servers"}
NAME = "wireless-experts"
SCHEMA = "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json"


def config(arguments: Sequence[str]) -> int:
    """Print the snippet for one client, and the file it belongs in on standard error."""
    parser = argparse.ArgumentParser(
        prog="mcp-experts config", description="Print the configuration with which a client starts the server."
    )
    parser.add_argument("client", choices=CLIENTS, metavar="CLIENT", help=", ".join(CLIENTS))
    parser.add_argument("--root", type=Path, metavar="FOLDER", help="folder whose files the model may read")
    parser.add_argument("--uvx", action="store_true", help="start it with uvx, without prior installation")
    flags = parser.parse_args(arguments)
    found = snippet(flags.client, root=flags.root, uvx=flags.uvx)
    print(CLIENTS[flags.client], file=sys.stderr)
    if flags.root is None and flags.client != "registry":
        print("without --root FOLDER the model can read no files", file=sys.stderr)
    print(_toml(found) if flags.client == "codex" else json.dumps(found, indent=2))
    return 0


def snippet(client: str, *, root: Path | None = None, uvx: bool = False) -> dict[str, Any]:
    """Configuration of one client, as in its file, with absolute paths.

    Paths are absolute since clients start servers in another folder and with another search path. Raises `UserError` if
    the folder or the command does not exist.

    >>> snippet("vscode")["servers"]["wireless-experts"]["args"][-1]
    'serve'
    """
    if client == "registry":
        return _registry_entry()
    words = [*_command(uvx), "serve"]
    if root is not None:
        if not root.is_dir():
            raise UserError(f"--root {root} is not a folder; name the folder that holds the channels")
        words += ["--root", str(root.resolve())]
    server: dict[str, Any] = {"command": words[0], "args": words[1:]}
    if client in ("vscode", "claude-code"):
        server = {"type": "stdio", **server}
    return {KEYS.get(client, "mcpServers"): {NAME: server}}


def _command(uvx: bool) -> list[str]:
    """Command and arguments that start the server of this installation, or one installed by uvx."""
    if uvx:
        found = shutil.which("uvx")
        if found is None:
            raise UserError("uvx is not on the search path; install uv, or omit --uvx to start this installation")
        return [os.path.abspath(found), "--from", "geoml[mcp]", "mcp-experts"]
    script = Path(sys.executable).with_name("mcp-experts")
    if os.access(script, os.X_OK):
        return [os.path.abspath(script)]
    return [os.path.abspath(sys.executable), "-m", "mcp_experts"]


def _toml(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """TOML of tables with strings and lists of strings, which are written as in JSON."""
    lines = []
    for group, servers in found.items():
        for name, server in servers.items():
            values = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in server.items()]
            lines += [f"[{group}.{name}]", *values]
    return "\n".join(lines)


def _registry_entry() -> dict[str, Any]:
    """Registry entry; clients start `uvx RUNTIME_ARGUMENTS geoml PACKAGE_ARGUMENTS`, named as the distribution."""
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
