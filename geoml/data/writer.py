"""Write a store slab by slab: resumable after a crash, complete once its manifest exists."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import math
import os
import shutil
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from geoml.data.location import is_remote, location, object_store_errors, zarr_location
from geoml.data.manifest import JOURNAL, MANIFEST, PLAN, load_manifest, write_manifest
from geoml.data.packing import Packing
from geoml.data.slabs import SlabWriter, sample_bytes, zarr_settings
from geoml.errors import DataError, UserError
from geoml.runs.files import atomic_path, read_json, sha256, write_json, writing

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["CONVENTIONS", "StoreWriter", "choose_slab", "chunk_length", "zarr_settings"]

logger = logging.getLogger(__name__)

CONVENTIONS = "CF-1.11"
CHUNK_BYTES = (400_000, 1_000_000)


def chunk_length(sample_bytes: int, slab: int) -> int:
    """Return the number of samples per chunk: the largest divisor of `slab` with chunks of at most 1 MB, at least 1.

    >>> chunk_length(80_000, 24), chunk_length(25_600, 24)
    (12, 24)
    """
    divisors = [length for length in range(1, slab + 1) if slab % length == 0]
    return max((length for length in divisors if length * sample_bytes <= CHUNK_BYTES[1]), default=1)


def choose_slab(sample_bytes: list[int], samples: int, *, align: int = 1) -> int:
    """Return the number of samples per slab for which as many arrays as possible get chunks of 0.4–1 MB.

    Lengths that are multiples or divisors of `align` are preferred.

    >>> choose_slab([80_000, 25_600], 1000)  # chunks of 9 and 27 samples
    27
    >>> choose_slab([80_000, 25_600], 1000, align=24)
    24
    """
    low, high = CHUNK_BYTES
    longest = max(1, min(samples, 1024, high // max(1, min(sample_bytes))))

    def quality(slab: int) -> tuple[int, float, int]:
        sizes = [size * chunk_length(size, slab) for size in sample_bytes]
        inside = sum(low <= size <= high for size in sizes)
        return inside, -sum(abs(math.log(size / math.sqrt(low * high))) for size in sizes), slab

    lengths = range(max(1, longest // 4), longest + 1)
    return max([n for n in lengths if n % align == 0 or align % n == 0] or lengths, key=quality)


class StoreWriter:
    """The exclusive writer of a store, created by `create` and used as a context manager.

    A store behind a URL has no lock: two writers of one plan write the same bytes. Other processes may help: they call
    `slabs.write`, and the writer's process calls `note` with each result.

    >>> import tempfile, numpy as np, xarray as xr
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

    def __init__(self, path: Path, plan: dict[str, Any], lock: IO[str] | None) -> None:
        self.path, self._lock = path, lock
        self.samples, self.slab = int(plan["samples"]), int(plan["slab"])
        self.slabs = SlabWriter(path, plan)
        self._done = self._read_journal()

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        template: Mapping[str, xr.Dataset],
        *,
        slab: int | None = None,
        align: int = 1,
        packing: Mapping[str, Packing] | None = None,
        float64: Collection[str] = (),
        attrs: Mapping[str, Any] | None = None,
        prepare_command: str = "",
    ) -> StoreWriter:
        """Create a store, or resume one that was created with the same template.

        `template` maps groups to data sets that give dims, coordinates and attributes. The first dim of the `target`
        (or first) group's variables is the sample axis. Variables on this axis give only their shape; values of
        all other variables (such as a `static` group) are written immediately. `slab` is the number of samples
        that `write` takes; chunks divide it. `align` is the length of runs of samples that are produced
        together; slabs fit it. Variables with a `packing` are integers, variables in `float64` are not rounded,
        all others are float32. `prepare_command` is the command line that completes the store. If another
        process writes the store, this call waits for it. A store that was created with another template raises
        `UserError`.
        """
        path = location(path)
        lock = None if is_remote(path) else _acquire(path)
        try:
            layout = _layout(template, slab, align, packing or {}, float64)
            root = {"Conventions": CONVENTIONS, **(attrs or {}), "prepare_command": prepare_command}
            with object_store_errors(path):
                if (path / PLAN).exists() or (lock and path.exists()):
                    plan = read_json(path / PLAN) if (path / PLAN).exists() else None
                    if plan is None or _untyped(plan) != _untyped(layout):
                        raise UserError(
                            f"{path} was created with other variables, samples or settings; "
                            "delete it, or choose another name, and run the same command again"
                        )
                    layout = plan
                elif lock is None:  # the plan is written last: without it, the rest is written again
                    _write_skeleton(path, template, layout, root)
                    write_json(path / PLAN, layout)
                else:
                    with atomic_path(path) as partial:
                        _write_skeleton(partial, template, layout, root)
                        write_json(partial / PLAN, layout)
                return cls(path, layout, lock)
        except BaseException:
            if lock is not None:
                _release(lock)
            raise

    @property
    def complete(self) -> bool:
        """Return whether the manifest exists."""
        return (self.path / MANIFEST).exists()

    def span(self, start: int) -> slice:
        """The samples of the slab that begins at `start`."""
        return self.slabs.span(start)

    def missing(self) -> list[int]:
        """Starts of the slabs that are not yet written."""
        return [] if self.complete else [s for s in range(0, self.samples, self.slab) if s not in self._done]

    def write(self, start: int, data: Mapping[str, xr.Dataset]) -> None:
        """Write one slab, all groups; writing it again replaces it. A value that overflows raises `DataError`."""
        if self.complete:
            raise ValueError(f"{self.path} is complete; nothing can be written to it")
        self.note(start, self.slabs.write(start, data))

    def note(self, start: int, files: dict[str, str]) -> None:
        """Record a slab as written, with the hashes of its files."""
        with object_store_errors(self.path):
            write_json(self._note(start), files)
        self._done[start] = files

    def _note(self, start: int) -> Path:
        return self.path / JOURNAL / f"{start:010d}.json"

    def finish(self) -> None:
        """Write the manifest with the hashes of all files; it is the last file."""
        if self.complete:
            load_manifest(self.path)
            return
        if missing := self.missing():
            raise ValueError(f"{self.path}: {len(missing)} slabs are not written, the first at sample {missing[0]}")
        with object_store_errors(self.path):
            write_manifest(self.path, {name: digest for files in self._done.values() for name, digest in files.items()})
        self._forget()

    def _forget(self) -> None:
        """Remove the journal; remains after a kill are harmless."""
        if not is_remote(self.path):
            shutil.rmtree(self.path / JOURNAL, ignore_errors=True)
        elif (self.path / JOURNAL).exists():
            self.path.fs.rm((self.path / JOURNAL).path, recursive=True)  # type: ignore[attr-defined]

    def _read_journal(self) -> dict[int, dict[str, str]]:
        """Finished slabs with all their files; an invalid journal entry is ignored."""
        done: dict[int, dict[str, str]] = {}
        if self.complete or not (self.path / JOURNAL).exists():
            return done
        for note in (self.path / JOURNAL).glob("[0-9]*.json"):
            with contextlib.suppress(DataError, ValueError, AttributeError):
                done[int(note.stem)] = {str(name): str(digest) for name, digest in read_json(note).items()}
        return {s: files for s, files in done.items() if all(_intact(self.path / n, h) for n, h in files.items())}

    def close(self) -> None:
        """Release the lock; a store without a manifest stays unreadable and can be resumed."""
        if self._lock is not None:
            _release(self._lock)

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _intact(file: Path, digest: str) -> bool:
    return file.exists() and sha256(file) == digest


