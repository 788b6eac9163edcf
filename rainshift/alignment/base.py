"""The base class of alignments, and the inputs that they are fitted on."""

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
        """All values of one channel."""
        index = self.channels.index(channel)
        return np.concatenate([fields[:, index].ravel() for fields in self.fields])

    def cells(self) -> NDArray[np.float32]:
        """`(cell, channel)`: the predictors of all cells and hours, side by side."""
        count = len(self.channels)
        return np.concatenate([np.moveaxis(fields, 1, -1).reshape(-1, count) for fields in self.fields])


class Alignment(ABC):
    """Wraps a trained downscaler for a region it was not trained on.

    It is fitted on `hours` training hours, evenly spread over the source regions, and as many of the target.
    """

    def __init__(self, *, hours: int = 960) -> None:
        if hours < 1:
            raise UserError(f"alignment hours is {hours}; expected at least 1")
        self.hours = hours

    def check(self, channels: Channels) -> None:
        """Raise `UserError` if it cannot align these predictors; called before training."""
        return

    @abstractmethod
    def align(self, downscaler: Downscaler, source: Inputs, target: Inputs, channels: Channels) -> Downscaler:
        """The downscaler for the target region; uses no fine rain."""


def inputs_of(archive: Archive, shares: Mapping[str, int], *, hours: int) -> Inputs:
    """Predictors of *training* hours of regions, as a loader yields them; test hours are never opened.

    `shares` gives the number of training samples of each region; `hours` of them, evenly spread, are read.
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
    """The predictors named by `all`, `tp` or `tp+cp`; raises `UserError` for an unknown one.

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
