"""Gain and harm of fine-tuning the shipped general diffusion on few hours of local data.

Runs `rainshift benchmark experiment=adapt` on three regions of the synthetic planet that were not in the training of
the shipped weights. Compared on the same test hours are: the shipped weights, the weights fine-tuned on contiguous
hours, and a training on the complete record of one year.

- `half_gap_hours`: hours of local data that close half the gap between the shipped weights and the training on the
  complete record; the largest value over regions. Null without a gap.
- `skill_lost_mean`, `skill_lost_worst`: share of the skill that is lost without local data, (S_in - S_out) / S_in; mean
  and largest value over regions. Skill is 1 minus the fair CRPS over that of bilinear rain. S_out is the skill of the
  shipped weights, S_in the greater of it and the skill of the training on the complete record.
- `worst_adapted_over_general`: fair CRPS after fine-tuning over that of the shipped weights; the largest value over
  regions and numbers of hours.
- `worst_aligned_over_general`: the same ratio for aligned predictors, which use no fine rain; the better of quantile
  mapping and CORAL, the largest value over regions.

Trainings and scores are saved in runs/adapt. The same command resumes.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from typing import Any

import torch
from harness import main

from geoml.cli.compose import compose
from geoml.cli.tables import show
from rainshift.benchmarking.run import Experiment
from rainshift.report.tables import adaptation_table

#: Small case for --quick: one region, a record of ten days.
QUICK = [
    "regions=[melanesia]",
    "adapt=[0,24,96]",
    "alignment=[quantile_mapping]",
    "data.splits_at={train:{start:'2020-06-01',end:'2020-06-11',hours:240},"
    "test:{start:'2022-01-01',end:'2023-01-01',hours:120}}",
    "test_samples=20",
    "trainer.samples=640",
]


def measure(quick: bool) -> dict[str, float | None]:
    """Return the figures of this script by the keys of targets.yaml."""
    torch.set_num_threads(1)
    words = ["experiment=adapt", "cache=runs/adapt", *(QUICK if quick else [])]
    outcome = Experiment(compose("rainshift.conf", "benchmark", words)).run()
    rows = outcome.adaptation
    show(adaptation_table(rows))
    halves = [row["half_gap_hours"] for row in rows if row["half_gap_hours"] is not None]
    crps = outcome.results["score"].sel(metric="crps_fair", distribution="in")
    plain = crps.sel(model="diffusion+0h")
    aligned = [name for name in map(str, crps["model"].values) if name.startswith("diffusion+0h+")]
    skill = 1 - crps / crps.sel(model="bilinear")
    within = skill.sel(model=["diffusion", "diffusion+0h"]).max("model")
    lost = 1 - skill.sel(model="diffusion+0h") / within
    over: dict[str, Any] = {
        "skill_lost_mean": float(lost.mean(skipna=False)),  # of every region, or of none
        "skill_lost_worst": float(lost.max(skipna=False)),
        "worst_adapted_over_general": max(score / row["score"][0] for row in rows for score in row["score"][1:-1]),
        "worst_aligned_over_general": float((crps.sel(model=aligned) / plain).min("model").max()),
    }
    return {"half_gap_hours": max(halves, default=None), **over}


if __name__ == "__main__":
    main("adapt", measure)
