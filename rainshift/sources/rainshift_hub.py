"""Published RainShift data set: read from a folder or a URL without unpacking, or downloaded first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geoml.data.location import location
from geoml.errors import DataError, UserError, unknown
from geoml.grids.grid import grid_of, require_same
from rainshift.places.regions import regions
from rainshift.sources.base import RegionData
from rainshift.sources.fetching import Download
from rainshift.sources.lag import warn_of_lag
from rainshift.sources.published import CHUNK_HOURS, PublishedPart, file_of, place, read_static
from rainshift.sources.time_blocks import of_years, validation_blocks, whole_blocks

__all__ = ["RainShiftSource"]


@dataclass(frozen=True)
class RainShiftSource:
    """`data=rainshift data.root=DIR`: the published files of each region, coarse ERA5 and fine IMERG.

    `root` is a folder, or a URL that fsspec can read; only the required chunks of a URL are read, by byte ranges. With
    `fetch`, missing files are downloaded from `base_url` to the folder and verified against `checksums`: a mapping of
    file to SHA-256, or a file in the format of `sha256sum`. Without `checksums`, the checksum of the first download is
    recorded in `SHA256SUMS`, and later downloads are verified against it.

    The published files have no validation split. Therefore `validation_share` of every `validation_every_days` of
    training hours is used for validation. `gap_hours` are omitted between training and validation and before the test
    hours. `years` selects years of training and validation, `test_years` those of the test. `hours` (a number, or one
    per split) limits the number of hours, in evenly spaced complete chunks of the files.

    Times are the ends of hours: ERA5 rain at t is the sum over (t − 1 h, t], the interval of the IMERG half hours that
    start at t − 60 min and t − 30 min. The published files are paired by index; a lag correlation only gives a warning.
    """

    root: str | None = None
    include: Sequence[str] = ()
    fetch: bool = False
    base_url: str | None = "https://huggingface.co/datasets/RainShift/rainshift/resolve/main"
    checksums: str | Mapping[str, str] | None = None
    years: Sequence[int] | None = None
    test_years: Sequence[int] | None = None
    hours: int | Mapping[str, int] | None = None
    validation_share: float = 0.1
    validation_every_days: float = 100.0
    gap_hours: float = 48.0
    check_lag: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.hours, Mapping):
            for split in self.hours:
                if split not in self.splits:
                    raise unknown("data.hours split", split, self.splits)
        if self.fetch and self.root and "://" in self.root:
            raise UserError(
                f"data.fetch requires a folder for the downloads, but data.root is a URL, {self.root}; set "
                "data.root to a folder"
            )

    @property
    def splits(self) -> tuple[str, ...]:
        return ("train", "validation", "test") if self.validation_share else ("train", "test")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Regions that can be opened: those in the folder, or all published regions for a URL."""
        published = {name for name, found in regions().items() if found.source}
        if not self.root:
            raise UserError(
                "data.root is not set; point it at the folder of the RainShift files, or at an empty one with "
                "data.fetch=true, which downloads the required files (tens of GB per region)"
            )
        if self.fetch or "://" in self.root:
            known = published
        else:
            folder = Path(self.root).expanduser()
            if not folder.is_dir():
                raise UserError(
                    f"data.root {folder} is not a folder; expected a folder that contains REGION/train_data_in.zarr.zip"
                )
            known = {path.parent.name for path in folder.glob("*/*_data_in.zarr.zip")}
            if not known:
                raise UserError(
                    f"{folder} contains no REGION/train_data_in.zarr.zip; set data.fetch=true to download the "
                    "required files"
                )
        for name in self.include:
            if name not in known:
                raise unknown("region", name, known)
        return tuple(self.include) or tuple(sorted(known))

    @property
    def locations(self) -> tuple[str, ...]:
        return ("root", "fetch", "base_url", "checksums")

    def files(self, name: str, split: str | None = None) -> Mapping[str, Path]:
        """Return the published files of a region's split. Downloads missing files with `fetch`."""
        split = split or "train"
        root, part = self._root(name, split), "test" if split == "test" else "train"
        found = [file_of(name, part, side) for side in ("static", "in", "out")]
        return {file: location(place(root, file)) for file in found}

    def open(self, name: str, split: str | None = None) -> RegionData:
        """Open one region at the hours of one split, by default training, lazily."""
        split = split or "train"
        if name not in self.names:
            raise unknown("region", name, self.names)
        if split not in self.splits:
            raise unknown("split", split, self.splits)
        part = PublishedPart(self._root(name, split), name, "test" if split == "test" else "train")
        positions = self._positions(part, split)
        condition, target = (data.isel(time=positions) for data in (part.condition(), part.target()))
        data = RegionData(
            name,
            condition,
            target,
            read_static(part.root, name),
            timedelta(hours=1),
            self._provenance(part, split),
        )
        _check_place(data, part)
        if self.check_lag:
            warn_of_lag(data)
        return data

    def _root(self, name: str, split: str) -> str:
        """Return the root of the files. Downloads missing files with `fetch`."""
        root = str(self.root) if "://" in str(self.root) else str(Path(str(self.root)).expanduser())
        if self.fetch:
            if not self.base_url:
                raise UserError("data.fetch requires data.base_url, the URL of the data set's folder")
            download = Download(self.base_url, Path(root), self.checksums)
            part = "test" if split == "test" else "train"
            for side in ("static", "in", "out"):
                download(file_of(name, part, side))
        return root

    def _positions(self, part: PublishedPart, split: str) -> NDArray[np.intp]:
        time = part.time
        if split == "test":
            kept = of_years(time, self.test_years, part.label("in"))
        else:
            years = of_years(time, self.years, part.label("in"))
            blocks = validation_blocks(time[years], self.validation_share, self.validation_every_days, self.gap_hours)
            kept = years[blocks[split]]
        hours = self.hours.get(split) if isinstance(self.hours, Mapping) else self.hours
        return whole_blocks(kept, hours, CHUNK_HOURS)

    def _provenance(self, part: PublishedPart, split: str) -> dict[str, str]:
        return {
            "source": "RainShift (arXiv 2507.04930): ERA5 0.25° predictors, GPM IMERG 0.1° rain",
            "file": ", ".join(file_of(part.region, part.part, side) for side in ("in", "out")),
            "licence": "that of the data set's page; contains Copernicus and NASA GPM data",
            "split": split,
            "stamp": "end",
        }


def _check_place(data: RegionData, part: PublishedPart) -> None:
    """Raise `DataError` if the fine rain is outside the region of this name, or the static grid differs."""
    if data.static is not None:
        require_same(grid_of(data.static), data.fine, f"{part.root}: {file_of(part.region, '', 'static')} and rain")
    known = regions().get(data.name)
    if known is None:
        return
    for axis, low, high in (
        (data.fine["lat"], known.lat_min, known.lat_max),
        (data.fine["lon"], known.lon_min, known.lon_max),
    ):
        if axis.start < low - axis.step or axis.stop > high + axis.step:
            raise DataError(
                f"{part.label('out')}: {axis.name} covers {axis.start:g} to {axis.stop:g}; expected {data.name} "
                f"within {low:g} to {high:g}"
            )
