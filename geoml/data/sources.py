"""Sources of fields, and the blocks of consecutive samples that are read from them at once."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from geoml.data.packing import Packing
from geoml.errors import DataError, unknown
from geoml.grids.grid import Grid

__all__ = ["ArraySource", "Block", "BlockSource", "Stack"]


#: Types of stored values for which `kernels.cut_patch` is compiled.
COMPILED = frozenset(map(np.dtype, ("f4", "i1", "u1", "i2", "u2", "i4", "u4")))


@dataclass(frozen=True)
class Stack:
    """Channels of one data type as stored: `(channel, sample, *space)`; integers are still packed."""

    channels: tuple[int, ...]
    values: NDArray[Any]
    packing: tuple[Packing | None, ...]

    @cached_property
    def codes(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Channel numbers, scales, offsets and fill values of the channels; scale 0 marks channels without packing."""
        rows = [(p.scale, p.offset, p.fill) if p else (0.0, 0.0, 0) for p in self.packing]
        scale, offset, fill = zip(*rows, strict=True)
        integer: Any = self.values.dtype if self.values.dtype.kind in "iu" else np.int64
        kinds: tuple[Any, ...] = (np.int64, np.float32, np.float32, integer)
        return tuple(np.array(*pair) for pair in zip((self.channels, scale, offset, fill), kinds, strict=True))  # type: ignore[return-value]

    def cells(self, step: int, steps: int) -> tuple[NDArray[Any], int]:
        """Return the values as `(channel, sample, z, y, x)` in a compiled type, and the index of sample `step` in them.

        Values of other types than `COMPILED` are converted to float32, only the `steps` samples from `step` on.
        """
        values = self.values
        if values.dtype not in COMPILED:
            values, step = values[:, step : step + steps].astype(np.float32), 0
        return values.reshape(*values.shape[:2], *(1,) * (5 - values.ndim), *values.shape[2:]), step

    @property
    def index(self) -> slice | list[int]:
        """The index of these channels on the channel axis; a slice if they are consecutive."""
        first, last = self.channels[0], self.channels[-1]
        return slice(first, last + 1) if self.channels == tuple(range(first, last + 1)) else list(self.channels)

    def decode(self, values: NDArray[Any], axis: int) -> NDArray[np.float32]:
        """Physical float32 of stored values whose channels lie on `axis`."""
        if not any(self.packing):
            return values.astype(np.float32, copy=False)
        if len(set(self.packing)) == 1 and self.packing[0] is not None:
            return self.packing[0].decode(values)
        parts = np.moveaxis(values, axis, 0)
        decoded = [p.decode(v) if p else v.astype(np.float32) for p, v in zip(self.packing, parts, strict=True)]
        return np.stack(decoded, axis)


@dataclass(frozen=True)
class Block:
    """The samples `start … stop - 1` of a source by role (condition, target), in stored form.

    `memory` holds the values, if another block may use it after this one.
    """

    start: int
    stop: int
    roles: Mapping[str, tuple[Stack, ...]]
    memory: NDArray[np.uint8] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "memory": None}  # the values travel with their stacks

    @property
    def nbytes(self) -> int:
        return sum(stack.values.nbytes for stacks in self.roles.values() for stack in stacks)

    def decode(self, role: str) -> NDArray[np.float32]:
        """`(sample, channel, *space)` in physical units."""
        stacks = self.roles[role]
        space = stacks[0].values.shape[2:]
        channels = sum(len(stack.channels) for stack in stacks)
        out = np.empty((self.stop - self.start, channels, *space), np.float32)
        for stack in stacks:
            out[:, stack.index] = stack.decode(stack.values, 0).swapaxes(0, 1)
        return out


class BlockSource(ABC):
    """Fields on a pair of grids along a sample axis, read block by block; picklable, opened where it is read.

    `selected` are the ascending indices of the selected samples; `read` and `read_block` take positions on the
    whole axis.
    """

    name: str
    condition: tuple[str, ...]
    target: tuple[str, ...]
    static: tuple[str, ...]
    condition_grid: Grid
    target_grid: Grid
    #: Ascending indices of the selected samples.
    selected: NDArray[np.int64]
    #: The sample axis: datetimes, numbers, or None where samples have no order in time.
    times: NDArray[Any] | None
    #: Number of samples that are cheap to read together: complete chunks of every variable.
    block_samples: int

    @property
    @abstractmethod
    def sample_bytes(self) -> int:
        """Bytes of one sample in a block."""

    @abstractmethod
    def read_block(self, start: int, stop: int, memory: NDArray[np.uint8] | None = None) -> Block:
        """Read samples `start … stop - 1` in stored form; `memory` may be reused for them if it is large enough."""

    @abstractmethod
    def read_static(self) -> NDArray[np.float32]:
        """Static fields `(channel, *space)` on the target grid; zero channels if there are none."""

    def read(self, start: int, stop: int) -> dict[str, NDArray[np.float32]]:
        """Samples in physical units by role, `(sample, channel, *space)`, NaN where missing."""
        block = self.read_block(start, stop)
        return {role: block.decode(role) for role in block.roles}

    def narrow(self, **names: Sequence[str]) -> Self:
        """Return the source with only these channels, in this order: `narrow(condition=("tp",), target=("rate",))`."""
        narrowed = copy.copy(self)
        for role, wanted in names.items():
            have = getattr(self, role)
            for name in wanted:
                if name not in have:
                    raise unknown(f"{role} variable of {self.name}", name, have)
            narrowed._narrow(role, [have.index(name) for name in wanted])
            setattr(narrowed, role, tuple(wanted))
        return narrowed

    @abstractmethod
    def _narrow(self, role: str, numbers: list[int]) -> None:
        """A copy with these channels of a role; it shares everything else."""

    def __len__(self) -> int:
        return len(self.selected)

    def label(self, index: int) -> str:
        """The name of a sample for messages."""
        if self.times is None:
            return f"sample {index}"
        time = self.times[index]
        return f"{np.datetime_as_string(time, unit='m')}" if isinstance(time, np.datetime64) else f"sample {time}"


