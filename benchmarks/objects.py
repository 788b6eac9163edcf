"""Spatial structure of predicted rain: number of connected areas, share of single cells, and wet area.

Members of the shipped general diffusion are compared with the truth in wet hours (at least 5 % of the cells) of six
regions of the planet and of radar in four countries, none of which were in its training. For each hour and at 0.1 mm/h,
three ratios of member to truth are computed: number of objects, share of objects that are single cells, and number of
wet cells. A figure is the median over hours as a factor of at least 1 (1.25 stands for 1.25 or 0.8), the worse of
planet and radar.

The table has medians and the 10 % and 90 % quantiles, at 0.1 and 1 mm/h, of both general models and of RainFARM.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import places
import torch
from harness import main

from geoml.cli.tables import show
from geoml.metrics.objects import count_objects
from geoml.models.base import Channels
from rainshift.sources.base import RegionData

WET_SHARE = 0.05
LEVELS = (0.1, 1.0)
NAMES = ("objects_ratio", "one_cell_share", "wet_area_ratio")
Ratios = dict[tuple[str, float, str], list[float]]


def counts(fields: np.ndarray[Any, Any], level: float) -> np.ndarray[Any, Any]:
    """Count objects, single cells and wet cells of fields `(member, lat, lon)`; means over members."""
    made = [(*count_objects(field >= level), int((field >= level).sum())) for field in fields]
    return np.mean(made, axis=0)


def gathered(found: Iterable[tuple[str, RegionData, list[int]]], channels: Channels) -> Ratios:
    """Collect the ratios of each model, level and figure, with one entry per hour."""
    made: Ratios = {}
    for _, data, hours in found:
        models = places.models(channels, exact=places.is_exact(data))
        truth = data.target["precipitation"].isel(time=hours).values
        wet = [hour for hour, field in zip(hours, truth, strict=True) if (field >= LEVELS[0]).mean() >= WET_SHARE]
        for batch in places.batches(data, wet, channels) if wet else ():
            assert batch.target is not None
            for key, model in models.items():
                rain = model.predict(batch, members=2 if model.stochastic else 1)[0][:, :, 0].numpy()
                for fields, true in zip(rain, batch.target[:, 0].numpy(), strict=True):
                    for level in LEVELS:
                        n, single, area = counts(fields, level)
                        n0, single0, area0 = counts(true[None], level)
                        shares = (single / n) / (single0 / n0) if n and n0 and single0 else math.nan
                        values = (n / n0 if n0 else math.nan, shares, area / area0 if area0 else math.nan)
                        for name, value in zip(NAMES, values, strict=True):
                            made.setdefault((key, level, name), []).append(value)
    return made


def rows(where: str, ratios: Ratios) -> list[dict[str, Any]]:
    """Return rows with the median and range of each ratio."""
    made: dict[tuple[str, float], dict[str, Any]] = {}
    for (key, level, name), values in ratios.items():
        low, middle, high = np.nanquantile(values, [0.1, 0.5, 0.9])
        line = made.setdefault((key, level), {"where": where, "model": key, "mm/h": level, "hours": len(values)})
        line[name] = f"{middle:.2f} ({low:.2f}–{high:.2f})"
    return list(made.values())


def measure(quick: bool) -> dict[str, float | None]:
    """Return the figures of this script by the keys of targets.yaml."""
    torch.set_num_threads(1)
    found = {
        "planet": gathered(places.named(8 if quick else 48), places.ALL),
        "real": gathered(places.countries(2 if quick else 12), places.RAIN),
    }
    show([line for where, ratios in found.items() if ratios for line in rows(where, ratios)])
    worst: dict[str, float | None] = {}
    for name in NAMES:
        medians = [np.nanmedian(ratios["general", LEVELS[0], name]) for ratios in found.values() if ratios]
        worst[name] = float(max(max(value, 1 / value) if value > 0 else math.inf for value in medians))
    return {"objects_ratio": worst[NAMES[0]], "one_cell_share": worst[NAMES[1]], "wet_area_ratio": worst[NAMES[2]]}


if __name__ == "__main__":
    main("objects", measure)
