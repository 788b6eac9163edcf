"""Open files of an untrusted data root: once, folder by folder from the root, without following links.

The descriptor that is checked is the one that is read, since a path could point elsewhere a moment later. Pipes and
devices never block.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import hashlib
import itertools
import os
import re
import stat
import unicodedata
import urllib.parse
import weakref
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PosixPath

from geoml.errors import UserError

__all__ = ["FORMATS", "PROFILE", "Opened", "OpenedPath", "open_inside", "open_piece", "sources_under"]

#: Readable formats, and the library that each needs.
FORMATS = {".npz": "", ".nc": "xarray", ".zarr": "xarray", ".h5": "h5py", ".hdf5": "h5py", ".mat": "scipy"}
MOST_BYTES = 256 * 2**20
#: Name of the file with import options for the other files of its folder (`mcp_experts.channels.importing`).
PROFILE = "import.yaml"
#: Largest number of pieces of a store, and largest depth of its folders.
MOST_PIECES, DEEPEST = 100_000, 8
#: Largest number of files that an error lists, of folders searched for them, and of entries of a folder.
LISTED, LOOKED_INTO, ENTRIES = 8, 1000, 10_000
#: Largest length of a path, and largest number of files that are compared with a wrong path to suggest a correction.
LONGEST, MOST_COMPARED = 512, 2000
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
FOLDER = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(frozen=True)
class Opened:
    """An open file or store: its name under the root, descriptors of it and of its folder, and its identity.

    `identity` changes with the content: device, inode, size and times, of all pieces of a store.
    """

    name: str
    descriptor: int
    folder: int
    size: int
    identity: str

    @property
    def path(self) -> OpenedPath:
        """Path that can be read in this process while the file is open."""
        return OpenedPath.of(self.descriptor, self.name.rpartition("/")[2], self.folder)


class OpenedPath(PosixPath):
    """Path of an open file descriptor, with the file's name; `with_name` opens another file of the same folder."""

    called: str
    folder: int

    @classmethod
    def of(cls, descriptor: int, name: str, folder: int) -> OpenedPath:
        """Create the path of an open file or folder `descriptor`; `folder` is the descriptor of its parent folder."""
        path = cls(f"/proc/self/fd/{descriptor}")
        path.called, path.folder = name, folder
        return path

    @property
    def name(self) -> str:
        """The file's name."""
        return self.called

    def with_name(self, name: str) -> Path:  # type: ignore[override]
        """Open another file of the same folder in the same way. A missing file gives a path that does not exist."""
        try:
            descriptor = open_piece(self.folder, name)
        except OSError:
            return Path("/proc/self/fd/none")
        found = OpenedPath.of(descriptor, name, self.folder)
        weakref.finalize(found, os.close, descriptor)
        return found

    def is_symlink(self) -> bool:
        """False: the file was opened without following links."""
        return False


