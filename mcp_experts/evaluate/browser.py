"""A run of `mcp-experts evaluate` as sections of a report for the browser: accuracies by task and arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoml.report import Block, Chart, Report, Section, Table, Text
from geoml.report.palette import colours
from geoml.runs.folder import RunFolder

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["EXCHANGES", "report"]

#: File of the answers of a run, which identifies its folder.
EXCHANGES = "exchanges.jsonl"
COMPARED = "A5 against A3: points gained, McNemar's p, and the gain relative to that of the experts alone (A7) over A3"


def report(path: Path) -> Report | None:
    """The report of the folder of a run of `evaluate`; None for any other folder.

    Raises `DataError` for an unfinished run.
    """
    if not (path / EXCHANGES).exists():
        return None
    summary = RunFolder.load(path).summary
    arms: Mapping[str, str] = summary["arms"]
    rows: Sequence[Mapping[str, Any]] = summary["table"]
    sections = [Section("Accuracy", _shares(rows, arms, summary["left_out"]))]
    if summary["comparison"]:
        sections.append(Section("With and without experts", [Table(list(summary["comparison"]), COMPARED)]))
    sections.append(Section("The server", _server(summary)))
    return Report(
        "What the experts add",
        f"Frozen questions {summary['questions_sha256'][:12]}, experts {summary['experts_sha256'][:12]}; classes are "
        "as balanced as the channels allow, every question is answered, and intervals are 95 %.",
        sections,
    )


def _shares(rows: Sequence[Mapping[str, Any]], arms: Mapping[str, str], left_out: Sequence[str]) -> list[Block]:
    shown = [{"task": row["task"], "arm": row["arm"], "who": arms[row["arm"]]} | _without(row) for row in rows]
    blocks: list[Block] = [
        Chart(_figure(rows, arms), "Share of questions answered correctly", "Bars are intervals of 95 %."),
        Table(shown, "Every task and arm"),
    ]
    if left_out:
        text = f"Not run, since no language model was set in the environment: {', '.join(left_out)}."
        blocks.insert(0, Text(text, "note"))
    return blocks


def _without(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in ("task", "arm")}


def _figure(rows: Sequence[Mapping[str, Any]], arms: Mapping[str, str]) -> Figure:
    """Tasks on the vertical axis, accuracy on the horizontal axis, one colour per arm."""
    from plotly.graph_objects import Figure

    figure = Figure()
    palette = colours(list(arms))
    present = [arm for arm in arms if any(row["arm"] == arm for row in rows)]
    for arm in present:
        own = [row for row in rows if row["arm"] == arm]
        figure.add_scatter(
            x=[row["accuracy"] for row in own], y=[row["task"] for row in own], mode="markers", orientation="h",
            name=f"{arm} {arms[arm]}", marker={"color": palette[arm], "size": 9},
            error_x={"type": "data", "array": [row["high_95"] - row["accuracy"] for row in own],
                     "arrayminus": [row["accuracy"] - row["low_95"] for row in own]},
        )  # fmt: skip
    tasks = len({row["task"] for row in rows})
    figure.update_xaxes(title="accuracy", range=[0, 1])
    figure.update_yaxes(autorange="reversed", automargin=True)
    legend = {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0}
    figure.update_layout(
        height=160 + 34 * tasks, margin={"t": 30 + 22 * len(present), "r": 10}, legend=legend, scattermode="group"
    )
    return figure


def _server(summary: Mapping[str, Any]) -> list[Block]:
    checks: Mapping[str, bool] = summary["conformance"]
    failed = [name for name, well in checks.items() if not well]
    text = f"{len(checks) - len(failed)} of {len(checks)} checks of the protocol passed, in both of its eras."
    latency = [{"call": name.removesuffix("_ms"), "ms": value} for name, value in summary["latency"].items()]
    listed = [{"check": name, "passed": "yes" if well else "no"} for name, well in checks.items()]
    return [
        Text(f"{text} Failed: {', '.join(failed)}." if failed else text),
        Table(latency, "Milliseconds of a call, median and 99th percentile, through a client in the same process"),
        Table(listed, "The checks", folded=True),
    ]
