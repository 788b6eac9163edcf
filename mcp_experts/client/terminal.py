"""`mcp-experts describe`: all experts' verdicts on a channel file, as a table and without a language model."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geoml.errors import UserError
from mcp_experts.channels.loading import channel_from_file
from mcp_experts.channels.opening import FORMATS
from mcp_experts.inference.registry import Registry
from mcp_experts.inference.verdicts import ChannelView
from mcp_experts.inference.verdicts import describe as verdicts_on

__all__ = ["describe"]


def describe(arguments: Sequence[str]) -> list[dict[str, Any]] | int:
    """A row an expert, for the channel of a file."""
    parser = argparse.ArgumentParser(prog="mcp-experts describe", description="Ask all experts about a channel file.")
    parser.add_argument("file", type=Path, help=f"{', '.join(FORMATS)}: csi, taps, or a path table")
    parser.add_argument("--index", type=int, default=0, help="which channel of a file with several")
    parser.add_argument("--json", action="store_true", help="the full verdicts as JSON")
    flags = parser.parse_args(arguments)
    if not flags.file.exists():
        raise UserError(f"{flags.file} does not exist")
    verdicts = verdicts_on(Registry(), ChannelView(channel_from_file(flags.file, flags.index)))
    if flags.json:
        print(json.dumps(verdicts, indent=2))
        return 0
    return [_row(verdict) for verdict in verdicts]


def _row(verdict: dict[str, Any]) -> dict[str, Any]:
    classical = verdict["classical"]
    return {
        "expert": verdict["expert"],
        "label": verdict["label"] or f"undecided: {' or '.join(verdict['likely']) or 'nothing is likely'}",
        "confidence": verdict["confidence"],
        "interval": _interval(verdict["interval_low"], verdict["interval_high"], verdict["unit"] or ""),
        "classical": classical["label"],
        "estimate": f"{classical['estimator']} {classical['value']:g} {classical['unit']}",
        "warnings": "; ".join(verdict["warnings"]),
    }


def _interval(low: float | None, high: float | None, unit: str) -> str:
    """
    >>> _interval(None, 2e-7, "s"), _interval(7.0, None, "dB"), _interval(1.0, 2.0, "Hz"), _interval(None, None, "")
    ('< 2e-07 s', '> 7 dB', '1 … 2 Hz', '')
    """
    if low is None and high is None:
        return ""
    if low is None:
        return f"< {high:g} {unit}"
    return f"> {low:g} {unit}" if high is None else f"{low:g} … {high:g} {unit}"
