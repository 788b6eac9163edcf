"""Keep stores consistent with source files: remove stores of replaced files, and detect files that change."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from geoml.data.fingerprint import Files, fingerprint, known_files, signature
from geoml.data.location import is_remote
from geoml.data.manifest import MANIFEST
from geoml.errors import DataError

__all__ = ["hold", "supersede", "unchanged"]

logger = logging.getLogger(__name__)

#: Open, locked manifests of the stores that this process reads. The lock prevents their removal.
_held: dict[Path, IO[str]] = {}


def hold(path: Path) -> None:
    """Prevent other processes from removing a store during the life of this process."""
    manifest = path / MANIFEST
    if is_remote(path) or path in _held or not manifest.exists():
        return
    stream = open(manifest, encoding="utf-8")  # noqa: SIM115 - held for as long as the process lives
    with contextlib.suppress(OSError):  # some network file systems have no locks
        fcntl.flock(stream, fcntl.LOCK_SH)
    _held[path] = stream


def supersede(root: Path, origin: list[Any], path: Path) -> None:
    """Record the store of a region made from local files, and remove the store made from their previous content."""
    if is_remote(root):
        return
    key = json.dumps([str(root.absolute()), str(Path.cwd()), *origin], sort_keys=True, default=str)
    with known_files() as table:
        if table is None:
            return
        try:
            row = table.execute("select store from made where origin = ?", (key,)).fetchone()
            table.execute("insert or replace into made values (?, ?)", (key, str(path.absolute())))
            before = Path(row[0]) if row else None
            if before is None or before == path.absolute() or not before.exists():
                return
            others = table.execute("select count(*) from made where store = ?", (str(before),)).fetchone()[0]
        except sqlite3.Error:
            return
    if others == 0 and before.is_relative_to(root.absolute()):
        _remove(before)


def _remove(store: Path) -> None:
    """Remove a store whose source files were replaced, unless it is being read or written."""
    manifest, lock = store / MANIFEST, store.with_name(f".{store.name}.lock")
    for file in (manifest, lock):
        if file.exists():
            with open(file, encoding="utf-8") as stream:
                try:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    logger.warning(
                        "source files have changed; %s, made from the old files, is in use and is kept", store
                    )
                    return
    shutil.rmtree(store, ignore_errors=True)
    with contextlib.suppress(OSError):
        store.parent.rmdir()
    logger.warning("the source files have changed: %s, made from the old files, is removed", store)


@contextlib.contextmanager
def unchanged(files: Files, known: Mapping[str, Any], path: Path) -> Iterator[Callable[[], None]]:
    """Context manager that raises `DataError` if source files change; it checks at the end and when called.

    It yields the check function. An incomplete store of changed files is removed, since it would mix both.
    """
    before = signature(files)

    def check() -> None:
        if before is not None and signature(files) != before:
            refuse()

    def refuse() -> None:
        if not is_remote(path):
            shutil.rmtree(path, ignore_errors=True)
        names = ", ".join(list(files)[:3])
        raise DataError(
            f"source files of {path.stem} ({names}) changed while they were prepared; run the command again"
        )

    if {name: list(found) for name, found in fingerprint(files).items()} != dict(known):
        refuse()
    yield check
    check()
    if {name: list(found) for name, found in fingerprint(files).items()} != dict(known):
        refuse()
