"""IMERG alone: hourly fine rain of the regions, and coarse rain that is its exact area mean (a perfect model)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from geoml.grids.grid import Grid
from geoml.regrid import Regridder
from rainshift.places.regions import grids, region
from rainshift.sources.base import RegionData
from rainshift.sources.boxes import below, box_names, cut, folder_of, require_box, require_root
from rainshift.sources.imerg_files import HalfHours, find_granules
from rainshift.sources.time_blocks import TimeBlocks, of_years
from rainshift.sources.variables import VARIABLES

__all__ = ["ImergSource", "hourly_rain"]

FILES = "a folder of IMERG half hours (3B-HHR….HDF5 or .nc4), for all regions or with a folder for each"
#: Number of hours that are read together.
BLOCK_HOURS = 24
#: Number of fine cells by which the outermost coarse cells extend beyond the box.
MARGIN = 2


@dataclass(frozen=True)
class _Hours:
    """Read hours of a box."""

    halves: HalfHours
    ends: NDArray[np.datetime64]
    rows: slice
    columns: slice

    def __call__(self, part: slice) -> NDArray[np.float32]:
        return self.halves.read_hours(self.ends[part], self.rows, self.columns)


def hourly_rain(halves: HalfHours, grid: Grid, label: str, *, years: Sequence[int] | None = None) -> xr.DataArray:
    """Return lazy hourly mean rain on `grid`, `(time, lat, lon)` in mm/h; times are the ends of the hours."""
    rows, columns = cut(halves.grid, grid, label)
    ends = halves.hours[of_years(halves.hours, years, label)]
    shape = (len(ends), *grid.shape)
    lazy = TimeBlocks(_Hours(halves, ends, rows, columns), (shape[0], shape[1], shape[2]), BLOCK_HOURS).lazy()
    row = VARIABLES["precipitation"]
    return xr.DataArray(lazy, {"time": ends, **grid.coords()}, ("time", *grid.names), name=row.name, attrs=row.attrs)


@dataclass(frozen=True)
class ImergSource:
    """`data=imerg data.root=DIR data.boxes=[melanesia]`: fine rain from IMERG, coarse rain as its exact area means.

    Half hours are averaged to full hours; both half hours must exist. Pixels without an estimate are NaN. A coarse
    value is the mean of the known pixels in its cell, NaN if there are none.
    """

    root: str | None = None
    boxes: Sequence[str] = ()
    variable: str | None = None
    years: Sequence[int] | None = None

    @property
    def splits(self) -> tuple[str, ...]:
        return ()

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the regions that are cut from the files."""
        return box_names(self.boxes, require_root(self.root, "root", FILES))

    @property
    def locations(self) -> tuple[str, ...]:
        return ("root",)

    def files(self, name: str, split: str | None = None) -> Mapping[str, Path]:
        """The IMERG files (granules) of a region."""
        root = require_root(self.root, "root", FILES)
        return below(root, find_granules(folder_of(root, name)))

    def open(self, name: str, split: str | None = None) -> RegionData:
        """Open one region lazily; `split` must be None, since the files have no splits."""
        require_box(name, self.names, split)
        folder = folder_of(require_root(self.root, "root", FILES), name)
        halves = HalfHours(tuple(find_granules(folder)), self.variable)
        coarse, fine = grids(region(name))
        wide = fine.pad(MARGIN)
        rain = hourly_rain(halves, wide, str(folder), years=self.years)
        inner = slice(MARGIN, -MARGIN)
        target = rain.isel(lat=inner, lon=inner).assign_coords(fine.coords())
        condition = _area_means(rain, wide, coarse)
        provenance = {
            "source": "GPM IMERG half hours, averaged to hours",
            "file": f"{halves.files[0].name} and {len(halves.files) - 1} more",
            "licence": "NASA open data",
            "coarse": "area means of the fine rain (perfect model)",
            "stamp": "end",
        }
        step = timedelta(hours=1)
        return RegionData(name, condition, target.to_dataset(), None, step, provenance)


def _area_means(rain: xr.DataArray, wide: Grid, coarse: Grid) -> xr.Dataset:
    means = Regridder(wide, coarse)(rain.data)
    coords = {"time": rain["time"], **coarse.coords()}
    return xr.DataArray(means, coords, ("time", *coarse.names), attrs=VARIABLES["tp"].attrs).to_dataset(name="tp")
