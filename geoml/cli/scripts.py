"""`geoml exec`: run another command line of this distribution, for tools such as `uvx` that know only its name."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from typing import Any

from geoml.errors import UserError, unknown

__all__ = ["main"]


def main(arguments: Sequence[str]) -> Any:
    """Run the command line named by the first word with the remaining words: `geoml exec mcp-experts serve`."""
    scripts = {
        entry.name: entry
        for entry in importlib.metadata.entry_points(group="console_scripts")
        if entry.dist is not None and entry.dist.name == "geoml"
    }
    if arguments and arguments[0] in ("-h", "--help"):
        print(f"usage: geoml exec NAME [WORD ...]\n\nNAME is one of {', '.join(sorted(scripts))}.")
        raise SystemExit(0)
    if not arguments:
        raise UserError(f"geoml exec needs the name of a command line: {', '.join(sorted(scripts))}")
    name, *words = arguments
    if name not in scripts:
        raise unknown("command line", name, scripts)
    return scripts[name].load()(words)
