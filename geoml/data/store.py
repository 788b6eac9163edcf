"""Stores of fields: folders `NAME.zarr` with groups `condition`, `target` and `static`, verified on opening.

Zarr v3 with CF-1.11 attributes. The first axis of `condition` and `target` is the sample axis (time, or an index);
`static` lies on the grid of `target` and has none. Chunks hold some samples of the whole field. Written by
`StoreWriter`; `manifest.json` is written last and lists every file with its hash.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self, overload

import xarray as xr

from geoml.data.location import location, zarr_location
from geoml.data.manifest import Files, load_manifest, prepare_command, verify_store
from geoml.data.netcdf import read_dataset, write_netcdf
from geoml.data.packing import Packing
from geoml.data.writer import StoreWriter
from geoml.errors import unknown

__all__ = [
    "Packing",
    "Store",
    "StoreWriter",
    "load_manifest",
    "open_store",
    "prepare_command",
    "read_dataset",
    "verify_store",
    "write_netcdf",
]


@dataclass(frozen=True)
class Store(os.PathLike[str]):
    """A complete store, compared with its manifest when it was opened; functions pass it on instead of its path.

    Processes that receive a `Store` do not verify it again. `str(store)` and `Path(store)` are its folder or URL.
    """

    path: Path

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open the store at a folder or URL; a `Store` is returned unchanged.

        Sizes of all files and hashes of the metadata are compared with the manifest; an incomplete or damaged store
        raises `DataError` with the command that repairs it.
        """
        if isinstance(path, cls):
            return path
        place = path.path if isinstance(path, Store) else location(path)
        if not isinstance(path, Store):
            verify_store(place, quick=True)
        return cls(place)

    def __fspath__(self) -> str:
        return str(self.path)

    __str__ = __fspath__

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    @cached_property
    def files(self) -> Files:
        """Size and hash of every file, by name."""
        return load_manifest(self.path)

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """The global attributes."""
        return dict(json.loads((self.path / "zarr.json").read_text(encoding="utf-8")).get("attributes", {}))

    @cached_property
    def names(self) -> list[str]:
        """The names of the groups."""
        return sorted(child.name for child in self.path.iterdir() if (child / "zarr.json").exists())

    @cached_property
    def groups(self) -> dict[str, xr.Dataset]:
        """All groups by name, lazy and CF-decoded."""
        return {name: self.open_group(name) for name in self.names}

    def open_group(self, name: str, *, chunks: Any = None) -> xr.Dataset:
        """One group, lazy and CF-decoded; `chunks={}` gives Dask arrays with the chunks on disk."""
        if name not in self.names:
            raise unknown(f"group of {self.path}", name, self.names)
        found = xr.open_zarr(zarr_location(self.path), group=name, chunks=chunks, consolidated=False)
        found.encoding["source"] = f"{self.path} ({name})"
        return found


@overload
def open_store(path: str | os.PathLike[str], group: str, *, chunks: Any = None) -> xr.Dataset: ...
@overload
def open_store(path: str | os.PathLike[str], group: None = None, *, chunks: Any = None) -> dict[str, xr.Dataset]: ...
def open_store(
    path: str | os.PathLike[str], group: str | None = None, *, chunks: Any = None
) -> xr.Dataset | dict[str, xr.Dataset]:
    """One group of a store as a lazy, CF-decoded data set, or all of them by name; see `Store`."""
    store = Store.open(path)
    if group is not None:
        return store.open_group(group, chunks=chunks)
    return {name: store.open_group(name, chunks=chunks) for name in store.names}
