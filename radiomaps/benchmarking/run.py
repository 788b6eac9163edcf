"""Run a benchmark of models × tasks × splits on one store. Each cell is trained and scored once, and cached."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from geoml.benchmarking.cells import attempted, each, kept, scores_file
from geoml.benchmarking.entries import by_name
from geoml.cli.config import instantiate
from geoml.data.manifest import MANIFEST
from geoml.errors import Diverged, UserError, unknown
from geoml.runs.files import sha256
from geoml.runs.folder import config_hash, plain
from geoml.train.device import autocast, choose_device
from radiomaps.benchmarking.ablations import PROBES, probed
from radiomaps.benchmarking.entries import Contender, task_of
from radiomaps.maps.store import MapStore
from radiomaps.scores import MapScores, score
from radiomaps.tasks import Task
from radiomaps.tasks.features import ONCE_FEATURE
from radiomaps.tasks.splits import audit, on_layers, parts_of, some_of

if TYPE_CHECKING:
    from radiomaps.scores import Builder
    from radiomaps.training import Recipe

__all__ = ["Benchmark", "BenchmarkResults", "Cell"]

#: Modules that compute scores from weights. If one changes, scores are computed again; networks are not trained again.
SCORED_BY = (
    *("geoml.diffusion", "geoml.metrics", "geoml.models", "geoml.nn"),
    *("radiomaps.baselines", "radiomaps.benchmarking.entries", "radiomaps.models", "radiomaps.benchmarking.ablations"),
    *("radiomaps.scores", "radiomaps.tasks"),
)
#: Name of the scoring without changed inputs.
PLAIN = "plain"


@dataclass(frozen=True, order=True)
class Cell:
    """One training and its scores: an entry on a task, with one split and one seed."""

    task: str
    row: str
    split: str
    seed: int = 0


@dataclass(frozen=True)
class BenchmarkResults:
    """Results of a benchmark: scores by cell and kind of scoring, cost of training by cell, reason of each failure."""

    scores: Mapping[tuple[Cell, str], MapScores]
    trainings: Mapping[Cell, Mapping[str, Any]]
    failures: Mapping[Cell, str]


def _by_name(entries: Sequence[Any], what: str) -> dict[str, dict[str, Any]]:
    """Index entries by their key `name`, which is removed. A string is the name of a task."""
    found: dict[str, dict[str, Any]] = {}
    for entry in entries:
        options = {"name": entry, "task": entry} if isinstance(entry, str) else dict(entry)
        name = str(options.pop("name", None) or options.get("task") or options.get("by"))
        if name in found:
            raise UserError(f"{what} names {name} twice; give one another name:")
        found[name] = options
    return found


class Benchmark:
    """A benchmark, created from the configuration of the command `radiomaps benchmark`.

    Trained models and scores are stored in `cache`. Their file names contain a hash of store, model, task, split,
    trainer and seed. An interrupted benchmark therefore resumes. Scores are computed again if their code (`SCORED_BY`)
    changes. Models are not trained again if code changes; use another `cache` for that.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = plain(config)
        self.cache = Path(self.config["cache"])
        allow = tuple(self.config.get("allow_targets") or ())
        self.tasks: dict[str, Task] = {
            name: task_of(entry) for name, entry in _by_name(self.config["tasks"], "tasks").items()
        }
        self.rows = by_name(Contender.of(entry, allow=allow) for entry in self.config["models"])
        if not self.tasks or not self.rows:
            raise UserError("a benchmark needs a task and a model; name some in tasks and models")
        autocast(choose_device(), self.config["precision"])  # fail now rather than after the trainings
        for probe in self.config["probes"]:
            if probe not in PROBES:
                raise unknown("probe", probe, PROBES)
        self.splits = _by_name(self.config["splits"], "splits")
        beside = {name: split.pop("against", None) for name, split in self.splits.items()}
        #: Name of the reference split by split. Training on the reference split includes the test conditions.
        self.against = {name: str(other) for name, other in beside.items() if other is not None}
        for other in self.against.values():
            if other not in self.splits:
                raise unknown("split in against", other, self.splits)

    @cached_property
    def recipe(self) -> Recipe:
        """Training options of networks. An entry may override them."""
        from radiomaps.training import Recipe

        return Recipe(instantiate(self.config["trainer"]), **self.config["loader"])

    @cached_property
    def store(self) -> MapStore:
        """The store of maps, opened and verified once."""
        path = Path(self.config["store"])
        if not (path / MANIFEST).exists():
            raise UserError(f"{path} is not a complete set of radio maps; trace or import one first")
        return MapStore.open(path)

    @cached_property
    def identity(self) -> str:
        """The identity of the store: the hash of its manifest."""
        return sha256(self.store.path / MANIFEST)

    @cached_property
    def _parts(self) -> dict[str, dict[str, NDArray[Any]]]:
        return {}

    def parts(self, split: str) -> dict[str, NDArray[Any]]:
        """Sample numbers of each part (such as train and test) of a split."""
        if split not in self._parts:
            self._parts[split] = parts_of(self.store, self.splits[split])
        return self._parts[split]

    @cached_property
    def cells(self) -> list[Cell]:
        """All cells: each entry on each task that it supports, with each split. Networks have one cell per seed."""
        found = []
        for name, task in self.tasks.items():
            for row in self.rows.values():
                if row.task_for(name, task) is None:
                    continue
                for split in self.splits:
                    seeds = range(int(self.config["seeds"])) if row.baseline is None else (0,)
                    found += [Cell(name, row.name, split, seed) for seed in seeds]
        return found

    def task(self, cell: Cell, part: str = "train") -> Task:
        """The task of a cell, on the height layers that the split assigns to a part."""
        made = self.rows[cell.row].task_for(cell.task, self.tasks[cell.task])
        assert made is not None
        return on_layers(made, self.splits[cell.split], part)

    def kinds(self, cell: Cell) -> list[str]:
        """Kinds of scoring of a cell: plain, and for networks on the first split also the ablations."""
        kinds = [PLAIN]
        if self.rows[cell.row].baseline is None and cell.split == next(iter(self.splits)):
            kinds += list(self.config["probes"])
        return kinds

    def _named_by(self, cell: Cell) -> dict[str, Any]:
        row = self.rows[cell.row]
        described: dict[str, Any] = {
            "store": self.identity,
            "model": row.described(),
            "task": self.task(cell).describe(),
        }
        described |= {"split": self.splits[cell.split], "seed": cell.seed}
        if row.baseline is None:
            described |= {"trainer": {**self.config["trainer"], **row.trainer}, "loader": self.config["loader"]}
        return described

    def folder(self, cell: Cell) -> Path:
        """Path of the folder of a cell's trained model."""
        return self.cache / "models" / f"{cell.row}-{config_hash(self._named_by(cell))}"

    def file(self, cell: Cell, kind: str) -> Path:
        """Path of the file with a cell's scores."""
        spec: dict[str, Any] = self._named_by(cell) | {
            key: self.config[key] for key in ("members", "part", "test_samples", "precision")
        }
        return scores_file(self.cache, f"{cell.row}-{kind}", spec, SCORED_BY)

    def trained(self, cell: Cell) -> dict[str, Any]:
        """Train a cell's model, unless its training is finished; returns the cost of training."""
        return self.rows[cell.row].fit(
            self.task(cell), self.store, self.parts(cell.split), recipe=self.recipe, folder=self.folder(cell),
            seed=cell.seed,
        )  # fmt: skip

    def builder(self, cell: Cell) -> Builder:
        """The trained model or baseline of a cell, for the height layers of the scored part."""
        self.trained(cell)
        task, precision = self.task(cell, self.config["part"]), self.config["precision"]
        return self.rows[cell.row].load(task, self.folder(cell), precision=precision)

    def test_samples(self, split: str) -> list[int]:
        """Sample numbers of the maps to score: those of the configured part, by default `test`."""
        parts = self.parts(split)
        if self.config["part"] not in parts:
            raise unknown("part", self.config["part"], parts)
        return some_of(parts[self.config["part"]], self.config["test_samples"])

    def scored(self, cell: Cell, kind: str = PLAIN) -> MapScores:
        """Scores of a cell, from the cache or computed."""
        return kept(self.file(cell, kind), MapScores.load, functools.partial(self._score, cell, kind))

    def _score(self, cell: Cell, kind: str) -> MapScores:
        builder, samples = self.builder(cell), self.test_samples(cell.split)
        options: dict[str, Any] = {"members": int(self.config["members"]), "seed": cell.seed}
        options["batch_size"] = int(self.config["score_batch"])
        if kind == PLAIN:
            return score(builder, self.store, samples, title=f"scoring {cell.row}", **options)
        return probed(builder, kind, self.store, samples, title=f"{cell.row}, {kind}", **options)

    def prior_alone(self, cell: Cell) -> MapScores:
        """Scores of the prior of a cell's task, without a network."""
        named = self._named_by(cell)
        spec = {key: named[key] for key in ("store", "task", "split")} | {
            key: self.config[key] for key in ("part", "test_samples")
        }

        def make() -> MapScores:
            from radiomaps.baselines import baseline

            alone = baseline("prior", self.task(cell, self.config["part"]))
            return score(alone, self.store, self.test_samples(cell.split))

        return kept(scores_file(self.cache, "prior", spec, SCORED_BY), MapScores.load, make)

    def leaks(self, split: str) -> tuple[Any, ...]:
        """Pairs of scenes in different parts of a split that share buildings."""
        return audit(self.store, self.parts(split))

    def finished(self, cell: Cell) -> None:
        """Train a cell and compute its missing scores, of all kinds."""
        for kind in self.kinds(cell):
            self.scored(cell, kind)

    def run(self) -> BenchmarkResults:
        """Train and score all cells. Failures are reported, and the failed cells have no scores."""
        for cell in self.cells:  # compute shared data before worker processes start
            self.parts(cell.split)
        from radiomaps.tasks.priors import dominant_store

        for task in map(self.task, self.cells):
            if task.prior == "dominant":
                dominant_store(self.store, version=task.dominant_version)
            if ONCE_FEATURE in task.features:
                dominant_store(self.store, version=task.dominant_version, once=True)
        # Networks take longest: they come first.
        todo = sorted(self.cells, key=lambda cell: self.rows[cell.row].baseline is not None)
        config = self.config | {"store": str(self.store.path.absolute()), "cache": str(self.cache.absolute())}
        jobs = each(self, "finished", [(cell,) for cell in todo], unit="cells", config=config)
        named: dict[str, str] = {}
        failing = (Diverged, UserError)
        done = {cell for (cell,), _ in attempted(jobs, named, _label, failing=failing)}
        failures = {cell: named[_label(cell)] for cell in self.cells if cell not in done}
        cells = [cell for cell in self.cells if cell in done]
        scores = {(cell, kind): self.scored(cell, kind) for cell in cells for kind in self.kinds(cell)}
        return BenchmarkResults(scores, {cell: self.trained(cell) for cell in cells}, failures)


def _label(cell: Cell) -> str:
    """Text that identifies a cell in messages."""
    return f"{cell.row} on {cell.task}, split {cell.split}, seed {cell.seed}"
