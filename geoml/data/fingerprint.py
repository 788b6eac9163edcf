"""Hashes of file contents, equal on every machine; unchanged files are not read again."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from geoml.data.location import is_remote, object_store_errors, sizes
from geoml.errors import DataError
from geoml.runs.files import sha256

__all__ = ["Files", "fingerprint", "known_files", "signature"]

#: Name relative to the data's root → where it is: a file, a folder (Zarr), or an object behind a URL.
Files = Mapping[str, Path]
#: Files modified less than this many seconds ago are hashed again: their modification time is too coarse to be trusted.
RACY_SECONDS = 2.0


@contextlib.contextmanager
def known_files() -> Iterator[sqlite3.Connection | None]:
    """Open the user's database of file hashes and of the stores made from files; None if it cannot be opened."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "geoml"
    connection = None
    try:
        root.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(root / "files.sqlite", timeout=30)
        connection.execute("create table if not exists files (path text primary key, state text, digest text)")
        connection.execute("create table if not exists made (origin text primary key, store text)")
    except (OSError, sqlite3.Error, RuntimeError) as error:
        logging.getLogger(__name__).debug("no table of files: %s", error)
        connection = None
    try:
        yield connection
    finally:
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.commit()
            connection.close()


def fingerprint(files: Files) -> dict[str, tuple[int, str]]:
    """Map each name to the size and SHA-256 of its file; a folder's hash covers names, sizes and hashes of its files.

    An object behind a URL is identified by its etag if the server reports one, else by size and modification time.
    Hashes of local files are cached by path, size, inode and times of change. Raises `DataError` for a missing file.

    >>> fingerprint({})
    {}
    """
    from geoml.cli.progress import track

    with known_files() as table:
        several = len(files) > 1
        named = track(files.items(), "hashing source files", unit="files") if several else files.items()
        return {name: _of_any(path, table) for name, path in named}


def signature(files: Files, most: int = 1000) -> tuple[Any, ...] | None:
    """Return sizes and modification times of all local files, cheap to compare; None for more than `most` files."""
    found: list[Any] = []
    for path in files.values():
        if is_remote(path):
            continue
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            found.append(_state(file) if file.exists() else None)
            if len(found) > most:
                return None
    return tuple(found)


def _of_any(path: Path, table: sqlite3.Connection | None) -> tuple[int, str]:
    if is_remote(path):
        return _of_object(path)
    if not path.exists():
        raise DataError(f"{path} does not exist")
    if not path.is_dir():
        return path.stat().st_size, _of_file(path, table)
    parts = sorted((name, size, _of_file(path / name, table)) for name, size in sizes(path).items())
    return sum(size for _, size, _ in parts), hashlib.sha256(repr(parts).encode()).hexdigest()


def _state(path: Path) -> str:
    found = path.stat()
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"


def _of_file(path: Path, table: sqlite3.Connection | None) -> str:
    name, state = str(path.absolute()), _state(path)
    if table is not None:
        with contextlib.suppress(sqlite3.Error):
            row = table.execute("select digest from files where path = ? and state = ?", (name, state)).fetchone()
            if row is not None:
                return str(row[0])
    digest = sha256(path)
    if _state(path) != state:
        raise DataError(f"{path} changed while it was read; try again when it is complete")
    if table is not None and time.time() - path.stat().st_mtime > RACY_SECONDS:
        with contextlib.suppress(sqlite3.Error):
            table.execute("insert or replace into files values (?, ?, ?)", (name, state, digest))
    return digest


def _of_object(path: Any) -> tuple[int, str]:
    with object_store_errors(path):
        if not path.exists():
            raise DataError(f"{path} does not exist")
        if path.is_dir():
            listed = path.fs.find(path.path, detail=True)
            root = path.path.rstrip("/") + "/"
            parts = sorted((name.removeprefix(root), *_of_entry(entry)) for name, entry in listed.items())
            return sum(size for _, size, _ in parts), hashlib.sha256(repr(parts).encode()).hexdigest()
        return _of_entry(path.fs.info(path.path))


def _of_entry(entry: Mapping[str, Any]) -> tuple[int, str]:
    keys = ("ETag", "etag", "md5", "LastModified", "last_modified", "mtime")
    tag = next((entry[key] for key in keys if entry.get(key)), "")
    return int(entry.get("size") or 0), str(tag).strip('"')
