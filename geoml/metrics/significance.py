"""Intervals for scores and functions of several scores, by a paired bootstrap of blocks of time.

Neighbouring hours are correlated, so blocks of time are resampled. All tables use the same resampled blocks, so that
variations common to two models cancel. Sources: Künsch 1989 (block bootstrap); Hamill 1999 (paired resampling).
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoml.errors import DataError
from geoml.metrics.aggregate import StatisticsTable, require_paired
from geoml.metrics.base import Metric, ratio

__all__ = [
    "MIN_BLOCKS",
    "MIN_REPLICATES",
    "Interval",
    "average",
    "block_bootstrap",
    "combine",
    "degradation_percent",
    "difference",
    "skill",
    "skill_lost",
]

#: Minimum number of independent blocks for an interval.
MIN_BLOCKS = 20
#: Largest share of resamples in which a functional may be undefined.
MAX_UNDEFINED = 0.01
#: Minimum number of resamples of a bootstrap.
MIN_REPLICATES = 100
#: Minimum number of resamples outside either end of an interval.
MIN_OUTSIDE = 2
#: Number of resampled block counts in memory at a time.
COUNTS_AT_A_TIME = 1 << 22


@dataclass(frozen=True)
class Interval:
    """An estimate and its interval, or the `reason` why there is none.

    `blocks` is the number of independent blocks; `tail` is the share of `replicates` outside at either end, smaller
    than `(1 − level) / 2` to correct for the finite number of blocks.
    """

    estimate: float
    low: float | None
    high: float | None
    level: float
    blocks: int
    reason: str = ""
    tail: float = math.nan
    replicates: NDArray[np.float64] = field(default_factory=lambda: np.empty(0), repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Estimate, interval and reason as plain values for JSON, None where undefined; the replicates stay out."""
        estimate = self.estimate if math.isfinite(self.estimate) else None
        names = ("low", "high", "level", "blocks", "reason")
        return {"estimate": estimate, **{name: getattr(self, name) for name in names}}


def difference(*, model: Any, reference: Any) -> Any:
    """`model − reference`."""
    return model - reference


def skill(*, model: Any, reference: Any) -> Any:
    """`1 − model / reference`."""
    return 1 - ratio(model, reference)


def degradation_percent(*, inside: Any, outside: Any) -> Any:
    """`100 (outside − inside) / inside`: by how much a score is worse out of distribution.

    >>> float(degradation_percent(inside=0.5, outside=0.75))
    50.0
    """
    return 100 * ratio(outside - inside, inside)


def skill_lost(*, inside: Any, outside: Any, reference: Any) -> Any:
    """`(skill inside − skill outside) / skill inside` with `skill = 1 − score / reference`.

    1: all skill over the reference is lost out of distribution; above 1: worse than the reference. NaN if there is no
    skill in distribution.

    >>> float(skill_lost(inside=0.5, outside=0.75, reference=1.0))
    0.5
    """
    gained = np.asarray(reference - inside, np.float64)
    return ratio(outside - inside, np.where(gained > 0, gained, 0.0))


