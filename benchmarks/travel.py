"""The shipped general models compared with RainFARM in places without training: regions, climates, countries.

The weights were trained on random climates of the synthetic planet (`rainshift train experiment=general`). The six
regions, the outside climates and the four countries were not in the training. Scores are the fair CRPS over the same
hours. `exact` is set if the coarse rain is exact. Figures are those of the diffusion, `general`; the table also shows
the regression.

- `worst_region_over_rainfarm`: CRPS over that of RainFARM in six regions; the largest.
- `outside_over_rainfarm`: the same in twenty climates outside all ranges of training; 90 % quantile.
- `zero_shot_over_rainfarm`: the same on radar of four countries with rain as the only predictor; the largest. Null
  without the files (`GEOML_DATA`).
- `real_spread_skill`: √((M+1)/M · variance) over the RMSE of members on radar, in cells where it rains, as a factor of
  at least 1 (1.15 stands for 1.15 or 0.87); the largest.

The table shows every place. Finished places are saved in runs/travel. The same command resumes.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import places
import torch
from harness import main

from geoml.cli.tables import show
from geoml.metrics import Suite
from geoml.models.base import Channels
from geoml.runs.environment import code_hash
from geoml.runs.files import read_json, write_json
from geoml.runs.folder import config_hash
from rainshift.baselines import Interpolation
from rainshift.models.general import shipped_sums
from rainshift.sources.base import RegionData

MEMBERS = 4
SUITE = Suite(["crps_fair"])
#: Code that determines the saved sums of finished records, from which an interrupted run resumes.
KEPT = Path("runs/travel")
WEIGHTS_USED = [shipped_sums(name) for name in ("general", "general-regression")]
CODE = ("geoml.diffusion", "geoml.metrics", "geoml.models", "geoml.nn", "geoml.regrid", "rainshift.baselines",
        "rainshift.models", "rainshift.places", "rainshift.planet", "rainshift.sources")  # fmt: skip


class Sums:
    """CRPS of models, and spread and error where it rains, summed over the hours of a place."""

    def __init__(self) -> None:
        self.crps: dict[str, list[float]] = {}
        self.variance = self.squares = 0.0

    def add(self, name: str, rain: np.ndarray[Any, Any], truth: np.ndarray[Any, Any], ids: Iterable[int]) -> None:
        """Add a batch of `(hour, member, lat, lon)`."""
        table = SUITE.update(rain, truth, ids=np.array(list(ids)))
        self.crps.setdefault(name, []).append(float(table.sums[:, 0].sum() / table.weights[:, 0].mean()))
        if name == "general":
            wet = (truth >= 0.1) | (rain.mean(1) >= 0.1)
            count = rain.shape[1]
            self.variance += float((rain.var(1, ddof=1) * (count + 1) / count)[wet].sum())
            self.squares += float(((rain.mean(1) - truth) ** 2)[wet].sum())

    def join(self, other: Sums) -> None:
        """Add the hours of another record."""
        for name, parts in other.crps.items():
            self.crps.setdefault(name, []).extend(parts)
        self.variance, self.squares = self.variance + other.variance, self.squares + other.squares

    def score(self, name: str) -> float:
        """Return the sum over hours of the mean CRPS."""
        return sum(self.crps[name])

    @property
    def spread_skill(self) -> float:
        """Return the spread–skill ratio; 1 if members deviate from their mean as much as the truth does."""
        return math.sqrt(self.variance / self.squares) if self.squares else math.nan


def of_record(data: RegionData, hours: list[int], channels: Channels) -> Sums:
    """Return the sums of one record."""
    sums = Sums()
    models = places.models(channels, exact=places.is_exact(data), bilinear=Interpolation)
    for batch in places.batches(data, hours, channels):
        assert batch.target is not None
        truth = batch.target[:, 0].numpy()
        for key, model in models.items():
            rain, _ = model.predict(batch, members=MEMBERS if model.stochastic else 1)
            sums.add(key, rain[:, :, 0].numpy(), truth, batch.ids)
    return sums


def scored(found: Iterable[tuple[str, RegionData, list[int]]], channels: Channels, what: str) -> dict[str, Sums]:
    """Return the sums of each place, pooled over its records. Finished records are read from runs/travel."""
    made: dict[str, Sums] = {}
    for number, (name, data, hours) in enumerate(found):
        path = KEPT / f"{config_hash({'weights': WEIGHTS_USED, 'code': code_hash(*CODE), 'hours': hours})}"
        path = path / f"{what}-{number}-{name}.json"
        if path.exists():
            sums = Sums()
            vars(sums).update(read_json(path))
        else:
            sums = of_record(data, hours, channels)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, vars(sums))
        made.setdefault(name, Sums()).join(sums)
        print(f"{what} {name}: {row(what, name, made[name])['general / rainfarm']:.3f}", flush=True)
    return made


def row(what: str, name: str, sums: Sums) -> dict[str, Any]:
    """Return the table row of a place."""
    rival, simple = sums.score("rainfarm"), sums.score("bilinear")  # 0 in hours without any rain
    over = {key: sums.score(key) / rival if rival else math.nan for key in ("general", "general-regression")}
    skills = {f"skill {key}": 1 - sums.score(key) / simple if simple else math.nan for key in ("general", "rainfarm")}
    ratios = {f"{key} / rainfarm": value for key, value in over.items()}
    return {"what": what, "place": name, **ratios, **skills, "spread–skill": sums.spread_skill}


def measure(quick: bool) -> dict[str, float | None]:
    """Return the figures of this script by the keys of targets.yaml."""
    torch.set_num_threads(1)
    kinds = {
        "region": scored(places.named(6 if quick else 48), places.ALL, "region"),
        "outside": scored(places.drawn(2 if quick else 6), places.ALL, "outside"),
        "country": scored(places.countries(2 if quick else 24), places.RAIN, "country"),
    }
    rows = {kind: {name: row(kind, name, sums) for name, sums in made.items()} for kind, made in kinds.items()}
    show([found for made in rows.values() for found in made.values()])
    ratios = {kind: [found["general / rainfarm"] for found in made.values()] for kind, made in rows.items()}
    spreads = [found["spread–skill"] for found in rows["country"].values()]
    return {
        "worst_region_over_rainfarm": float(np.nanmax(ratios["region"])),
        "outside_over_rainfarm": float(np.nanquantile(ratios["outside"], 0.9)),
        "zero_shot_over_rainfarm": max(ratios["country"], default=None),
        "real_spread_skill": max((max(value, 1 / value) for value in spreads), default=None),
    }


if __name__ == "__main__":
    main("travel", measure)
