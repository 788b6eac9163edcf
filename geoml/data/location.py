"""Locations of stores: a folder or a URL that fsspec opens, with the operations that both support.

An object store has no locks or renames and needs none: objects are written atomically, two writers of one slab write
the same bytes, and the manifest is written last.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from geoml.errors import DataError, UserError

__all__ = ["is_remote", "location", "object_store_errors", "sizes", "zarr_location"]


def location(path: str | os.PathLike[str]) -> Path:
    """The path of a folder, or of a URL such as `s3://bucket/rain`; both have the methods of `pathlib.Path`.

    Credentials and server come from the environment, as for other programs that open such URLs
    (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, …).

    >>> location("runs/cache")
    PosixPath('runs/cache')
    """
    if "://" not in str(path):
        return Path(path)
    if is_remote(path):
        return path  # type: ignore[return-value]
    try:
        from upath import UPath

        with object_store_errors(path):
            return UPath(str(path), use_listings_cache=False)  # type: ignore[return-value]
    except (ImportError, ValueError) as error:
        raise UserError(
            f"{path} cannot be opened ({error}); pip install 'geoml[cloud]' installs the support for URLs"
        ) from error


def is_remote(path: object) -> bool:
    """Return whether a location is a URL."""
    return not isinstance(path, str | os.PathLike)


def zarr_location(path: Path) -> Any:
    """Convert a location to the argument that Zarr and xarray accept."""
    if not is_remote(path):
        return path
    from zarr.storage import FsspecStore

    return FsspecStore.from_url(str(path), storage_options=dict(path.storage_options))  # type: ignore[attr-defined]


def sizes(path: Path) -> dict[str, int]:
    """Map the relative name of each file below a location to its size in bytes."""
    if is_remote(path):
        with object_store_errors(path):
            found = path.fs.find(path.path, detail=True)  # type: ignore[attr-defined]
        root = path.path.rstrip("/") + "/"  # type: ignore[attr-defined]
        return {name.partition(root)[2]: int(entry["size"]) for name, entry in found.items() if name.startswith(root)}
    result = {}
    for folder, _, names in os.walk(path):
        for name in names:
            file = os.path.join(folder, name)
            result[os.path.relpath(file, path).replace(os.sep, "/")] = os.stat(file).st_size
    return result


@contextlib.contextmanager
def object_store_errors(path: object) -> Iterator[None]:
    """Convert errors of a server or the network into a `DataError` that names the URL."""
    try:
        yield
    except Exception as error:
        if not is_remote(path) or isinstance(error, UserError):
            raise
        kind = type(error).__name__
        hint = "try again, or look at the server and at the credentials of the environment"
        raise DataError(f"{path} cannot be reached: {error or kind}; {hint}") from error