def _layout(
    template: Mapping[str, xr.Dataset], slab: int | None, align: int, packing: Mapping[str, Packing],
    float64: Collection[str],
) -> dict[str, Any]:  # fmt: skip
    """The layout of a store as plain JSON: stores with equal layouts hold the same samples."""
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
    slab = slab or choose_slab(
        [sample_bytes(variable, packed) for _, _, variable, packed in per_sample], samples, align=align
    )
    groups: dict[str, dict[str, Any]] = {group: {} for group in template}
    for group, name, variable, packed in every:
        on_axis = variable.dims[:1] == (axis,)
        groups[group][name] = {
            "dims": [str(dim) for dim in variable.dims],
            "shape": [int(size) for size in variable.shape],
            "per_sample": on_axis,
            "chunk": chunk_length(sample_bytes(variable, packed), slab) if on_axis else None,
            "packing": {"scale": packed.scale, "offset": packed.offset, "dtype": packed.dtype} if packed else None,
        }
        if name in float64 and on_axis and not packed:
            groups[group][name]["dtype"] = "float64"
    return {"samples": samples, "axis": axis, "slab": slab, "groups": groups, "coordinates": _digest(template)}


def _untyped(layout: dict[str, Any]) -> dict[str, Any]:
    """Layout without data types of variables, to compare it with layouts of older stores, which do not record them."""
    groups = {
        group: {name: {key: value for key, value in entry.items() if key != "dtype"} for name, entry in rows.items()}
        for group, rows in layout["groups"].items()
    }
    return {**layout, "groups": groups}


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
    """Write metadata, coordinates and variables without a sample axis; sample chunks follow later."""
    import dask.array as da
    import zarr
    from zarr.codecs import ZstdCodec

    codec, path = ZstdCodec(level=3, checksum=True), zarr_location(path)
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
                lazy = da.zeros(shape, dtype=entry.get("dtype", "float32"), chunks=-1)
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
    """Wait for the lock file next to the store and take it; the system releases it when the process ends."""
    told, name = False, path.with_name(f".{path.name}.lock")
    while True:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = open(name, "a+", encoding="utf-8")  # noqa: SIM115 - held open for as long as the writer lives
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            if not told:
                owner = lock.read().strip() or "unknown"
                logger.warning("%s is being written by process %s; waiting for it", path, owner)
            told = True
            lock.close()
            time.sleep(0.2)
            continue
        if os.path.exists(name) and os.fstat(lock.fileno()).st_ino == os.stat(name).st_ino:
            lock.truncate(0)
            lock.write(f"{os.getpid()} on {os.uname().nodename}")
            lock.flush()
            return lock
        lock.close()  # the former owner removed this file in the meantime: a newer one exists


def _release(lock: IO[str]) -> None:
    if not lock.closed:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(lock.name)
        lock.close()
