"""The faults that tests inject, as a table: `python -m tests.faults`, or `--page` to write it into the documentation.

Read from `@pytest.mark.fault(name, outcome)`.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent.parent


def faults() -> Iterator[tuple[str, str, str]]:
    """`(fault, what happens, test)` of every marked test."""
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                for mark in node.decorator_list:
                    if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.fault":
                        name, outcome = (ast.literal_eval(argument) for argument in mark.args)
                        yield name, outcome, f"{path.relative_to(TESTS)}::{node.name}"


PAGE = TESTS.parent / "docs" / "faults.md"
INTRODUCTION = """# Faults and their outcomes

Each row is a test that injects the fault. The outcome is the correct result, or one error that names file and cause.

"""


def table() -> str:
    """The table and the count."""
    rows = sorted(faults())
    lines = ["| fault | what happens | test |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join([*lines, "", f"{len(rows)} faults", ""])


if __name__ == "__main__":
    if "--page" in sys.argv[1:]:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(INTRODUCTION + table())
    else:
        print(table(), end="")
