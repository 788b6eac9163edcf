"""Pooling of the cross-validation blocks of a record: plan and scores of the complete record."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from geoml.metrics import Suite
from rainshift.benchmarking.plan import BenchmarkPlan, Cell
from rainshift.data.archive import FOLD
from rainshift.evaluation import Scores
from rainshift.training import TrainSet

__all__ = ["counted_records", "pooled", "pooled_scores"]

NUMBERS = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]


def pooled(made: BenchmarkPlan, folds: Mapping[str, Sequence[str]]) -> tuple[BenchmarkPlan, dict[Cell, Cell]]:
    """Join the blocks of each record in a plan.

    Returns the plan of complete records, and the mapping from cells of `made` to its cells.
    """
    record = {part: name for name, parts in folds.items() for part in parts}
    sizes = {
        name: sum(s.samples for s in {c.train_set for c in made.cells if c.test_region in parts} if s is not None)
        for name, parts in folds.items()
    }
    into, inside = {}, dict(made.inside)
    for cell in made.cells:
        name = record.get(cell.test_region)
        if name is None:
            into[cell] = cell
            continue
        train_set = None if cell.train_set is None else TrainSet((name,), sizes[name])
        into[cell] = Cell(cell.model, train_set, name, cell.seed)
        if train_set is not None:
            inside[name] = train_set
    return BenchmarkPlan(tuple(dict.fromkeys(into.values())), made.outside, inside, made.alone), into


def pooled_scores(
    made: BenchmarkPlan,
    scores: Mapping[Cell, Scores],
    folds: Mapping[str, Sequence[str]],
    suite: Suite,
    temporal: Suite | None = None,
) -> tuple[BenchmarkPlan, dict[Cell, Scores]]:
    """Join plan and scores over the blocks of each record. A record has no score if one of its blocks has none."""
    whole_plan, into = pooled(made, folds)
    parts: dict[Cell, list[Cell]] = defaultdict(list)
    for cell, whole in into.items():
        parts[whole].append(cell)
    joined = {}
    for whole, cells in parts.items():
        found = [scores[cell] for cell in cells if cell in scores]
        if len(found) == len(cells):
            joined[whole] = found[0] if len(found) == 1 else Scores.joined(found, suite, temporal)
    return whole_plan, joined


def counted_records(made: BenchmarkPlan) -> str:
    """Return the page heading of a benchmark with the automatic protocol.

    >>> counted_records(BenchmarkPlan((Cell("bilinear", None, "storm@0"), Cell("bilinear", None, "storm@1"))))
    'One record, not a climate'
    """
    count = len({cell.test_region.partition(FOLD)[0] for cell in made.cells})
    word = NUMBERS[count] if count < len(NUMBERS) else str(count)
    return f"{word} records, not climates".capitalize() if count != 1 else "One record, not a climate"
