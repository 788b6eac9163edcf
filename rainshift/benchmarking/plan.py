"""Plan of a benchmark: the models, training sets and test regions.

The loss out of distribution compares two trainings on the same test region and hours. The training set *in
distribution* includes the training hours of the test region, the set *out of distribution* does not. Both sets have
the same total number of training hours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from geoml.errors import UserError, unknown
from rainshift.training import TrainSet

__all__ = ["BenchmarkPlan", "Cell", "adapted_sets", "plan", "plan_sets"]


@dataclass(frozen=True, order=True)
class Cell:
    """One score: a model trained with one seed on one set, tested on one region.

    `train_set` is None for a model that is not trained (interpolation), which has one cell per region.
    """

    model: str
    train_set: TrainSet | None
    test_region: str
    seed: int = 0

    @property
    def in_distribution(self) -> bool | None:
        """Whether the training set includes the test region. None for a model that is not trained."""
        return None if self.train_set is None else self.test_region in self.train_set.regions


@dataclass(frozen=True)
class BenchmarkPlan:
    """Cells of a benchmark and the training sets that are compared.

    Attributes:
        cells: all scores to compute.
        outside: training set out of distribution, by test region.
        inside: training set in distribution, by test region.
        alone: training sets of one region each, for the loss of transfer between regions.
    """

    cells: tuple[Cell, ...]
    outside: dict[str, TrainSet] = field(default_factory=dict)
    inside: dict[str, TrainSet] = field(default_factory=dict)
    alone: dict[str, TrainSet] = field(default_factory=dict)


def plan(
    train_regions: Sequence[str],
    test_regions: Sequence[str],
    *,
    samples: dict[str, int],
    learners: Iterable[str],
    fixed: Iterable[str] = (),
    seeds: Sequence[int] = (0,),
    in_distribution: bool = True,
    full: bool = False,
    transfer: bool = False,
) -> BenchmarkPlan:
    """Plan a benchmark of regions.

    For a test region *r*, the training set out of distribution is `train_regions` without *r*, and the set in
    distribution is `train_regions` with *r*. If the test regions are among the training regions, this is
    leave-one-region-out. All sets have the same number of samples, as many as the smallest set has.

    Args:
        train_regions: training regions.
        test_regions: test regions.
        samples: number of training samples of each region.
        learners: models that are trained.
        fixed: models that are not trained.
        seeds: seeds of the trainings.
        in_distribution: whether to train in distribution; False also omits the loss out of distribution.
        full: whether to score each training on all test regions.
        transfer: whether to add one training per single test region, all with the same number of samples, and to test
            each on all test regions.

    Raises `UserError` for an unknown or repeated region, and if a set would be empty.
    """
    for name in (*train_regions, *test_regions):
        if name not in samples:
            raise unknown("region", name, samples)
    for what, names in (("train_regions", train_regions), ("test_regions", test_regions)):
        if doubled := sorted({name for name in names if names.count(name) > 1}):
            raise UserError(f"{what} contains {', '.join(doubled)} more than once; list each region once")
    if not test_regions:
        raise UserError("test_regions is empty; name at least one test region")

    learners = tuple(learners)
    outside = {r: tuple(sorted(set(train_regions) - {r})) for r in test_regions} if learners else {}
    inside = {r: tuple(sorted({*train_regions, r})) for r in test_regions} if learners and in_distribution else {}
    for region, rest in outside.items():
        if not rest:
            raise UserError(f"no training region remains without {region}; add another region to train_regions")
    every = {*outside.values(), *inside.values()}
    size = min((_capacity(regions, samples) for regions in every), default=0)
    if every and size < 1:
        raise UserError(
            "a training set would be empty; numbers of training samples are "
            + ", ".join(f"{name}: {count}" for name, count in samples.items())
        )

    sets = {regions: TrainSet(regions, size) for regions in every}
    # Two sets with the same name would give two equal rows, so an existing set of one region keeps its size.
    least = size if any(len(regions) == 1 for regions in every) else min(samples[region] for region in test_regions)
    alone = {r: TrainSet((r,), least) for r in test_regions} if learners and transfer else {}
    cells = [Cell(model, None, region) for model in fixed for region in test_regions]
    for model in learners:
        for region in test_regions:
            wanted = set(sets.values()) if full else {sets[s[region]] for s in (outside, inside) if region in s}
            cells += [Cell(model, chosen, region, s) for chosen in sorted({*wanted, *alone.values()}) for s in seeds]
    return BenchmarkPlan(
        tuple(cells),
        {region: sets[regions] for region, regions in outside.items()},
        {region: sets[regions] for region, regions in inside.items()},
        alone,
    )


def plan_sets(
    names: Sequence[str],
    *,
    outside: Mapping[str, Sequence[str]],
    inside: Mapping[str, Sequence[str]],
    folds: Mapping[str, Sequence[str]],
    samples: Mapping[str, int],
    learners: Iterable[str],
    fixed: Iterable[str] = (),
    seeds: Sequence[int] = (0,),
) -> BenchmarkPlan:
    """Plan a benchmark with given training records for each tested record in `names`.

    Args:
        names: tested records.
        outside: training records of other places, by tested record.
        inside: training records of the same place, by tested record.
        folds: cross-validation blocks, by tested record. Each block is a separate record in this plan and is trained
            on the other blocks; `pooled` joins them.
        samples: number of training samples of each record or block.
        learners: models that are trained.
        fixed: models that are not trained.
        seeds: seeds of the trainings.
    """
    cells = [Cell(model, None, part) for model in fixed for name in names for part in folds.get(name, (name,))]
    sets = {
        side: {
            name: TrainSet(tuple(regions), _capacity(tuple(regions), dict(samples))) for name, regions in chosen.items()
        }
        for side, chosen in (("outside", outside), ("inside", inside))
    }
    for model in learners:
        for chosen in sets.values():
            cells += [Cell(model, train_set, name, s) for name, train_set in chosen.items() for s in seeds]
        for parts in folds.values():
            cells += [Cell(model, TrainSet((part,), samples[part]), part, s) for part in parts for s in seeds]
    return BenchmarkPlan(tuple(cells), sets["outside"], sets["inside"])


def adapted_sets(
    names: Sequence[str], folds: Mapping[str, Sequence[str]], *, shares: bool
) -> dict[str, Mapping[str, Sequence[str]]]:
    """Return the training sets of a benchmark with `adapt`: only the training hours of each tested region or block.

    Raises `UserError` if a tested region has no training hours.
    """
    if not shares and (rest := [name for name in names if name not in folds]):
        raise UserError(
            f"adapt needs training hours of the tested regions, but all hours of {', '.join(rest)} are test hours; "
            "test one record alone with regions=[NAME], or set data.shares={train: 0.7, test: 0.3}"
        )
    return {"outside": {}, "inside": {name: (name,) for name in names if name not in folds}, "folds": folds}


def _capacity(regions: Sequence[str], samples: dict[str, int]) -> int:
    """Return the largest number of samples of a training set with equal shares of its regions."""
    return len(regions) * min(samples[region] for region in regions)
