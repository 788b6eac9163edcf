"""The synthetic planet: speed of weather generation, and skill lost on unseen regions.

A small U-Net is trained on regions of the planet, once with each region left out in turn and once with all of them, on
the same total number of hours. Skill is 1 − MAE over the MAE of bilinear rain, on later hours of the left-out region.
All is repeated on several planets with the same climates but independent weather and land. Intervals are Student's t
over planets, so they include the randomness of weather, training and test hours.

- `hours_per_s`: hours of a complete 20° × 20° region (rain and nine predictors) per second, with Dask as in `prepare`.
- `skill_lost_left_out`: (skill in − skill out) / skill in. Both skills are means over regions (the ratio of a region
  with little skill is mostly noise); the result is the mean over planets.
- `skill_lost_control`: the same if all regions have one climate, location and land: distance of its interval from 0.
- `control_uncertainty`: half the width of this interval. A wide interval could not detect a loss.
"""

from __future__ import annotations

import itertools
import math
import tempfile
import time
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from harness import main
from scipy import stats

from geoml.cli.compose import compose
from geoml.cli.tables import show
from rainshift.benchmarking.run import Experiment
from rainshift.sources import open_source

#: Regions that differ in wet fraction, tail, cells, and in bias and noise of the analysis.
REGIONS = ("europe_west", "melanesia", "tibetan-plateau", "west-africa")
#: Region whose climate all regions have in the control.
EQUAL = "melanesia"
#: Training loss equal to the score: the CRPS of a single member is the absolute error.
UNET = "{model: unet, base: 8, multipliers: [1, 2], loss: l1}"
PLANETS, WORKERS = 4, 2
LEVEL = 0.95


def hours_per_s(days: int) -> float:
    """Return the hours of weather of a complete region per second, without the set-up."""
    source = open_source("synthetic")
    source.blocks(REGIONS[0], np.arange(1)).target.load()
    data = source.blocks(REGIONS[0], np.arange(1000, 1000 + days))
    begin = time.perf_counter()
    data.condition.load()
    data.target.load()
    return len(data) / (time.perf_counter() - begin)


Skills = dict[str, tuple[float, float]]


def skills(planet: int, cache: str, equal: str | None, quick: bool) -> Skills:
    """Return the skill in and out of distribution in each region of one planet."""
    # Complete fields: they are small, and all parts of them are then seen equally often.
    samples = 640 if quick else 2400
    hours = {"train": 72 if quick else 240, "validation": 24, "test": 48 if quick else 168}
    overrides = [
        f"train_regions=[{','.join(REGIONS)}]",
        f"models=[bilinear,{UNET}]",
        f"data.seed={planet}",
        f"data.equal={equal or 'null'}",
        "data.size_deg=4",
        *(f"data.splits_at.{split}.hours={count}" for split, count in hours.items()),
        f"trainer.samples={samples}",
        f"trainer.checkpoint_every={samples}",
        "trainer.learning_rate=3e-3",
        "loader.batch_size=8",
        "loader.patch=0",
        "loader.validation_samples=0",
        f"cache={cache}",
    ]
    outcome = Experiment(compose("rainshift.conf", "benchmark", overrides)).run()
    for cell, reason in outcome.failures.items():  # NaN in the figures, and said why
        print(f"planet {planet}, {'one climate' if equal else 'its climates'}: {cell} failed: {reason}", flush=True)
    found = outcome.results["skill"].sel(model="unet")
    return {
        name: (float(inside), float(outside))
        for name, (inside, outside) in zip(
            REGIONS, found.sel(test_region=list(REGIONS), distribution=["in", "out"]).values, strict=True
        )
    }


def lost(planets: list[Skills]) -> tuple[float, float | None]:
    """Return the share of skill lost, mean over planets, and half the width of its interval; None for one planet."""
    inside, outside = (
        np.array([[skill[side] for skill in made.values()] for made in planets]).mean(1) for side in (0, 1)
    )
    values = 1 - outside / inside
    if len(values) < 2:
        return float(values.mean()), None
    width = stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean()), float(width)


def shown(arm: str, planets: list[Skills]) -> list[dict[str, Any]]:
    """Return one row per region: skill in and out as means over planets, and the skill lost with half its interval."""
    rows = []
    for name in (*REGIONS, "all"):
        chosen = [made if name == "all" else {name: made[name]} for made in planets]
        inside, outside = np.mean([list(made.values()) for made in chosen], axis=(0, 1))
        loss, width = lost(chosen)
        rows.append({"arm": arm, "region": name, "skill in": inside, "out": outside, "lost": loss, "±": width})
    return rows


def measure(quick: bool) -> dict[str, float | None]:
    """Return the figures of this script by the keys of targets.yaml."""
    speed = hours_per_s(2 if quick else 8)
    arms = {"planet": None, "control": EQUAL}
    threads = {"initializer": torch.set_num_threads, "initargs": (1,)}  # planets keep the cores busy
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(WORKERS, get_context("spawn"), **threads) as pool:
        jobs: dict[str, list[Future[Skills]]] = {arm: [] for arm in arms}
        for number, (arm, equal) in itertools.product(range(1 if quick else PLANETS), arms.items()):
            jobs[arm].append(pool.submit(skills, number, f"{folder}/{arm}", equal, quick))
        made: dict[str, list[Skills]] = {arm: [] for arm in arms}
        for number, arm in itertools.product(range(len(jobs["planet"])), arms):
            made[arm].append(jobs[arm][number].result())
            print(f"{arm} {number}: {lost(made[arm][-1:])[0]:.1%} of the skill lost", flush=True)
    found = {arm: lost(planets) for arm, planets in made.items()}
    rows = [row for arm, planets in made.items() for row in shown(arm, planets)]
    show(rows)
    loss, width = found["control"]
    return {
        "hours_per_s": speed,
        "skill_lost_left_out": found["planet"][0],
        "skill_lost_control": None if width is None else max(abs(loss) - width, 0.0),
        "control_uncertainty": width,
    }


if __name__ == "__main__":
    main("planet", measure)
