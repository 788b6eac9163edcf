"""The tables of a benchmark: scores, the gap between splits, use of inputs, and active observations."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoml.metrics.base import ratio
from geoml.report import write_pages
from geoml.runs.files import write_json
from geoml.runs.folder import jsonable
from radiomaps.benchmarking.run import PLAIN
from radiomaps.report.html import TABLES, report
from radiomaps.scores.physical import QUANTITIES

if TYPE_CHECKING:
    from radiomaps.benchmarking.run import Benchmark, BenchmarkResults, Cell
    from radiomaps.scores import MapScores

__all__ = [
    "gap_rows",
    "mean_nmse",
    "prior_rows",
    "probe_rows",
    "score_rows",
    "sight_rows",
    "uncertainty_rows",
    "write_page",
]

Rows = list[dict[str, Any]]


def _found(
    made: Benchmark, outcome: BenchmarkResults, task: str, row: str, split: str, kind: str = PLAIN
) -> list[MapScores]:
    """Scores of an entry, one item per seed."""
    return [
        scores for (cell, how), scores in sorted(outcome.scores.items(), key=lambda item: (item[0][0], item[0][1]))
        if (cell.task, cell.row, cell.split, how) == (task, row, split, kind)
    ]  # fmt: skip


def mean_nmse(found: Sequence[MapScores], target: str) -> float:
    """Mean over seeds of the NMSE over all voxels, circular for an azimuth; NaN if missing."""
    return float(np.mean([scores.nmse(target) for scores in found])) if found else float("nan")


def _mean(found: Sequence[MapScores], target: str, metric: str, group: str = "all") -> float:
    """Mean of a score over seeds, in the target's unit."""
    return float(np.mean([scores.values(target, group)[metric] for scores in found]))


def _pairs(made: Benchmark, outcome: BenchmarkResults) -> list[tuple[str, str]]:
    """Pairs of a task and an entry that were scored."""
    return list(dict.fromkeys((cell.task, cell.row) for cell in made.cells if cell not in outcome.failures))


def score_rows(made: Benchmark, outcome: BenchmarkResults, split: str | None = None) -> Rows:
    """One row per task and model on one split: for every target the NMSE, and the error in dB, ns or degrees."""
    split = split or next(iter(made.splits))
    rows = []
    for task, row in _pairs(made, outcome):
        found = _found(made, outcome, task, row, split)
        if not found:
            continue
        made_row: dict[str, Any] = {"task": task, "model": row, "members": found[0].members}
        for target in made.tasks[task].targets:
            name, unit = target.removeprefix("doa_").removesuffix("_db").removesuffix("_s"), QUANTITIES[target].unit
            made_row[f"{name}: NMSE"] = mean_nmse(found, target)
            for metric, label in (("rmse", unit), ("crps_fair", f"CRPS, {unit}")):
                made_row[f"{name}: {label}"] = _mean(found, target, metric)
            near = f"within_{QUANTITIES[target].near:g}"
            made_row[f"{name}: near, %"] = 100 * _mean(found, target, near)
        rows.append(made_row)
    return rows


def sight_rows(made: Benchmark, outcome: BenchmarkResults) -> Rows:
    """Root-mean-square errors in and out of line of sight, averaged over seeds."""
    split, rows = next(iter(made.splits)), []
    for task, row in _pairs(made, outcome):
        found = _found(made, outcome, task, row, split)
        line: dict[str, Any] = {"task": task, "model": row}
        for target in made.tasks[task].targets:
            for group in ("los", "nlos"):
                if found and group in found[0].groups(target):
                    line[f"{target} {group}, {QUANTITIES[target].unit}"] = _mean(found, target, "rmse", group)
        if len(line) > 2:
            rows.append(line)
    return rows


def prior_rows(made: Benchmark, outcome: BenchmarkResults) -> Rows:
    """NMSE of each model with a prior, divided by the NMSE of its prior: above 1 the model is worse than its prior."""
    rows, split = [], next(iter(made.splits))
    for task, row in _pairs(made, outcome):
        cell = _cell(made, task, row, split)
        own = made.task(cell)
        if own.prior is None or made.rows[row].baseline is not None:
            continue
        alone = made.prior_alone(cell)
        line: dict[str, Any] = {"task": task, "model": row, "prior": own.prior}
        for target in own.targets:
            line[target] = _over(mean_nmse(_found(made, outcome, task, row, split), target), alone.nmse(target))
        rows.append(line)
    return rows


