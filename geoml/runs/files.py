"""Atomic writing of files, and their hashes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from geoml.errors import DataError, UserError

__all__ = ["atomic_path", "read_json", "read_text", "sha256", "write_json", "writing"]

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REFUSED = (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST)


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Convert errors of a full disk or a read-only folder into a `UserError` that names `path`.

    Libraries with their own writers report a full disk in their message only; these are recognised too.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        number, text = getattr(error, "errno", None), str(error)
        if number in FULL or "No space left on device" in text:
            raise UserError(f"no space left while writing {path}; free some and run the same command again") from error
        if number in REFUSED or "Read-only file system" in text:
            place = Path(path).parent if isinstance(path, str | os.PathLike) else path
            raise UserError(f"{place} cannot be written to; choose another folder") from error
        raise


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path next to `path`, renamed to it if the block succeeds and removed if it fails.

    Works for files and folders; an existing folder is replaced. A full disk or a read-only folder becomes a
    `UserError` that names the path.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            if partial.is_dir() and path.is_dir():
                shutil.rmtree(path)
            partial.replace(path)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):  # the error that ended the block is the informative one
                partial.unlink(missing_ok=True)


def sha256(path: str | os.PathLike[str]) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    if isinstance(path, str | os.PathLike):
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as indented JSON to `path` atomically; NaN and infinities raise `ValueError`."""
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    if not isinstance(path, str | os.PathLike):  # behind a URL: objects are written atomically
        path.write_text(text)
        return
    with atomic_path(path) as partial:
        partial.write_text(text)


def read_text(path: str | os.PathLike[str], what: str) -> str:
    """The text of a user's file, with or without a byte-order mark; `what` names it in messages: "sites file".

    Raises `UserError` if it does not exist, `DataError` if it is not readable UTF-8.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{what} {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not readable text ({error})") from error


def read_json(path: str | os.PathLike[str]) -> Any:
    """The JSON at `path`; a missing or invalid file raises a `DataError` that names it."""
    place: Any = Path(path) if isinstance(path, str) else path
    try:
        if isinstance(place, Path) and place.exists() and not place.is_file():  # reading a pipe would never end
            raise DataError(f"{path} is not a regular file")
        return json.loads(place.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{path} does not exist") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON ({error}); it may be truncated") from error
