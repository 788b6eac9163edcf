"""Download files of a data set from a base URL into a folder, each verified and written atomically."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from geoml.errors import DataError, UserError
from geoml.runs.files import atomic_path, sha256

__all__ = ["Download"]

logger = logging.getLogger(__name__)

SUMS = "SHA256SUMS"


@dataclass(frozen=True)
class Download:
    """Download files from `base_url` to the same paths under `folder`: http(s) by pooch, other URLs by fsspec.

    `checksums` maps files to SHA-256 checksums, or names a file in the format of `sha256sum`. The checksum of a file
    that is not listed is recorded in `SHA256SUMS` of the folder, and verified when the file is downloaded again.
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
        """The path of the file in the folder; downloads it if it is missing.

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
            partial.write_text("".join(f"{digest}  {file}\n" for file, digest in sorted(noted.items())))


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
    """The checksums in a file in the format of `sha256sum`."""
    found: dict[str, str] = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.strip():
            digest, _, name = line.partition(" ")
            found[name.strip().removeprefix("*").removeprefix("./")] = _checked_sum(digest, f"{path} line {number}")
    return found


def _checked_sum(value: Any, where: str) -> str:
    digest = str(value).lower().removeprefix("sha256:")
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise DataError(f"{where}: {value!r} is not a SHA-256 checksum of 64 hexadecimal digits")
    return digest
