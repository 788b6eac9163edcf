"""The scores of all experts as a page, from their cards: `python docs/experts_pages/scores.py > PAGE`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from geoml.cli.tables import markdown
from mcp_experts.inference.registry import GATE, Registry
from mcp_experts.report.html import RIVALS, SETS

__all__ = ["page"]

Cards = Mapping[str, Mapping[str, Any]]
HEAD = """\
# Scores of the experts

Scores from the cards, written by `python docs/experts_pages/scores.py > docs/experts-scores.md`; a test compares. \
[Training](experts-training.md) defines the sets and the baselines. Every channel is answered: experts do not abstain \
here. Brackets hold 95 % intervals.
"""


def page() -> str:
    """The tables, in Markdown: agreement, accuracy, calibration, errors against coverage, and limits."""
    registry = Registry()
    cards = {expert.name: expert.card for expert in registry.classifiers}
    parts = [HEAD, "## Cohen's kappa", markdown(list(_compared(cards, "kappa")))]
    parts += ["## Accuracy", markdown(list(_compared(cards, "accuracy")))]
    parts += ["## Calibration and coverage", COVERAGE, markdown(list(_covered(cards)))]
    bounded = {name: card["likelihood_bound_tdl"] for name, card in cards.items() if "likelihood_bound_tdl" in card}
    parts += ["## Upper bound on tapped delay lines", markdown(list(_bounded(cards, bounded)))]
    gate = registry.expert(GATE).card["gate"]
    parts += ["## The gate", "Share of channels that the gate calls outside.", markdown(list(_outside(gate)))]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


COVERAGE = (
    "Expected calibration error over 15 bins; error rate among the most confident half, nine tenths, and all; share of "
    "prediction sets that hold the truth (nominal: 90 %), and share of channels with a class that is more likely than "
    "all others together, so that the expert does not abstain."
)


def _tested(cards: Cards) -> Iterator[tuple[dict[str, Any], Mapping[str, Any]]]:
    """First cells of a row, and scores, for each expert and each set with known truth."""
    for name, card in cards.items():
        for key, label in SETS.items():
            scores = card["metrics"].get(key, "not measured")
            if not isinstance(scores, str):
                yield {"task": name, "tested": label, "channels": scores["channels"]}, scores


def _compared(cards: Cards, score: str) -> Iterator[dict[str, Any]]:
    for row, scores in _tested(cards):
        for rival, label in RIVALS.items():
            value, (low, high) = scores[rival][score], scores[rival][f"{score}_95"]
            row[label] = f"{value:.3f} [{low:.3f}, {high:.3f}]"
        yield row


def _covered(cards: Cards) -> Iterator[dict[str, Any]]:
    for row, scores in _tested(cards):
        risk = scores["risk_at_coverage"]
        yield row | {
            "calibration error": f"{scores['calibration_error']:.3f}",
            **{f"error rate at {share:.0%}": f"{risk[f'{share:g}']:.3f}" for share in (0.5, 0.9, 1.0)},
            "truth in set": f"{scores['set_coverage']:.3f}",
            "answered": f"{scores['answered']:.3f}",
        }


def _bounded(cards: Cards, bounds: Cards) -> Iterator[dict[str, Any]]:
    for name, bound in bounds.items():
        own = cards[name]["metrics"]["in_distribution"]["by_generator"]["tdl"]["kappa"]
        low, high = bound["kappa_95"]
        limit = f"{bound['kappa']:.3f} [{low:.3f}, {high:.3f}]"
        yield {"task": name, "kappa on tdl": f"{own:.3f}", "of the exact posterior, with more information": limit}


def _outside(gate: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    sets = {"unseen channels": gate["test"], "held-out city": gate["held_out_city"], **gate["spoilt"]}
    for name, found in sets.items():
        if not isinstance(found, str):
            yield {"channels": name, "outside": f"{found['outside']:.3f}"}


if __name__ == "__main__":
    print(page(), end="")
