"""Open zipped Zarr stores in place; the only module that uses private attributes of Zarr, as a test checks."""

from __future__ import annotations

import threading
import zipfile
from pathlib import Path
from typing import Any

__all__ = ["names_in", "open_zip"]


def open_zip(place: str | Path) -> Any:
    """The store in a zip file, opened for reading; `place` is a file, or a URL that fsspec reads by byte ranges."""
    from zarr.storage import ZipStore

    class Remote(ZipStore):
        def _sync_open(self) -> None:
            import fsspec

            self._lock = threading.RLock()
            self._zf = zipfile.ZipFile(fsspec.open(place, "rb").open())
            self._is_open = True

    store = Remote(str(place), mode="r") if "://" in str(place) else ZipStore(Path(place), mode="r")
    store._sync_open()
    return store


def names_in(store: Any) -> list[str]:
    """Names of the files in an open store."""
    return list(store._zf.namelist())
