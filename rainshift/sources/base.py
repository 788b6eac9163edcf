"""Interface of all data sources: coarse predictors, fine rain and static fields of one region or event."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from geoml.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr

    from geoml.data.packing import Packing
    from geoml.grids.grid import Grid

__all__ = ["RegionData", "RegionSource"]


@dataclass(frozen=True)
class RegionData:
    """Lazy data of one region or event; nothing is read or computed before its values are needed.

    `condition` `(time, lat, lon)` on the coarse grid and `target`, with `precipitation` in mm/h, on the fine grid have
    the same times; `static` is `(lat, lon)` on the fine grid. Axes are canonical (`geoml.grids.grid.conform`); units
    are those of `rainshift.sources.variables`. Rates are means over the `step` that ends at `time`, unless
    `provenance["stamp"]` states otherwise. Times ascend in multiples of `step`, with possible gaps. Variables in
    `packing` are stored as integer multiples of the given resolution, others as float32. `missing` contains positions
    of times without any value. Raises `DataError` if the coarse and fine times differ.
    """

    name: str
    condition: xr.Dataset
    target: xr.Dataset
    static: xr.Dataset | None = None
    step: timedelta = timedelta(hours=1)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    packing: Mapping[str, Packing] = field(default_factory=dict)
    missing: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if "precipitation" not in self.target:
            raise ValueError(f"{self.name}: the target has {list(self.target)}, not precipitation")
        for what, data in (("condition", self.condition), ("target", self.target)):
            for name, variable in data.data_vars.items():
                if variable.dims != ("time", "lat", "lon"):
                    raise ValueError(f"{self.name}: {what} {name!r} has dims {variable.dims}, not (time, lat, lon)")
        if not self.condition.indexes["time"].equals(self.target.indexes["time"]):
            raise DataError(f"{self.name}: coarse and fine times differ; expected the same times in both")

    @cached_property
    def coarse(self) -> Grid:
        """The grid of `condition`."""
        return _grid(self.condition)

    @cached_property
    def fine(self) -> Grid:
        """The grid of `target` and `static`."""
        return _grid(self.target)

    @property
    def time(self) -> np.ndarray:
        """Valid times, `datetime64[ns]`."""
        return self.target["time"].values

    def __len__(self) -> int:
        return int(self.target.sizes["time"])

    def isel(self, time: Any) -> RegionData:
        """Select times by a slice or by positions."""
        return replace(self, condition=self.condition.isel(time=time), target=self.target.isel(time=time))


def _grid(data: xr.Dataset) -> Grid:
    from geoml.grids.grid import grid_of

    return grid_of(data)


class RegionSource(Protocol):
    """Interface of a source: data of regions or events by name."""

    @property
    def names(self) -> tuple[str, ...]:
        """Regions or events that can be opened."""

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits of the source ("train", "test"); empty if `rainshift.places.splits` must split the times."""

    @property
    def locations(self) -> tuple[str, ...]:
        """Options that locate files and do not change the data."""

    def files(self, name: str, split: str | None = None) -> Mapping[str, Path]:
        """Return the source files of a region or event, by path relative to the root of the data."""

    def open(self, name: str, split: str | None = None) -> RegionData:
        """Open one region or event, or one split of it."""
