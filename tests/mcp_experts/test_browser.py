"""The page of the experts' cards holds what the cards hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import mcp_experts.experts
from geoml.errors import DataError
from geoml.report import Chart, Table
from geoml.report.page import render
from mcp_experts.__main__ import main
from mcp_experts.report.html import report

EXPERTS = Path(mcp_experts.experts.__file__).parent
CARDS = {file.parent.name: json.loads(file.read_text()) for file in EXPERTS.glob("*/card.json")}


def test_every_card_has_a_row_for_each_set_it_was_scored_on() -> None:
    page = report(EXPERTS)
    assert page is not None
    table = page.sections[0].blocks[0]
    assert isinstance(table, Table)
    shown = {(row["expert"], row["tested"]): row for row in table.rows}
    for name, card in CARDS.items():
        found = card.get("metrics", {}).get("in_distribution", {})
        if "expert" not in found:  # the gate, which answers no question of its own
            assert name == "ood"
            continue
        row = shown[name, "in distribution"]
        assert row["κ, expert"].startswith(f"{found['expert']['kappa']:.2f} [")
        assert row["calibration error"] == found["calibration_error"]
    curves = page.sections[1].blocks[0]
    assert isinstance(curves, Chart)
    assert {line.name for part in curves.figure.subplots for line in part.content} <= set(CARDS)
    assert render(page)


def test_a_session_stands_before_the_cards(tmp_path) -> None:
    (tmp_path / "session.md").write_text(
        "# A session\n\n```text\n→ tools/list\n\n← wireless_los: <Line of sight>\n```\n"
    )
    page = report(tmp_path)
    assert page is not None
    assert page.sections[0].blocks[1].text == "→ tools/list\n\n← wireless_los: <Line of sight>"
    assert [section.title for section in page.sections[1:3]] == ["Experts and baselines", "Risk and coverage"]
    assert "← wireless_los: &lt;Line of sight&gt;</pre>" in render(page)


def test_one_expert_alone_and_what_is_none(tmp_path) -> None:
    page = report(EXPERTS / "los")
    assert page is not None
    assert [section.title for section in page.sections][-1] == CARDS["los"]["task"]
    assert report(tmp_path) is None
    (tmp_path / "card.json").write_text("{}")
    with pytest.raises(DataError, match="is not an expert's card"):
        report(tmp_path)


def test_an_evaluation_shows_who_was_right_and_who_was_left_out(tmp_path, monkeypatch) -> None:
    for name in ("OPENAI_MODEL", "ANTHROPIC_MODEL"):
        monkeypatch.delenv(name, raising=False)
    run = tmp_path / "run"
    words = ["evaluate", "arms=[A0,A3,A7]", "tasks=[los,snr]", "questions=20", f"run.dir={run}"]
    assert main(words) == 0
    page = report(run)
    assert page is not None
    left_out, chart, table = page.sections[0].blocks
    assert left_out.text == "Not run, since no language model was set in the environment: A3."
    assert isinstance(chart, Chart)
    assert isinstance(table, Table)
    rows = json.loads((run / "summary.json").read_text())["table"]
    assert [(row["task"], row["arm"], row["accuracy"]) for row in table.rows] == [
        (row["task"], row["arm"], row["accuracy"]) for row in rows
    ]
    (subplot,) = chart.figure.subplots
    drawn = {line.name[:2]: dict(zip(line.texts, line.y, strict=True)) for line in subplot.content}
    assert drawn == {arm: {row["task"]: row["accuracy"] for row in rows if row["arm"] == arm} for arm in ("A0", "A7")}
    assert "checks of the protocol passed" in render(page)
    (run / "summary.json").unlink()
    with pytest.raises(DataError, match="the same command resumes it"):
        report(run)
