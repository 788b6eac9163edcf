"""Rows of results as a table: for the eye at a terminal, aligned text in a pipe, Markdown in a page."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

__all__ = ["Rows", "cell", "column_names", "markdown", "show", "text"]

Rows = Sequence[Mapping[str, Any]]


def cell(value: Any) -> str:
    """One value as a table shows it: four significant digits, a dash where there is nothing.

    >>> [cell(value) for value in (0.123456, 12345.6, 3, None, True, float("nan"))]
    ['0.1235', '12346', '3', '–', 'yes', '–']
    """
    if hasattr(value, "item") and getattr(value, "size", 2) == 1:
        value = value.item()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(cell(item) for item in value)
    return str(value)


def column_names(rows: Rows) -> list[str]:
    """Keys of all rows, in the order in which they first come."""
    return list(dict.fromkeys(key for row in rows for key in row))


def _numeric(rows: Rows, name: str) -> bool:
    values = [row.get(name) for row in rows if row.get(name) is not None]
    return bool(values) and all(not isinstance(value, str | bool | list | tuple) for value in values)


def text(rows: Rows) -> str:
    """Aligned columns of plain text, numbers to the right; never cut or wrapped.

    >>> print(text([{"model": "unet", "crps": 0.25}, {"model": "gan", "crps": None}]))
    model  crps
    unet   0.25
    gan       –
    """
    names = column_names(rows)
    lines = [names, *([cell(row.get(name)) for name in names] for row in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(names))]
    right = [_numeric(rows, name) for name in names]
    return "\n".join(
        "  ".join(
            part.rjust(width) if is_right else part.ljust(width)
            for part, width, is_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )


def markdown(rows: Rows) -> str:
    """The rows as a Markdown table.

    >>> print(markdown([{"model": "unet", "crps": 0.25}]))
    | model | crps |
    |---|---:|
    | unet | 0.25 |
    """
    names = column_names(rows)
    if not names:
        return ""

    def line(parts: Sequence[str]) -> str:
        return "| " + " | ".join(part.replace("|", "\\|").replace("\n", " ") for part in parts) + " |"

    rule = "|" + "|".join("---:" if _numeric(rows, name) else "---" for name in names) + "|"
    return "\n".join([line(names), rule, *(line([cell(row.get(name)) for name in names]) for row in rows)])


def show(rows: Rows, *, title: str = "", file: TextIO | None = None) -> None:
    """Print the rows: a drawn table at a terminal, aligned text elsewhere, nothing for no rows."""
    file = file or sys.stdout
    if not rows:
        return
    if not file.isatty():
        print("\n".join([title, text(rows)] if title else [text(rows)]), file=file)
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, box=SIMPLE_HEAD, title_justify="left")
    names = column_names(rows)
    for name in names:
        table.add_column(Text(name), justify="right" if _numeric(rows, name) else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell(row.get(name))) for name in names))
    Console(file=file).print(table)
