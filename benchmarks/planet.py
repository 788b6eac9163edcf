"""The synthetic planet: how fast its weather is made, and whether it shifts as real climates do.

A small U-Net is trained on regions of the planet with each of them left out in turn and, with as many hours in all,
with none left out; skill is 1 − MAE over that of the bilinear rain, on the left-out region's own later hours. All is
repeated on several planets of the same climates, which share no hour of weather and no land: intervals are Student's
over the planets, so that they hold the chance of the weather, of the training and of the test hours.

- `hours_per_s`: hours of a whole 20° × 20° region (rain and nine predictors) a second, through Dask as in preparation.
- `skill_lost_left_out`: (skill in − skill out) / skill in, both averaged over the regions first (where skill is small,
  a region's own ratio is mostly noise), then averaged over the planets.
- `skill_lost_control`: the same where all regions have one climate, place and land: distance of the interval from 0.
- `control_uncertainty`: half the width of that interval: a control that could not see a loss shows nothing.
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

#: Unlike each other in wet fraction, tail, cells and in the bias and noise of the analysis.
REGIONS = ("europe_west", "melanesia", "tibetan-plateau", "west-africa")
#: The climate that all regions have in the control.
EQUAL = "melanesia"
#: Trained on what it is scored by: of a single member the CRPS is the absolute error.
UNET = "{model: unet, base: 8, multipliers: [1, 2], loss: l1}"
PLANETS, WORKERS = 4, 2
LEVEL = 0.95


def hours_per_s(days: int) -> float:
    """Hours of weather of a whole region a second, the set-up made before."""
    source = open_source("synthetic")
    source.blocks(REGIONS[0], np.arange(1)).target.load()
    data = source.blocks(REGIONS[0], np.arange(1000, 1000 + days))
    begin = time.perf_counter()
    data.condition.load()
    data.target.load()
    return len(data) / (time.perf_counter() - begin)


Skills = dict[str, tuple[float, float]]


def skills(planet: int, cache: str, equal: str | None, quick: bool) -> Skills:
    """Skill in and out of distribution in each region of one planet."""
    # Whole fields: they are small, and a mountain in a corner is seen as often as any other.
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
    """Share of the skill that is lost, mean over planets, and half the width of its interval; None for one planet."""
    inside, outside = (
        np.array([[skill[side] for skill in made.values()] for made in planets]).mean(1) for side in (0, 1)
    )
    values = 1 - outside / inside
    if len(values) < 2:
        return float(values.mean()), None
    width = stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean()), float(width)


def shown(arm: str, planets: list[Skills]) -> list[dict[str, Any]]:
    """One row per region: skill in and out, mean over planets, and the skill lost with its half width."""
    rows = []
    for name in (*REGIONS, "all"):
        chosen = [made if name == "all" else {name: made[name]} for made in planets]
        inside, outside = np.mean([list(made.values()) for made in chosen], axis=(0, 1))
        loss, width = lost(chosen)
        rows.append({"arm": arm, "region": name, "skill in": inside, "out": outside, "lost": loss, "±": width})
    return rows


def measure(quick: bool) -> dict[str, float | None]:
    """The figures of this script, by the keys of targets.yaml."""
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
