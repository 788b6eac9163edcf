"""The synthetic planet as a source: 18 regions of weather drawn from their climates, any hours of any year."""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoml.errors import UserError, unknown
from geoml.grids import Grid
from rainshift.climate import Climate
from rainshift.planet.latent import BLOCK_HOURS
from rainshift.planet.weather import FINE_PAD, PREDICTORS, Block, Weather
from rainshift.regions import Region, grids, region, regions
from rainshift.sources.base import RegionData
from rainshift.sources.variables import VARIABLES

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["SyntheticSource", "block_starts"]

EPOCH = np.datetime64("1970-01-01T00", "h")
GOLDEN_RATIO = 0.6180339887498949


def block_starts(start: str, end: str, hours: int) -> NDArray[np.int64]:
    """Numbers of the `BLOCK_HOURS`-hour blocks, ascending from `start` to before `end`, that hold `hours`.

    One block in each of as many equal strata, its place in them by the golden ratio: even in the calendar too,
    where equal distances could hit the same season every year.

    >>> block_starts("2001-01-01", "2003-01-01", 96).tolist()
    [11323, 11618, 11730, 12026]
    """
    first, last = (int((np.datetime64(day, "h") - EPOCH).astype(int)) // BLOCK_HOURS for day in (start, end))
    days, count = last - first, -(-hours // BLOCK_HOURS)
    if not 0 < count <= days:
        raise UserError(f"{hours} hours do not fit between {start} and {end}: these hold {days * BLOCK_HOURS}")
    index = np.arange(count + 1, dtype=np.int64)
    strata = first + index * days // count
    place = (index[:-1] * GOLDEN_RATIO) % 1.0
    return strata[:-1] + (place * np.diff(strata)).astype(np.int64)


@dataclass(frozen=True)
class SyntheticSource:
    """`data=synthetic`. A pure function of its options: any hour is the same whatever else is asked for.

    `splits_at` maps a split to its `start`, `end` (exclusive) and `hours`, which are taken in blocks of a day, evenly
    spread. `size_deg` cuts smaller boxes out of the middle of the regions' area; each is weather of its own, not a
    crop. `equal` names a region whose climate, place and land all regions take, so that they differ by chance alone:
    the negative control. `climate` changes single numbers of all climates.
    """

    seed: int = 0
    include: Sequence[str] = ()
    size_deg: float | None = None
    equal: str | None = None
    climate: Mapping[str, float] | None = None
    splits_at: Mapping[str, Mapping[str, Any]] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Regions with a climate, those of `include` where it names any."""
        known = {name for name, found in regions().items() if found.climate is not None}
        for name in self.include:
            if name not in known:
                raise unknown("region with a climate", name, known)
        return tuple(self.include) or tuple(sorted(known))

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.splits_at or DEFAULT_SPLITS)

    def open(self, name: str, split: str | None = None) -> RegionData:
        """One region in the hours of one split (the first unless named)."""
        parts = self.splits_at or DEFAULT_SPLITS
        split = split or next(iter(parts))
        if split not in parts:
            raise unknown("split", split, parts)
        part = parts[split]
        return self.blocks(name, block_starts(str(part["start"]), str(part["end"]), int(part["hours"])), split=split)

    def blocks(self, name: str, numbers: NDArray[np.int64], *, split: str = "") -> RegionData:
        """One region in the hours of numbered days since 1970."""
        weather = self.weather(name)
        hours = (numbers[:, None] * BLOCK_HOURS + np.arange(BLOCK_HOURS)).ravel()
        time = (EPOCH + hours.astype("timedelta64[h]")).astype("datetime64[ns]")
        condition, target = _lazy(weather, numbers, time)
        return RegionData(name, condition, target, _static(weather), timedelta(hours=1), self._provenance(name, split))

    def weather(self, name: str) -> Weather:
        """The law of a region's weather."""
        box = _shrunk(region(self.equal or name), self.size_deg)
        if name not in self.names:
            raise unknown("region with a climate", name, self.names)
        if box.climate is None:
            raise UserError(f"region {box.name!r} has no climate: block in its YAML; the synthetic planet needs one")
        climate = Climate.from_mapping({**box.climate.as_dict(), **(self.climate or {})})
        coarse, fine = grids(box)
        return Weather(self.seed, name, climate, coarse, fine, self.equal or name)

    def _provenance(self, name: str, split: str) -> dict[str, Any]:
        return {
            "source": "synthetic planet; illustrative climates, no observation",
            "licence": "none needed",
            "seed": self.seed,
            "climate_of": self.equal or name,
            "split": split,
            "stamp": "end",
        }


DEFAULT_SPLITS: Mapping[str, Mapping[str, Any]] = {
    "train": {"start": "2001-01-01", "end": "2021-01-01", "hours": 960},
    "validation": {"start": "2021-01-01", "end": "2022-01-01", "hours": 240},
    "test": {"start": "2022-01-01", "end": "2023-01-01", "hours": 480},
}


def _shrunk(box: Region, size_deg: float | None) -> Region:
    """The box of that size around the middle of a region, on the half-degree lattice both grids share."""
    if size_deg is None:
        return box
    height, width = box.size_deg
    if size_deg <= 0 or abs(2 * size_deg - round(2 * size_deg)) > 1e-9 or size_deg > min(height, width):
        raise UserError(f"size_deg is {size_deg}; expected a multiple of 0.5 up to {min(height, width)}")
    south = box.lat_min + 0.5 * int(height - size_deg)
    west = box.lon_min + 0.5 * int(width - size_deg)
    return replace(box, lat_min=south, lat_max=south + size_deg, lon_min=west, lon_max=west + size_deg)


# A Weather is made of grids and numbers: equal ones share their set-up and their latest blocks within a process.
@functools.lru_cache(maxsize=32)
def _shared(weather: Weather) -> Weather:
    return weather


class _Slot:
    """A block that is made once, whichever thread asks first."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.block: Block | None = None

    def get(self, weather: Weather, number: int) -> Block:
        with self.lock:
            if self.block is None:
                self.block = _shared(weather).block(number)
            return self.block


@functools.lru_cache(maxsize=16)  # some 10 MB each for a whole region
def _slot(weather: Weather, number: int) -> _Slot:
    return _Slot()


def _part(weather: Weather, number: int, part: int | None) -> NDArray[np.float32]:
    block = _slot(weather, number).get(weather, number)
    return block.rain if part is None else block.predictors[:, part]


def _lazy(weather: Weather, numbers: NDArray[np.int64], time: NDArray[Any]) -> tuple[xr.Dataset, xr.Dataset]:
    import dask
    import dask.array as da
    import xarray as xr

    def stack(part: int | None, grid: Grid) -> da.Array:
        shape = (BLOCK_HOURS, *grid.shape)
        days = [
            da.from_delayed(dask.delayed(_part, pure=True)(weather, int(number), part), shape, np.float32)
            for number in numbers
        ]
        return da.concatenate(days)

    def dataset(grid: Grid, parts: Mapping[str, int | None]) -> xr.Dataset:
        dims = ("time", *grid.names)
        values = {name: (dims, stack(part, grid), VARIABLES[name].attrs) for name, part in parts.items()}
        return xr.Dataset(values, {"time": ("time", time, {"standard_name": "time"}), **grid.coords()})

    condition = dataset(weather.coarse, {name: PREDICTORS.index(name) for name in PREDICTORS})
    return condition, dataset(weather.fine, {"precipitation": None})


def _static(weather: Weather) -> xr.Dataset:
    import xarray as xr

    land, inner = _shared(weather).land, slice(FINE_PAD, -FINE_PAD)
    fields = {"lsm": land.lsm, "z": land.geopotential}
    dims = weather.fine.names
    values = {name: (dims, field[inner, inner], VARIABLES[name].attrs) for name, field in fields.items()}
    return xr.Dataset(values, weather.fine.coords())
