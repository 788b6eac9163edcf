"""The manifest of a store: written last, checked when the store is opened and while it is read."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from geoml.data.location import location, object_store_errors, sizes
from geoml.errors import DataError
from geoml.runs.files import read_json, sha256, write_json

__all__ = ["JOURNAL", "MANIFEST", "load_manifest", "prepare_command", "verify_store", "write_manifest"]

MANIFEST, JOURNAL, PLAN = "manifest.json", "journal", "plan.json"
VERSION = 1

Files = dict[str, tuple[int, str]]


def write_manifest(path: Path, expected: dict[str, str]) -> None:
    """Hash every file of the store, compare with the hashes recorded earlier (`expected`), and write the manifest."""
    files: dict[str, list[Any]] = {}
    for name, size in sorted(sizes(path).items()):
        if name == MANIFEST or name.startswith(f"{JOURNAL}/"):
            continue
        digest = sha256(path / name)
        if expected.get(name, digest) != digest:
            raise DataError(f"{path / name} has changed since it was written; delete {path} and prepare it again")
        files[name] = [size, digest]
    if absent := sorted(set(expected) - set(files)):
        raise DataError(f"{path / absent[0]} has vanished since it was written; delete {path} and prepare it again")
    write_json(path / MANIFEST, {"version": VERSION, "files": files})


def prepare_command(path: Path) -> str | None:
    """Return the command line that completes the store; it was recorded when the store was created."""
    try:
        attributes = json.loads((path / "zarr.json").read_text(encoding="utf-8")).get("attributes", {})
    except (OSError, ValueError, AttributeError):
        return None
    command = attributes.get("prepare_command")
    return str(command) if command else None


def load_manifest(path: str | os.PathLike[str]) -> Files:
    """Name → (size, SHA-256) of every file; a store that is missing, incomplete or damaged raises `DataError`."""
    path = location(path)
    with object_store_errors(path):
        if not path.is_dir():
            raise DataError(f"{path} does not exist" if not path.exists() else f"{path} is a file, not a store folder")
        return _load(path)


def _load(path: Path) -> Files:
    command = prepare_command(path)
    remedy = f"finish it with: {command}" if command else "prepare it again"
    if not (path / MANIFEST).exists():
        known = (path / "zarr.json").exists()
        raise DataError(f"{path} is {'not complete' if known else 'no store'} (it has no {MANIFEST}); {remedy}")
    try:
        content = read_json(path / MANIFEST)
        files = {str(name): (int(size), str(digest)) for name, (size, digest) in content["files"].items()}
    except (DataError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path / MANIFEST} is broken ({error}); delete it and {remedy}") from error
    if content.get("version") != VERSION:
        raise DataError(f"{path} has layout version {content.get('version')}; this program reads {VERSION}: {remedy}")
    return files


def verify_store(path: str | os.PathLike[str], *, quick: bool = False) -> int:
    """Compare a store with its manifest and return the number of files; a file that differs raises `DataError`.

    Quick: existence and sizes of all files, hashes of the metadata only. A missing chunk is an error here; Zarr
    would read it as fill values.
    """
    path = location(path)
    files, there = load_manifest(path), sizes(location(path))
    for name, (size, digest) in files.items():
        _compare(path, name, there.get(name), size)
        if (not quick or name.endswith(".json")) and sha256(path / name) != digest:
            raise DataError(f"{path / name} does not have the hash noted in {MANIFEST}: it is damaged; {_again(path)}")
    return len(files)


def check_file(path: Path, name: str, size: int) -> None:
    """Raise `DataError` for a file of a store that is missing or has another size than in the manifest."""
    actual: int | None = None
    with object_store_errors(path / name), contextlib.suppress(FileNotFoundError):
        actual = (path / name).stat().st_size
    _compare(path, name, actual, size)


def _compare(path: Path, name: str, actual: int | None, size: int) -> None:
    if actual is None:
        raise DataError(f"{path / name} is missing; {_again(path)}")
    if actual != size:
        raise DataError(f"{path / name} has {actual} bytes, {size} were written: it is damaged; {_again(path)}")


def _again(path: Path) -> str:
    command = prepare_command(path)
    return f"delete {path} and run: {command}" if command else f"delete {path} and prepare it again"
