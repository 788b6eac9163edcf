"""Whether coarse rain is the area mean of its fine rain: as the source says, or measured on prepared data."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from rainshift.data.archive import Archive

__all__ = ["deviation", "exact_means", "is_measured"]

#: Largest deviation at which coarse rain counts as the area mean; rates stored in steps of 0.01 mm/h give up to 0.02.
TOLERANCE = 0.05
#: Number of times, evenly spread, on which the deviation is measured.
FIELDS = 48


def is_measured(archive: Archive) -> bool:
    """Whether only the data can tell: the coarse rain is from files of the user."""
    from rainshift.sources.gridded import GriddedSource

    source = archive.source
    if isinstance(source, GriddedSource):
        return any(source.reads_partner(record) for record in source.records.values())
    return archive.config.get("source") == "pair"


def exact_means(archive: Archive, names: Iterable[str]) -> bool:
    """Whether the coarse rain of all these regions is the area mean of their fine rain.

    Regions for which only the data can tell are prepared and measured (`deviation`).
    """
    if is_measured(archive):
        found = [deviation(archive, name) for name in dict.fromkeys(names)]
        return all(value is not None and value <= TOLERANCE for value in found)
    return archive.config.get("source") in ("gridded", "imerg") or archive.config.get("coarse") == "exact"


def deviation(archive: Archive, name: str) -> float | None:
    """Root-mean-square difference of coarse rain and area means of the fine rain, over the RMS of the coarse rain.

    Measured on `FIELDS` times of the training samples, or of the test samples if there are no others, in coarse cells
    that the fine grid covers completely and whose fine cells are all known. None if no rain is found there.
    """
    from geoml.grids.grid import grid_of
    from geoml.regrid import Regridder

    guess = dict(archive.channels.first_guess).get("precipitation")
    if guess is None:
        return None
    for split in archive.splits:
        archive.prepare(name, split)
    split, samples = archive.samples(name, "train" if archive.has_role("train") else "test")
    groups = archive.open(name, split)
    chosen = np.unique(np.linspace(0, len(samples) - 1, min(FIELDS, len(samples))).astype(int))
    coarse, fine = groups["condition"][guess], groups["target"]["precipitation"]
    means = Regridder(grid_of(groups["target"]), grid_of(groups["condition"]), valid_fraction=1.0)
    inside = functools.reduce(np.multiply.outer, [band.covered > 1 - 1e-6 for band in means.bands])
    error = total = 0.0
    for at in samples[chosen]:
        given = coarse[int(at)].values.astype(float)
        apart = means(fine[int(at)].values.astype(float)) - given
        known = np.isfinite(apart) & inside
        error += float((apart[known] ** 2).sum())
        total += float((given[known] ** 2).sum())
    return (error / total) ** 0.5 if total > 0 else None
