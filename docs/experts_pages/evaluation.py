"""An evaluation as a page, from its run folder: `python docs/experts_pages/evaluation.py RUN > PAGE`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from geoml.cli.tables import markdown
from geoml.runs.folder import RunFolder

__all__ = ["page"]

HEAD = """\
# What the experts add

`mcp-experts evaluate` asked {count} frozen questions per task; `python docs/experts_pages/evaluation.py RUN > \
docs/experts-evaluation.md` writes this page. Classes are as balanced as the channels allow, every question is \
answered, and intervals are 95 %. Arms without a language model: {arms}. {left}

Questions `{questions}`, experts `{experts}`.
"""
LEFT = "{names} need a language model and were not run: no endpoint was available."


def page(summary: Mapping[str, Any]) -> str:
    """The tables of a summary of `mcp-experts evaluate`, in Markdown."""
    left = summary["left_out"]
    head = HEAD.format(
        count=max(row["n"] for row in summary["table"]),
        arms="; ".join(f"{arm} {about}" for arm, about in summary["arms"].items() if arm not in left),
        left=LEFT.format(names=", ".join(left)) if left else "",
        questions=summary["questions_sha256"][:12],
        experts=summary["experts_sha256"][:12],
    )
    rows: dict[str, dict[str, Any]] = {}
    for row in summary["table"]:
        entry = rows.setdefault(row["task"], {"task": row["task"]})
        entry[row["arm"]] = f"{row['accuracy']:.3f} [{row['low_95']:.3f}, {row['high_95']:.3f}]"
    parts = [head, "## Accuracy", markdown(list(rows.values()))]
    if summary["comparison"]:
        parts += ["## With and without experts", markdown(summary["comparison"])]
    passed = sum(summary["conformance"].values())
    parts += [
        "## The server",
        f"{passed} of {len(summary['conformance'])} checks of the protocol passed, in both eras.",
    ]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


if __name__ == "__main__":
    print(page(RunFolder.load(sys.argv[1]).summary), end="")
