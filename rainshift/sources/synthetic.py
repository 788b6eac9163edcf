"""Synthetic planet as a data source: weather of 18 regions, generated from their climates, for any hours."""

from __future__ import annotations

import functools
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from geoml.data.packing import Packing
from geoml.errors import UserError, unknown
from geoml.grids.grid import Grid
from rainshift.places.climate import Climate
from rainshift.places.regions import Region, grids, region, regions
from rainshift.planet.latent import BLOCK_HOURS
from rainshift.planet.weather import FINE_PAD, PREDICTORS, Weather, WeatherBlock
from rainshift.sources.base import RegionData
from rainshift.sources.time_blocks import of_strata
from rainshift.sources.variables import VARIABLES

__all__ = ["PlanetSource", "SyntheticSource", "WeatherLaw", "block_starts"]

EPOCH = np.datetime64("1970-01-01T00", "h")
#: Memory for cached blocks of weather in bytes; a block of a full region takes about 10 MB.
LATEST_BYTES = 160_000_000
#: Resolution of the stored rain in mm/h, equal to IMERG.
RATE_STEP_MM_H = 0.01


def block_starts(start: str, end: str, hours: int) -> NDArray[np.int64]:
    """Choose blocks of `BLOCK_HOURS` hours with `hours` in total, evenly spread from `start` to `end` (exclusive).

    Returns block numbers. Raises `UserError` if the range has fewer hours.

    >>> block_starts("2001-01-01", "2003-01-01", 96).tolist()
    [11323, 11618, 11730, 12026]
    """
    first, last = (int((np.datetime64(day, "h") - EPOCH).astype(int)) // BLOCK_HOURS for day in (start, end))
    days, count = last - first, -(-hours // BLOCK_HOURS)
    if not 0 < count <= days:
        raise UserError(f"{hours} hours requested between {start} and {end}, which contains {days * BLOCK_HOURS} hours")
    return first + of_strata(days, count)


class WeatherLaw(Hashable, Protocol):
    """Interface of the weather of a region: small when pickled; each day is generated independently."""

    @property
    def coarse(self) -> Grid:
        """Grid of the predictors."""

    @property
    def fine(self) -> Grid:
        """Grid of the rain."""

    def block(self, block: int) -> WeatherBlock:
        """Return the `BLOCK_HOURS` hours of a block; block 0 starts at 1970-01-01."""


@dataclass(frozen=True)
class PlanetSource(ABC):
    """Base class of synthetic sources: regions with a climate, any hours of any year, boxes of any size."""

    seed: int = 0
    include: Sequence[str] = ()
    size_deg: float | None = None
    splits_at: Mapping[str, Mapping[str, Any]] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of regions with a climate, restricted to `include` if it is not empty."""
        known = {name for name, found in regions().items() if found.climate is not None}
        for name in self.include:
            if name not in known:
                raise unknown("region with a climate", name, known)
        return tuple(self.include) or tuple(sorted(known))

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.splits_at or DEFAULT_SPLITS)

    @property
    def predictors(self) -> Mapping[str, Mapping[str, str]]:
        """Attributes of the predictors, in their order in blocks of weather."""
        return {name: VARIABLES[name].attrs for name in PREDICTORS}

    @property
    def locations(self) -> tuple[str, ...]:
        return ()

    def files(self, name: str, split: str | None = None) -> Mapping[str, Path]:
        """Return no files, since weather is generated."""
        return {}

    def open(self, name: str, split: str | None = None) -> RegionData:
        """Open one region at the hours of one split, by default the first split."""
        parts = self.splits_at or DEFAULT_SPLITS
        split = split or next(iter(parts))
        if split not in parts:
            raise unknown("split", split, parts)
        part = parts[split]
        return self.blocks(name, block_starts(str(part["start"]), str(part["end"]), int(part["hours"])), split=split)

    def blocks(self, name: str, numbers: NDArray[np.int64], *, split: str = "") -> RegionData:
        """Return one region at the hours of the days `numbers`, counted from 1970-01-01."""
        weather = self.weather(name)
        hours = (numbers[:, None] * BLOCK_HOURS + np.arange(BLOCK_HOURS)).ravel()
        time = (EPOCH + hours.astype("timedelta64[h]")).astype("datetime64[ns]")
        condition, target = _lazy(weather, numbers, time, self.predictors)
        provenance = self.provenance(name) | {"split": split}
        packing = {} if "precipitation" in condition else {"precipitation": Packing(RATE_STEP_MM_H)}
        return RegionData(name, condition, target, self.static(name), timedelta(hours=1), provenance, packing)

    @abstractmethod
    def weather(self, name: str) -> WeatherLaw:
        """Return the weather model of a region."""

    def static(self, name: str) -> xr.Dataset | None:
        """Return static fields on the fine grid; None if there are none."""
        return None

    @abstractmethod
    def provenance(self, name: str) -> dict[str, Any]:
        """Return the origin of a region's data: `source`, `licence` and others."""

    def box(self, name: str) -> Region:
        """Return the central box of `size_deg` in a region. Raises `UserError` for a region without a climate."""
        if name not in self.names:
            raise unknown("region with a climate", name, self.names)
        return _shrunk(region(name), self.size_deg)


@dataclass(frozen=True)
class SyntheticSource(PlanetSource):
    """`data=synthetic`: generated weather. It depends only on the options; each hour is independent of the selection.

    `splits_at` maps a split to its `start`, `end` (exclusive) and `hours`, which are chosen in evenly spaced blocks of
    one day. `size_deg` selects smaller boxes in the centre of the regions; the weather of a small box is not a crop of
    the full region's weather. With `equal`, all regions use the climate, location and land of this region and differ
    only by chance (negative control). `climate` overrides parameters of all climates.
    """

    equal: str | None = None
    climate: Mapping[str, float] | None = None

    def weather(self, name: str) -> Weather:
        """Return the weather model of a region."""
        box = self.box(name)
        if self.equal is not None:
            box = _shrunk(region(self.equal), self.size_deg)
        if box.climate is None:
            raise UserError(
                f"region {box.name!r} has no climate: block in its YAML file, as the synthetic planet needs; add one"
            )
        climate = Climate.from_mapping({**box.climate.as_dict(), **(self.climate or {})})
        coarse, fine = grids(box)
        return Weather(self.seed, name, climate, coarse, fine, self.equal or name)

    def static(self, name: str) -> xr.Dataset:
        """Return land fraction and surface geopotential."""
        weather = self.weather(name)
        land, inner = _shared(weather).land, slice(FINE_PAD, -FINE_PAD)
        fields = {"lsm": land.lsm, "z": land.geopotential}
        dims = weather.fine.names
        values = {name: (dims, field[inner, inner], VARIABLES[name].attrs) for name, field in fields.items()}
        return xr.Dataset(values, weather.fine.coords())

    def provenance(self, name: str) -> dict[str, Any]:
        """Return the origin: no observations, the seed, and the region whose climate is used."""
        return {
            "source": "synthetic planet; illustrative climates, no observation",
            "licence": "none needed",
            "seed": self.seed,
            "climate_of": self.equal or name,
            "stamp": "end",
        }


DEFAULT_SPLITS: Mapping[str, Mapping[str, Any]] = {
    "train": {"start": "2001-01-01", "end": "2021-01-01", "hours": 960},
    "validation": {"start": "2021-01-01", "end": "2022-01-01", "hours": 240},
    "test": {"start": "2022-01-01", "end": "2023-01-01", "hours": 480},
}


def _shrunk(box: Region, size_deg: float | None) -> Region:
    """Return the box of `size_deg` in the centre of a region, on the half-degree lattice common to both grids."""
    if size_deg is None:
        return box
    height, width = box.size_deg
    if size_deg <= 0 or abs(2 * size_deg - round(2 * size_deg)) > 1e-9 or size_deg > min(height, width):
        raise UserError(f"size_deg is {size_deg}; expected a multiple of 0.5 up to {min(height, width)}")
    south = box.lat_min + 0.5 * int(height - size_deg)
    west = box.lon_min + 0.5 * int(width - size_deg)
    return replace(box, lat_min=south, lat_max=south + size_deg, lon_min=west, lon_max=west + size_deg)


# Weather objects are hashable: equal objects in a process share their set-up and cached blocks.
@functools.lru_cache(maxsize=32)
def _shared(weather: Any) -> Any:
    return weather


class _Slot:
    """One block of weather, generated once by the first thread that requests it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.block: WeatherBlock | None = None

    def get(self, weather: WeatherLaw, number: int) -> WeatherBlock:
        with self.lock:
            if self.block is None:
                self.block = _shared(weather).block(number)
            return self.block


class _Blocks:
    """Cache of the latest blocks, up to `LATEST_BYTES`; predictors and rain of a block are requested separately."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.slots: OrderedDict[tuple[WeatherLaw, int], _Slot] = OrderedDict()
        self.bytes = 0

    def get(self, weather: WeatherLaw, number: int) -> WeatherBlock:
        key = (weather, number)
        with self.lock:
            if key not in self.slots:
                self.slots[key] = _Slot()
                self.bytes += _block_bytes(weather)
            self.slots.move_to_end(key)
            while self.bytes > LATEST_BYTES and len(self.slots) > 1:
                (other, _), _ = self.slots.popitem(last=False)
                self.bytes -= _block_bytes(other)
            slot = self.slots[key]
        return slot.get(weather, number)


def _block_bytes(weather: WeatherLaw) -> int:
    return 4 * BLOCK_HOURS * (weather.fine.size + len(PREDICTORS) * weather.coarse.size)


_BLOCKS = _Blocks()


def _part(weather: WeatherLaw, number: int, part: int | None) -> NDArray[np.float32]:
    block = _BLOCKS.get(weather, number)
    return block.rain if part is None else block.predictors[:, part]


def _lazy(
    weather: WeatherLaw, numbers: NDArray[np.int64], time: NDArray[Any], predictors: Mapping[str, Mapping[str, str]]
) -> tuple[xr.Dataset, xr.Dataset]:
    import dask
    import dask.array as da

    def stack(part: int | None, grid: Grid) -> da.Array:
        shape = (BLOCK_HOURS, *grid.shape)
        days = [
            da.from_delayed(dask.delayed(_part, pure=True)(weather, int(number), part), shape, np.float32)
            for number in numbers
        ]
        return da.concatenate(days)

    def dataset(grid: Grid, parts: Mapping[str, tuple[int | None, Mapping[str, str]]]) -> xr.Dataset:
        dims = ("time", *grid.names)
        values = {name: (dims, stack(part, grid), attrs) for name, (part, attrs) in parts.items()}
        return xr.Dataset(values, {"time": ("time", time, {"standard_name": "time"}), **grid.coords()})

    condition = dataset(weather.coarse, {name: (i, attrs) for i, (name, attrs) in enumerate(predictors.items())})
    return condition, dataset(weather.fine, {"precipitation": (None, VARIABLES["precipitation"].attrs)})
