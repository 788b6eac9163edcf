"""Select hours of a region as model input: single fields, or windows of consecutive hours for models over time."""

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

#: Number of complete fields in a batch; they are larger than training patches.
FIELDS_AT_A_TIME = 4


def choose(
    archive: Archive, region: str, role: str, wanted: int | None, window: int | None = None
) -> NDArray[np.int64]:
    """Choose `wanted` evenly spaced hours of a role (all for None). Returns their positions.

    With `window`, complete windows of this many consecutive hours are chosen.

    Raises `UserError` if there is no window of this many consecutive hours.
    """
    count = len(archive.samples(region, role)[1])
    if wanted is not None and wanted < 1:
        raise UserError(f"{wanted} hours of {region} were requested; expected 1 or more, or null for all")
    if window is None:
        return evenly(count, wanted)
    whole = [
        run[start : start + window]
        for run in _runs(archive, region, role)
        for start in range(0, len(run) - window + 1, window)
    ]
    if not (takes := len(whole) if wanted is None else min(wanted // window, len(whole))):
        raise UserError(
            f"{region} has no {role} window of {window} consecutive hours "
            f"({count} hours, {'all' if wanted is None else wanted} requested); use a smaller window or more hours"
        )
    return np.concatenate([whole[i] for i in evenly(len(whole), takes)])


def whole_fields(
    archive: Archive, region: str, role: str, positions: NDArray[np.int64], window: int | None = None
) -> Iterator[tuple[Batch, NDArray[np.int64]]]:
    """Yield batches of complete fields, and for each hour in a batch its index in `positions`.

    Without `window`, a batch has single hours, and the indices have shape `(batch,)`. With `window`, items are windows
    of this many consecutive hours, `(batch, channel, time, lat, lon)`, and the indices have shape `(batch, time)`. Each
    requested hour has exactly one index; all others are −1. The last window of a run of consecutive hours may overlap
    the one before; a run shorter than `window` gives a shorter window. `batch.ids` is the number of the (first) hour
    within its store, so the noise of a model does not depend on the other requested hours.
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
            place[at] = -1  # in an overlap, the first window provides the hour
            yield batch.map(ids=tuple(hours.tolist())), rows


def hourly(fields: torch.Tensor, window: bool) -> torch.Tensor:
    """Reshape windows `(batch, …, time, lat, lon)` to single hours `(hour, …, lat, lon)`; single hours unchanged."""
    return fields.movedim(-3, 1).flatten(0, 1) if window else fields


def _runs(archive: Archive, region: str, role: str) -> list[NDArray[np.int64]]:
    """Divide a role's hours into runs with a constant step, the most frequent one. Returns positions."""
    return consecutive(archive.times(region, role), indices=archive.samples(region, role)[1])


def _windows(
    runs: list[NDArray[np.int64]], wanted: NDArray[np.bool_], window: int
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield window lengths with the positions to read: adjacent windows first, then overlapping ones."""
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
