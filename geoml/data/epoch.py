"""One epoch as a pure function of settings: the blocks to read, the items to cut from them, and their order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoml.data.patch_groups import Lane, Part
from geoml.data.reading import Request, read_ahead
from geoml.data.shuffling import BatchItems, BlockOrder
from geoml.data.sources import Block

__all__ = ["Epoch"]


#: Number of blocks of a group that are read ahead.
READ_AHEAD = 4


@dataclass(frozen=True)
class Epoch:
    """The settings that determine an epoch; small, picklable, equal in every process."""

    lanes: Sequence[Lane]
    batch_size: int
    resident: Sequence[int]
    seed: int
    shuffle: bool
    rank: int
    world_size: int

    def orders(self, epoch: int) -> list[BlockOrder]:
        common: dict[str, Any] = {"batch_size": self.batch_size, "shuffle": self.shuffle}
        orders = []
        for number, (lane, resident) in enumerate(zip(self.lanes, self.resident, strict=True)):
            key = (self.seed, epoch, number)
            orders.append(BlockOrder(lane.counts, resident=resident, key=key, **common))
        return orders

    def plan(self, epoch: int, orders: Sequence[BlockOrder]) -> Iterator[tuple[int, BatchItems]]:
        """`(group, step)` for every batch, groups in random order."""
        turns = np.repeat(np.arange(len(orders)), [len(order) for order in orders])
        if self.shuffle and len(orders) > 1:
            turns = np.random.default_rng([self.seed, epoch, 1 << 20]).permutation(turns)
        steps = [iter(order) for order in orders]
        for lane in turns.tolist():
            yield lane, next(steps[lane])

    def ids(self, epoch: int) -> Iterator[NDArray[np.int64]]:
        """The item ids of every batch, in order, without reading anything."""
        orders = self.orders(epoch)
        for number, step in self.plan(epoch, orders):
            blocks = orders[number].sequence[step.positions]
            firsts = np.array([self.lanes[number].spans[block].first_id for block in blocks.tolist()], np.int64)
            yield firsts + step.items

    def parts(self, epoch: int, skip: int, *, worker: int = 0, workers: int = 1, client: Any = None) -> Iterator[Part]:
        """This worker's part of every batch after the first `skip`; it may be empty.

        Blocks are distributed over ranks, and within a rank over workers. Each is read once, and the batches of all
        ranks together hold the same items for any number of ranks and workers.
        """
        worker, workers = self.rank + self.world_size * worker, self.world_size * workers
        orders = self.orders(epoch)
        plan = self.plan(epoch, orders)
        gone: list[set[int]] = [set() for _ in self.lanes]
        for _, (lane, step) in zip(range(skip), plan, strict=False):
            gone[lane].update(step.finished)
        readers = [
            read_ahead(
                self._requests(number, order, gone[number], worker, workers, reuse=client is None),
                ahead=READ_AHEAD,
                client=client,
            )
            for number, order in enumerate(orders)
        ]
        held: list[dict[int, Block]] = [{} for _ in self.lanes]
        try:
            for number, step in plan:
                yield self._part(number, step, epoch, orders[number], held[number], readers[number], worker, workers)
                for position in step.finished:
                    block = held[number].pop(position, None)
                    if block is not None and client is None:
                        self.lanes[number].recycle(block)
        finally:
            for reader in readers:
                reader.close()  # type: ignore[attr-defined]

    def _requests(
        self, number: int, order: BlockOrder, gone: set[int], worker: int, workers: int, *, reuse: bool
    ) -> Iterator[Request]:
        lane = self.lanes[number]
        for position in range(worker, len(order.sequence), workers):
            if position not in gone:
                span = lane.spans[int(order.sequence[position])]
                memory = lane.spare_memory() if reuse else None
                yield Request(position, lane.sources[span.source], span.start, span.stop, memory)

    def _part(
        self,
        number: int,
        step: BatchItems,
        epoch: int,
        order: BlockOrder,
        held: dict[int, Block],
        reader: Iterator[tuple[int, Block]],
        worker: int,
        workers: int,
    ) -> Part:
        mine = np.flatnonzero(step.positions % workers == worker)
        if not mine.size:
            return self.lanes[number].nothing()
        positions = step.positions[mine].tolist()
        while any(position not in held for position in positions):
            position, block = next(reader)
            held[position] = block
        lane = self.lanes[number]
        spans = [lane.spans[int(order.sequence[position])] for position in positions]
        return lane.cut([held[p] for p in positions], spans, step.items[mine], mine, epoch)
