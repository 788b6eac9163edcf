"""The plan of a benchmark: which models are trained on which regions, and where they are scored.

The drop is measured on one test region and the same hours: *in distribution* a model has that region's own training
hours in its set, *out of distribution* the region is left out, with the same number of training hours in all.
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
        """Whether the test region's own training hours are in the set; None for a model that is not trained."""
        return None if self.train_set is None else self.test_region in self.train_set.regions


@dataclass(frozen=True)
class BenchmarkPlan:
    """The cells of a benchmark and, for each test region, the pair of sets between which its drop is measured.

    `alone` holds the sets of single regions between which transfer is measured.
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
    """The cells of a benchmark of `learners` (trained) and `fixed` (not trained) models.

    For a test region *r* the set outside is `train_regions` without *r*, the set inside is `train_regions` with *r*:
    leave-one-region-out if the test regions are among the training regions, else a partition. All sets have the same
    number of samples, limited by the smallest. `samples` is the number of training samples of each region. `full` also
    scores each set on the other test regions; `in_distribution=False` omits the inside sets and therefore the drop.
    `transfer` adds a set for each single test region, all of one size, tested on all of them.

    Raises `UserError` for an unknown or repeated region, and if a set would be empty.
    """
    for name in (*train_regions, *test_regions):
        if name not in samples:
            raise unknown("region", name, samples)
    for what, names in (("train_regions", train_regions), ("test_regions", test_regions)):
        if doubled := sorted({name for name in names if names.count(name) > 1}):
            raise UserError(f"{what} names {', '.join(doubled)} more than once; name each region once")
    if not test_regions:
        raise UserError("test_regions is empty; name at least one test region")

    learners = tuple(learners)
    outside = {r: tuple(sorted(set(train_regions) - {r})) for r in test_regions} if learners else {}
    inside = {r: tuple(sorted({*train_regions, r})) for r in test_regions} if learners and in_distribution else {}
    for region, rest in outside.items():
        if not rest:
            raise UserError(f"no training region is left when {region} is left out; name another in train_regions")
    every = {*outside.values(), *inside.values()}
    size = min((_capacity(regions, samples) for regions in every), default=0)
    if every and size < 1:
        raise UserError("a training set would be empty: " + ", ".join(f"{k} has {v}" for k, v in samples.items()))

    sets = {regions: TrainSet(regions, size) for regions in every}
    # Two sets of one name would be two equal rows: an existing set of one region keeps its size.
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
    """The cells where it is known which records train for each tested one: other places, other events, other blocks.

    Blocks of `folds` are separate records here, each trained without itself; `pooled` joins them.
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
    """The sets of a benchmark with `adapt`: each region or block is trained on its own training hours alone.

    Raises `UserError` if the tested places have no training hours.
    """
    if not shares and (rest := [name for name in names if name not in folds]):
        raise UserError(
            f"adapt needs training hours of the tested places, and {', '.join(rest)} is tested as a complete record; "
            "test one record alone with regions=[NAME], or set data.shares={train: 0.7, test: 0.3}"
        )
    return {"outside": {}, "inside": {name: (name,) for name in names if name not in folds}, "folds": folds}


def _capacity(regions: Sequence[str], samples: dict[str, int]) -> int:
    """The largest number of samples of a set in equal shares."""
    return len(regions) * min(samples[region] for region in regions)
