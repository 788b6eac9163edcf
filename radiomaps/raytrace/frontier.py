"""Select the voxels in which a path is tested: those that rays of its chain crossed, then neighbours of its voxels."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

__all__ = ["Asked", "order_of"]


class Asked:
    """Record of the tested pairs of a voxel and a chain of surfaces (a number below `chains`)."""

    def __init__(self, shape: tuple[int, ...], chains: int) -> None:
        self.shape, self.chains = shape, chains
        self.parts: list[NDArray[np.uint32]] = []
        self.starts: list[NDArray[np.int64]] = []

    def first(self, cell: NDArray[np.uint32], chain: NDArray[np.uint32]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Record these pairs as tested; returns them grouped by chain, without duplicates."""
        cell, starts = self._by_chain(cell, chain)
        keep = _once(cell, starts, np.zeros(int(np.prod(self.shape)), np.bool_))
        chain = np.repeat(np.arange(self.chains, dtype=np.uint32), np.diff(starts))[keep]
        return self._ask(cell[keep], chain)

    def neighbours(self, cell: NDArray[np.uint32], chain: NDArray[np.uint32]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Pair these chains with the six neighbours of these voxels; returns the pairs that were not tested, by chain.

        Wide beams have few rays per voxel. Voxels of a beam that no ray crossed are found in this way.
        """
        cell, starts = self._by_chain(cell, chain)
        return self._ask(*_around(cell, starts, np.concatenate(self.parts), np.stack(self.starts), self.shape))

    def _by_chain(
        self, cell: NDArray[np.uint32], chain: NDArray[np.uint32]
    ) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        return cell[order_of(chain, self.chains)], _starts(chain, self.chains)

    def _ask(self, cell: NDArray[np.uint32], chain: NDArray[np.uint32]) -> tuple[NDArray[Any], NDArray[Any]]:
        self.starts.append(_starts(chain, self.chains) + sum(map(len, self.parts)))
        self.parts.append(cell)
        return cell, chain


def order_of(numbers: NDArray[np.uint32], count: int) -> NDArray[np.int64]:
    """Indices that sort numbers below `count`, by a stable counting sort in linear time."""
    return np.asarray(_order(numbers, _starts(numbers, count)))


def _starts(numbers: NDArray[np.uint32], count: int) -> NDArray[np.int64]:
    """Position of the first item of each number in the sorted array, followed by the array's length."""
    return np.concatenate([[0], np.cumsum(np.bincount(numbers, minlength=count))]).astype(np.int64)


@numba.njit(cache=True, nogil=True)
def _order(numbers: Any, starts: Any) -> Any:
    place = starts.copy()
    order = np.empty(len(numbers), np.int64)
    for index in range(len(numbers)):
        order[place[numbers[index]]] = index
        place[numbers[index]] += 1
    return order


@numba.njit(cache=True, nogil=True)
def _once(cell: Any, starts: Any, mark: Any) -> Any:
    """Mask of the first occurrence of each voxel in its chain; `mark` is False for all voxels, before and after."""
    keep = np.empty(len(cell), np.bool_)
    for chain in range(len(starts) - 1):
        for index in range(starts[chain], starts[chain + 1]):
            keep[index] = not mark[cell[index]]
            mark[cell[index]] = True
        for index in range(starts[chain], starts[chain + 1]):
            mark[cell[index]] = False
    return keep


@numba.njit(cache=True, nogil=True)
def _around(cell: Any, starts: Any, asked: Any, asked_starts: Any, shape: Any) -> Any:
    """Voxels and chains of the neighbours of each chain's voxels that `asked` does not contain."""
    nz, ny, nx = shape
    mark = np.zeros(nz * ny * nx, np.bool_)
    found, chains = np.empty(len(cell) + 64, np.uint32), np.empty(len(cell) + 64, np.uint32)
    number = 0
    for chain in range(len(starts) - 1):
        begin, end = starts[chain], starts[chain + 1]
        if begin == end:
            continue
        for part in range(len(asked_starts)):
            for index in range(asked_starts[part, chain], asked_starts[part, chain + 1]):
                mark[asked[index]] = True
        if number + 6 * (end - begin) > len(found):
            room = np.empty(2 * number + 6 * (end - begin), np.uint32)
            found, chains = np.concatenate((found[:number], room)), np.concatenate((chains[:number], room))
        first = number
        # One direction after the other: what follows each other here lies in a row there.
        for stride, count in ((nx * ny, nz), (nx, ny), (1, nx)):
            for side in (-1, 1):
                edge = 0 if side < 0 else count - 1
                for index in range(begin, end):
                    there = np.int64(cell[index]) + side * stride
                    if (np.int64(cell[index]) // stride) % count != edge and not mark[there]:
                        mark[there] = True
                        found[number], chains[number] = there, chain
                        number += 1
        for part in range(len(asked_starts)):
            for index in range(asked_starts[part, chain], asked_starts[part, chain + 1]):
                mark[asked[index]] = False
        for index in range(first, number):
            mark[found[index]] = False
    return found[:number].copy(), chains[:number].copy()
