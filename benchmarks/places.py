"""Test data of places that were not in a training: named regions, random climates, radar. Not a benchmark.

Common code of `travel.py` and `objects.py`.
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

#: Named regions; selected before any training.
REGIONS = ("melanesia", "west-africa", "europe_west", "amazon-basin", "tibetan-plateau", "cape-horn")
COUNTRIES = ("finland", "germany", "netherlands", "conus")
CLIMATES = 20
#: Days of the year 2022, counted from 1970; none of them was used for training.
FIRST_DAY, DAYS = 18993, 365
#: Largest number of fine cells in a batch; larger batches take more time per cell.
AT_ONCE_CELLS = 1 << 17
PREDICTORS = ("tp", "cp", "cape", "sp", "tclw", "tcw", "tisr", "u", "v")
GUESS = (("precipitation", "tp"),)
ALL = Channels(PREDICTORS, ("precipitation",), ("lsm", "z"), GUESS)
RAIN = Channels(("tp",), ("precipitation",), (), GUESS)


def models(channels: Channels, *, exact: bool = False, **more: Any) -> dict[str, Any]:
    """Build the general models and RainFARM for some channels, and others from `more`."""
    rain = RainFARM(channels)
    return {
        "general": General(channels, exact=exact),
        "general-regression": GeneralRegression(channels, exact=exact),
        "rainfarm": rain,
        **{name: kind(channels) for name, kind in more.items()},
    }


def named(hours: int) -> Iterator[tuple[str, RegionData, list[int]]]:
    """Yield the six regions on days of their test year, with positions of the selected hours."""
    source = open_source("synthetic", size_deg=3)
    for name in REGIONS:
        yield name, *_days(source, name, hours)


def drawn(hours: int, *, outside: bool = True) -> Iterator[tuple[str, RegionData, list[int]]]:
    """Yield twenty climates outside the ranges of training, from another planet than that of training."""
    source = open_source("synthetic_climates", seed=1, count=CLIMATES, outside=outside)
    for name in source.names:
        yield name, *_days(source, name, hours)


def _days(source: Any, name: str, hours: int) -> tuple[RegionData, list[int]]:
    """Return the data of some evenly spaced days of the year, and positions of `hours` evenly spaced hours."""
    days = max(1, hours // 6)
    numbers = FIRST_DAY + np.linspace(0, DAYS - 1, days, dtype=int)
    data = source.blocks(name, np.unique(numbers))
    every = 24 * days // hours
    return data, list(range(every // 2, 24 * days, every))[:hours]


def countries(hours: int) -> Iterator[tuple[str, RegionData, list[int]]]:
    """Yield records of weather radar with coarse area means; none if `GEOML_DATA` has none."""
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
    """Return whether the coarse rain is the exact area mean of the fine rain; general models take this as an input."""
    return str(data.provenance.get("coarse", "")).startswith("area means")


def batches(data: RegionData, hours: list[int], channels: Channels, *, at_once: int = 8) -> Iterator[Batch]:
    """Yield complete fields of some hours with their truth."""
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
