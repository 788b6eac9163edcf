"""Download files from a base URL into a folder, with checksums and atomic writes, or copy a URL."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from geoml.cli.progress import track
from geoml.data.location import object_store_errors
from geoml.errors import DataError, UserError
from geoml.runs.files import atomic_path, read_json, sha256, write_json

__all__ = ["Download", "local_copy"]

logger = logging.getLogger(__name__)

SUMS = "SHA256SUMS"
#: File with the source files of a copied URL, next to the copies.
COPIED = ".copied.json"


@dataclass(frozen=True)
class Download:
    """Download files from `base_url` to the same paths under `folder`: http(s) by pooch, other URLs by fsspec.

    `checksums` maps files to SHA-256 checksums, or is the path of a file in the format of `sha256sum`. Checksums of
    other files are recorded in `SHA256SUMS` in the folder, and verified when a file is downloaded again.
    """

    base_url: str
    folder: Path
    checksums: str | Mapping[str, str] | None = None

    @cached_property
    def known(self) -> dict[str, str]:
        """Checksums by file."""
        noted = _read_sums(self.folder / SUMS) if (self.folder / SUMS).exists() else {}
        if isinstance(self.checksums, str):
            path = Path(self.checksums).expanduser()
            if not path.exists():
                raise UserError(f"data.checksums {path} does not exist")
            return noted | _read_sums(path)
        given = {str(k): _checked_sum(str(v), "data.checksums") for k, v in (self.checksums or {}).items()}
        return noted | given

    def __call__(self, name: str) -> Path:
        """Return the path of the file in the folder. Downloads it if it is missing.

        Raises `UserError` for a URL that fsspec cannot open, `DataError` for a failed download or a wrong checksum.
        """
        path = self.folder / name
        if path.exists():
            return path
        url = f"{self.base_url.rstrip('/')}/{name}"
        logger.info("fetching %s", url)
        with atomic_path(path) as partial:
            try:
                _retrieve(url, partial)
            except (UserError, MemoryError):
                raise
            except ImportError as error:
                raise UserError(
                    f"{url}: {error}; install the package that fsspec requires for this kind of URL"
                ) from error
            except OSError as error:
                if error.errno is not None and not isinstance(error, FileNotFoundError):
                    raise
                raise _unreachable(url, error) from error
            except Exception as error:  # errors of requests and of fsspec have no common base class
                raise _unreachable(url, error) from error
            found = sha256(partial)
            if (expected := self.known.get(name)) and found != expected:
                raise DataError(
                    f"{url} has SHA-256 {found}; expected {expected}. The download was corrupted, or another "
                    "release replaced the file; the download was discarded"
                )
        if name not in self.known:
            self._note(name, found)
        return path

    def _note(self, name: str, found: str) -> None:
        self.known[name] = found
        path = self.folder / SUMS
        noted = (_read_sums(path) if path.exists() else {}) | {name: found}
        with atomic_path(path) as partial:
            partial.write_text(
                "".join(f"{digest}  {file}\n" for file, digest in sorted(noted.items())), encoding="utf-8"
            )


@functools.lru_cache(maxsize=64)
def local_copy(place: str) -> Path:
    """Return the local path of a file or folder. A URL (`s3://`, `https://`, …) is first copied to the user's cache.

    A folder is copied with all files below it. Files whose size, ETag and modification time have not changed are not
    copied again. An `https://` folder must serve a listing of its files. Credentials are read from the environment.
    Raises `DataError` if the address cannot be reached.
    """
    if "://" not in place:
        return Path(place).expanduser()
    from geoml.data.location import is_remote, location

    url = location(place.rstrip("/"))
    if not is_remote(url):
        return url
    system, top = url.fs, url.path if not place.startswith("http") else str(url)  # type: ignore[attr-defined]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "geoml" / "copies"
    name = top.rstrip("/").rpartition("/")[2] or "root"
    folder = cache / hashlib.sha256(place.rstrip("/").encode()).hexdigest()[:16]
    with object_store_errors(url):
        found = _listed(system, top)
        if not found:
            raise DataError(f"{place} has no files or no list of them; download the files and use the local path")
        known = read_json(folder / COPIED) if (folder / COPIED).exists() else {}
        wanted = {file: tag for file, tag in found.items() if known.get(file) != tag}
        if wanted:
            logger.info("copying %d of %d files of %s to %s", len(wanted), len(found), place, folder)
        for file in track(list(wanted), f"copying {name}", unit="files") if wanted else ():
            with atomic_path(_below(folder / name, file)) as partial:
                partial.parent.mkdir(parents=True, exist_ok=True)
                system.get_file(f"{top.rstrip('/')}/{file}" if file else top, str(partial))
    for gone in set(known) - set(found):
        _below(folder / name, gone).unlink(missing_ok=True)
    if wanted or set(known) != set(found):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / COPIED, found)
    return folder / name


def _below(root: Path, file: str) -> Path:
    if ".." in Path(file).parts:
        raise DataError(
            f"the file list contains {file!r}, which is outside its folder; copy the files by hand and use the copy"
        )
    return root / file if file else root


def _listed(system: Any, top: str) -> dict[str, list[Any]]:
    """List files below an address by relative name ("" for the address itself), with values that show changes."""
    keys = ("ETag", "etag", "LastModified", "last_modified", "mtime", "size")
    info = None if top.startswith("http") and not top.rpartition("/")[2].count(".") else _info(system, top)
    if info is not None and info.get("type") == "file" and not top.endswith(".zarr"):
        return {"": [str(info.get(key)) for key in keys if info.get(key) is not None]}
    root = top.rstrip("/") + "/"
    entries = system.find(root, detail=True)
    found = {}
    for name, entry in sorted(entries.items()):
        if name.startswith(root) and "?" not in name and name != root:
            entry = entry if any(entry.get(key) for key in keys) else (_info(system, name) or entry)
            found[name.removeprefix(root)] = [str(entry.get(key)) for key in keys if entry.get(key) is not None]
    return found


def _info(system: Any, name: str) -> dict[str, Any] | None:
    try:
        return dict(system.info(name))
    except FileNotFoundError:
        return None


def _unreachable(url: str, error: Exception) -> DataError:
    return DataError(
        f"{url} cannot be downloaded: {type(error).__name__}: {error}. Run the same command again, or download it by "
        "other means and put it into data.root"
    )


def _retrieve(url: str, target: Path) -> None:
    """Download the content of a URL to `target`."""
    scheme = url.partition("://")[0]
    if scheme in ("http", "https"):
        import pooch

        downloader = pooch.HTTPDownloader(progressbar=False, timeout=60)
        downloader(url, str(target), None, check_only=False)
        return
    import fsspec

    system, path = fsspec.core.url_to_fs(url)
    system.get_file(path, str(target))


def _read_sums(path: Path) -> dict[str, str]:
    """Read the checksums in a file in the format of `sha256sum`."""
    found: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip():
            digest, _, name = line.partition(" ")
            found[name.strip().removeprefix("*").removeprefix("./")] = _checked_sum(digest, f"{path} line {number}")
    return found


def _checked_sum(value: Any, where: str) -> str:
    digest = str(value).lower().removeprefix("sha256:")
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise DataError(f"{where}: {value!r} is not a SHA-256 checksum of 64 hexadecimal digits")
    return digest
