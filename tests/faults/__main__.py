"""The faults that tests inject, as a table: `python -m tests.faults`. Read from `@pytest.mark.fault(name, outcome)`."""

from __future__ import annotations

import ast
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


def main() -> None:
    """Print the table and the count."""
    rows = sorted(faults())
    print("| fault | what happens | test |\n|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(f"\n{len(rows)} faults")


if __name__ == "__main__":
    main()
