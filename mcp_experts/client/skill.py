"""`mcp-experts skill`: instructions for a language model that asks the experts, as a SKILL.md."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

__all__ = ["SKILL", "skill"]

SKILL = Path(__file__).with_name("SKILL.md")


def skill(arguments: Sequence[str]) -> int:
    """Print the page; clients that support skills read it from their folder of skills."""
    parser = argparse.ArgumentParser(
        prog="mcp-experts skill",
        description="Print a SKILL.md: which question to ask, how to read an abstention, what not to conclude.",
    )
    parser.parse_args(arguments)
    print(SKILL.read_text(encoding="utf-8"), end="")
    return 0
