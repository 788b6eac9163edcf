"""Render blocks to one self-contained HTML file."""

from __future__ import annotations

import base64
import itertools
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from geoml.cli.tables import cell, column_names
from geoml.report.blocks import Block, Chart, Report, Table, Text, Viewer, ViewerField
from geoml.report.figures import Plot
from geoml.report.plotly_figures import plotly_figure
from geoml.runs.files import atomic_path

__all__ = ["anchor", "render", "write_report"]

#: Levels of a quantised field, evenly spaced between its minimum and maximum: 16 bits per cell.
LEVELS = 65_533
SOLID, UNKNOWN = 65_534, 65_535


def write_report(report: Report, path: str | os.PathLike[str]) -> Path:
    """Write the report as one HTML file atomically; returns its path.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> write_report(Report("Nothing yet", "An empty report."), folder / "index.html").name
    'index.html'
    """
    path = Path(path)
    with atomic_path(path) as partial:
        partial.write_text(render(report), encoding="utf-8")
    return path


def render(report: Report) -> str:
    """The report as HTML."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    assets = resources.files("geoml.report") / "assets"

    def asset(name: str) -> str:
        return (assets / name).read_text(encoding="utf-8")

    environment = Environment(
        loader=FunctionLoader(asset), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    drawn = any(isinstance(block, Chart | Viewer) for section in report.sections for block in section.blocks)
    names: dict[str, int] = {}
    sections = [
        {
            "id": anchor(f"{section.group} {section.title}", names),
            "title": section.title,
            "blocks": [_view(block) for block in section.blocks],
        }
        for section in report.sections
    ]
    groups = [
        (name, [sections[number] for number, _ in members])
        for name, members in itertools.groupby(enumerate(report.sections), lambda item: item[1].group)
    ]
    return environment.get_template("page.html").render(
        title=report.title,
        summary=report.summary,
        groups=groups,
        style=Markup(asset("page.css")),
        script=Markup(asset("page.js")),
        plotly=Markup(get_plotlyjs()) if drawn else "",
    )


def anchor(title: str, taken: dict[str, int]) -> str:
    """HTML anchor of a title: its letters and digits, with a number if the anchor already exists."""
    name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section"
    taken[name] = taken.get(name, 0) + 1
    return name if taken[name] == 1 else f"{name}-{taken[name]}"


def _view(block: Block) -> dict[str, Any]:
    """The template's variables of a block."""
    if isinstance(block, Text):
        paragraphs = [part.strip() for part in block.text.split("\n\n") if part.strip()]
        return {"kind": block.kind, "text": block.text, "paragraphs": paragraphs}
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Chart):
        if isinstance(block.figure, Plot):
            figure = plotly_figure(block.figure)
        else:
            figure = json.loads(block.figure.to_json())
            # The page's script sets light or dark colours; a Plotly template would override them.
            figure["layout"].pop("template", None)
        return {"kind": "chart", "data": _json(figure), "alt": block.alt, "caption": block.caption}
    return {"kind": "viewer", "data": _json(_viewer(block)), "axes": block.axes, "alt": block.alt,
            "caption": block.caption}  # fmt: skip


def _table(block: Table) -> dict[str, Any]:
    names = column_names(block.rows)
    rows = [[_cell(row.get(name)) for name in names] for row in block.rows]
    numeric = [_is_numeric(column) for column in zip(*rows, strict=True)]
    columns = [{"name": name, "numeric": number} for name, number in zip(names, numeric or [False], strict=False)]
    head = {"kind": "table", "caption": block.caption, "sort": block.sort, "folded": block.folded}
    return head | {"columns": columns, "rows": rows}


def _is_numeric(column: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a column has values and all of them are numbers."""
    known = [entry for entry in column if entry["shown"] != "–"]
    return bool(known) and all(entry["key"] is not None for entry in known)


def _cell(value: Any) -> dict[str, Any]:
    """A value as shown and its sort key: the number that it begins with, if any."""
    shown = cell(value)
    key: float | None = None
    if isinstance(value, int | float | np.number) and not isinstance(value, bool):
        key = float(value)
    elif found := re.match(r"[-+]?\d+(\.\d+)?([eE][-+]?\d+)?(?=$|[ %\[])", shown):
        key = float(found.group())
    return {"shown": shown, "key": key if key is not None and math.isfinite(key) else None}


def _viewer(block: Viewer) -> dict[str, Any]:
    return {
        "axes": [{"name": axis.name, "values": list(axis.values)} for axis in block.axes],
        "panels": [
            {
                "name": panel.name,
                "unit": panel.unit,
                "colours": _scale(panel.colours),
                "low": panel.low,
                "high": panel.high,
                "bounds": list(panel.bounds),
                "under": panel.under,
                "labels": list(panel.labels),
                "modality": panel.modality,
            }
            for panel in block.panels
        ],
        "fields": [_packed(field) for field in block.fields],
        "xTitle": block.x_title,
        "yTitle": block.y_title,
        "aspect": block.aspect,
    }


def _scale(name: str) -> list[Any]:
    """Colour stops of a named colour scale."""
    from plotly.colors import get_colorscale

    return [list(stop) for stop in get_colorscale(name)]


def _packed(field: ViewerField) -> dict[str, Any]:
    """A field as base64 with 16 bits per cell, finer than any screen shows."""
    values = np.asarray(field.values, np.float64)
    known = np.isfinite(values)
    low, high = (float(values[known].min()), float(values[known].max())) if known.any() else (0.0, 0.0)
    step = (high - low) / LEVELS or 1.0
    packed = np.where(known, np.round((np.where(known, values, low) - low) / step), UNKNOWN).astype("<u2")
    if field.solid is not None:
        packed[np.asarray(field.solid, bool)] = SOLID
    return {
        "panel": field.panel,
        "place": dict(field.place),
        "shape": list(values.shape),
        "low": low,
        "step": step,
        "packed": base64.b64encode(packed.tobytes()).decode("ascii"),
        "x": _axis(field.x),
        "y": _axis(field.y),
        "solid": field.solid is not None and bool(np.any(field.solid)),
        "marks": [list(map(float, mark)) for mark in field.marks],
    }


def _axis(values: Any) -> dict[str, float]:
    """First value and step of evenly spaced coordinates."""
    line = np.asarray(values, np.float64)
    step = float((line[-1] - line[0]) / (len(line) - 1)) if len(line) > 1 else 1.0
    return {"first": round(float(line[0]), 6), "step": round(step, 9)}


def _json(value: Mapping[str, Any] | Sequence[Any]) -> Any:
    """JSON that is safe within a script element: it cannot contain `</script>`."""
    from markupsafe import Markup

    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