def _over(error: float, reference: float) -> float:
    """Ratio of two errors; NaN if the second is 0, as for the dominant-path prior on dominant-path maps.

    >>> _over(0.2, 0.1), _over(0.2, 0.0)
    (2.0, nan)
    """
    return float(ratio(error, reference))


def _cell(made: Benchmark, task: str, row: str, split: str) -> Cell:
    return next(cell for cell in made.cells if (cell.task, cell.row, cell.split) == (task, row, split))


def probe_rows(made: Benchmark, outcome: BenchmarkResults) -> Rows:
    """Factor by which changed inputs increase the NMSE, by model and probe: 1 for a model that does not use them."""
    rows, split = [], next(iter(made.splits))
    for task, row in _pairs(made, outcome):
        for probe in made.config["probes"]:
            spoilt = _found(made, outcome, task, row, split, probe)
            if spoilt:
                plain = _found(made, outcome, task, row, split)
                line: dict[str, Any] = {"task": task, "model": row, "inputs": probe}
                for target in made.tasks[task].targets:
                    line[target] = _over(mean_nmse(spoilt, target), mean_nmse(plain, target))
                rows.append(line)
    return rows


def gap_rows(made: Benchmark, outcome: BenchmarkResults) -> Rows:
    """NMSE on each split and on its reference split, and the ratio of both.

    If no split has a reference (`against`), the second split is the reference of the first.
    """
    pairs = list(made.against.items()) or list(itertools.pairwise(list(made.splits)[:2]))
    rows = []
    for (first, second), (task, row) in itertools.product(pairs, _pairs(made, outcome)):
        for target in made.tasks[task].targets:
            values = [mean_nmse(_found(made, outcome, task, row, split), target) for split in (first, second)]
            rows.append(
                {"split": first, "against": second, "task": task, "model": row, "target": target, "NMSE": values[0],
                 "NMSE against": values[1], "factor": _over(values[0], values[1])}
            )  # fmt: skip
    return rows


def uncertainty_rows(made: Benchmark, outcome: BenchmarkResults) -> Rows:
    """Calibration of ensembles: CRPS, spread, spread–skill ratio, excess of outliers, deviation of ranks."""
    rows, split = [], next(iter(made.splits))
    for task, row in _pairs(made, outcome):
        found = _found(made, outcome, task, row, split)
        if found and found[0].members > 1:
            for target in made.tasks[task].targets:
                names = ("crps_fair", "spread", "spread_skill", "outlier_excess", "rank_deviation")
                values = {name: _mean(found, target, name) for name in names}
                rows.append({"task": task, "model": row, "target": target, **values})
    return rows


def write_page(made: Benchmark, outcome: BenchmarkResults, folder: Path) -> None:
    """Write all tables to `tables.json`, and the report that shows them."""
    parts = {split: {part: len(samples) for part, samples in made.parts(split).items()} for split in made.splits}
    leaks = {split: len(made.leaks(split)) for split in made.splits}
    trainings = [
        {"task": cell.task, "model": cell.row, "split": cell.split, "seed": cell.seed, **summary}
        for cell, summary in outcome.trainings.items()
        if summary.get("parameters")
    ]
    sections = [
        ("Scores", "NMSE: Σe² / ΣI² over all valid voxels, circular for an azimuth.", score_rows),
        ("In line of sight and out of it", "Root-mean-square errors.", sight_rows),
        (
            "Against the prior",
            "NMSE divided by the NMSE of the prior: below 1 the network is better than its prior.",
            prior_rows,
        ),
        (
            "Corrupted inputs",
            "NMSE with corrupted inputs over NMSE with correct inputs: 1 if they are not used.",
            probe_rows,
        ),
        (
            "By split",
            "The same model, trained and tested on one split and on its reference split.",
            gap_rows,
        ),
        ("Uncertainty", "In the unit of the target.", uncertainty_rows),
        ("Trainings", "", lambda *_: trainings),
    ]
    kept = [
        {"title": title, "about": about, "rows": rows} for title, about, table in sections
        if (rows := table(made, outcome))
    ]  # fmt: skip
    failed = [f"{cell.row} on {cell.task}, {cell.split}: {why}" for cell, why in outcome.failures.items()]
    write_json(folder / TABLES, {"tables": jsonable(kept), "maps": parts, "leaks": leaks, "failures": failed})
    found = report(folder)
    assert found is not None
    write_pages(found, folder)
