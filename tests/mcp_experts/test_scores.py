"""The scores in the docs are those of the cards and the experts that are installed."""

from pathlib import Path

from docs.experts_pages.evaluation import page as evaluation_page
from docs.experts_pages.scores import page
from mcp_experts.evaluate.questions import load_questions
from mcp_experts.inference.registry import Registry

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "experts-scores.md"


def test_the_page_holds_what_the_cards_hold():
    assert page() == PAGE.read_text(), "python docs/experts_pages/scores.py > " + str(PAGE)


def test_the_evaluation_is_of_these_questions_and_experts():
    registry = Registry()
    origin = f"Questions `{load_questions(registry).digest[:12]}`, experts `{registry.digest[:12]}`."
    assert origin in (DOCS / "experts-evaluation.md").read_text(), "mcp-experts evaluate; " + evaluation_page.__module__


def test_a_page_says_what_was_left_out():
    row = {"task": "los", "n": 300, "low_95": 0.4, "high_95": 0.6}
    summary = {
        "questions_sha256": "a" * 64,
        "experts_sha256": "b" * 64,
        "arms": {"A0": "the most frequent answer", "A5": "language model with the experts over MCP"},
        "left_out": ["A5"],
        "table": [row | {"arm": "A0", "accuracy": 0.5}],
        "comparison": [],
        "conformance": {"one": True, "other": False},
    }
    text = evaluation_page(summary)
    assert "| los | 0.500 [0.400, 0.600] |" in text
    assert "A5 need a language model and were not run" in text
    assert "1 of 2 checks" in text
