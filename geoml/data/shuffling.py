"""The order in which an epoch visits samples: blocks in random order, batches mixed from resident blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["BatchItems", "BlockOrder", "keyed_uniform"]

#: If the number of processes divides this number, their shares of most batches are equal.
DEAL = 8


def keyed_uniform(key: Sequence[int], ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """Numbers in [0, 1) that depend only on `key` and each id (SplitMix64; Steele et al., OOPSLA 2014).

    >>> keyed_uniform((1, 2), np.array([7, 8]))[1] == keyed_uniform((1, 2), np.array([8]))[0]
    np.True_
    """
    with np.errstate(over="ignore"):
        state = np.zeros(ids.shape, np.uint64)
        for part in (*(np.asarray(k & 0xFFFFFFFFFFFFFFFF, np.uint64) for k in key), ids.astype(np.uint64)):
            state = (state ^ part) + np.uint64(0x9E3779B97F4A7C15)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


@dataclass(frozen=True)
class BatchItems:
    """One batch: for each item the position of its block in the sequence and its index within the block.

    `finished` lists the positions of the blocks that are not needed after this batch.
    """

    positions: NDArray[np.int64]
    items: NDArray[np.int64]
    finished: tuple[int, ...]


class BlockOrder:
    """Batches over blocks of `counts` items each, of which at most `resident` are open at a time.

    Blocks are opened in random order. While there are at least as many open blocks as items in a batch, each item of a
    batch comes from another block, so that neighbours in time do not share a batch and batch means vary as under a
    global shuffle. When all blocks have been opened, they are drawn in proportion to their remaining items. Every item
    is yielded exactly once. The order is a pure function of the arguments.

    >>> order = BlockOrder([3, 2, 4], batch_size=4, resident=2, key=(0, 0))
    >>> [len(step.items) for step in order]
    [4, 4, 1]
    """

    def __init__(
        self,
        counts: Sequence[int] | NDArray[np.int64],
        *,
        batch_size: int,
        resident: int,
        key: tuple[int, ...],
        shuffle: bool = True,
    ) -> None:
        self.counts = np.asarray(counts, dtype=np.int64)
        self.batch_size, self.resident, self.key, self.shuffle = batch_size, max(1, resident), key, shuffle
        everything = np.flatnonzero(self.counts)
        if shuffle:
            everything = np.random.default_rng([*key, 0]).permutation(everything)
        #: Indices of the blocks with items, in the order in which they are opened.
        self.sequence = everything

    @property
    def total(self) -> int:
        """Total number of items."""
        return int(self.counts[self.sequence].sum())

    def __len__(self) -> int:
        return -(-self.total // self.batch_size)

    def __iter__(self) -> Iterator[BatchItems]:
        rng = np.random.default_rng([*self.key, 1])
        remaining = self.counts[self.sequence].copy()
        taken = np.zeros_like(remaining)
        shuffled: dict[int, NDArray[np.int64]] = {}
        slots = np.arange(min(self.resident, len(self.sequence)))
        opened = len(slots)
        while slots.size:
            positions, items, finished = [], [], []
            wanted = self.batch_size
            while wanted and slots.size:
                for position in self._draw(slots, remaining, min(wanted, remaining[slots].sum()), opened, rng):
                    position = int(position)
                    if position not in shuffled:
                        shuffled[position] = self._items(position)
                    positions.append(position)
                    items.append(int(shuffled[position][taken[position]]))
                    taken[position] += 1
                    remaining[position] -= 1
                    wanted -= 1
                done = slots[remaining[slots] == 0]
                if done.size:
                    finished += [int(position) for position in done]
                    for position in done:
                        shuffled.pop(int(position), None)
                    fresh = np.arange(opened, min(opened + done.size, len(self.sequence)))
                    opened += fresh.size
                    slots = np.concatenate([slots[remaining[slots] > 0], fresh])
            yield BatchItems(np.array(positions), np.array(items), tuple(finished))

    def _items(self, position: int) -> NDArray[np.int64]:
        block = int(self.sequence[position])
        count = int(self.counts[block])
        return np.random.default_rng([*self.key, 2, block]).permutation(count) if self.shuffle else np.arange(count)

    def _draw(
        self,
        slots: NDArray[np.int64],
        remaining: NDArray[np.int64],
        number: int,
        opened: int,
        rng: np.random.Generator,
    ) -> NDArray[np.int64]:
        if not self.shuffle:
            return np.repeat(slots, remaining[slots])[:number]
        if slots.size < number:
            return rng.permutation(np.repeat(slots, remaining[slots]))[:number]
        if opened < len(self.sequence):
            return _dealt(rng.permutation(slots))[:number]
        waits = rng.exponential(size=slots.size) / remaining[slots]
        return slots[np.argsort(waits, kind="stable")[:number]]


def _dealt(slots: NDArray[np.int64]) -> NDArray[np.int64]:
    """Reorder the slots so that their residues modulo `DEAL` alternate.

    Blocks are distributed over processes by position, so that all processes get about equal parts of a batch.
    """
    residues = slots % DEAL
    by_residue = np.argsort(residues, kind="stable")
    counts = np.bincount(residues, minlength=DEAL)
    turns = np.empty_like(slots)
    turns[by_residue] = np.arange(slots.size) - np.repeat(np.cumsum(counts) - counts, counts)
    return slots[np.argsort(turns, kind="stable")]
