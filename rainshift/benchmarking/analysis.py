"""Analysis of a benchmark: scores by region, in and out of distribution, and the loss of skill.

Compared models are scored on the same test region and hours (`rainshift.benchmarking.plan`). Unless stated otherwise,
the score is the fair CRPS (Ferro 2014) and the reference is bilinear interpolation.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from geoml.errors import UserError
from geoml.metrics import Interval, StatisticsTable, Suite, block_bootstrap
from geoml.metrics.significance import MIN_REPLICATES, average, combine, degradation_percent, skill, skill_lost
from rainshift.benchmarking.plan import BenchmarkPlan, Cell
from rainshift.evaluation import Scores
from rainshift.training import TrainSet

__all__ = ["SIDES", "Analysis", "analyse", "learned_first", "on_side"]

SIDES = ("in", "out")
#: Results with a confidence interval, and their units.
UNITS = {"skill": "1", "degradation": "percent", "skill_lost": "1"}


@dataclass(frozen=True)
class Analysis:
    """Settings of the analysis: metrics of hours and of sequences, reference, and bootstrap.

    Raises `UserError` for a level, block length or number of replicates that the bootstrap cannot use.
    """

    suite: Suite
    temporal: Suite | None = None
    reference: str = "bilinear"
    metric: str = "crps_fair"
    block_hours: float = 24.0
    level: float = 0.95
    replicates: int = 2000

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise UserError(f"analysis.level={self.level:g}; expected a number between 0 and 1, such as 0.95")
        if self.replicates < MIN_REPLICATES:
            raise UserError(
                f"analysis.replicates={self.replicates}; the bounds of an interval need {MIN_REPLICATES} or more"
            )
        if not 0 < self.block_hours < np.inf:
            raise UserError(f"analysis.block_hours={self.block_hours:g}; expected a positive number of hours")

    @property
    def metrics(self) -> list[str]:
        """Names of all scores; scores of sequences come last."""
        return [*self.suite.metrics, *(self.temporal.metrics if self.temporal else ())]

    def values(self, table: StatisticsTable, sequences: StatisticsTable | None) -> list[float]:
        """Return all scores of a model in the order of `metrics`; NaN for scores of sequences if there are none."""
        of_hours = list(self.suite.evaluate(table).values())
        if self.temporal is None:
            return of_hours
        if sequences is None:
            return [*of_hours, *[np.nan] * len(self.temporal.metrics)]
        return of_hours + list(self.temporal.evaluate(sequences).values())

    def interval(self, functional: Any, **tables: StatisticsTable) -> Interval:
        """Evaluate a function of scores (skill, degradation) on paired tables, with its block-bootstrap interval."""
        return block_bootstrap(
            tables,
            self.suite.metrics[self.metric],
            functional,
            block=np.timedelta64(round(self.block_hours * 3600), "s"),
            level=self.level,
            replicates=self.replicates,
        )


def analyse(plan: BenchmarkPlan, scores: Mapping[Cell, Scores], analysis: Analysis) -> xr.Dataset:
    """Return all results of a benchmark as one data set. Cells that diverged or are missing are NaN.

    - `matrix(metric, model, train_set, test_region, seed)`: every score. `train_set` is "none" for models that are not
      trained.
    - `score(metric, model, test_region, distribution)`: mean over seeds, with the region's training hours ("in") and
      without them ("out").
    - `skill`, `skill_low`, `skill_high` `(model, test_region, distribution)`: skill and its confidence bounds.
    - `degradation`, `skill_lost` and their bounds `(model, test_region)`. The skill lost is NaN if the interval of the
      skill in distribution reaches 0, since there is then no skill to lose.
    - `mean_skill_lost(model)` with its bounds: the loss of the mean skill over test regions. Unlike a mean of ratios,
      it is not dominated by regions with little skill.
    - `clipped_share`, `outside_share` and `members` on the dimensions of `matrix` without `metric`.
    - `blocks(test_region)`: number of independent blocks of hours.
    - `largest_clipped_share`, `largest_outside_share` `(model, test_region, distribution)`: maximum over seeds,
      including diverged ones, which the means exclude.
    """
    result = _matrix(plan, scores, analysis)
    sound = {cell: made for cell, made in scores.items() if not made.diverged}
    result = result.merge(_views(plan, sound, analysis, result))
    largest = {f"largest_{name}": _largest(result, name) for name in ("clipped_share", "outside_share")}
    return result.assign(largest).assign_attrs(
        reference=analysis.reference,
        skill_metric=analysis.metric,
        interval=f"{analysis.level:.0%} paired block bootstrap, blocks of {analysis.block_hours:g} h",
        Conventions="CF-1.11",
    )


def learned_first(plan: BenchmarkPlan) -> list[str]:
    """Return the models of a plan, trained models first."""
    trained = [cell.model for cell in plan.cells if cell.train_set is not None]
    return list(dict.fromkeys([*trained, *(cell.model for cell in plan.cells)]))


def _name(train_set: TrainSet | None) -> str:
    return "none" if train_set is None else train_set.name


def _matrix(plan: BenchmarkPlan, scores: Mapping[Cell, Scores], analysis: Analysis) -> xr.Dataset:
    """Arrange the scores and shares of all cells on the axes model, train set, test region, seed."""
    axes: dict[str, list[Any]] = {
        "model": learned_first(plan),
        "train_set": list(dict.fromkeys(_name(cell.train_set) for cell in plan.cells)),
        "test_region": list(dict.fromkeys(cell.test_region for cell in plan.cells)),
        "seed": sorted({cell.seed for cell in plan.cells}),
    }
    shape = tuple(map(len, axes.values()))
    values = np.full((len(analysis.metrics), *shape), np.nan)
    clipped, members, outside = (np.full(shape, np.nan) for _ in range(3))
    for cell, made in scores.items():
        keys = (cell.model, _name(cell.train_set), cell.test_region, cell.seed)
        place: Any = tuple(axis.index(key) for axis, key in zip(axes.values(), keys, strict=True))
        clipped[place], members[place] = made.clipped_share, made.members
        outside[place] = np.nan if made.outside_share is None else made.outside_share
        if not made.diverged:
            values[:, *place] = analysis.values(made.table, made.sequences)
    return xr.Dataset(
        {
            "matrix": (("metric", *axes), values, {"long_name": "score"}),
            "clipped_share": (tuple(axes), clipped, {"units": "1"}),
            "outside_share": (tuple(axes), outside, {"units": "1"}),
            "members": (tuple(axes), members, {"units": "1"}),
        },
        {"metric": analysis.metrics, **axes},
    )


def _views(plan: BenchmarkPlan, scores: Mapping[Cell, Scores], analysis: Analysis, result: xr.Dataset) -> xr.Dataset:
    """Compute scores, skills and losses for the pairs of training sets that the plan compares."""
    models, regions = (list(map(str, result[name].values)) for name in ("model", "test_region"))
    tables = {cell: made.table for cell, made in scores.items()}
    sequences = {cell: made.sequences for cell, made in scores.items() if made.sequences is not None}
    score = np.full((len(analysis.metrics), len(models), len(regions), 2), np.nan)
    bounds = {
        name: np.full((3, len(models), len(regions), *((2,) if name == "skill" else ())), np.nan) for name in UNITS
    }
    means = np.full((3, len(models)), np.nan)
    blocks = np.zeros(len(regions), np.int64)
    for m, model in enumerate(models):
        skills: dict[str, list[Interval]] = {side: [] for side in SIDES}
        for r, region in enumerate(regions):
            reference = _of(tables, analysis.reference, None, region)
            fixed = _of(tables, model, None, region)
            pair = {side: on_side(tables, plan, model, region, side) for side in SIDES}
            for s, side in enumerate(SIDES):
                table = pair[side]
                if table is None:
                    continue
                over_time = on_side(sequences, plan, model, region, side)
                score[:, m, r, s] = analysis.values(table, over_time)
                if reference is not None and model != analysis.reference:
                    found = analysis.interval(skill, model=table, reference=reference)
                    bounds["skill"][:, m, r, s] = _triple(found)
                    blocks[r] = found.blocks
                    skills[side].append(found)
            inside, outside = pair["in"], pair["out"]
            if fixed or inside is None or outside is None or reference is None:
                continue
            worse = analysis.interval(degradation_percent, inside=inside, outside=outside)
            bounds["degradation"][:, m, r] = _triple(worse)
            if not bounds["skill"][1, m, r, 0] <= 0:
                lost = analysis.interval(skill_lost, inside=inside, outside=outside, reference=reference)
                bounds["skill_lost"][:, m, r] = _triple(lost)
        # A mean over only some of the regions would be too favourable: use all compared regions, or none.
        if fixed is None and len(skills["in"]) == len(skills["out"]) == len(plan.inside) > 0:
            means[:, m] = _lost_of_mean(skills["in"], skills["out"])
    region_axes = ("model", "test_region")
    data: dict[str, Any] = {
        "score": (("metric", *region_axes, "distribution"), score),
        "blocks": (("test_region",), blocks, {"long_name": "independent blocks of hours"}),
    }
    for name, unit in UNITS.items():
        dims = (*region_axes, "distribution") if name == "skill" else region_axes
        for suffix, part in zip(("", "_low", "_high"), bounds[name], strict=True):
            data[name + suffix] = (dims, part, {"units": unit})
    for suffix, part in zip(("", "_low", "_high"), means, strict=True):
        data[f"mean_skill_lost{suffix}"] = (("model",), part, {"units": "1"})
    trained_on = [[_name(_set(plan, side, region)) for side in SIDES] for region in regions]
    coords = {"distribution": list(SIDES), "trained_on": (("test_region", "distribution"), trained_on)}
    return xr.Dataset(data, coords)


def _largest(result: xr.Dataset, name: str) -> xr.DataArray:
    """Return the largest share over seeds for each compared training set and for models that are not trained."""
    largest = result[name].max("seed")
    picked = result["skill"].copy(data=np.full(result["skill"].shape, np.nan))
    for region, side in itertools.product(result["test_region"].values, SIDES):
        trained_on = str(result["trained_on"].sel(test_region=region, distribution=side).item())
        sets = [name for name in ("none", trained_on) if name in result["train_set"].values]
        place = {"test_region": region, "distribution": side}
        picked.loc[place] = largest.sel(test_region=region, train_set=sets).max("train_set")
    return picked.assign_attrs(units="1", long_name=name.replace("_", " "))


def _set(plan: BenchmarkPlan, side: str, region: str) -> TrainSet | None:
    return (plan.inside if side == "in" else plan.outside).get(region)


def on_side(
    tables: Mapping[Cell, StatisticsTable], plan: BenchmarkPlan, model: str, region: str, side: str
) -> StatisticsTable | None:
    """Return the statistics of a model "in" or "out" of distribution. Both are equal for untrained models."""
    return _of(tables, model, None, region) or _of(tables, model, _set(plan, side, region), region)


def _of(
    tables: Mapping[Cell, StatisticsTable], model: str, train_set: TrainSet | None, region: str
) -> StatisticsTable | None:
    """Return the statistics of a model on a region, averaged over seeds; None if there are none.

    For scores that are linear in the statistics, this is the expected score of one training.
    """
    found = [t for c, t in tables.items() if (c.model, c.train_set, c.test_region) == (model, train_set, region)]
    if not found:
        return None
    first = found[0]
    return StatisticsTable(first.ids, first.names, np.mean([table.sums for table in found], axis=0), first.weights)


def _lost_of_mean(inside: list[Interval], outside: list[Interval]) -> tuple[float, float, float]:
    """Return the loss of the mean skill over regions, with an interval from the same resampled hours."""
    before, after = average(inside), average(outside)
    if not before.estimate > 0:
        return np.nan, np.nan, np.nan
    lost = combine(lambda before, after: 1 - after / before, [before, after])
    if before.low is None or before.low > 0:
        return _triple(lost)
    return lost.estimate, np.nan, np.nan  # no skill to lose: ratios would be meaningless


def _triple(interval: Interval) -> tuple[float, float, float]:
    low, high = (np.nan if bound is None else bound for bound in (interval.low, interval.high))
    return interval.estimate, low, high
