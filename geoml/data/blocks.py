"""Read fields of a store block by block with zarr and zarrs; a missing chunk raises an error."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoml.data.location import object_store_errors, zarr_location
from geoml.data.manifest import check_file
from geoml.data.packing import Packing
from geoml.data.slabs import zarr_settings
from geoml.data.sources import ArraySource, Block, BlockSource, Stack, select_samples
from geoml.data.store import Store
from geoml.errors import DataError, unknown
from geoml.grids.grid import Grid, grid_of
from geoml.runs.files import sha256

if TYPE_CHECKING:
    import xarray as xr
    import zarr

__all__ = ["ArraySource", "Block", "BlockSource", "FieldSource"]

#: Alignment in bytes of each stack in the memory of a block.
ALIGNED = 64
PIPELINE = {"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}


class FieldSource(BlockSource):
    """Variables of a store (`geoml.data.store`) as channels.

    `condition`, `target` and `static` name the variables in channel order; None takes all, sorted by name. `samples` is
    a slice, ascending indices, a boolean mask or None (all). Only metadata are read on construction; arrays are opened
    by the process that reads them.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        condition: Sequence[str] | None = None,
        target: Sequence[str] | None = None,
        static: Sequence[str] | None = None,
        samples: slice | Iterable[int] | NDArray[Any] | None = None,
        name: str | None = None,
    ) -> None:
        self.store = Store.open(path)
        self.path = self.store.path
        self.name = name or self.path.name
        groups = self.store.groups
        self.condition = self._choose(groups, "condition", condition)
        self.target = self._choose(groups, "target", target)
        self.static = self._choose(groups, "static", static)
        if not self.condition:
            raise DataError(f"{self.path} has no condition variables")
        lead = groups["condition"][self.condition[0]]
        axis = str(lead.dims[0])
        self.times = groups["condition"][axis].values if axis in groups["condition"].coords else None
        self.selected = select_samples(samples, lead.sizes[axis], self.name)
        self.condition_grid = self._grid(groups["condition"], self.condition)
        fine = next((g for g, names in (("target", self.target), ("static", self.static)) if names), None)
        if fine is None:
            fine = next((g for g in ("target", "static") if g in groups), "condition")
        self.target_grid = self._grid(groups[fine], getattr(self, fine))
        self._arrays: dict[str, zarr.Array] = {}
        lengths = [
            self._array(role, name).chunks[0] for role in ("condition", "target") for name in getattr(self, role)
        ]
        self.block_samples = math.lcm(*lengths)

    def _variables(self) -> list[tuple[str, str]]:
        return [(role, name) for role in ("condition", "target") for name in getattr(self, role)]

    def _narrow(self, role: str, numbers: list[int]) -> None:
        self._arrays = {}

    def _choose(self, groups: dict[str, xr.Dataset], role: str, wanted: Sequence[str] | None) -> tuple[str, ...]:
        have = sorted(str(name) for name in groups[role].data_vars) if role in groups else []
        for name in wanted or ():
            if name not in have:
                raise unknown(f"{role} variable of {self.path}", name, have)
        return tuple(wanted) if wanted is not None else tuple(have)

    def _grid(self, dataset: xr.Dataset, names: Sequence[str]) -> Grid:
        grid = grid_of(dataset)
        for name in names or dataset.data_vars:
            if (dims := tuple(map(str, dataset[name].dims)))[-len(grid.shape) :] != grid.names:
                raise DataError(f"{self.path}: {name!r} has dims {dims}; expected them to end with {grid.names}")
        for axis in grid.axes:
            if not np.allclose(dataset[axis.name].values, axis.coordinates, atol=1e-3 * abs(axis.step)):
                raise DataError(
                    f"{self.path}: {axis.name!r} is not in ascending order; prepare it with geoml.grids.grid.conform"
                )
        return grid

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_arrays": {}}

    @property
    def sample_bytes(self) -> int:
        arrays = (self._array(role, name) for role, name in self._variables())
        return sum(math.prod(array.shape[1:]) * array.dtype.itemsize for array in arrays)

    def _array(self, role: str, name: str) -> zarr.Array:
        """The open array of a variable, decoded by zarrs independently of the process's zarr settings."""
        import zarr

        key = f"{role}/{name}"
        if key not in self._arrays:
            with object_store_errors(self.path), zarr_settings(**PIPELINE):
                self._arrays[key] = zarr.open_array(zarr_location(self.path / key), mode="r")
        return self._arrays[key]

    def _packing(self, role: str, name: str) -> Packing | None:
        array = self._array(role, name)
        if array.dtype.kind not in "iu":
            return None
        attrs = array.attrs
        return Packing(float(attrs["scale_factor"]), float(attrs.get("add_offset", 0.0)), array.dtype.name)  # type: ignore[arg-type]

    def read_block(self, start: int, stop: int, memory: NDArray[np.uint8] | None = None) -> Block:
        size = (stop - start) * self.sample_bytes + ALIGNED * (len(self.condition) + len(self.target))
        if memory is None or memory.size < size:
            memory = np.empty(size, np.uint8)
        roles, left = {}, memory
        for role in ("condition", "target"):
            if getattr(self, role):
                roles[role], left = self._read_role(role, start, stop, left)
        return Block(start, stop, roles, memory)

    def _read_role(
        self, role: str, start: int, stop: int, memory: NDArray[np.uint8]
    ) -> tuple[tuple[Stack, ...], NDArray[np.uint8]]:
        """Read the stacks of a role into the beginning of `memory`; returns the stacks and the unused memory."""
        names = getattr(self, role)
        by_type: dict[np.dtype[Any], list[int]] = {}
        for number, name in enumerate(names):
            by_type.setdefault(self._array(role, name).dtype, []).append(number)
        stacks = []
        for dtype, numbers in by_type.items():
            space = self._array(role, names[numbers[0]]).shape[1:]
            shape = (len(numbers), stop - start, *space)
            size = math.prod(shape) * dtype.itemsize
            values = memory[:size].view(dtype).reshape(shape)
            memory = memory[-(-size // ALIGNED) * ALIGNED :]
            for row, number in zip(values, numbers, strict=True):
                self._read_into(row, role, names[number], start, stop)
            packing = tuple(self._packing(role, names[number]) for number in numbers)
            stacks.append(Stack(tuple(numbers), values, packing))
        return tuple(stacks), memory

    def _read_into(self, out: NDArray[Any], role: str, name: str, start: int, stop: int) -> None:
        from zarr.buffer import default_buffer_prototype

        array = self._array(role, name)
        files = self._chunk_files(array, f"{role}/{name}", start, stop)
        known = self.store.files
        for file in files:
            if file not in known:
                raise DataError(f"{self.path / file} is not in the manifest; prepare {self.path} again")
            check_file(self.path, file, known[file][0])
        try:
            buffer = default_buffer_prototype().nd_buffer.from_numpy_array(out)
            array.get_basic_selection((slice(start, stop), *(slice(None) for _ in out.shape[1:])), out=buffer)
        except Exception as error:
            with object_store_errors(self.path):
                damaged = [f for f in files if sha256(self.path / f) != known[f][1]]
            place = self.path / (damaged[0] if damaged else f"{role}/{name}")
            raise DataError(f"{place} is damaged and cannot be decoded ({error}); delete and prepare again") from error

    @staticmethod
    def _chunk_files(array: zarr.Array, key: str, start: int, stop: int) -> list[str]:
        if math.prod(-(-size // chunk) for size, chunk in zip(array.shape[1:], array.chunks[1:], strict=True)) != 1:
            raise DataError(f"{key} is chunked in space; chunks of a store must span complete fields")
        length, rest = array.chunks[0], "/".join("0" for _ in array.shape[1:])
        return [f"{key}/c/{index}/{rest}" for index in range(start // length, (stop - 1) // length + 1)]

    def read_static(self) -> NDArray[np.float32]:
        if not self.static:
            return np.zeros((0, *self.target_grid.shape), np.float32)
        dataset = self.store.groups["static"]
        return np.stack([dataset[name].values for name in self.static]).astype(np.float32)