@contextlib.contextmanager
def open_inside(root: Path | None, path: str, formats: Collection[str] = FORMATS.keys()) -> Iterator[Opened]:
    """Open a file or store by its path relative to the root; a `UserError` says why not, and lists files.

    Messages name neither the root's path nor anything outside it. `..`, URLs and links are refused.
    """
    if root is None:
        raise UserError("this server has no data root; start it with --root FOLDER, or send the channel inline")
    path = _spelled(root, path)
    parts = _parts(root, path, formats)
    if Path(parts[-1]).suffix.lower() not in formats:
        meant = _meant(root, path, formats) or ";"
        raise UserError(f"expected one of {', '.join(formats)}{meant} the data root holds {_listing(root, formats)}")
    with contextlib.ExitStack() as opened:

        def keep(descriptor: int) -> int:
            opened.callback(os.close, descriptor)
            return descriptor

        try:
            folder = keep(os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            for part in parts[:-1]:
                folder = keep(os.open(part, FOLDER, dir_fd=folder))
            store = parts[-1].endswith(".zarr")
            found = keep(os.open(parts[-1], FOLDER if store else FILE, dir_fd=folder))
        except (FileNotFoundError, NotADirectoryError):
            link = any(os.path.islink(Path(root, *parts[:count])) for count in range(1, len(parts) + 1))
            raise _refused("path goes through a link" if link else "no such file", root, formats, path) from None
        except OSError as error:  # a link (ELOOP), or no permission
            why = f"path cannot be opened without following a link ({error.strerror})"
            raise _refused(why, root, formats) from None
        about = os.fstat(found)
        if not store and not stat.S_ISREG(about.st_mode):
            raise _refused("path is not a regular file", root, formats)
        size, identity = _store(found) if store else (about.st_size, _identity(about))
        with contextlib.suppress(OSError):  # how it is read changes with the folder's profile
            identity += _identity(os.stat(PROFILE, dir_fd=folder, follow_symlinks=False))
        yield Opened("/".join(parts), found, folder, size, identity)


def open_piece(folder: int, path: str) -> int:
    """Open a regular file under an open folder and return its descriptor; `FileNotFoundError` if there is none.

    Raises `OSError` for a link. The caller closes the descriptor.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts or ".." in parts:
        raise FileNotFoundError(path)
    step = folder
    try:
        for part in parts[:-1]:
            inner = os.open(part, FOLDER, dir_fd=step)
            if step != folder:
                os.close(step)
            step = inner
        found = os.open(parts[-1], FILE, dir_fd=step)
    finally:
        if step != folder:
            os.close(step)
    mode = os.fstat(found).st_mode
    if not stat.S_ISREG(mode):
        os.close(found)
        raise IsADirectoryError(path) if stat.S_ISDIR(mode) else OSError(errno.EINVAL, "not a regular file", path)
    return found


def _spelled(root: Path, path: str) -> str:
    """Correct the spelling of a path: removes surrounding quotes and spaces; tries other accents and separators.

    Returns the first spelling that exists under the root, otherwise `path`. Only relative paths without `..` are
    tried. The result is opened with all checks.
    """
    if "\x00" in path or len(path) > LONGEST:
        return path
    plain = path.strip().strip("'\"`").strip()
    forms = [path, plain, *(unicodedata.normalize(form, plain) for form in ("NFC", "NFD"))]
    forms += [each.replace("\\", "/") for each in forms]
    for form in forms:
        inside = Path(form)
        if form and not inside.is_absolute() and ".." not in inside.parts and os.path.lexists(root / inside):
            return form
    return path


def _parts(root: Path, path: str, formats: Collection[str]) -> tuple[str, ...]:
    if "://" in path or "\x00" in path or len(path) > LONGEST:
        meant = _meant(root, path, formats)
        raise UserError(f"path must be relative to the data root; URLs are not opened{meant}")
    given = Path(path)
    if given.is_absolute() or ".." in given.parts or not given.parts:
        raise UserError(f"path must be relative to the data root, without '..'{_meant(root, path, formats)}")
    return given.parts


def _meant(root: Path, path: str, formats: Collection[str]) -> str:
    """Return "did you mean …?" with a file under the root of the same or a similar name; empty if there is none."""
    names = list(itertools.islice(sources_under(root, formats), MOST_COMPARED))
    last = re.split(r"[/\\]", urllib.parse.unquote(path.strip(" '\"`")).rstrip("/\\"))[-1][:LONGEST]
    by_last = {form(name.rpartition("/")[2]): name for form in (str.lower, str) for name in reversed(names)}
    near = [each for each in (last, last.lower()) if each in by_last]
    near = near or difflib.get_close_matches(last, by_last, n=1, cutoff=0.6)
    return f"; did you mean {by_last[near[0]]!r}?" if near else ""


def _refused(why: str, root: Path, formats: Collection[str], path: str = "") -> UserError:
    meant = (_meant(root, path, formats) if path else "") or ";"
    return UserError(f"{why} under the data root{meant} it holds {_listing(root, formats)}")


def _identity(about: os.stat_result) -> str:
    return f"{about.st_dev}-{about.st_ino}-{about.st_size}-{about.st_mtime_ns}-{about.st_ctime_ns}"


def _store(folder: int) -> tuple[int, str]:
    """Size and identity of all pieces of a store; a `UserError` if one is a link, a pipe or a device."""
    size, count, digest = 0, 0, hashlib.sha256()
    for path, _, _, step in os.fwalk(".", dir_fd=folder, follow_symlinks=False):
        with os.scandir(step) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                about = entry.stat(follow_symlinks=False)
                if not (stat.S_ISREG(about.st_mode) or stat.S_ISDIR(about.st_mode)):
                    raise UserError("this store contains links, pipes or devices; only files inside it are read")
                count += 1
                size += about.st_size if stat.S_ISREG(about.st_mode) else 0
                digest.update(f"{path}/{entry.name} {_identity(about)}\n".encode("utf-8", "surrogateescape"))
        if count > MOST_PIECES or path.count("/") > DEEPEST:
            raise UserError(f"this store has more than {MOST_PIECES} files, or folders nested deeper than {DEEPEST}")
    return size, digest.hexdigest()


def sources_under(root: Path, formats: Collection[str] = FORMATS.keys()) -> Iterator[str]:
    """Files and stores of known formats under a root, by folder; links and large folders are not searched."""
    for folder, folders, files in itertools.islice(os.walk(root), LOOKED_INTO):
        for name in sorted(itertools.islice(itertools.chain(folders, files), ENTRIES)):
            whole = Path(folder, name)
            if whole.suffix.lower() in formats and not whole.is_symlink():
                yield str(whole.relative_to(root))
        folders[:] = sorted(name for name in folders if Path(name).suffix not in FORMATS)


def _listing(root: Path, formats: Collection[str]) -> str:
    names = list(itertools.islice(sources_under(root, formats), LISTED + 1))
    more = " and more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more or "none of these"
