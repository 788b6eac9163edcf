"""Read fields in blocks of time with a cache, and choose blocks of time from a record."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoml.errors import DataError, UserError

if TYPE_CHECKING:
    import dask.array as da

__all__ = ["TimeBlocks", "of_strata", "of_years", "validation_blocks", "whole_blocks"]

GOLDEN_RATIO = 0.6180339887498949
Read = Callable[[slice], NDArray[Any]]


class TimeBlocks:
    """Read a `(time, lat, lon)` array with `read(slice)` in blocks of `length` times, with a cache of the latest
    blocks.

    Blocks match the chunks of the file, so no chunk is decoded twice if slabs have another length.
    """

    def __init__(self, read: Read, shape: tuple[int, int, int], length: int, *, keep: int = 2) -> None:
        from dask.utils import SerializableLock

        self.read, self.shape, self.length, self.keep = read, shape, max(1, length), keep
        self._held: OrderedDict[int, NDArray[np.float32]] = OrderedDict()
        self._lock = SerializableLock()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_held": OrderedDict()}

    def block(self, number: int) -> NDArray[np.float32]:
        """Return block `number`, which starts at time `number * length`, from the cache or the file."""
        with self._lock:
            if number not in self._held:
                part = slice(number * self.length, min((number + 1) * self.length, self.shape[0]))
                self._held[number] = np.asarray(self.read(part), np.float32)
                while len(self._held) > self.keep:
                    self._held.popitem(last=False)
            self._held.move_to_end(number)
            return self._held[number]

    def lazy(self) -> da.Array:
        """Return the array as a Dask array with blocks along time."""
        import dask.array as da

        times, *plane = self.shape
        if not times:
            return da.zeros(self.shape, np.float32)
        lengths = [min(self.length, times - start) for start in range(0, times, self.length)]
        chunks = (tuple(lengths), *((size,) for size in plane))
        return da.map_blocks(self._of, chunks=chunks, dtype=np.float32, meta=np.empty((0, 0, 0), np.float32))

    def _of(self, block_id: tuple[int, ...]) -> NDArray[np.float32]:
        return self.block(block_id[0])


def of_years(time: NDArray[np.datetime64], years: Sequence[int] | None, label: str) -> NDArray[np.intp]:
    """Return positions of the times in some calendar years; all for None. Raises `UserError` if there are none."""
    if years is None:
        return np.arange(len(time))
    wanted = {int(year) for year in ([years] if isinstance(years, int) else years)}
    held = time.astype("datetime64[Y]").astype(int) + 1970
    found = np.flatnonzero(np.isin(held, sorted(wanted)))
    if not len(found):
        raise UserError(f"{label} has no hours in {sorted(wanted)}; expected years in {held.min()} to {held.max()}")
    return found


def of_strata(size: int, count: int) -> NDArray[np.int64]:
    """Choose `count` of `size` positions, one in each of `count` equal strata, at offsets by the golden ratio.

    Unlike equal distances, this does not select the same season of every year.

    >>> of_strata(100, 3).tolist()
    [0, 53, 74]
    """
    edges = np.arange(count + 1, dtype=np.int64) * size // count
    place = (np.arange(count) * GOLDEN_RATIO) % 1.0
    return edges[:-1] + (place * np.diff(edges)).astype(np.int64)


def whole_blocks(positions: NDArray[np.intp], hours: int | None, length: int) -> NDArray[np.intp]:
    """Choose at most `hours` positions in complete blocks of `length`, evenly spread; all positions for None.

    >>> whole_blocks(np.arange(1000), 30, 10).reshape(3, 10)[:, 0].tolist()
    [0, 530, 740]
    """
    if hours is None or hours >= len(positions):
        return positions
    if hours < 1:
        raise UserError(f"data.hours is {hours}; expected 1 or more")
    blocks = np.unique(positions // length)
    chosen = blocks[of_strata(len(blocks), min(-(-hours // length), len(blocks)))]
    return positions[np.isin(positions // length, chosen)][:hours]


def validation_blocks(
    time: NDArray[np.datetime64], share: float, every_days: float, gap_hours: float
) -> Mapping[str, NDArray[np.intp]]:
    """Split times into training and validation: one validation block per period of days, with gaps. Returns positions.

    The last `gap_hours` are omitted, since test hours may follow directly. Raises `UserError` for an
    invalid share, `DataError` if no training hour remains.
    """
    from rainshift.places.splits import split_blocks

    if not 0 <= share < 1:
        raise UserError(f"data.validation_share is {share}; expected at least 0 and below 1")
    gap = timedelta(hours=float(gap_hours))
    end = time[-1] - np.timedelta64(round(gap.total_seconds()), "s")
    kept = time[time <= end]
    if not len(kept):
        raise DataError(f"no training hour remains before the gap of {gap}; reduce data.gap_hours")
    if share == 0:
        return {"train": np.arange(len(kept))}
    days = (kept[-1] - kept[0]) / np.timedelta64(1, "D")
    blocks = max(1, round(days / float(every_days)))
    return split_blocks(kept, {"train": 1 - share, "validation": share}, blocks=blocks, purge=gap)
