"""Reading ahead with Dask: a bounded number of blocks in flight, results in the order of requests."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from geoml.data.sources import Block, BlockSource

__all__ = ["Request", "read_ahead"]


class Request(NamedTuple):
    """A request for a block: position in the order, source, range of samples, and memory that the block may reuse."""

    position: int
    source: BlockSource
    start: int
    stop: int
    memory: NDArray[np.uint8] | None = None


def _read(source: BlockSource, start: int, stop: int, memory: NDArray[np.uint8] | None = None) -> Block:
    return source.read_block(start, stop, memory)


def read_ahead(requests: Iterable[Request], *, ahead: int, client: Any = None) -> Iterator[tuple[int, Block]]:
    """Yield `(position, block)` in the order of the requests; at most `ahead` blocks are being read or waiting.

    With a `distributed.Client` the blocks are read by its workers; otherwise Dask's threaded scheduler reads groups
    of them on another thread while the caller works.
    """
    return _through_client(requests, ahead, client) if client is not None else _through_threads(requests, ahead)


def _through_client(requests: Iterable[Request], ahead: int, client: Any) -> Iterator[tuple[int, Block]]:
    waiting: deque[tuple[int, Any]] = deque()
    pending = iter(requests)
    try:
        while True:
            for request in itertools.islice(pending, ahead - len(waiting)):
                future = client.submit(_read, request.source, request.start, request.stop, pure=False)
                waiting.append((request.position, future))
            if not waiting:
                return
            position, future = waiting.popleft()
            yield position, future.result()
    finally:
        client.cancel([future for _, future in waiting])


def _through_threads(requests: Iterable[Request], ahead: int) -> Iterator[tuple[int, Block]]:
    import dask

    def compute(group: list[Request]) -> tuple[Block, ...]:
        tasks = [dask.delayed(_read, pure=False)(*r[1:]) for r in group]
        return dask.compute(*tasks, scheduler="threads", optimize_graph=False)

    size = max(1, ahead // 2)  # one group is being read while the other is taken from
    pending = iter(requests)
    waiting: deque[tuple[list[Request], Future[tuple[Block, ...]]]] = deque()
    executor = ThreadPoolExecutor(1, thread_name_prefix="geoml-read-ahead")

    def submit() -> None:
        if group := list(itertools.islice(pending, size)):
            waiting.append((group, executor.submit(compute, group)))

    try:
        submit()
        while waiting:
            group, future = waiting.popleft()
            blocks = list(future.result())
            submit()
            for request in group:
                yield request.position, blocks.pop(0)
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
