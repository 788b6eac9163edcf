"""Run a benchmark: prepare data, train and score every cell of a plan. Each result is saved when it is finished."""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoml.benchmarking.cells import attempted, each, kept, scores_file
from geoml.benchmarking.entries import by_name
from geoml.cli.config import instantiate
from geoml.data.fingerprint import fingerprint
from geoml.data.location import is_remote
from geoml.errors import UserError
from geoml.metrics import Suite
from geoml.models.tiles import Tiling
from geoml.runs.folder import RunFolder, config_hash, plain
from geoml.train.device import autocast, choose_device
from rainshift.alignment import Alignment, inputs_of
from rainshift.benchmarking.adaptation import adapt, adaptation_rows, inputs_of_climates, recipe_for
from rainshift.benchmarking.analysis import Analysis, analyse
from rainshift.benchmarking.curves import gather
from rainshift.benchmarking.first_go import FirstGo, first_go, samples_note, trainer_for
from rainshift.benchmarking.plan import BenchmarkPlan, Cell, adapted_sets, plan, plan_sets
from rainshift.benchmarking.pooling import counted_records, pooled_scores
from rainshift.benchmarking.stations import station_rows
from rainshift.benchmarking.variants import fitting, with_variants
from rainshift.data.archive import FOLD, archive_of
from rainshift.data.exactness import exact_means
from rainshift.evaluation import Scores, score
from rainshift.models.spec import Downscaler, InTiles, ModelSpec, conserved
from rainshift.places.partitions import Partition
from rainshift.places.splits import Leak, check_leakage
from rainshift.sources.fetching import local_copy
from rainshift.training import Recipe, TrainSet, fit, load

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["BenchmarkResults", "Experiment"]

logger = logging.getLogger(__name__)

#: Modules that affect scores of given weights. If their code changes, cells are scored again without a new training.
SCORED_BY = (
    *("geoml.diffusion", "geoml.metrics", "geoml.models", "geoml.nn", "geoml.regrid"),
    *("rainshift.alignment", "rainshift.baselines", "rainshift.sequences", "rainshift.models.spec"),
    *("rainshift.models.anchored", "rainshift.models.slots", "rainshift.models.amounts", "rainshift.models.general"),
    *("rainshift.data.selection", "rainshift.baselines.quantile_map", "rainshift.evaluation"),
)
SETS = ("train_regions", "test_regions")


@dataclass(frozen=True)
class BenchmarkResults:
    """Results of a benchmark (see `analyse`), reasons of failures, costs of trainings, and leaks (shared edges)."""

    results: xr.Dataset
    curves: xr.Dataset
    failures: Mapping[str, str]
    trainings: Mapping[str, Mapping[str, Any]]
    leaks: tuple[Leak, ...]
    #: Scores at stations, one row per cell of the plan.
    stations: list[dict[str, Any]] = field(default_factory=list)
    #: Gain from local hours (`adapt`), one row per adapted model and region.
    adaptation: list[dict[str, Any]] = field(default_factory=list)


def _training(model: str, train_set: TrainSet, seed: int) -> str:
    """Name of a training in messages."""
    return f"{model} on {train_set.name}, seed {seed}"


def _where(cell: Cell) -> str:
    """Name of a cell in messages."""
    trained_on = cell.train_set and cell.train_set.name
    return f"{cell.model} on {cell.test_region}, trained on {trained_on}, seed {cell.seed}"


