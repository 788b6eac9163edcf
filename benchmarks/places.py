"""Hours of places for benchmarks of models that were not trained there: named regions, drawn climates, radar.

What `travel.py` and `objects.py` share; this is not a benchmark.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geoml.data.fields import Batch
from geoml.grids.grid import grid_of
from geoml.models.base import Channels
from rainshift.baselines import RainFARM
from rainshift.models.general import General, GeneralRegression
from rainshift.sources import open_source
from rainshift.sources.base import RegionData

__all__ = ["CLIMATES", "COUNTRIES", "REGIONS", "batches", "countries", "drawn", "is_exact", "models", "named"]

#: Named before anything was trained.
REGIONS = ("melanesia", "west-africa", "europe_west", "amazon-basin", "tibetan-plateau", "cape-horn")
COUNTRIES = ("finland", "germany", "netherlands", "conus")
CLIMATES = 20
#: Days since 1970 of the year 2022, of which none is trained on.
FIRST_DAY, DAYS = 18993, 365
#: Fine cells of a batch: larger ones take more time a cell.
AT_ONCE_CELLS = 1 << 17
PREDICTORS = ("tp", "cp", "cape", "sp", "tclw", "tcw", "tisr", "u", "v")
GUESS = (("precipitation", "tp"),)
ALL = Channels(PREDICTORS, ("precipitation",), ("lsm", "z"), GUESS)
RAIN = Channels(("tp",), ("precipitation",), (), GUESS)


def models(channels: Channels, *, exact: bool = False, **more: Any) -> dict[str, Any]:
    """The general models and their rival for some channels; `more` are others, built for the same ones."""
    rain = RainFARM(channels)
    return {
        "general": General(channels, exact=exact),
        "general-regression": GeneralRegression(channels, exact=exact),
        "rainfarm": rain,
        **{name: kind(channels) for name, kind in more.items()},
    }


def named(hours: int) -> Iterator[tuple[str, RegionData, list[int]]]:
    """The six regions in days of their test year, and which of their hours are taken."""
    source = open_source("synthetic", size_deg=3)
    for name in REGIONS:
        yield name, *_days(source, name, hours)


def drawn(hours: int, *, outside: bool = True) -> Iterator[tuple[str, RegionData, list[int]]]:
    """Twenty climates beyond the ranges of training (of another planet than the one trained on)."""
    source = open_source("synthetic_climates", seed=1, count=CLIMATES, outside=outside)
    for name in source.names:
        yield name, *_days(source, name, hours)


def _days(source: Any, name: str, hours: int) -> tuple[RegionData, list[int]]:
    """Hours evenly spread over days that are spread over the year."""
    days = max(1, hours // 6)
    numbers = FIRST_DAY + np.linspace(0, DAYS - 1, days, dtype=int)
    data = source.blocks(name, np.unique(numbers))
    every = 24 * days // hours
    return data, list(range(every // 2, 24 * days, every))[:hours]


def countries(hours: int) -> Iterator[tuple[str, RegionData, list[int]]]:
    """Records of weather radar, as area means and as they are; none if `GEOML_DATA` names no folder with them."""
    root = Path(os.environ.get("GEOML_DATA", "nowhere")) / "precip"
    if not root.is_dir():
        return
    source = open_source("gridded", root=str(root), coarse="exact", min_coverage=1.0)
    for name in source.names:
        country = next(country for country in COUNTRIES if country in name)
        data = source.open(name)
        taken = np.linspace(0, data.target.sizes["time"] - 1, min(hours, data.target.sizes["time"]))
        yield country, data, sorted({int(i) for i in taken})


def is_exact(data: RegionData) -> bool:
    """Whether the coarse rain is the exact mean of the fine rain, an input of general models."""
    return str(data.provenance.get("coarse", "")).startswith("area means")


def batches(data: RegionData, hours: list[int], channels: Channels, *, at_once: int = 8) -> Iterator[Batch]:
    """Whole fields of some hours, truths included."""
    coarse, fine = grid_of(data.condition), grid_of(data.target)
    condition = np.stack([data.condition[name].isel(time=hours).values for name in channels.condition], axis=1)
    truth = data.target["precipitation"].isel(time=hours).values[:, None]
    static = None
    if channels.static and data.static is not None:
        static = torch.from_numpy(np.stack([data.static[name].values for name in channels.static])).float()
    at_once = min(at_once, max(1, AT_ONCE_CELLS // fine.size))
    for start in range(0, len(hours), at_once):
        rows = slice(start, start + at_once)
        part = torch.from_numpy(np.ascontiguousarray(condition[rows])).float()
        wide = None if static is None else static.expand(len(part), *static.shape)
        target = torch.from_numpy(np.ascontiguousarray(truth[rows])).float()
        yield Batch(part, coarse, fine, target=target, static=wide, ids=tuple(hours[rows]))
