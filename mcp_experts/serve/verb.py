"""`mcp-experts serve`: the server on standard input and output, or over HTTP."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geoml.errors import UserError
from mcp_experts.channels.handles import Limits
from mcp_experts.channels.importing import parse_options
from mcp_experts.inference.registry import Registry
from mcp_experts.serve.logs import log_in_lines
from mcp_experts.serve.server import build_server
from mcp_experts.serve.stdio import serve_stdio
from mcp_experts.serve.toolsets import TOOLSETS

__all__ = ["serve"]

#: Options of HTTP: names in a `Binding` and flags.
BINDING = {
    "host": "--host",
    "port": "--port",
    "allowed_hosts": "--allow-host",
    "allowed_origins": "--allow-origin",
}


def serve(arguments: Sequence[str]) -> int:
    """Serve until the client disconnects (stdio) or the process is ended (HTTP)."""
    flags = _parser().parse_intermixed_args(arguments)
    if flags.root is not None and not flags.root.is_dir():
        raise UserError(f"--root {flags.root} is not a folder; name the folder that holds the channels")
    binding = {name: value for name in BINDING if (value := getattr(flags, name)) is not None}
    if binding and not flags.http:
        raise UserError(f"{', '.join(BINDING[name] for name in binding)} without --http; add --http, or omit them")
    if not 1 <= binding.get("port", 1) <= 65535:
        raise UserError(f"--port {flags.port}; expected 1 to 65535")
    settings: dict[str, Any] = {
        "root": flags.root,
        "options": parse_options(flags.options),
        "toolsets": [name for name in flags.toolsets.split(",") if name],
        "limits": _limits(flags),
        "registry": _registry(flags),
    }
    with log_in_lines():
        if flags.http:
            from mcp_experts.serve.http import Binding, serve_http

            return serve_http(settings, Binding(**binding))
        if sys.stdin.isatty():
            print(
                "waiting for a client on standard input; a client must start this command (mcp-experts config)",
                file=sys.stderr,
            )
        server = build_server(**settings)
        return serve_stdio(server, closing=server.close)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mcp-experts serve", description="Serve the experts over the Model Context Protocol, on stdio or HTTP."
    )
    parser.add_argument("options", nargs="*", metavar="KEY=VALUE", help="how files are read: mcp-experts check --help")
    parser.add_argument("--root", type=Path, help="the only folder whose files clients may load")
    parser.add_argument("--http", action="store_true", help="use streamable HTTP instead of stdio")
    parser.add_argument("--host", help="where to listen (127.0.0.1); others need --allow-host")
    parser.add_argument("--port", type=int, help="port to listen on (8000)")
    for name, meta, about in (
        ("allowed_hosts", "NAME", "additional Host header to accept"),
        ("allowed_origins", "URL", "additional Origin header to accept"),
    ):
        parser.add_argument(BINDING[name], dest=name, action="append", metavar=meta, help=about)
    parser.add_argument("--toolsets", default="", metavar="NAMES", help=f"more: {','.join(TOOLSETS)}; all")
    parser.add_argument("--experts", default="", metavar="NAMES", help="experts to offer, such as los,doppler (all)")
    parser.add_argument("--adapted", type=Path, metavar="FOLDER", help="experts that mcp-experts adapt wrote")
    parser.add_argument("--plugins", action="store_true", help="also load experts of other packages: runs their code")
    parser.add_argument(
        "--lifetime", type=float, default=3600.0, metavar="S", help="lifetime of a channel after its last use"
    )
    parser.add_argument("--memory", type=int, default=128, metavar="MB", help="limit of all channels together")
    return parser


def _registry(flags: argparse.Namespace) -> Registry:
    """The selected experts, with every hash checked before the first client connects."""
    registry = Registry(
        [name for name in flags.experts.split(",") if name], plugins=flags.plugins, adapted=flags.adapted
    )
    registry.check()
    return registry


def _limits(flags: argparse.Namespace) -> Limits:
    if not 1 <= flags.lifetime <= 7 * 86400 or not 1 <= flags.memory <= 65536:
        raise UserError("invalid --lifetime or --memory; expected 1 to 604800 seconds and 1 to 65536 MB")
    return Limits(lifetime_s=flags.lifetime, nbytes=flags.memory * 2**20)
