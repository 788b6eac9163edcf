"""The blocks of a record that was cut into folds, joined to one record again."""

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
    """The plan with the blocks of each record as one, and which cell of it each cell goes into."""
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
    """The plan and the scores of records; a model that lacks the score of a block has none of the record."""
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
    """The heading of a benchmark of records.

    >>> counted_records(BenchmarkPlan((Cell("bilinear", None, "storm@0"), Cell("bilinear", None, "storm@1"))))
    'One record, not a climate'
    """
    count = len({cell.test_region.partition(FOLD)[0] for cell in made.cells})
    word = NUMBERS[count] if count < len(NUMBERS) else str(count)
    return f"{word} records, not climates".capitalize() if count != 1 else "One record, not a climate"
