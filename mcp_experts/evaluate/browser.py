"""A run of `mcp-experts evaluate` as sections of a report for the browser: accuracies by task and arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from geoml.report import Block, Chart, Report, Section, Table, Text
from geoml.report.figures import Plot, PlotAxis, Series, Subplot, offset
from geoml.report.palette import colours
from geoml.runs.folder import RunFolder

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


def _figure(rows: Sequence[Mapping[str, Any]], arms: Mapping[str, str]) -> Plot:
    """Accuracy by task, one colour per arm."""
    tasks = list(dict.fromkeys(str(row["task"]) for row in rows))
    present = [arm for arm in arms if any(row["arm"] == arm for row in rows)]
    palette = colours(list(arms))
    series = []
    for number, arm in enumerate(present):
        own = [row for row in rows if row["arm"] == arm]
        x = [tasks.index(row["task"]) + offset(number, len(present)) for row in own]
        y, low, high = ([row[name] for row in own] for name in ("accuracy", "low_95", "high_95"))
        texts = [row["task"] for row in own]
        series.append(Series(f"{arm} {arms[arm]}", x, y, palette[arm], "points", low, high, texts=texts))
    return Plot([Subplot(series, PlotAxis(names=tasks), PlotAxis("accuracy", (0, 1)))])


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
