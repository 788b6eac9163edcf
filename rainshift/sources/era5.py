"""Data source ERA5 to IMERG: coarse predictors from the Climate Data Store, fine rain from IMERG half hours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from geoml.errors import DataError, unknown
from rainshift.places.regions import grids, region
from rainshift.sources.base import RegionData
from rainshift.sources.boxes import below, box_names, folder_of, require_box, require_root
from rainshift.sources.era5_files import find_files, read_fields, to_dataset
from rainshift.sources.imerg import FILES as IMERG_FILES
from rainshift.sources.imerg import hourly_rain
from rainshift.sources.imerg_files import HalfHours, find_granules
from rainshift.sources.lag import warn_of_lag
from rainshift.sources.statics import read_statics
from rainshift.sources.variables import PREDICTORS

__all__ = ["Era5Source"]

FILES = "a folder of ERA5 files (NetCDF or GRIB), for all regions or with a folder for each"


@dataclass(frozen=True)
class Era5Source:
    """`data=era5 data.root=DIR data.imerg=DIR data.boxes=[melanesia]`: pairs as in RainShift, from original archives.

    The coarse data are the `variables` of ERA5 at 0.25°, by default those of RainShift; accumulations are converted to
    rates, and variables on levels are taken at `level_hpa`. The fine data are IMERG at 0.1°, with half hours averaged
    to hours. The hour that ends at t covers the interval of ERA5 accumulations at t. Hours that are missing in either
    data set are omitted. `static_files` maps `lsm` and `z` to NetCDF or GeoTIFF files on any grid, which are
    regridded to the fine grid.
    """

    root: str | None = None
    imerg: str | None = None
    boxes: Sequence[str] = ()
    variables: Sequence[str] = ()
    level_hpa: float = 700.0
    imerg_variable: str | None = None
    static_files: Mapping[str, str] | None = None
    years: Sequence[int] | None = None
    check_lag: bool = True

    def __post_init__(self) -> None:
        for name in self.static_files or {}:
            if name not in ("lsm", "z"):
                raise unknown("data.static_files field", name, ("lsm", "z"))

    @property
    def splits(self) -> tuple[str, ...]:
        return ()

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the regions that are cut from the files."""
        return box_names(self.boxes, require_root(self.root, "root", FILES))

    @property
    def locations(self) -> tuple[str, ...]:
        return ("root", "imerg", "static_files")

    def files(self, name: str, split: str | None = None) -> Mapping[str, Path]:
        """The ERA5, IMERG and static files of a region."""
        root, rain = require_root(self.root, "root", FILES), require_root(self.imerg, "imerg", IMERG_FILES)
        found = below(root, find_files(folder_of(root, name)), "era5")
        found |= below(rain, find_granules(folder_of(rain, name)), "imerg")
        statics = {key: Path(str(given)).expanduser() for key, given in (self.static_files or {}).items()}
        return found | {f"static/{key}": path for key, path in statics.items()}

    def open(self, name: str, split: str | None = None) -> RegionData:
        """Open one region lazily; `split` must be None, since the files have no splits."""
        require_box(name, self.names, split)
        coarse, fine = grids(region(name))
        folder = folder_of(require_root(self.root, "root", FILES), name)
        names = [str(variable) for variable in self.variables or PREDICTORS]
        fields = read_fields(find_files(folder), names, level_hpa=float(self.level_hpa))
        condition = to_dataset(fields, names, coarse, str(folder), years=self.years)
        rain_folder = folder_of(require_root(self.imerg, "imerg", IMERG_FILES), name)
        halves = HalfHours(tuple(find_granules(rain_folder)), self.imerg_variable)
        rain = hourly_rain(halves, fine, str(rain_folder), years=self.years)
        both = np.intersect1d(condition["time"].values, rain["time"].values)
        if not len(both):
            spans = " and ".join(
                f"{what} {time[0]} to {time[-1]}"
                for what, time in (("ERA5", condition["time"].values), ("IMERG", rain["time"].values))
            )
            raise DataError(f"{folder} and {rain_folder} have no hour in common: {spans}")
        data = RegionData(
            name,
            condition.isel(time=np.searchsorted(condition["time"].values, both)),
            rain.isel(time=np.searchsorted(rain["time"].values, both)).to_dataset(),
            read_statics(self.static_files, fine) if self.static_files else None,
            timedelta(hours=1),
            self._provenance(fields, halves),
        )
        if self.check_lag:
            warn_of_lag(data)
        return data

    def _provenance(self, fields: Sequence[Any], halves: HalfHours) -> dict[str, Any]:
        files = len({field.label.rpartition(": ")[0] for field in fields})
        preliminary = " (some hours preliminary, ERA5T)" if any(field.preliminary for field in fields) else ""
        return {
            "source": f"ERA5{preliminary} and GPM IMERG half hours, averaged to hours",
            "file": f"{files} of ERA5, {len(halves.files)} of IMERG",
            "licence": "ERA5: Copernicus licence; IMERG: NASA open data",
            "stamp": "end",
        }