def select_samples(samples: slice | Iterable[int] | NDArray[Any] | None, size: int, name: str) -> NDArray[np.int64]:
    """Ascending indices for a slice, indices, a boolean mask or None (all)."""
    if samples is None or isinstance(samples, slice):
        return np.arange(size)[samples if samples is not None else slice(None)].astype(np.int64)
    given = np.asarray(samples)
    if given.dtype == bool:
        if given.shape != (size,):
            raise ValueError(f"{name}: a mask of {given.shape} for {size} samples")
        return np.flatnonzero(given)
    chosen = np.unique(given).astype(np.int64)
    if chosen.size != given.size:
        raise ValueError(f"{name}: {given.size - chosen.size} sample indices are repeated")
    if chosen.size and not (chosen[0] >= 0 and chosen[-1] < size):
        raise ValueError(f"{name}: sample indices {chosen[0]} … {chosen[-1]} are outside 0 … {size - 1}")
    return chosen


class ArraySource(BlockSource):
    """Fields already in memory, for tests and small data: arrays `(sample, channel, *space)`, static without sample."""

    def __init__(
        self,
        condition: NDArray[Any],
        condition_grid: Grid,
        target_grid: Grid,
        *,
        target: NDArray[Any] | None = None,
        static: NDArray[Any] | None = None,
        channels: Mapping[str, Sequence[str]] | None = None,
        times: NDArray[Any] | None = None,
        samples: slice | Iterable[int] | NDArray[Any] | None = None,
        block_samples: int = 16,
        name: str = "arrays",
    ) -> None:
        names = channels or {}
        self.name = name
        self._arrays = {"condition": np.asarray(condition, np.float32)}
        if target is not None:
            self._arrays["target"] = np.asarray(target, np.float32)
        self._static = (
            np.zeros((0, *target_grid.shape), np.float32) if static is None else np.asarray(static, np.float32)
        )
        self.condition_grid, self.target_grid = condition_grid, target_grid
        for role, array in self._arrays.items():
            shape = getattr(self, f"{role}_grid").shape
            if array.shape[0] != len(condition) or array.shape[2:] != shape:
                raise ValueError(f"{role} {array.shape} does not fit {len(condition)} samples on {shape}")
        if self._static.shape[1:] != target_grid.shape:
            raise ValueError(f"static {self._static.shape} does not lie on the target grid {target_grid.shape}")
        self.condition = tuple(names.get("condition") or (f"condition_{i}" for i in range(condition.shape[1])))
        self.target = (
            tuple(names.get("target") or (f"target_{i}" for i in range(target.shape[1]))) if target is not None else ()
        )
        self.static = tuple(names.get("static") or (f"static_{i}" for i in range(len(self._static))))
        self.times, self.block_samples = times, block_samples
        self.selected = select_samples(samples, len(condition), name)

    @property
    def sample_bytes(self) -> int:
        return sum(array[0].nbytes for array in self._arrays.values())

    def _narrow(self, role: str, numbers: list[int]) -> None:
        if role == "static":
            self._static = self._static[numbers]
        elif numbers:
            self._arrays = {**self._arrays, role: self._arrays[role][:, numbers]}
        else:
            self._arrays = {kept: array for kept, array in self._arrays.items() if kept != role}

    def read_block(self, start: int, stop: int, memory: NDArray[np.uint8] | None = None) -> Block:
        roles = {}
        for role, array in self._arrays.items():
            part = array[start:stop].swapaxes(0, 1)
            roles[role] = (Stack(tuple(range(len(part))), part, (None,) * len(part)),)
        return Block(start, stop, roles)

    def read_static(self) -> NDArray[np.float32]:
        return self._static


def unexpected_gap(source: BlockSource, role: str, variable: str, index: int, cell: str) -> DataError:
    """The error for a missing or infinite value where none is expected."""
    when = f" at {source.label(index)}" if role != "static" else ""
    return DataError(
        f"{source.name}: {role} variable {variable!r} is not finite{when}, {cell}; "
        f"correct the data, exclude the sample, or name {variable!r} in expected_gaps"
    )
