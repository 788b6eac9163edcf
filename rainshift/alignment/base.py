"""Base class of alignments, and the predictors on which alignments are fitted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from geoml.data.choice import evenly
from geoml.errors import UserError, unknown
from geoml.models.base import Channels
from rainshift.data.selection import whole_fields

if TYPE_CHECKING:
    from rainshift.data.archive import Archive
    from rainshift.models.spec import Downscaler

__all__ = ["Alignment", "Inputs", "chosen_channels", "inputs_of"]


@dataclass(frozen=True)
class Inputs:
    """Coarse predictors of training hours in physical units, `(hour, channel, lat, lon)` for each region."""

    channels: tuple[str, ...]
    fields: tuple[NDArray[np.float32], ...]

    def pooled(self, channel: str) -> NDArray[np.float32]:
        """Return the values of one channel of all regions, flattened."""
        index = self.channels.index(channel)
        return np.concatenate([fields[:, index].ravel() for fields in self.fields])

    def cells(self) -> NDArray[np.float32]:
        """Return the predictors as one table `(cell, channel)` with a row per coarse cell and hour."""
        count = len(self.channels)
        return np.concatenate([np.moveaxis(fields, 1, -1).reshape(-1, count) for fields in self.fields])


class Alignment(ABC):
    """Base class: adapt a trained downscaler to a region on which it was not trained.

    An alignment is fitted on `hours` training hours of the source regions together, evenly spread, and on the same
    number of hours of the target region.
    """

    def __init__(self, *, hours: int = 960) -> None:
        if hours < 1:
            raise UserError(f"alignment hours is {hours}; expected at least 1")
        self.hours = hours

    def check(self, channels: Channels) -> None:
        """Raise `UserError` if the alignment cannot handle these predictors. Called before training."""
        return

    @abstractmethod
    def align(self, downscaler: Downscaler, source: Inputs, target: Inputs, channels: Channels) -> Downscaler:
        """Return the downscaler adapted to the target region. Fine rain is not used."""


def inputs_of(archive: Archive, shares: Mapping[str, int], *, hours: int) -> Inputs:
    """Read coarse predictors of *training* hours of regions. Test hours are never opened.

    `shares` maps each region to its number of training samples. Of all these samples, `hours` evenly spread ones are
    read.
    """
    total = sum(shares.values())
    fields = []
    for region, share in shares.items():
        count = len(archive.samples(region, "train")[1])
        seen = evenly(count, share)
        positions = seen[evenly(len(seen), max(1, round(hours * share / total)))]
        batches = whole_fields(archive, region, "train", positions)
        fields.append(np.concatenate([batch.condition.numpy() for batch, _ in batches]))
    return Inputs(archive.channels.condition, tuple(fields))


def chosen_channels(wanted: str, channels: Channels) -> tuple[str, ...]:
    """Return the names of the predictors in `wanted`: "all", "tp" or "tp+cp". Raises `UserError` for unknown names.

    >>> chosen_channels("tp+cp", Channels(("tp", "cp", "u"), ("precipitation",)))
    ('tp', 'cp')
    """
    if wanted == "all":
        return channels.condition
    names = tuple(wanted.split("+"))
    for name in names:
        if name not in channels.condition:
            raise unknown("predictor", name, (*channels.condition, "all"), hint="in alignment channels")
    return names
