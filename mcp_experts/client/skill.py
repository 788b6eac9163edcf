"""`mcp-experts skill`: what a language model should know before it asks the experts, as a SKILL.md."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

__all__ = ["SKILL", "skill"]

SKILL = Path(__file__).with_name("SKILL.md")


def skill(arguments: Sequence[str]) -> int:
    """Print the page; clients with skills read it from a folder of their own."""
    parser = argparse.ArgumentParser(
        prog="mcp-experts skill",
        description="Print a SKILL.md: when to ask what, how to read an abstention, what not to conclude.",
    )
    parser.parse_args(arguments)
    print(SKILL.read_text(encoding="utf-8"), end="")
    return 0
