"""Atomic writing of files, and their hashes."""

from __future__ import annotations

import codecs
import contextlib
import csv
import errno
import functools
import hashlib
import io
import json
import os
import platform
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from geoml.errors import DataError, MachineError, UserError

__all__ = [
    "atomic_path",
    "column_name",
    "csv_lines",
    "csv_rows",
    "machine_error",
    "read_json",
    "read_text",
    "sha256",
    "write_json",
    "writing",
]

#: Pattern of the temporary names of files that are being written.
PARTIAL = re.compile(r"\..*\.(?P<machine>[0-9a-f]{8})-(?P<process>[0-9]+)\.tmp", re.DOTALL)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: Free bytes below which a disk counts as full if a library reports no reason for a failed write.
PROBE_BYTES = 1 << 20
REFUSED = (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST)


@contextlib.contextmanager
def writing(path: str | os.PathLike[str], *, partial: Path | None = None) -> Iterator[None]:
    """Convert errors of a full disk or a read-only folder into a `UserError` that names `path`.

    Some libraries report a full disk only in their message or, as HDF5, not at all: then the free space is tested.
    `partial` is the file that is being written, if it differs from `path`.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        number, text = getattr(error, "errno", None), str(error)
        local = isinstance(path, str | os.PathLike)
        if local and ("HDF error" in text or (number == errno.EACCES and os.access(Path(path).parent, os.W_OK))):
            number = _lack_of_space(Path(path if partial is None else partial)) or number
        elif "No space left on device" in text:
            number = errno.ENOSPC
        elif "Read-only file system" in text:
            number = errno.EROFS
        if (explained := machine_error(number, path)) is not None:
            raise explained from error
        raise


def machine_error(number: int | None, path: object) -> UserError | None:
    """Return the message for an error number of the operating system and `path`; None if there is no clear message."""
    if number in FULL:
        return MachineError(f"no space left while writing {path}; free some and run the same command again")
    if number in REFUSED:
        place = Path(path).parent if isinstance(path, str | os.PathLike) else path
        return UserError(f"{place} cannot be written to; choose another folder")
    if number == errno.ENAMETOOLONG:
        name = Path(str(path)).name
        return UserError(f"the name {name[:40]}… has {len(os.fsencode(name))} bytes; file systems take up to 255")
    if number in (errno.EMFILE, errno.ENFILE):
        return MachineError(f"too many open files, at {path}; allow more with ulimit -n, or use fewer workers")
    return None


def _partial_name(name: str) -> str:
    """Hidden temporary name that is unique per machine and process; a long `name` is shortened."""
    short = name if len(name) <= 60 else f"{name[:40]}-{zlib.crc32(os.fsencode(name)):08x}"
    return f".{short}.{_machine()}-{os.getpid()}.tmp"


@functools.cache
def _machine() -> str:
    """Identifier of this machine or container: process numbers are unique within it only."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return f"{zlib.crc32(f'{platform.node()} {space}'.encode()):08x}"


