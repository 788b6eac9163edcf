"""Choose Numba's cache folder if neither the installation nor the user's cache folder is writable."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

__all__ = ["place_caches"]

VARIABLE = "NUMBA_CACHE_DIR"


def place_caches() -> str:
    """Set Numba's cache to a temporary folder if it has no writable one; returns that folder, or "" if not needed.

    Numba writes next to each module or below the user's cache folder, and fails if neither is writable (containers,
    cluster images, read-only mounts).
    """
    if os.environ.get(VARIABLE):
        return ""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    if os.access(Path(__file__).parents[1], os.W_OK) or _writable(Path(home)):
        return ""
    with contextlib.suppress(OSError):
        os.environ[VARIABLE] = _private_folder()
        return os.environ[VARIABLE]
    return ""


def _writable(folder: Path) -> bool:
    """Return whether the folder, or its nearest existing parent, is writable."""
    for place in (folder, *folder.parents):
        if place.is_dir():
            return os.access(place, os.W_OK) and not place.is_relative_to("/proc")
        if place.exists():
            return False
    return False


def _private_folder() -> str:
    """Return a folder that belongs to this user only, because compiled code from it is executed."""
    import tempfile

    path = Path(tempfile.gettempdir(), f"geoml-numba-{os.getuid()}")
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    about = path.lstat()
    if stat.S_ISDIR(about.st_mode) and about.st_uid == os.getuid() and not about.st_mode & 0o077:
        return str(path)
    return tempfile.mkdtemp(prefix="geoml-numba-")
