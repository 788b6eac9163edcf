"""`mcp-experts describe`: all experts' verdicts on a channel file, as a table and without a language model."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mcp_experts import api
from mcp_experts.channels.opening import FORMATS

__all__ = ["describe"]


def describe(arguments: Sequence[str]) -> list[dict[str, Any]] | int:
    """A row an expert, for the channel of a file."""
    parser = argparse.ArgumentParser(prog="mcp-experts describe", description="Ask all experts about a channel file.")
    parser.add_argument("file", type=Path, help=f"{', '.join(FORMATS)}: csi, taps, or a path table")
    parser.add_argument("--index", type=int, default=0, help="which channel of a file with several")
    parser.add_argument("--json", action="store_true", help="the full verdicts as JSON")
    flags = parser.parse_args(arguments)
    verdicts = api.describe(api.load_channel(flags.file, flags.index))
    if flags.json:
        print(json.dumps(verdicts.to_dicts(), indent=2))
        return 0
    return [verdict.row() for verdict in verdicts]
