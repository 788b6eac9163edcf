"""Format rows of results: drawn table at a terminal, aligned text in a pipe, Markdown in a page, HTML in a notebook."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO, overload

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["DataTable", "Rows", "cell", "column_names", "markdown", "show", "text"]

Rows = Sequence[Mapping[str, Any]]


def cell(value: Any) -> str:
    """A value as text: four significant digits, a dash for missing values.

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
    """Keys of all rows in order of first appearance."""
    return list(dict.fromkeys(key for row in rows for key in row))


def _numeric(rows: Rows, name: str) -> bool:
    values = [row.get(name) for row in rows if row.get(name) is not None]
    return bool(values) and all(not isinstance(value, str | bool | list | tuple) for value in values)


def text(rows: Rows) -> str:
    """Aligned columns of plain text, numbers right-aligned, without truncation or wrapping.

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
    """Print the rows: a drawn table at a terminal, aligned text elsewhere, nothing if there are none."""
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


class DataTable(Sequence[Mapping[str, Any]]):
    """A sequence of rows that is displayed as a table, also in a notebook; does not need pandas.

    `table[0]` is a row, `table["name"]` a column, `to_pandas()` a data frame.

    >>> table = DataTable([{"region": "melanesia", "lat_min": -15.0}, {"region": "caribbean", "lat_min": 5.0}])
    >>> table
    region     lat_min
    melanesia      -15
    caribbean        5
    >>> table["lat_min"], len(table), table[1]["region"]
    ((-15.0, 5.0), 2, 'caribbean')
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self._rows = tuple(dict(row) for row in rows)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(column_names(self._rows))

    @overload
    def __getitem__(self, key: int) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, key: slice) -> DataTable: ...
    @overload
    def __getitem__(self, key: str) -> tuple[Any, ...]: ...
    def __getitem__(self, key: int | slice | str) -> Any:
        if isinstance(key, str):
            if key not in self.columns:
                raise KeyError(f"no column {key!r} among {', '.join(self.columns)}")
            return tuple(row.get(key) for row in self._rows)
        return DataTable(self._rows[key]) if isinstance(key, slice) else self._rows[key]

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return text(self._rows)

    def _repr_html_(self) -> str:
        from html import escape

        names = self.columns
        head = "".join(f"<th>{escape(name)}</th>" for name in names)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(cell(row.get(name)))}</td>" for name in names) + "</tr>"
            for row in self._rows
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def to_pandas(self) -> pd.DataFrame:
        """The table as a data frame; needs pandas, which comes with xarray."""
        import pandas as pd

        return pd.DataFrame(self._rows)
