"""Models × tasks × splits on one store: every cell is trained and scored once and cached."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from numpy.typing import NDArray

from geoml.cli.config import instantiate
from geoml.cli.progress import progress_bar
from geoml.errors import Diverged, UserError, unknown
from geoml.runs.environment import code_hash
from geoml.runs.files import sha256
from geoml.runs.folder import config_hash, plain
from geoml.train.device import autocast, choose_device
from radiomaps.benchmarking.ablations import PROBES, probed, score_active
from radiomaps.benchmarking.entries import Contender, task_of
from radiomaps.scores import MapScores, score
from radiomaps.tasks import Task
from radiomaps.tasks.splits import audit, on_layers, parts_of, some_of

if TYPE_CHECKING:
    from radiomaps.scores import Builder
    from radiomaps.training import Recipe

__all__ = ["Benchmark", "BenchmarkResults", "Cell"]

logger = logging.getLogger(__name__)

#: The code that computes scores from weights: if it changes, scores are computed again from the same trainings.
SCORED_BY = (
    *("geoml.diffusion", "geoml.metrics", "geoml.models", "geoml.nn"),
    *("radiomaps.baselines", "radiomaps.benchmarking.entries", "radiomaps.models", "radiomaps.benchmarking.ablations"),
    *("radiomaps.scores", "radiomaps.tasks"),
)
#: Ways to score a cell: plain, with changed inputs, or with observations at a rate, actively placed or not.
PLAIN = "plain"


@dataclass(frozen=True, order=True)
class Cell:
    """One training and its scores: a row on a task with one split and one seed."""

    task: str
    row: str
    split: str
    seed: int = 0


@dataclass(frozen=True)
class BenchmarkResults:
    """The results of a benchmark: scores by cell and kind of scoring, cost of trainings, failures with the reason."""

    scores: Mapping[tuple[Cell, str], MapScores]
    trainings: Mapping[Cell, Mapping[str, Any]]
    failures: Mapping[Cell, str]


def _by_name(entries: Sequence[Any], what: str) -> dict[str, dict[str, Any]]:
    """Entries by their `name`, which is removed; text is the name of a task."""
    found: dict[str, dict[str, Any]] = {}
    for entry in entries:
        options = {"name": entry, "task": entry} if isinstance(entry, str) else dict(entry)
        name = str(options.pop("name", None) or options.get("task") or options.get("by"))
        if name in found:
            raise UserError(f"{what} names {name} twice; give one another name:")
        found[name] = options
    return found


def _work(config: dict[str, Any], cell: Cell) -> None:
    """Run one cell in a worker of one thread."""
    import torch

    torch.set_num_threads(1)
    made = Benchmark(config)
    for kind in made.kinds(cell):
        made.scored(cell, kind)


class Benchmark:
    """One benchmark, from the configuration of the verb `benchmark`.

    Trainings and scores are kept under `cache`, named by what they depend on: store, model, task, split, trainer and
    seed, so that an interrupted benchmark resumes. Scores also depend on the code that computes them (`SCORED_BY`).
    Trainings do not; use another `cache` to train again.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = plain(config)
        self.store, self.cache = Path(self.config["store"]), Path(self.config["cache"])
        self.allow = tuple(self.config.get("allow_targets") or ())
        self.tasks: dict[str, Task] = {
            name: task_of(entry) for name, entry in _by_name(self.config["tasks"], "tasks").items()
        }
        rows = [Contender.of(entry, allow=self.allow) for entry in self.config["models"]]
        self.rows = {row.name: row for row in rows}
        if len(self.rows) < len(rows):
            names = [row.name for row in rows]
            raise UserError(f"models has two rows of one name: {names}; give one another name:")
        if not self.tasks or not self.rows:
            raise UserError("a benchmark needs a task and a model; name some in tasks and models")
        autocast(choose_device(), self.config["precision"])  # fail now rather than after the trainings
        for probe in self.config["probes"]:
            if probe not in PROBES:
                raise unknown("probe", probe, PROBES)
        self.splits = _by_name(self.config["splits"], "splits")
        beside = {name: split.pop("against", None) for name, split in self.splits.items()}
        #: Splits that are compared with another one, in which training includes the test conditions.
        self.against = {name: str(other) for name, other in beside.items() if other is not None}
        for other in self.against.values():
            if other not in self.splits:
                raise unknown("split in against", other, self.splits)

    @cached_property
    def recipe(self) -> Recipe:
        """The training options of networks, unless a row overrides them."""
        from radiomaps.training import Recipe

        return Recipe(instantiate(self.config["trainer"]), **self.config["loader"])

    @cached_property
    def identity(self) -> str:
        """The identity of the store: the hash of its manifest."""
        manifest = self.store / "manifest.json"
        if not manifest.exists():
            raise UserError(f"{self.store} is not a complete set of radio maps; trace or import one first")
        return sha256(manifest)

    @cached_property
    def _parts(self) -> dict[str, dict[str, NDArray[Any]]]:
        return {}

    def parts(self, split: str) -> dict[str, NDArray[Any]]:
        """Samples by part of a split: by scene, by file, or by `name`, whose parts list scenes; others train."""
        if split not in self._parts:
            self._parts[split] = parts_of(self.store, self.splits[split])
        return self._parts[split]

    @cached_property
    def cells(self) -> list[Cell]:
        """Every row on every task that it can do; rows that learn with every split and seed."""
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
        """The task of the cell's row, on the layers that its split gives to a part."""
        made = self.rows[cell.row].task_for(cell.task, self.tasks[cell.task])
        assert made is not None
        return on_layers(made, self.splits[cell.split], part)

    def kinds(self, cell: Cell) -> list[str]:
        """The ways in which a cell is scored; ways other than plain only for networks on the first split."""
        kinds = [PLAIN]
        if self.rows[cell.row].baseline is None and cell.split == next(iter(self.splits)):
            kinds += list(self.config["probes"])
            if self.task(cell).observations is not None and cell.row in self.config["active"]["models"]:
                rates = self.config["active"]["rates"]
                kinds += [f"{way}@{rate:g}" for rate in rates for way in ("active", "lattice")]
        return kinds

    def _named_by(self, cell: Cell) -> dict[str, Any]:
        row = self.rows[cell.row]
        described: dict[str, Any] = {"store": self.identity, "model": row.config(), "task": self.task(cell).describe()}
        described |= {"split": self.splits[cell.split], "seed": cell.seed}
        if row.baseline is None:
            described |= {"trainer": {**self.config["trainer"], **row.trainer}, "loader": self.config["loader"]}
        return described

    def folder(self, cell: Cell) -> Path:
        """The folder of a cell's training."""
        return self.cache / "models" / f"{cell.row}-{config_hash(self._named_by(cell))}"

    def file(self, cell: Cell, kind: str) -> Path:
        """The file of a cell's scores."""
        spec: dict[str, Any] = self._named_by(cell) | {
            key: self.config[key] for key in ("members", "part", "test_samples", "precision")
        }
        spec["code"] = code_hash(*SCORED_BY)
        if kind.startswith(("active", "lattice")):
            spec |= {name: self.config["active"][name] for name in ("rounds", "sampling")}
        return self.cache / "scores" / f"{cell.row}-{kind}-{config_hash(spec)}.nc"

    def trained(self, cell: Cell) -> dict[str, Any]:
        """Train a cell's row if needed; returns the cost of training."""
        return self.rows[cell.row].fit(
            self.task(cell), self.store, self.parts(cell.split), recipe=self.recipe, folder=self.folder(cell),
            seed=cell.seed, allow=self.allow,
        )  # fmt: skip

    def builder(self, cell: Cell) -> Builder:
        """The trained row of a cell, for the layers of the scored part."""
        self.trained(cell)
        task, precision = self.task(cell, self.config["part"]), self.config["precision"]
        return self.rows[cell.row].load(task, self.folder(cell), precision=precision, allow=self.allow)

    def test_samples(self, split: str) -> list[int]:
        """The maps of a part, by default `test`."""
        parts = self.parts(split)
        if self.config["part"] not in parts:
            raise unknown("part", self.config["part"], parts)
        return some_of(parts[self.config["part"]], self.config["test_samples"])

    def scored(self, cell: Cell, kind: str = PLAIN) -> MapScores:
        """The scores of a cell, computed if needed."""
        path = self.file(cell, kind)
        if path.exists():
            return MapScores.load(path)
        builder, samples = self.builder(cell), self.test_samples(cell.split)
        options: dict[str, Any] = {"members": int(self.config["members"]), "seed": cell.seed}
        options["batch_size"] = int(self.config["score_batch"])
        if kind == PLAIN:
            made = score(builder, self.store, samples, title=f"scoring {cell.row}", **options)
        elif kind in PROBES:
            made = probed(builder, kind, self.store, samples, title=f"{cell.row}, {kind}", **options)
        else:
            way, _, rate = kind.partition("@")
            if self.config["active"]["sampling"]:
                builder = cast("Any", builder).sampled_by(**self.config["active"]["sampling"])
            made = score_active(
                builder, self.store, samples, rate=float(rate), rounds=int(self.config["active"]["rounds"]),
                uniform=way == "lattice", **options,
            )  # fmt: skip
        made.save(path)
        return made

    def prior_alone(self, cell: Cell) -> MapScores:
        """The scores of a cell's prior without its network."""
        named = self._named_by(cell)
        spec = {key: named[key] for key in ("store", "task", "split")} | {
            key: self.config[key] for key in ("part", "test_samples")
        }
        spec["code"] = code_hash(*SCORED_BY)
        path = self.cache / "scores" / f"prior-{config_hash(spec)}.nc"
        if path.exists():
            return MapScores.load(path)
        from radiomaps.baselines import baseline

        alone = baseline("prior", self.task(cell, self.config["part"]))
        made = score(alone, self.store, self.test_samples(cell.split))
        made.save(path)
        return made

    def leaks(self, split: str) -> tuple[Any, ...]:
        """Pairs of scenes that share buildings and lie in different parts."""
        return audit(self.store, self.parts(split))

    def run(self) -> BenchmarkResults:
        """Train and score every cell; failures are reported and left out."""
        failures: dict[Cell, str] = {}
        for cell in self.cells:  # shared data are made before several processes need them
            self.parts(cell.split)
        for version in {task.dominant_version for task in map(self.task, self.cells) if task.prior == "dominant"}:
            from radiomaps.tasks.priors import dominant_store

            dominant_store(self.store, version=version)
        with progress_bar("benchmark", len(self.cells), unit="cells") as bar:
            for cell, error in self._each():
                if error is not None:
                    logger.warning("%s on %s failed: %s", cell.row, cell.task, error)
                    failures[cell] = str(error)
                bar.advance(1, note=f"{cell.row}, {cell.task}")
        done = [cell for cell in self.cells if cell not in failures]
        scores = {(cell, kind): self.scored(cell, kind) for cell in done for kind in self.kinds(cell)}
        return BenchmarkResults(scores, {cell: self.trained(cell) for cell in done}, failures)

    def _each(self) -> Iterator[tuple[Cell, Exception | None]]:
        """Results of cells in order of completion, in this process or by `workers` processes of one thread."""
        workers = int(self.config["workers"])
        if workers < 2:
            for cell in self.cells:
                try:
                    for kind in self.kinds(cell):
                        self.scored(cell, kind)
                except (Diverged, UserError) as failure:
                    yield cell, failure
                else:
                    yield cell, None
            return
        todo = sorted(self.cells, key=lambda cell: self.rows[cell.row].baseline is not None)  # networks take longest
        with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
            jobs = {pool.submit(_work, self.config, cell): cell for cell in todo}
            for future in as_completed(jobs):
                came = future.exception()
                if came is not None and not isinstance(came, Diverged | UserError):
                    raise came
                yield jobs[future], came
