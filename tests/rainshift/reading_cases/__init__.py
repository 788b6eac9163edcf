"""Files of rain as people write them, and what is read of each: `python -m tests.rainshift.reading_cases [--page]`."""

from __future__ import annotations

from pathlib import Path

from tests.rainshift.pair_cases import pair_rows
from tests.rainshift.reading_cases import dimensions, formats, grids, intervals, missing, times, units  # noqa: F401
from tests.rainshift.reading_cases.base import CASES, RAIN, Case, dataset

__all__ = ["CASES", "INTRODUCTION", "PAGE", "RAIN", "Case", "dataset", "table"]

PAGE = Path(__file__).parents[3] / "docs" / "reading.md"
INTRODUCTION = """# What can be read, and how

Each row is a file that a test writes and `data=gridded` reads, or refuses with an error that names the file, the cause
and the way out. Rates are stored in mm/h. `rainshift predict input=` reads coarse fields from the same files, and every
place may be a URL (`s3://`, `https://`), whose files are copied once.

"""
PAIRS = (
    "With `data=pair`, fine rain and coarse predictors are separate files, of any kind in the table above. "
    "Values are held against a closed form:"
)
#: The order of the page.
KINDS = ("format", "unit", "interval", "time", "missing", "value", "dimension", "grid")


def table() -> str:
    """The cases as a table."""
    lines = ["| kind | file | what is read |", "|---|---|---|"]
    ordered = sorted(CASES, key=lambda row: KINDS.index(row.kind))
    lines += [f"| {row.kind} | {row.what} | {row.how} |" for row in ordered]
    lines += ["", f"{len(CASES)} files", "", PAIRS, "", "| what | files | what is made of them |", "|---|---|---|"]
    return "\n".join([*lines, *pair_rows(), ""])
