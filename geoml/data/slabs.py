"""Write the chunks of one slab of samples; a pure function of plan and data that any process can run."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoml.data.location import object_store_errors, zarr_location
from geoml.data.packing import Packing
from geoml.runs.files import sha256, writing

if TYPE_CHECKING:
    import xarray as xr
    import zarr

__all__ = ["SlabWriter", "zarr_settings"]

_settings_lock = threading.RLock()


@contextlib.contextmanager
def zarr_settings(**settings: Any) -> Iterator[None]:
    """Zarr settings for arrays opened inside the block only."""
    import zarr

    with _settings_lock, zarr.config.set(settings):
        yield


class SlabWriter:
    """Writes slabs of the store at `path`; small and picklable; each helping process has one.

    Slabs consist of complete chunks, so that no two processes write one file; writing a slab twice is harmless.
    """

    def __init__(self, path: Path, plan: Mapping[str, Any]) -> None:
        self.path, self.plan = path, plan
        self._arrays: dict[str, zarr.Array] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "plan": self.plan, "_arrays": {}}

    def span(self, start: int) -> slice:
        """The samples of the slab that begins at `start`."""
        slab, samples = int(self.plan["slab"]), int(self.plan["samples"])
        if start % slab or not 0 <= start < samples:
            raise ValueError(f"no slab begins at {start}: they are {slab} long, of {samples} samples")
        return slice(start, min(start + slab, samples))

    def write(self, start: int, data: Mapping[str, xr.Dataset]) -> dict[str, str]:
        """Write one slab, all groups; returns the hash of every file. A value that overflows raises `DataError`."""
        span, files = self.span(start), {}
        with writing(self.path), object_store_errors(self.path):
            for group, variables in self.plan["groups"].items():
                for name, entry in variables.items():
                    if entry["per_sample"]:
                        self._write_array(group, name, entry, span, data[group][name])
                        for file in _chunk_names(group, name, entry, span):
                            files[file] = sha256(self.path / file)
        return files

    def _write_array(self, group: str, name: str, entry: dict[str, Any], span: slice, data: xr.DataArray) -> None:
        import zarr

        shape = (span.stop - span.start, *entry["shape"][1:])
        if data.shape != shape or list(data.dims) != entry["dims"]:
            raise ValueError(f"{group}/{name} has dims {data.dims} {data.shape}; expected {entry['dims']} {shape}")
        label = f"{self.path.name}: {group}/{name} from sample {span.start}"
        values = np.ascontiguousarray(data.values)
        packing = Packing(**entry["packing"]) if entry["packing"] else None
        values = packing.encode(values, label) if packing else values.astype(entry.get("dtype", "float32"))
        key = f"{group}/{name}"
        if key not in self._arrays:
            # A chunk of fill values only must be a file, too: readers treat a missing one as an error.
            with zarr_settings(**{"array.write_empty_chunks": True}):
                self._arrays[key] = zarr.open_array(zarr_location(self.path / key), mode="r+")
        self._arrays[key][span] = values


def _chunk_names(group: str, name: str, entry: dict[str, Any], span: slice) -> list[str]:
    length, rest = entry["chunk"], "/".join("0" for _ in entry["shape"][1:])
    first, last = span.start // length, (span.stop - 1) // length
    return [f"{group}/{name}/c/{index}" + (f"/{rest}" if rest else "") for index in range(first, last + 1)]


def sample_bytes(variable: xr.Variable, packing: Packing | None) -> int:
    """Bytes that one sample of a variable takes in a store."""
    return math.prod(variable.shape[1:]) * (np.dtype(packing.dtype).itemsize if packing else 4)
