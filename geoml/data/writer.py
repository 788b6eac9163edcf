"""Writing a store slab by slab: resumable after a crash, complete only when its manifest is there."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from geoml.data.manifest import JOURNAL, MANIFEST, PLAN, load_manifest, write_manifest
from geoml.data.packing import Packing
from geoml.errors import DataError, UserError
from geoml.files import atomic_path, read_json, sha256, write_json

if TYPE_CHECKING:
    import xarray as xr
    import zarr

__all__ = ["CONVENTIONS", "StoreWriter", "choose_slab", "chunk_length", "zarr_settings"]

CONVENTIONS = "CF-1.11"
CHUNK_BYTES = (400_000, 1_000_000)
_settings_lock = threading.RLock()


@contextlib.contextmanager
def zarr_settings(**settings: Any) -> Iterator[None]:
    """Zarr settings for the arrays opened inside the block; they keep them, later ones do not get them."""
    import zarr

    with _settings_lock, zarr.config.set(settings):
        yield


def chunk_length(sample_bytes: int, slab: int) -> int:
    """Samples a chunk: the longest divisor of `slab` whose chunk stays within 1 MB, at least 1.

    >>> chunk_length(80_000, 24), chunk_length(25_600, 24)
    (12, 24)
    """
    divisors = [length for length in range(1, slab + 1) if slab % length == 0]
    return max((length for length in divisors if length * sample_bytes <= CHUNK_BYTES[1]), default=1)


def choose_slab(sample_bytes: list[int], samples: int) -> int:
    """Samples a slab, so that as many arrays as possible get chunks of 0.4–1 MB.

    >>> choose_slab([80_000, 25_600], 1000)  # chunks of 9 and 27 samples
    27
    """
    low, high = CHUNK_BYTES
    longest = max(1, min(samples, 1024, high // max(1, min(sample_bytes))))

    def quality(slab: int) -> tuple[int, float, int]:
        sizes = [size * chunk_length(size, slab) for size in sample_bytes]
        inside = sum(low <= size <= high for size in sizes)
        return inside, -sum(abs(math.log(size / math.sqrt(low * high))) for size in sizes), slab

    return max(range(max(1, longest // 4), longest + 1), key=quality)


def _sample_bytes(variable: xr.Variable, packing: Packing | None) -> int:
    return math.prod(variable.shape[1:]) * (np.dtype(packing.dtype).itemsize if packing else 4)


class StoreWriter:
    """One store being written; made by `create`, used as a context manager, and the only writer while it lives.

    >>> import tempfile, xarray as xr
    >>> hours = np.arange("2001-01-01", "2001-01-03", dtype="datetime64[h]").astype("datetime64[ns]")
    >>> coords = {"time": hours, "y": [0.0, 1.0], "x": [0.0, 1.0]}
    >>> rate = xr.DataArray(np.ones((48, 2, 2), "f4"), coords, ("time", "y", "x"))
    >>> folder = tempfile.TemporaryDirectory()
    >>> template = {"condition": rate.to_dataset(name="rate"), "target": rate.to_dataset(name="rate")}
    >>> with StoreWriter.create(f"{folder.name}/a.zarr", template, slab=24, packing={"rate": Packing(0.01)}) as writer:
    ...     for start in writer.missing():
    ...         writer.write(start, {g: d.isel(time=writer.span(start)) for g, d in template.items()})
    ...     writer.finish()
    >>> from geoml.data.store import open_store
    >>> float(open_store(f"{folder.name}/a.zarr", "target").rate.sum())
    192.0
    >>> folder.cleanup()
    """

    def __init__(self, path: Path, plan: dict[str, Any], lock: IO[str]) -> None:
        self.path, self._plan, self._lock = path, plan, lock
        self.samples, self.slab = int(plan["samples"]), int(plan["slab"])
        self._arrays: dict[str, zarr.Array] = {}
        self._done = self._read_journal()

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        template: Mapping[str, xr.Dataset],
        *,
        slab: int | None = None,
        packing: Mapping[str, Packing] | None = None,
        attrs: Mapping[str, Any] | None = None,
        prepare_command: str = "",
    ) -> StoreWriter:
        """Begin a store, or go on with one that was begun with the same template.

        `template` maps groups to data sets that give dims, coordinates and attributes. The first dim of the
        `target` (or first) group's variables is the sample axis; the values of variables on it are not read, those
        of others (a `static` group) are written at once. `slab` is the number of samples that `write` takes; chunks
        divide it. `prepare_command` is what a user types to complete the store. Another live writer, or a store
        begun with another template, raises `UserError`.
        """
        path = Path(path)
        lock = _acquire(path)
        try:
            layout = _layout(template, slab, packing or {})
            if path.exists():
                plan = read_json(path / PLAN) if (path / PLAN).exists() else None
                if plan != layout:
                    raise UserError(
                        f"{path} was begun with other variables, samples or settings; "
                        "delete it, or choose another name, and run the same command again"
                    )
            else:
                root = {"Conventions": CONVENTIONS, **(attrs or {}), "prepare_command": prepare_command}
                with atomic_path(path) as partial:
                    _write_skeleton(partial, template, layout, root)
                    write_json(partial / PLAN, layout)
            return cls(path, layout, lock)
        except BaseException:
            _release(lock)
            raise

    @property
    def complete(self) -> bool:
        """Whether the manifest is there."""
        return (self.path / MANIFEST).exists()

    def span(self, start: int) -> slice:
        """The samples of the slab that begins at `start`."""
        if start % self.slab or not 0 <= start < self.samples:
            raise ValueError(f"no slab begins at {start}: they are {self.slab} long, of {self.samples} samples")
        return slice(start, min(start + self.slab, self.samples))

    def missing(self) -> list[int]:
        """Starts of the slabs still to be written."""
        return [] if self.complete else [s for s in range(0, self.samples, self.slab) if s not in self._done]

    def write(self, start: int, data: Mapping[str, xr.Dataset]) -> None:
        """Write one slab, all groups; writing it again replaces it. A value that overflows raises `DataError`."""
        span = self.span(start)
        if self.complete:
            raise ValueError(f"{self.path} is complete; nothing can be written to it")
        files: dict[str, str] = {}
        for group, variables in self._plan["groups"].items():
            for name, entry in variables.items():
                if entry["per_sample"]:
                    self._write_array(group, name, entry, span, data[group][name])
                    for file in _chunk_names(group, name, entry, span):
                        files[file] = sha256(self.path / file)
        with open(self.path / JOURNAL, "a") as journal:
            journal.write("\n" + json.dumps({"start": start, "files": files}))  # \n first: a torn line ends here
            journal.flush()
            os.fsync(journal.fileno())
        self._done[start] = files

    def _write_array(self, group: str, name: str, entry: dict[str, Any], span: slice, data: xr.DataArray) -> None:
        import zarr

        shape = (span.stop - span.start, *entry["shape"][1:])
        if data.shape != shape or list(data.dims) != entry["dims"]:
            raise ValueError(f"{group}/{name}: {data.dims} {data.shape} came for {entry['dims']} {shape}")
        label = f"{self.path.name}: {group}/{name} from sample {span.start}"
        values = np.ascontiguousarray(data.values)
        packing = Packing(**entry["packing"]) if entry["packing"] else None
        values = packing.encode(values, label) if packing else values.astype(np.float32)
        key = f"{group}/{name}"
        if key not in self._arrays:
            # A chunk of nothing but fill values has to be a file too: a missing one is an error to the readers.
            with zarr_settings(**{"array.write_empty_chunks": True}):
                self._arrays[key] = zarr.open_array(self.path / key, mode="r+")
        self._arrays[key][span] = values

    def finish(self) -> None:
        """Hash all files into the manifest, the last file to be written."""
        if self.complete:
            load_manifest(self.path)
            return
        if missing := self.missing():
            raise ValueError(f"{self.path}: {len(missing)} slabs are not written, the first at sample {missing[0]}")
        write_manifest(self.path, {name: digest for files in self._done.values() for name, digest in files.items()})
        (self.path / JOURNAL).unlink(missing_ok=True)

    def _read_journal(self) -> dict[int, dict[str, str]]:
        """Finished slabs whose files are all there; a torn last line counts as not written."""
        done: dict[int, dict[str, str]] = {}
        if not (self.path / JOURNAL).exists():
            return done
        for line in (self.path / JOURNAL).read_text().splitlines():
            try:
                entry = json.loads(line)
                start, files = int(entry["start"]), dict(entry["files"])
            except (ValueError, KeyError, TypeError):
                continue
            done[start] = files
        return {s: files for s, files in done.items() if all(_intact(self.path / n, h) for n, h in files.items())}

    def close(self) -> None:
        """Give up the lock; a store without its manifest stays unreadable and can be resumed."""
        _release(self._lock)

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _intact(file: Path, digest: str) -> bool:
    return file.exists() and sha256(file) == digest


def _chunk_names(group: str, name: str, entry: dict[str, Any], span: slice) -> list[str]:
    length, rest = entry["chunk"], "/".join("0" for _ in entry["shape"][1:])
    first, last = span.start // length, (span.stop - 1) // length
    return [f"{group}/{name}/c/{index}" + (f"/{rest}" if rest else "") for index in range(first, last + 1)]


def _layout(template: Mapping[str, xr.Dataset], slab: int | None, packing: Mapping[str, Packing]) -> dict[str, Any]:
    """What a store is made of, as plain JSON: two stores with equal layouts hold the same samples."""
    lead = template.get("target") or template.get("condition") or next(iter(template.values()))
    axis = str(next(iter(lead.data_vars.values())).dims[0])
    sizes = {group: dataset.sizes[axis] for group, dataset in template.items() if axis in dataset.sizes}
    if len(set(sizes.values())) != 1:
        raise DataError(f"groups differ in their number of samples along {axis!r}: {sizes}")
    samples = next(iter(sizes.values()))
    every = [
        (group, str(name), variable, packing.get(str(name)))
        for group, dataset in template.items()
        for name, variable in dataset.variables.items()
        if name in dataset.data_vars
    ]
    per_sample = [row for row in every if row[2].dims[:1] == (axis,)]
    slab = slab or choose_slab([_sample_bytes(variable, packed) for _, _, variable, packed in per_sample], samples)
    groups: dict[str, dict[str, Any]] = {group: {} for group in template}
    for group, name, variable, packed in every:
        on_axis = variable.dims[:1] == (axis,)
        groups[group][name] = {
            "dims": [str(dim) for dim in variable.dims],
            "shape": [int(size) for size in variable.shape],
            "per_sample": on_axis,
            "chunk": chunk_length(_sample_bytes(variable, packed), slab) if on_axis else None,
            "packing": {"scale": packed.scale, "offset": packed.offset, "dtype": packed.dtype} if packed else None,
        }
    return {"samples": samples, "axis": axis, "slab": slab, "groups": groups, "coordinates": _digest(template)}


def _digest(template: Mapping[str, xr.Dataset]) -> str:
    digest = hashlib.sha256()
    for group, dataset in sorted(template.items()):
        for name in sorted(dataset.coords, key=str):
            digest.update(f"{group}/{name}/{dataset[name].dims}".encode())
            digest.update(repr(dataset[name].values.tolist()).encode())
    return digest.hexdigest()


def _write_skeleton(
    path: Path, template: Mapping[str, xr.Dataset], layout: dict[str, Any], attrs: dict[str, Any]
) -> None:
    """Metadata, coordinates and whatever has no sample axis; the chunks of the samples come later."""
    import dask.array as da
    import zarr
    from zarr.codecs import ZstdCodec

    codec = ZstdCodec(level=3, checksum=True)
    zarr.open_group(path, mode="w", zarr_format=3, attributes=attrs)
    for group, dataset in template.items():
        dataset = dataset.drop_encoding().assign_attrs(Conventions=CONVENTIONS)
        encoding: dict[str, dict[str, Any]] = {
            str(name): {"compressors": [codec]} for name in dataset.variables if dataset[name].dtype.kind not in "OUS"
        }
        for name, entry in layout["groups"][group].items():
            shape = tuple(entry["shape"])
            chunks = (entry["chunk"], *shape[1:]) if entry["per_sample"] else shape
            if entry["per_sample"]:
                lazy = da.zeros(shape, dtype="float32", chunks=-1)
                dataset[name] = dataset[name].copy(data=lazy)
            elif dataset[name].dtype.kind == "f":
                dataset[name] = dataset[name].astype("float32")
            attributes = dataset[name].attrs
            for inherited in ("scale_factor", "add_offset", "_FillValue", "missing_value"):
                attributes.pop(inherited, None)
            encoding[name]["chunks"] = chunks
            if entry["packing"]:
                packing = Packing(**entry["packing"])
                encoding[name] |= {"dtype": packing.dtype, **packing.attrs}
        with zarr_settings(**{"array.write_empty_chunks": True}):
            dataset.to_zarr(
                path, group=group, mode="a", compute=False, encoding=encoding, zarr_format=3, consolidated=False,
                safe_chunks=False,
            )  # fmt: skip


def _acquire(path: Path) -> IO[str]:
    """The lock beside the store: held by a process, so that it falls with it, even at kill -9."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.with_name(f".{path.name}.lock")
    while True:
        lock = open(name, "a+")  # noqa: SIM115 - held open for as long as the writer lives
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            lock.close()
            raise UserError(
                f"{path} is being written by process {owner}; wait for it, or end it, and run the same command again"
            ) from None
        if os.path.exists(name) and os.fstat(lock.fileno()).st_ino == os.stat(name).st_ino:
            lock.truncate(0)
            lock.write(f"{os.getpid()} on {os.uname().nodename}")
            lock.flush()
            return lock
        lock.close()  # the former owner removed this very file in between: there is a newer one


def _release(lock: IO[str]) -> None:
    if not lock.closed:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(lock.name)
        lock.close()
