"""Hours of a region as models see them: single fields, or windows of consecutive hours for models over time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from geoml.data.choice import consecutive, evenly
from geoml.data.loader import BlockLoader
from geoml.errors import UserError
from rainshift.data.archive import Archive

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from geoml.data.fields import Batch

__all__ = ["FIELDS_AT_A_TIME", "choose", "hourly", "whole_fields"]

#: Whole fields that are read and predicted together; they are larger than the patches of training.
FIELDS_AT_A_TIME = 4


def choose(
    archive: Archive, region: str, role: str, wanted: int | None, window: int | None = None
) -> NDArray[np.int64]:
    """Positions of `wanted` hours among a role's, evenly spread, all for None; with `window`, in whole windows.

    Errors: `UserError` where no window of so many consecutive hours can be had.
    """
    count = len(archive.samples(region, role)[1])
    if wanted is not None and wanted < 1:
        raise UserError(f"{wanted} hours of {region} are wanted; expected 1 or more, or null for all")
    if window is None:
        return evenly(count, wanted)
    whole = [
        run[start : start + window]
        for run in _runs(archive, region, role)
        for start in range(0, len(run) - window + 1, window)
    ]
    if not (takes := len(whole) if wanted is None else min(wanted // window, len(whole))):
        raise UserError(
            f"{region} gives no {role} window of {window} consecutive hours "
            f"({count} hours, {'all' if wanted is None else wanted} wanted); take a smaller window or more hours"
        )
    return np.concatenate([whole[i] for i in evenly(len(whole), takes)])


def whole_fields(
    archive: Archive, region: str, role: str, positions: NDArray[np.int64], window: int | None = None
) -> Iterator[tuple[Batch, NDArray[np.int64]]]:
    """Whole fields of the hours at some positions: batches, and which of `positions` each hour is, −1 for none.

    Without `window` a batch holds single hours and the rows are `(batch,)`. With it, items are windows of that many
    consecutive hours, `(batch, channel, time, lat, lon)`, and rows are `(batch, time)`; every hour wanted has one row
    that is not −1. At the end of a run of hours the last window overlaps the one before; a run shorter than a window
    is a shorter window. `batch.ids` number the (first) hour within its store, so that the noise of a model does not
    depend on which other hours are asked for.
    """
    indices = archive.samples(region, role)[1]
    place = np.full(int(indices.max(initial=0)) + 1, -1)
    place[indices[positions]] = np.arange(len(positions))
    groups: Iterable[tuple[int | None, np.ndarray]]
    if window is None:
        groups = [(None, positions)]
    else:
        groups = _windows(_runs(archive, region, role), np.isin(np.arange(len(indices)), positions), window)
    for length, chosen in groups:
        loader = BlockLoader(
            [archive.field_source(region, role, chosen)],
            batch_size=max(1, FIELDS_AT_A_TIME // (length or 1)),
            channels=archive.channels,
            expected_gaps=archive.expected_gaps,
            window=length,
            shuffle=False,
        )
        for batch in loader:
            hours = np.array([loader.locate(int(item))[1] for item in batch.ids])
            at = hours if length is None else hours[:, None] + np.arange(length)
            rows = place[at]
            place[at] = -1  # where windows overlap, the first gives the hour
            yield batch.map(ids=tuple(hours.tolist())), rows


def hourly(fields: torch.Tensor, window: bool) -> torch.Tensor:
    """`(batch, …, time, lat, lon)` with an hour an item, `(hour, …, lat, lon)`; single hours as they are."""
    return fields.movedim(-3, 1).flatten(0, 1) if window else fields


def _runs(archive: Archive, region: str, role: str) -> list[NDArray[np.int64]]:
    """Positions of a role's hours, cut where the next is not one (the most frequent) step later in the store."""
    return consecutive(archive.times(region, role), indices=archive.samples(region, role)[1])


def _windows(
    runs: list[NDArray[np.int64]], wanted: NDArray[np.bool_], window: int
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Window length and the positions to read with it: windows side by side first, then those that overlap them."""
    side_by_side: dict[int, list[NDArray[np.int64]]] = defaultdict(list)
    overlapping: dict[int, list[NDArray[np.int64]]] = defaultdict(list)
    for run in runs:
        length = min(window, len(run))
        rest = len(run) % length
        for start in range(0, len(run) - rest, length):
            side_by_side[length].append(run[start : start + length])
        if rest and wanted[run[-rest:]].any():
            overlapping[length].append(run[-length:])
    for group in (side_by_side, overlapping):
        for length, windows in group.items():
            kept = [part for part in windows if group is overlapping or wanted[part].any()]
            if kept:
                yield length, np.concatenate(kept)