def block_bootstrap(
    tables: Mapping[str, StatisticsTable],
    metric: Metric,
    functional: Callable[..., Any],
    *,
    block: Any,
    level: float = 0.95,
    replicates: int = 2000,
    seed: int = 0,
) -> Interval:
    """Interval of a functional of one metric's values on several tables of the same samples.

    Args:
        tables: scored on the same samples and cells; the keys are the functional's keywords.
        metric: computed from each table's averages, again for every resample.
        functional: takes the metric's values by keyword, as arrays too: `skill`, `skill_lost`, …
        block: length of a block in the unit of the ids, or as `numpy.timedelta64` where these are times; long enough
            for blocks to be nearly independent.

    The interval is the expanded percentile interval (Hesterberg 2015, "What teachers should know about the
    bootstrap", sect. 5.3), which widens the percentiles as Student's t for this number of blocks. If neighbouring
    blocks are correlated (by the jackknife values of the functional), B blocks count as B (1 − ρ)/(1 + ρ), and the
    interval widens accordingly. With fewer than 20 blocks the result has a reason instead of an interval.
    """
    if not 0 < level < 1 or replicates < MIN_REPLICATES:
        raise ValueError(f"level {level} must be within 0…1 and replicates {replicates} at least {MIN_REPLICATES}")
    require_paired(*tables.values())
    first = next(iter(tables.values()))
    seen = first.weights.max(axis=1, initial=0.0) > 0
    if not seen.any():
        raise DataError(f"no valid cell in {len(first)} samples: nothing to resample")
    if not seen.all():  # blocks of masked samples are left out
        tables = {name: table.select(seen) for name, table in tables.items()}
        first = first.select(seen)
    starts, index, samples = _blocks(first.ids, block)
    count = len(starts)
    sums = {name: np.add.reduceat(table.sums, starts) for name, table in tables.items()}
    weights = {name: np.add.reduceat(table.weights, starts) for name, table in tables.items()}

    def value(pick: Callable[[NDArray[Any]], NDArray[Any]]) -> NDArray[np.float64]:
        """Compute the functional of resamples; `pick` converts sums of blocks to sums of resamples."""
        scores = {}
        for name, table in tables.items():
            means = ratio(pick(sums[name]), pick(weights[name]))
            scores[name] = metric.compute({key: means[:, i] for i, key in enumerate(table.names)})
        return np.asarray(functional(**scores), np.float64)

    estimate = float(value(lambda blocks: blocks.sum(axis=0, keepdims=True))[0])
    if not math.isfinite(estimate):
        return Interval(estimate, None, None, level, count, "undefined on these samples")
    if count < 2:
        return Interval(estimate, None, None, level, count, _too_few(count, ""))
    correlation = _correlation(value(lambda blocks: blocks.sum(axis=0, keepdims=True) - blocks), index)
    full = int((samples >= 0.5 * samples.max()).sum())
    worth = full * (1 - correlation) / (1 + correlation)
    if worth < MIN_BLOCKS:
        why = f"; neighbouring blocks are correlated by {correlation:.2f}" if correlation else ""
        return Interval(estimate, None, None, level, int(worth), _too_few(int(worth), why))

    rng = np.random.default_rng(seed)
    drawn = []
    step = max(1, COUNTS_AT_A_TIME // count)
    for start in range(0, replicates, step):
        size = min(step, replicates - start)
        counts = rng.multinomial(count, np.full(count, 1 / count), size=size).astype(np.float64)
        drawn.append(value(counts.__matmul__))
    values = np.concatenate(drawn)
    return _interval(estimate, values, level, worth, _tail(level, worth, count))


def average(intervals: Sequence[Interval]) -> Interval:
    """Return the mean of several estimates (for example of test regions) with its interval; see `combine`."""
    return combine(lambda *values: np.mean(values, axis=0), intervals)


def combine(functional: Callable[..., Any], intervals: Sequence[Interval]) -> Interval:
    """Return a functional of several estimates, passed in order, with its interval.

    Resamples are combined one by one: with the same seed and number of blocks they consist of the same hours. If a
    part has no interval, the result has none.
    """
    if not intervals:
        raise ValueError("no intervals to combine")
    estimate = float(functional(*(part.estimate for part in intervals)))
    level, blocks = intervals[0].level, min(part.blocks for part in intervals)
    if len({(part.level, len(part.replicates)) for part in intervals if part.low is not None}) > 1:
        raise ValueError("intervals of different levels or numbers of replicates cannot be combined")
    for i, part in enumerate(intervals):
        if part.low is None:
            return Interval(estimate, None, None, level, blocks, f"part {i + 1} of {len(intervals)}: {part.reason}")
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.asarray(functional(*(part.replicates for part in intervals)), np.float64)
    return _interval(estimate, values, level, blocks, min(part.tail for part in intervals))


def _blocks(ids: NDArray[Any], block: Any) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """First row, number and sample count of each block that is not empty; `ids` must ascend."""
    if isinstance(block, datetime.timedelta):
        block = np.timedelta64(block)
    if (ids.dtype.kind == "M") != isinstance(block, np.timedelta64):
        raise ValueError(
            f"block length is {block!r} and ids are such as {ids[0]!r}; expected a timedelta64 for times, else a number"
        )
    if not block > (block - block):  # zero of a number or of a time span
        raise ValueError(f"block length {block} must be above 0")
    numbers = np.asarray((ids - ids[0]) // block, dtype=np.int64)
    index, starts, samples = np.unique(numbers, return_index=True, return_counts=True)
    return starts, index, samples


def _correlation(left_out: NDArray[np.float64], index: NDArray[Any]) -> float:
    """Correlation of neighbouring blocks' influence on the functional; 0 if not significant (5 %, one-sided)."""
    deviation = left_out - left_out.mean()
    neighbours = np.flatnonzero(np.diff(index) == 1)
    variance = np.square(deviation).mean()
    if not len(neighbours) or not variance > 0:
        return 0.0
    correlation = float((deviation[neighbours] * deviation[neighbours + 1]).mean() / variance)
    return min(correlation, 0.95) if correlation > 1.645 / math.sqrt(len(neighbours)) else 0.0


def _tail(level: float, worth: float, count: int) -> float:
    """Share of the resamples to leave out at either end."""
    from scipy.stats import norm, t

    width = t.ppf((1 + level) / 2, worth - 1) * math.sqrt(worth / (worth - 1)) * math.sqrt(max(count / worth, 1.0))
    return float(norm.cdf(-width))


def _interval(estimate: float, values: NDArray[np.float64], level: float, blocks: float, tail: float) -> Interval:
    from scipy.stats import norm

    undefined = float(np.mean(~np.isfinite(values)))
    if undefined > MAX_UNDEFINED:
        return Interval(estimate, None, None, level, int(blocks), f"undefined in {undefined:.0%} of the resamples")
    known = values[np.isfinite(values)]
    # Beyond the range of the resamples (correlated blocks) the interval is extended as a normal one.
    reached = max(tail, MIN_OUTSIDE / len(known))
    stretch = float(norm.ppf(tail) / norm.ppf(reached))
    low, high = estimate + stretch * (np.quantile(known, [reached, 1 - reached]) - estimate)
    return Interval(estimate, float(low), float(high), level, int(blocks), tail=tail, replicates=values)


def _too_few(blocks: int, why: str) -> str:
    return f"{blocks} independent blocks; an interval needs {MIN_BLOCKS}{why}"
