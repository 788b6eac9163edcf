"""Stores of fields: folders `NAME.zarr` with groups `condition`, `target` and `static`, verified on opening.

Zarr v3 with CF-1.11 attributes. The first axis of `condition` and `target` is the sample axis (time, or an index);
`static` lies on the grid of `target` and has none. Chunks hold some samples of the whole field. Written by
`StoreWriter`; `manifest.json`, which comes last, lists every file with its hash.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, overload

from geoml.data.location import location, zarr_location
from geoml.data.manifest import load_manifest, prepare_command, verify_store
from geoml.data.netcdf import read_dataset, write_netcdf
from geoml.data.packing import Packing
from geoml.data.writer import StoreWriter
from geoml.errors import unknown

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "Packing",
    "StoreWriter",
    "load_manifest",
    "open_store",
    "prepare_command",
    "read_dataset",
    "verify_store",
    "write_netcdf",
]


@overload
def open_store(path: str | os.PathLike[str], group: str, *, chunks: Any = None) -> xr.Dataset: ...
@overload
def open_store(path: str | os.PathLike[str], group: None = None, *, chunks: Any = None) -> dict[str, xr.Dataset]: ...
def open_store(
    path: str | os.PathLike[str], group: str | None = None, *, chunks: Any = None
) -> xr.Dataset | dict[str, xr.Dataset]:
    """One group of a store as a lazy, CF-decoded data set, or all of them by name.

    `chunks={}` gives Dask arrays with the chunks on disk. The store is compared with its manifest (sizes of all
    files, hashes of the metadata); an incomplete or damaged store raises `DataError` with the command that repairs it.
    """
    import xarray as xr

    path = location(path)
    verify_store(path, quick=True)
    groups = sorted(child.name for child in path.iterdir() if (child / "zarr.json").exists())
    if group is not None and group not in groups:
        raise unknown(f"group of {path}", group, groups)
    opened = {
        name: xr.open_zarr(zarr_location(path), group=name, chunks=chunks, consolidated=False)
        for name in ([group] if group is not None else groups)
    }
    for name, dataset in opened.items():
        dataset.encoding["source"] = f"{path} ({name})"
    return opened[group] if group is not None else opened
