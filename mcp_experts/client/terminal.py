"""`mcp-experts describe`: verdicts of all experts on a channel file, as a table, without a language model."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mcp_experts import api
from mcp_experts.channels.importing import parse_options
from mcp_experts.channels.opening import FORMATS

__all__ = ["describe"]


def describe(arguments: Sequence[str]) -> list[dict[str, Any]] | int:
    """Print one row per expert for the channel of a file."""
    parser = argparse.ArgumentParser(
        prog="mcp-experts describe", description="Print the verdicts of all experts on a channel file."
    )
    parser.add_argument("file", type=Path, help=f"{', '.join(FORMATS)}: csi, taps, or a path table")
    parser.add_argument("options", nargs="*", metavar="KEY=VALUE", help="how it is read: mcp-experts check --help")
    parser.add_argument("--index", type=int, default=0, help="number of the channel in the file, from 0")
    parser.add_argument("--adapted", type=Path, metavar="FOLDER", help="experts that mcp-experts adapt wrote")
    parser.add_argument("--json", action="store_true", help="print the full verdicts as JSON")
    flags = parser.parse_intermixed_args(arguments)
    channel = api.load_channel(flags.file, flags.index, **parse_options(flags.options))
    verdicts = api.describe(channel, adapted=flags.adapted)
    if flags.json:
        print(json.dumps(verdicts.to_dicts(), indent=2))
        return 0
    return [verdict.row() for verdict in verdicts]
