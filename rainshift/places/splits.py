"""Splits of time into training, validation and test without common weather, and the leak check."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import product
from typing import TYPE_CHECKING, Any

from geoml.errors import DataError, UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rainshift.places.regions import Region

__all__ = ["Leak", "check_leakage", "fold_count", "purge_for", "split_blocks", "split_fold"]

#: Default purge gap: hourly rain of one region is nearly independent after two days.
PURGE = timedelta(hours=48)


@dataclass(frozen=True)
class Leak:
    """A tolerated overlap of training and test weather."""

    kind: str
    train: str
    test: str
    message: str


def split_blocks(
    time: NDArray[np.datetime64],
    shares: Mapping[str, float],
    *,
    blocks: int = 10,
    purge: timedelta = PURGE,
) -> dict[str, NDArray[np.intp]]:
    """Split times into parts as alternating blocks, with a purge gap between different parts. Returns positions.

    Ascending `time` is divided into `blocks` cycles of equal length. Each cycle contains one block of every part in
    turn, with lengths in proportion to `shares`, so all parts cover all seasons. Times within `purge` after a boundary
    between different parts are dropped. Raises `UserError` if a part is empty.

    >>> import numpy as np
    >>> time = np.datetime64("2001-01-01") + np.arange(240) * np.timedelta64(1, "h")
    >>> parts = split_blocks(time, {"train": 0.75, "test": 0.25}, blocks=2, purge=timedelta(hours=6))
    >>> {name: len(part) for name, part in parts.items()}
    {'train': 174, 'test': 48}
    """
    import numpy as np

    if not shares or any(share <= 0 for share in shares.values()):
        raise UserError(f"shares {dict(shares)}: expected a positive share for every part")
    if blocks < 1:
        raise UserError(f"{blocks} blocks: expected 1 or more")
    seconds = (time - time[0]) / np.timedelta64(1, "s")
    if (np.diff(seconds) <= 0).any():
        raise DataError("times are not ascending; sort them before the split")
    step = float(np.diff(seconds).min()) if len(time) > 1 else 1.0
    cycle = (seconds[-1] + step) / blocks
    total = sum(shares.values())
    edges = np.cumsum([0.0, *(share / total for share in shares.values())])
    phase = (seconds % cycle) / cycle
    number = np.minimum(np.searchsorted(edges, phase + 1e-12, side="right") - 1, len(shares) - 1)
    after = seconds - (np.floor(seconds / cycle) + edges[number]) * cycle
    # The first block has no predecessor, and a single part needs no gap.
    first = (number == 0) & (seconds < cycle)
    keep = (after >= purge.total_seconds() - 1e-6) | first | (len(shares) == 1)
    parts = {name: np.flatnonzero(keep & (number == index)) for index, name in enumerate(shares)}
    for name, part in parts.items():
        if not len(part):
            raise UserError(
                f"part {name} has no time: {blocks} cycles of {cycle / 3600:.3g} h and a purge gap of "
                f"{purge.total_seconds() / 3600:.3g} h; use fewer blocks or a shorter gap"
            )
    return parts


def purge_for(time: NDArray[np.datetime64]) -> timedelta:
    """Return the purge gap for a short record: a fourteenth of its length, at most 48 hours.

    >>> import numpy as np
    >>> purge_for(np.datetime64("2020-01-01") + np.arange(14 * 24) * np.timedelta64(1, "h"))
    datetime.timedelta(days=1)
    """
    import numpy as np

    minutes = float((time[-1] - time[0]) / np.timedelta64(1, "m")) / 14 if len(time) > 1 else 0.0
    step = float(np.diff(time).min() / np.timedelta64(1, "m")) if len(time) > 1 else 1.0
    return min(PURGE, timedelta(minutes=max(step, math.ceil(minutes / step) * step)))


def fold_count(time: NDArray[np.datetime64]) -> int:
    """Return the number of cross-validation blocks of a record: four, or fewer for a record with few times."""
    return max(2, min(4, len(time) // 6))


def split_fold(time: NDArray[np.datetime64], fold: int, count: int, purge: timedelta) -> dict[str, NDArray[np.intp]]:
    """Return the training and test positions if one of `count` blocks of equal length is left out for the test.

    Times within `purge` of the test block are not used. Raises `UserError` if no training or test times remain.

    >>> import numpy as np
    >>> time = np.datetime64("2001-01-01") + np.arange(40) * np.timedelta64(1, "h")
    >>> parts = split_fold(time, 0, 4, timedelta(hours=3))
    >>> {name: (int(part[0]), int(part[-1])) for name, part in parts.items()}
    {'train': (12, 39), 'test': (0, 9)}
    """
    import numpy as np

    seconds = (time - time[0]) / np.timedelta64(1, "s")
    step = float(np.diff(seconds).min()) if len(time) > 1 else 1.0
    length = (seconds[-1] + step) / count
    block = np.minimum((seconds / length + 1e-9).astype(int), count - 1)
    test = np.flatnonzero(block == fold)
    if not len(test):
        raise UserError(f"block {fold + 1} of {count} contains no time: the record has long gaps; split its files")
    first, last, gap = seconds[test[0]], seconds[test[-1]], purge.total_seconds() - 1e-6
    train = np.flatnonzero((block != fold) & ((seconds <= first - gap) | (seconds >= last + gap)))
    if not len(train):
        raise UserError(
            f"no training times remain: {count} blocks of {length / 3600:.3g} h and a purge gap of {purge}; set a "
            "smaller purge_hours or use a longer record"
        )
    return {"train": train, "test": test}


def check_leakage(
    train: Mapping[str, Any],
    test: Mapping[str, Any],
    *,
    purge: timedelta = PURGE,
    regions: Mapping[str, Region] | None = None,
    shared_edges: str = "refuse",
) -> list[Leak]:
    """Raise `DataError` if training and test sets, `{region: times}` each, share weather.

    Within one region, or two that overlap in space, it is an error if a time is in both sets, if hours are shuffled
    between the sets, or if a test time is within `purge` of a training time. Regions that share an edge at the same
    times are also an error; with `shared_edges="warn"` they are returned instead, with "ignore" accepted. `regions`
    maps names to `Region`s, by default those of `rainshift.places.regions`. Other names are only compared for equality.
    """
    from rainshift.places import regions as catalogue

    if shared_edges not in ("warn", "refuse", "ignore"):
        raise UserError(f"shared_edges is {shared_edges!r}; expected warn, refuse or ignore")
    known = catalogue.regions() if regions is None else regions
    leaks: list[Leak] = []
    for (here, train_time), (there, test_time) in product(train.items(), test.items()):
        one, other = known.get(here), known.get(there)
        if here == there or (one is not None and other is not None and catalogue.overlap(one, other)):
            _check_times(here, train_time, there, test_time, purge)
        elif one is not None and other is not None and shared_edges != "ignore" and catalogue.adjacent(one, other):
            if _closest(train_time, test_time) >= purge.total_seconds():
                continue
            message = f"{here} (train) and {there} (test) share an edge at the same times: weather crosses it"
            if shared_edges == "refuse":
                raise DataError(f"{message}; leave one out, or accept it with shared_edges=warn")
            leaks.append(Leak("shared edge", here, there, message))
    return leaks


def _seconds(times: Iterable[Any]) -> NDArray[np.float64]:
    import numpy as np

    return np.sort(np.asarray(times, "datetime64[ns]").astype(np.int64)) / 1e9


def _closest(train: Sequence[Any], test: Sequence[Any]) -> float:
    """Return the smallest time difference between two sets, in seconds."""
    import numpy as np

    a, b = _seconds(train), _seconds(test)
    if not len(a) or not len(b):
        return math.inf
    place = np.searchsorted(a, b)
    before = np.abs(b - a[np.maximum(place - 1, 0)])
    return float(np.minimum(before, np.abs(a[np.minimum(place, len(a) - 1)] - b)).min())


def _check_times(here: str, train: Sequence[Any], there: str, test: Sequence[Any], purge: timedelta) -> None:
    import numpy as np

    a, b = _seconds(train), _seconds(test)
    where = here if here == there else f"{here} and {there}, which overlap"
    if len(shared := np.intersect1d(a, b)):
        first = np.datetime64(int(shared[0]), "s")
        raise DataError(f"{where}: {len(shared)} times are in both training and test, the first {first}")
    # Labels in order of time: with blocks the label changes rarely, with shuffled hours at nearly every step.
    order = np.argsort(np.concatenate([a, b]), kind="stable")
    side = np.concatenate([np.zeros(len(a)), np.ones(len(b))])[order]
    changes = int((np.diff(side) != 0).sum())
    smaller = min(len(a), len(b))
    gap = _closest(train, test)
    if gap < purge.total_seconds() and smaller >= 8 and changes > smaller / 2:
        raise DataError(
            f"{where}: hours are shuffled between training and test ({changes} changes in {len(side)} times), "
            "so each test hour is next to training hours; split by blocks (`split_blocks`)"
        )
    if gap < purge.total_seconds():
        raise DataError(
            f"{where}: a test time is only {timedelta(seconds=gap)} from a training time; expected a purge gap of "
            f"{purge}"
        )