@functools.lru_cache(maxsize=1024)
def _sweep(folder: str) -> None:
    """Remove incomplete files of killed processes of this machine from a folder, once per process."""
    with os.scandir(folder) as entries:
        left = [(entry, PARTIAL.fullmatch(entry.name)) for entry in entries if entry.name.endswith(".tmp")]
    for entry, parts in left:
        if parts and parts["machine"] == _machine() and not _alive(int(parts["process"])):
            with contextlib.suppress(OSError):
                shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def _lack_of_space(path: Path) -> int | None:
    """Return the error number if there is no space next to `path` for its size plus `PROBE_BYTES`, else None."""
    size = path.stat().st_size if path.is_file() else 0
    allocate = getattr(os, "posix_fallocate", None)  # macOS has none
    if allocate is None:
        return None
    try:
        with tempfile.TemporaryFile(dir=path.parent) as probe:
            allocate(probe.fileno(), 0, size + PROBE_BYTES)
    except OSError as error:
        return error.errno
    return None


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path next to `path`, renamed to it if the block succeeds and removed if it fails.

    Works for files and folders; an existing folder is replaced. For a device such as `/dev/stdout` the content is
    sent to the device. A full disk or a read-only folder becomes a `UserError` that names the path.
    """
    path = Path(path)
    device = os.path.exists(path) and not (path.is_file() or path.is_dir())
    home = Path(tempfile.gettempdir()) if device else path.parent
    partial = home / _partial_name(path.name)
    try:
        with writing(path, partial=partial):
            path.parent.mkdir(parents=True, exist_ok=True)
            _sweep(str(home.absolute()))
            yield partial
            if device:
                with open(partial, "rb") as made, open(path, "wb") as stream:
                    shutil.copyfileobj(made, stream)
                return
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
        path.write_text(text, encoding="utf-8")
        return
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def read_text(path: str | os.PathLike[str], what: str) -> str:
    """The text of a user's file; `what` names it in messages: "sites file".

    UTF-8, or UTF-16 with a byte-order mark, or else Windows-1252, in which spreadsheets save tables. Raises `UserError`
    if it does not exist, `DataError` if it cannot be read or is not text.
    """
    try:
        raw = Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"{what} {path} does not exist") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    wide = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    for encoding in ("utf-16",) if wide else ("utf-8-sig", "cp1252"):
        with contextlib.suppress(UnicodeDecodeError):
            if "\0" not in (text := raw.decode(encoding)):
                return text.replace("\r\n", "\n").replace("\r", "\n")
    raise DataError(f"{path} is not text; {what}s are text files")


def text_within(folder: Path, name: str) -> str:
    """Read a file of a run folder for a report; a link that leads out of the folder raises `DataError`.

    Otherwise a link in a folder of unknown origin could include a private file of the reader in the page.
    """
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{path} is a link that leads out of the folder; a page includes files of the run folder only")
    if not path.is_file():
        raise DataError(f"{path} is not a regular file" if path.exists() else f"{path} does not exist")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not readable text ({error})") from error


def column_name(text: object) -> str:
    """Convert a column heading to a lower-case name with its unit as the last word.

    >>> [column_name(text) for text in ("Azimuth (°)", "TX Power [dBm]", " SS-RSRP ", "height_m")]
    ['azimuth_deg', 'tx_power_dbm', 'ss_rsrp', 'height_m']
    """
    plain = str(text).strip().lower().replace("°", "deg")
    return re.sub(r"[\s\-./()\[\]_]+", "_", plain).strip("_")


def csv_lines(text: str) -> tuple[str, int]:
    """Remove comments (`#`) and Excel's `sep=;` from a table; returns it with the number of lines before its header.

    >>> csv_lines("sep=;\\n# sites\\nname;x\\n# north\\na;1\\n")
    ('name;x\\n\\na;1\\n', 2)
    """
    lines = ["" if line.lstrip().startswith("#") else line for line in text.splitlines(keepends=True)]
    if lines and re.fullmatch(r"\s*\"?sep=.\"?\s*", lines[0], re.IGNORECASE):
        lines[0] = ""
    before = next((number for number, line in enumerate(lines) if line.strip()), 0)
    return "".join(line or "\n" for line in lines[before:]), before


def csv_rows(text: str, where: str | os.PathLike[str]) -> list[dict[str, str]]:
    """Read a table with a header into one dictionary per row, without empty cells.

    The separator is the most frequent of comma, semicolon and tab in the header. Lines that begin with `#` are
    comments. Raises `DataError` for a row with more values than columns, for values in a column without a
    name, and for two columns with the same name.

    >>> csv_rows("name; eps_r\\nstucco; 4,5\\n", "materials.csv")
    [{'name': 'stucco', 'eps_r': '4,5'}]
    """
    text, before = csv_lines(text)
    header = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text), delimiter=max(",;\t", key=header.count), skipinitialspace=True)
    names = [name.strip() for name in reader.fieldnames or ()]
    for name in filter(None, names):
        if names.count(name) > 1:
            raise DataError(f"{where} has two columns {name!r}; rename one of them")
    rows = []
    for row in reader:
        if extra := row.pop(None, None):
            raise DataError(f"{where}: line {reader.line_num + before} has {len(extra)} values more than the header")
        filled = {key.strip(): value.strip() for key, value in row.items() if value and value.strip()}
        if "" in filled:
            raise DataError(
                f"{where}: line {reader.line_num + before} has {filled['']!r} in a column without a name; name it"
            )
        if filled:
            rows.append(filled)
    return rows


def read_json(path: str | os.PathLike[str]) -> Any:
    """The JSON at `path`; a missing or invalid file raises a `DataError` that names it."""
    place: Any = Path(path) if isinstance(path, str) else path
    try:
        if isinstance(place, Path) and place.exists() and not place.is_file():  # reading a pipe would never end
            raise DataError(f"{path} is not a regular file")
        return json.loads(place.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{path} does not exist") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON ({error}); it may be truncated") from error
