"""Sections of the report for a browser: cards of experts, their scores and limits, and evaluations."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from geoml.errors import DataError
from geoml.report import Block, Chart, Report, Section, Table, Text
from geoml.report.figures import Plot, PlotAxis, Series, Subplot
from geoml.report.palette import OKABE_ITO, colours
from geoml.runs.files import read_json, text_within
from mcp_experts.evaluate.browser import report as evaluation
from mcp_experts.inference.registry import CARD

__all__ = ["report"]

#: Output of `python docs/experts_pages/transcript.py`, in a separate folder.
SESSION = "session.md"
#: Output of `python docs/experts_pages/live_question.py`, in the same folder, where a model is installed.
LIVE = "live.md"
EXPERTS = Path(__file__).parents[1] / "experts"
#: Sets of test channels: name in cards, name on pages.
SETS = {
    "in_distribution": "in distribution",
    "held_out_city": "held-out city",
    "held_out_generator": "held-out generator: ray-traced",
    "held_out_standard": "held-out generator: TR 38.901",
}
RIVALS = {
    "majority": "most frequent",
    "classical": "classical",
    "boosted_classical": "boosted classical",
    "expert": "expert",
}
#: Sets of test channels with curves.
DRAWN = ("in_distribution", "held_out_generator")


def report(path: str | os.PathLike[str]) -> Report | None:
    """The report of a folder of experts, each in a folder with its card, or of one such folder; otherwise None.

    The report of a folder with a session shows the session and the experts of this distribution; that of a run of
    `evaluate` shows its results.

    Raises `DataError` for a file that is not a card in JSON, and for an unfinished run.
    """
    path, sections = Path(path), []
    if (found := evaluation(path)) is not None:
        return found
    if (path / SESSION).exists():
        text = text_within(path, SESSION).partition("```text\n")[2].partition("\n```")[0]
        head = "Messages of a client (→) and of the server of the experts (←)."
        sections = [Section("A session over MCP", [Text(head), Text(text, "code")])]
        if (path / LIVE).exists():
            sections.append(Section("A question to a live model", [Text(text_within(path, LIVE), "code")]))
        path = EXPERTS
    files = sorted(path.glob(f"*/{CARD}")) or ([path / CARD] if (path / CARD).exists() else [])
    if not files:
        return None
    cards = [_read(file) for file in files]
    sections.append(Section("Experts and baselines", _comparison(cards)))
    if figure := _risk(cards):
        caption = "Error rate among the answers given when the least confident ones are left out."
        sections.append(Section("Risk and coverage", [Chart(figure, "Error rate against share answered", caption)]))
    sections += [Section(card["task"], _card(card)) for card in cards]
    return Report(
        "Wireless experts",
        "Small trained experts that answer over MCP. Labels are parameters of the channel generators; intervals are 95 "
        "%.",
        sections,
    )


def _read(file: Path) -> dict[str, Any]:
    card = read_json(file)
    if not isinstance(card, dict) or not {"name", "task"} <= card.keys():
        raise DataError(f"{file} is not an expert's card: name or task missing; train the expert again")
    return card


def _sets(card: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The sets with scores in a card; none for the gate, which is not a classifier."""
    return {
        key: found
        for key in SETS
        if isinstance(found := card.get("metrics", {}).get(key), Mapping) and "expert" in found
    }


def _comparison(cards: Sequence[Mapping[str, Any]]) -> list[Block]:
    rows = []
    for card in cards:
        for key, found in _sets(card).items():
            row: dict[str, Any] = {"expert": card["name"], "tested": SETS[key], "channels": found.get("channels")}
            for rival, label in RIVALS.items():
                if "kappa" in (scores := found.get(rival) or {}):
                    row[f"κ, {label}"] = _interval(scores["kappa"], scores.get("kappa_95"))
            rows.append(row | {"calibration error": found.get("calibration_error")})
    caption = "Cohen's κ at full coverage: 0 is chance, 1 is always right; calibration error over 15 bins"
    return [Table(rows, caption, sort="expert")]


def _interval(value: float, bounds: Sequence[float] | None) -> str:
    return f"{value:.2f}" if not bounds else f"{value:.2f} [{bounds[0]:.2f}, {bounds[1]:.2f}]"


def _risk(cards: Sequence[Mapping[str, Any]]) -> Plot | None:
    palette = colours([str(card["name"]) for card in cards])
    parts = []
    for key in DRAWN:
        lines = []
        for number, (name, card) in enumerate(zip(palette, cards, strict=True)):
            if curve := _sets(card).get(key, {}).get("risk_at_coverage"):
                shares, dashed = [float(share) for share in curve], number >= len(OKABE_ITO)
                lines.append(Series(name, shares, list(curve.values()), palette[name], "both", dashed=dashed))
        y = PlotAxis("error rate", (0, None))
        parts.append(Subplot(lines, PlotAxis("share answered"), y, SETS[key]))
    return Plot(parts, 2, 400) if any(part.content for part in parts) else None


def _card(card: Mapping[str, Any]) -> list[Block]:
    blocks: list[Block] = [Text(str(card.get("purpose", "")))]
    if card.get("limits"):
        blocks.append(Text(f"Limits: {card['limits']}", "note"))
    bands = {SETS[key]: found["by_snr_db"] for key, found in _sets(card).items() if found.get("by_snr_db")}
    rows = [{"tested": label, **{f"{band} dB": share for band, share in by.items()}} for label, by in bands.items()]
    if rows:
        blocks.append(Table(rows, "Accuracy by signal-to-noise ratio"))
    facts = [
        {"what": key, "value": value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}
        for key, value in card.items()
        if key not in ("metrics", "purpose", "limits", "task")
    ]
    return [*blocks, Table(facts, "Other entries of the card", folded=True)]
