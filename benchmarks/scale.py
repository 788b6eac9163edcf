"""Parallel efficiency of a second Dask worker: preparing data, and cells of a benchmark. Workers have one thread each.

- `efficiency_prepare`: T1 / (2·T2), where T1 and T2 are the seconds in which one and two workers prepare a region of
  the synthetic planet, from the request of the first slab to the manifest.
- `efficiency_cells`: the same for equal cells of a benchmark; each trains and scores a network on prepared data.

Workers are new for every run, so none has cached weather. Before the clock starts, they do the same work on a small
region, so imports and compilation are not measured. One and two workers take turns. Figures are medians over the
rounds of the ratio within a round.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from harness import main

from geoml.cli.compose import compose
from geoml.cli.verbs import dask_workers
from geoml.runs.environment import usable_cores
from rainshift.benchmarking.plan import Cell
from rainshift.benchmarking.run import Experiment
from rainshift.training import TrainSet

REGION = "melanesia"
SETTINGS = (
    "models=[bilinear,{model:resnet,width:16,coarse_blocks:2,fine_blocks:1,name:network}]",
    "data.condition=[tp,tcw,u,v]",
    "trainer.validate_every=0",
    "loader.patch=40",
    "members=1",
    "test_samples=96",
)


def experiment(folder: Path, *, hours: int, size_deg: int, samples: int) -> Experiment:
    """Return a benchmark whose data, trainings and scores are stored in the folder."""
    spans = {"train": (2001, 2011), "validation": (2011, 2013), "test": (2013, 2021)}
    splits = ",".join(f"{k}:{{start:'{a}-01-01',end:'{b}-01-01',hours:{hours}}}" for k, (a, b) in spans.items())
    words = (*SETTINGS, f"cache={folder}", f"data.size_deg={size_deg}", f"data.splits_at={{{splits}}}")
    return Experiment(compose("rainshift.conf", "benchmark", [*words, f"trainer.samples={samples}"]))


def prepare(made: Experiment) -> None:
    """Prepare the training data of one region without a cache."""
    shutil.rmtree(made.archive.path(REGION, "train"), ignore_errors=True)
    made.archive.prepare(REGION, "train")


def cells(made: Experiment) -> None:
    """Train and score four seeds of one network without a cache."""
    for name in ("trainings", "scores"):
        shutil.rmtree(made.cache / name, ignore_errors=True)
    train_set = TrainSet((REGION,), len(made.archive.samples(REGION, "train")[1]))
    for _, trained in made.each("trained", [("network", train_set, seed) for seed in range(4)], "trainings"):
        trained()
    for _, scored in made.each("scored", [(Cell("network", train_set, REGION, seed),) for seed in range(4)], "cells"):
        scored()


def seconds(work: Callable[[Experiment], None], made: Experiment, small: Experiment, workers: int) -> float:
    """Return the seconds of new workers, after a warm-up on a small case."""
    with dask_workers(workers):
        work(small)
        begin = time.perf_counter()
        work(made)
        return time.perf_counter() - begin


def measure(quick: bool) -> dict[str, float | None]:
    """Return both figures, which the top of the file defines."""
    if usable_cores() < 2:
        print("one core only: the efficiency of a second worker cannot be measured")
        return {"efficiency_prepare": None, "efficiency_cells": None}
    sizes = {"hours": 192, "samples": 64} if quick else {"hours": 1440, "samples": 320}
    quotients: dict[str, list[float]] = {"efficiency_prepare": [], "efficiency_cells": []}
    with tempfile.TemporaryDirectory() as folder:
        small = experiment(Path(folder) / "small", hours=24, size_deg=6, samples=32)
        made = experiment(Path(folder) / "made", size_deg=20, **sizes)
        for part in (small, made):
            for split in part.archive.splits:
                part.archive.prepare(REGION, split)
        for name, work in (("efficiency_prepare", prepare), ("efficiency_cells", cells)):
            for _ in range(1 if quick else 3):
                one, two = (seconds(work, made, small, workers) for workers in (1, 2))
                print(f"{name}: {one:.1f} s with one worker, {two:.1f} s with two")
                quotients[name].append(one / (2 * two))
    return {name: statistics.median(values) for name, values in quotients.items()}


if __name__ == "__main__":
    main("scale", measure)