class Experiment:
    """One benchmark, from the configuration of the command `benchmark`.

    Finished trainings and scores are saved under `cache` by a hash of their settings, and reused. The hash of scores
    includes the code that computes them (`SCORED_BY`); that of trainings does not: to repeat them, use another `cache`.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = plain(config)
        if (both := self.config.get("regions")) is not None:
            self.config |= {key: self.config[key] or both for key in SETS}
        self.cache = Path(self.config["cache"])
        self.archive = archive_of(self.config)
        self.partition: Partition | None = None
        if (file := self.config.get("partition")) is not None:
            self.partition = Partition.load(Path(str(file)), self.archive.names)
            self.config |= {key: self.config[key] or list(getattr(self.partition, key)) for key in SETS}
        allow = tuple(self.config.get("allow_targets") or ())
        self.specs = by_name(ModelSpec.of(entry, allow=allow) for entry in self.config["models"])
        self.alignments: dict[str, Alignment] = {
            name: instantiate(options, allow=allow) for name, options in (self.config["alignment"] or {}).items()
        }
        named: list[Alignment | ModelSpec] = [*self.alignments.values(), *self.specs.values()]
        for entry in named:
            entry.check(self.archive.channels)
        prepared = self._prepared() if any(spec.shipped for spec in self.specs.values()) else ()
        self.specs, self.left_out = fitting(self.specs, self.archive, prepared)
        exact = exact_means(self.archive, self._wanted)
        self.specs = with_variants(self.specs.values(), list(self.alignments), self.config, exact=exact)
        self.adapts = any(spec.local_hours is not None for spec in self.specs.values())
        self.recipe = Recipe.of(self.config)
        autocast(choose_device(), self.config["precision"])  # raises before the trainings, not after them
        self.tiling = Tiling(**self.config["tiles"])
        self.suite = Suite.from_config(self.config["metrics"])
        self.sequence_hours = self.config["sequence_hours"]
        self.temporal = Suite.from_config(self.config["temporal"]) if self.sequence_hours else None
        self.analysis = Analysis(self.suite, self.temporal, **self.config["analysis"])
        self._check_analysis()
        if self.alignments and self.first_go is not None:
            raise UserError("alignment needs training hours of the test regions; set data.shares to reserve some")

    def _check_analysis(self) -> None:
        reference = self.analysis.reference
        if reference not in self.specs:
            raise UserError(f"analysis.reference is {reference!r}, which is not among models; add it to models")
        if self.specs[reference].learns:
            raise UserError(f"analysis.reference is {reference!r}, a trained model; expected one such as bilinear")
        if self.analysis.metric not in self.suite.metrics:
            raise UserError(f"skill requires the metric {self.analysis.metric}; add it to metrics.metrics")
        self.specs[reference].build(self.archive.channels)  # raises before the trainings, not after them

    @cached_property
    def first_go(self) -> FirstGo | None:
        """Automatic protocol of data without training and test periods. None if settings or data define them."""
        chosen = self.config["protocol"]
        if chosen not in ("auto", "leave_one_out"):
            raise UserError(f"protocol is {chosen!r}; expected auto or leave_one_out")
        if chosen == "leave_one_out" or self.archive.splits != ("all",) or self.archive.has_role("validation"):
            return None
        names = self._prepared()
        return first_go(self.archive, names, self.analysis.block_hours, mix_steps=bool(self.config["mix_steps"]))

    @property
    def _wanted(self) -> list[str]:
        train, test = (self.config[key] for key in SETS)
        return list(dict.fromkeys((*(train or test or self.archive.names), *(test or train or self.archive.names))))

    def _prepared(self) -> list[str]:
        """Prepare the data of all training and test regions, if necessary. Returns the names of the regions."""
        for name, split in itertools.product(self._wanted, self.archive.splits):
            self.archive.prepare(name, split)
        return self._wanted

    @cached_property
    def plan(self) -> BenchmarkPlan:
        """Cells of the benchmark. Prepares the data, since the plan depends on their number of samples."""
        names, go, config = self._prepared(), self.first_go, self.config
        if go is not None:
            self.archive = go.archive
        archive = self.archive
        test = list(config["test_regions"] or config["train_regions"] or archive.names)
        train = list(config["train_regions"] or test)
        learners = [name for name, spec in self.specs.items() if spec.learns]
        fixed = [name for name in self.specs if name not in learners]
        names = [part for name in names for part in (name, *((go.folds.get(name) or ()) if go else ()))]
        samples = {name: len(archive.samples(name, "train")[1]) for name in names}
        if limit := config["train_samples"]:
            samples = {name: min(count, int(limit)) for name, count in samples.items()}
        seeds = tuple(range(int(config["seeds"])))
        sets: dict[str, Mapping[str, Sequence[str]]] | None = None
        if self.adapts:
            sets = adapted_sets(test, go.folds if go else {}, shares=go is None or bool(go.shared))
        elif go is not None and not go.shared:
            sets = {"outside": go.outside, "inside": go.inside, "folds": go.folds}
        elif len(train) == 1 and train == test:
            sets = {"outside": {}, "inside": {test[0]: train}, "folds": {}}
        if sets is not None:
            chosen = {side: {name: v for name, v in found.items() if name in test} for side, found in sets.items()}
            return plan_sets(test, **chosen, samples=samples, learners=learners, fixed=fixed, seeds=seeds)
        return plan(
            train,
            test,
            samples=samples,
            learners=learners,
            fixed=fixed,
            seeds=seeds,
            in_distribution=config["in_distribution"],
            full=config["full_matrix"],
            transfer=config["transfer"],
        )

    @property
    def heading(self) -> str:
        """Title of the HTML page."""
        if self.config["heading"]:
            return str(self.config["heading"])
        if self.first_go is not None and not self.first_go.shared:
            return counted_records(self.plan)
        return f"Downscaling across regions: {self.config['data']['source']}"

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the user: source of the partition, and choices and limits of the automatic protocol."""
        said = (*(self.first_go.notes if self.first_go is not None else ()), *self.left_out)
        if any(spec.is_network for spec in self.specs.values()):
            said = (*said, *samples_note(self.first_go, self.config["trainer"]))
        if self.partition is None:
            return said
        return (f"Partition {self.partition.name}, after {self.partition.source}.", *said)

    def check_leakage(self) -> tuple[Leak, ...]:
        """Raise an error if a training set and its test region share weather. Returns regions with shared edges."""
        leaks: dict[Leak, None] = {}
        edges = self.config["shared_edges"]
        for train_set, region in dict.fromkeys((cell.train_set, cell.test_region) for cell in self.plan.cells):
            if train_set is not None:
                train = {name: self.archive.times(name, "train") for name in train_set.regions}
                test = {region: self.archive.times(region, "test")}
                purge = self.archive.purge_of(region) if FOLD in region else self.archive.purge
                leaks |= dict.fromkeys(check_leakage(train, test, purge=purge, shared_edges=edges))
        return tuple(leaks)

    def run(self) -> BenchmarkResults:
        """Train and score all cells without a saved result, and analyse the scores."""
        for note in self.notes:
            logger.warning("%s", note)
        leaks = self.check_leakage()
        failures: dict[str, str] = {}
        trainings: dict[str, dict[str, Any]] = {}
        wanted = dict.fromkeys(
            (self.specs[c.model].trained_as, c.train_set, c.seed) for c in self.plan.cells if c.train_set is not None
        )
        for job, summary in attempted(self.each("trained", list(wanted), "trainings"), failures, _training):
            trainings[_training(*job)] = summary
        cells = [
            (cell,)
            for cell in self.plan.cells
            if cell.train_set is None
            or _training(self.specs[cell.model].trained_as, cell.train_set, cell.seed) in trainings
        ]
        scores: dict[Cell, Scores] = {}
        for (cell,), made in attempted(self.each("scored", cells, "cells"), failures, _where):
            scores[cell] = made
            if made.diverged:
                failures[_where(cell)] = f"{made.clipped_share:.2%} of its values had to be bounded"
        networks = [name for name, spec in self.specs.items() if spec.is_network]
        folds = self.first_go.folds if self.first_go is not None else {}
        made, scores = pooled_scores(self.plan, scores, folds, self.suite, self.temporal)
        results = analyse(made, scores, self.analysis).assign_attrs(networks=networks)
        at_gauges = station_rows(self.archive, scores, self.analysis.reference) if self.archive.stations else []
        gained = adaptation_rows(self.specs, made, scores, self.analysis, results) if self.adapts else []
        curves = gather(made, scores, self.analysis)
        return BenchmarkResults(results, curves, failures, trainings, leaks, at_gauges, gained)

    def each(
        self, method: str, jobs: list[tuple[Any, ...]], unit: str
    ) -> Iterator[tuple[tuple[Any, ...], Callable[[], Any]]]:
        """Yield `(job, result)` of `method` for every job; see `geoml.benchmarking.cells.each`."""
        here = {"protocol": "leave_one_out", "partition": None, "data": plain(self.archive.config)}
        config = {**self.config, **here, "cache": str(self.cache.absolute()), "archive": str(self.archive.root)}
        if not is_remote(self.archive.root):
            config["archive"] = str(self.archive.root.absolute())
        return each(self, method, jobs, unit=unit, config=config)

    def training_folder(self, model: str, train_set: TrainSet, seed: int) -> tuple[Path, dict[str, Any]]:
        """Return the folder of a training, and the configuration whose hash is in its name."""
        learns_by_steps = {k: self.config[k] for k in ("transforms", "loader")}
        learns_by_steps["trainer"] = self._trainer_for(train_set)
        if (hours := self.specs[model].local_hours) is not None:
            learns_by_steps["trainer"] = asdict(recipe_for(self.recipe, hours).trainer)
        spec = {
            "model": self.specs[model].identity,
            "data": self.archive.identity_of(train_set.regions),
            "train": {region: train_set.share(region) for region in train_set.regions},
            "seed": seed,
            **learns_by_steps,
        }
        return self.cache / "trainings" / f"{model}-{config_hash(spec)}", spec

    def trained(self, model: str, train_set: TrainSet, seed: int) -> dict[str, Any]:
        """Return the summary of a training. Trains first if there is no finished training."""
        path, spec = self.training_folder(model, train_set, seed)
        with RunFolder.open(path, spec) as folder:
            if not folder.finished:
                logger.info("training %s on %s, seed %d", model, train_set.name, seed)
                row, recipe = self.specs[model], self._recipe_of(model, train_set)
                where: dict[str, Any] = {"recipe": recipe, "seed": seed, "folder": folder.checkpoints}
                if row.local_hours is not None:
                    summary = adapt(row, train_set.regions[0], self.archive, **where)
                else:
                    summary = fit(row, train_set, self.archive, log=folder.metrics, start=row.starting, **where)
                folder.write_summary(summary)
            return folder.summary

    def _recipe_of(self, model: str, train_set: TrainSet) -> Recipe:
        """Return the training recipe with the changes in the `trainer` setting of the model's entry."""
        return Recipe.of({**self.config, "trainer": self._trainer_for(train_set) | dict(self.specs[model].trainer)})

    def _trainer_for(self, train_set: TrainSet) -> dict[str, Any]:
        return trainer_for(self.first_go, self.config["trainer"], train_set.samples)

    def trained_in(self, cell: Cell) -> Path | None:
        """Return the folder of a cell's training; None for models without training."""
        if cell.train_set is None:
            return None
        return self.training_folder(self.specs[cell.model].trained_as, cell.train_set, cell.seed)[0]

    def _alignment_of(self, cell: Cell) -> str | None:
        """Return the name of a cell's alignment; None if the model was trained on the test region."""
        spec = self.specs[cell.model]
        return None if cell.in_distribution and spec.local_hours is None else spec.alignment

    def downscaler(self, cell: Cell) -> Downscaler:
        """Load the downscaler of a cell, align it for the test region and add its conservation layer."""
        spec, folder, archive = self.specs[cell.model], self.trained_in(cell), self.archive
        downscaler = load(
            spec, folder / "checkpoints" if folder else None, archive.channels, precision=self.config["precision"]
        )
        if (name := self._alignment_of(cell)) is not None and cell.train_set is not None:
            alignment, shares = self.alignments[name], {r: cell.train_set.share(r) for r in cell.train_set.regions}
            here = {cell.test_region: len(archive.samples(cell.test_region, "train")[1])}
            target = inputs_of(archive, here, hours=alignment.hours)
            general = spec.local_hours is not None
            source = inputs_of_climates(archive) if general else inputs_of(archive, shares, hours=alignment.hours)
            downscaler = alignment.align(downscaler, source, target, archive.channels)
        downscaler = InTiles(downscaler, self.tiling) if spec.in_tiles else downscaler
        return conserved(downscaler, spec.conservation, archive.channels)

    def score_file(self, cell: Cell) -> Path:
        """Return the path of a cell's scores. The name contains a hash of all settings that affect them."""
        folder, row = self.trained_in(cell), self.specs[cell.model]
        name = self._alignment_of(cell)
        behind = {"alignment": name and self.config["alignment"][name], "conservation": row.conservation}
        spec = {
            "trained": folder.name if folder else row.identity,
            **{key: value for key, value in behind.items() if value},
            "data": self.archive.identity_of([cell.test_region]),
            "region": cell.test_region,
            "metrics": self.config["metrics"],
            "members": self.config["members"],
            "samples": self._test_samples(cell.test_region),
            "tiles": self.config["tiles"],
            "precision": self.config["precision"],
            "seed": cell.seed,
        }
        if given := self.archive.config.get("stations"):
            spec["stations"] = list(fingerprint({"stations": local_copy(str(given))})["stations"])
        if self.temporal is not None:
            spec |= {key: self.config[key] for key in ("temporal", "sequence_hours")}
        model = row.name if name else row.trained_as
        return scores_file(self.cache, f"{model}-{cell.test_region}", spec, SCORED_BY)

    def _test_samples(self, region: str) -> int | None:
        """Return the number of scored hours, None for all; `test_samples` is divided evenly among blocks."""
        wanted = self.config["test_samples"]
        if wanted is None or FOLD not in region:
            return None if wanted is None else int(wanted)
        return max(1, int(wanted) // len(self.archive.folds(region.partition(FOLD)[0])))

    def scored(self, cell: Cell) -> Scores:
        """Return the scores of a cell. Computes them if there are no saved scores."""
        return kept(self.score_file(cell), Scores.load, functools.partial(self._score, cell))

    def _score(self, cell: Cell) -> Scores:
        return score(
            self.downscaler(cell),
            self.archive,
            cell.test_region,
            suite=self.suite,
            members=int(self.config["members"]),
            samples=self._test_samples(cell.test_region),
            seed=cell.seed,
            temporal=self.temporal,
            sequence_hours=int(self.sequence_hours or 0),
            stations=self.archive.stations,
        )

    def shifts(self) -> xr.Dataset | None:
        """Return `measure_shifts` of test regions and their training regions; None if `shift_hours` is not set.

        `between_NAME(variable, region, other)` compares single regions, if `transfer` trained models on them.
        """
        if not (hours := self.config["shift_hours"]) or not self.plan.outside:
            return None
        from rainshift.benchmarking.climate_distance import climates, measure_shifts

        pairs = {region: train_set.regions for region, train_set in self.plan.outside.items()}
        names = dict.fromkeys((*pairs, *(name for others in pairs.values() for name in others)))
        found = climates(self.archive, list(names), hours=int(hours), block_hours=self.analysis.block_hours)
        shifts = measure_shifts(found, pairs).sel(region=list(pairs))
        if len(self.plan.alone) > 1:
            between = measure_shifts({name: found[name] for name in self.plan.alone})
            shifts = shifts.merge(between.rename({name: f"between_{name}" for name in between.data_vars}))
        return shifts
