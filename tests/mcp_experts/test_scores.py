"""The scores in the docs are those of the cards that are installed."""

from pathlib import Path

from mcp_experts.client.scores import page

PAGE = Path(__file__).parents[2] / "docs" / "experts-scores.md"


def test_the_page_holds_what_the_cards_hold():
    assert page() == PAGE.read_text(), "python -m mcp_experts.client.scores > " + str(PAGE)
