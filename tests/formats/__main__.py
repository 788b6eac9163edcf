"""The formats and kinds of files that scenes are read from, as a table: `python -m tests.formats`, or `--page`.

`--page` writes it into the documentation. Every row is a case of `test_formats.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.formats.cases import CASES

PAGE = Path(__file__).parent.parent.parent / "docs" / "howto" / "scene-formats.md"
INTRODUCTION = """# What scene files may hold

What [your file](own-scene.md) may hold, and what a scene takes from it. Each row is a test. What is replaced
or left out is counted, with examples, under `repairs` of `radiomaps scenes scene=FILE`, in `scene.repairs` in Python,
and in the record of the scene in every store.

"""


def table() -> str:
    """The tables, one a format, and the count."""
    parts = []
    for form in dict.fromkeys(case.form for case in CASES):
        rows = [f"| {case.kind} | {case.outcome} |" for case in CASES if case.form == form]
        parts.append("\n".join([f"## {form}", "", "| a file with | is read as |", "|---|---|", *rows, ""]))
    return "\n".join([*parts, f"{len(CASES)} kinds", ""])


if __name__ == "__main__":
    if "--page" in sys.argv[1:]:
        PAGE.write_text(INTRODUCTION + table())
    else:
        print(table(), end="")
