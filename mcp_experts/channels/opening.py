"""Files of a data root that is not trusted: opened once, step by step from the root, without following a link.

What is checked is what is read: a descriptor, not a path that could lead elsewhere a moment later. Pipes and devices
are never waited on.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import stat
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PosixPath

from geoml.errors import UserError

__all__ = ["FORMATS", "Opened", "OpenedPath", "open_inside", "open_piece", "sources_under"]

#: What can be read, and what has to be installed for it.
FORMATS = {".npz": "", ".nc": "xarray", ".zarr": "xarray", ".h5": "h5py", ".hdf5": "h5py", ".mat": "scipy"}
MOST_BYTES = 256 * 2**20
#: Pieces of a store, and how deep its folders lie.
MOST_PIECES, DEEPEST = 100_000, 8
#: Files that an error lists; folders, and entries of each, that are looked into to find them.
LISTED, LOOKED_INTO, ENTRIES = 8, 1000, 10_000
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
FOLDER = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(frozen=True)
class Opened:
    """A file or store that is open: its name under the root, descriptors of it and of its folder, and what it was.

    `identity` changes where the content does: device, inode, size and times, of all pieces of a store.
    """

    name: str
    descriptor: int
    folder: int
    size: int
    identity: str

    @property
    def path(self) -> OpenedPath:
        """Where the file can be read, in this process and as long as it is open."""
        return OpenedPath.of(self.descriptor, self.name.rpartition("/")[2], self.folder)


class OpenedPath(PosixPath):
    """The path of a descriptor, under the name that its file has; `with_name` opens a file of the same folder."""

    called: str
    folder: int

    @classmethod
    def of(cls, descriptor: int, name: str, folder: int) -> OpenedPath:
        """The file or folder behind `descriptor`, called `name`, in the folder behind `folder`."""
        path = cls(f"/proc/self/fd/{descriptor}")
        path.called, path.folder = name, folder
        return path

    @property
    def name(self) -> str:
        """The file's name."""
        return self.called

    def with_name(self, name: str) -> Path:  # type: ignore[override]
        """Another file of the folder, opened as this one was; a path that leads nowhere where there is none."""
        try:
            descriptor = open_piece(self.folder, name)
        except OSError:
            return Path("/proc/self/fd/none")
        found = OpenedPath.of(descriptor, name, self.folder)
        weakref.finalize(found, os.close, descriptor)
        return found

    def is_symlink(self) -> bool:
        """No: it was opened without following one."""
        return False


@contextlib.contextmanager
def open_inside(root: Path | None, path: str) -> Iterator[Opened]:
    """The file or store of this relative path under the root; a `UserError` says why not, and what there is.

    Neither the root's own path nor anything outside of it is named. `..`, URLs and links are refused.
    """
    if root is None:
        raise UserError("this server has no data root; start it with --root FOLDER, or send the channel inline")
    parts = _parts(path)
    if Path(parts[-1]).suffix not in FORMATS:
        raise UserError(f"formats are {', '.join(FORMATS)}; the data root holds {_listing(root)}")
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
            raise _refused("path goes through a link" if link else "no such file", root) from None
        except OSError as error:  # a link (ELOOP), or no permission
            raise _refused(f"path cannot be opened without following a link ({error.strerror})", root) from None
        about = os.fstat(found)
        if not store and not stat.S_ISREG(about.st_mode):
            raise _refused("path is not a regular file", root)
        size, identity = _store(found) if store else (about.st_size, _identity(about))
        yield Opened("/".join(parts), found, folder, size, identity)


def open_piece(folder: int, path: str) -> int:
    """A descriptor of a regular file under an open folder; `FileNotFoundError` where there is none.

    A link is an `OSError`. The caller closes the descriptor.
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


def _parts(path: str) -> tuple[str, ...]:
    if "://" in path or "\x00" in path or len(path) > 512:
        raise UserError("path has to be a relative path of a file under the data root; URLs are not opened")
    given = Path(path)
    if given.is_absolute() or ".." in given.parts or not given.parts:
        raise UserError("path has to be relative to the data root, without '..'")
    return given.parts


def _refused(why: str, root: Path) -> UserError:
    return UserError(f"{why} under the data root, which holds {_listing(root)}")


def _identity(about: os.stat_result) -> str:
    return f"{about.st_dev}-{about.st_ino}-{about.st_size}-{about.st_mtime_ns}-{about.st_ctime_ns}"


def _store(folder: int) -> tuple[int, str]:
    """Bytes and identity of all pieces of a store; a `UserError` where one is a link, a pipe or a device."""
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
            raise UserError(f"this store has more than {MOST_PIECES} files, or folders deeper than {DEEPEST}")
    return size, digest.hexdigest()


def sources_under(root: Path) -> Iterator[str]:
    """Files and stores of known formats under a root, by folder; links and large folders are not looked into."""
    for folder, folders, files in itertools.islice(os.walk(root), LOOKED_INTO):
        for name in sorted(itertools.islice(itertools.chain(folders, files), ENTRIES)):
            whole = Path(folder, name)
            if whole.suffix in FORMATS and not whole.is_symlink():
                yield str(whole.relative_to(root))
        folders[:] = sorted(name for name in folders if Path(name).suffix not in FORMATS)


def _listing(root: Path) -> str:
    names = list(itertools.islice(sources_under(root), LISTED + 1))
    more = " and more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more or "none of these"
