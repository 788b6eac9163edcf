"""Read the files of a data set by name, from a folder or a zip file."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

from geoml.errors import DataError

__all__ = ["FileTree"]


class FileTree:
    """Names and contents of all files below a folder, or in a zip file."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._zip: zipfile.ZipFile | None = None
        if self.path.is_dir():
            found = (file.relative_to(self.path).as_posix() for file in self.path.rglob("*") if file.is_file())
        elif self.path.exists():
            try:
                self._zip = zipfile.ZipFile(self.path)
            except zipfile.BadZipFile as error:
                raise DataError(f"{self.path} is neither a folder nor a readable zip ({error})") from error
            found = (name for name in self._zip.namelist() if not name.endswith("/"))
        else:
            raise DataError(f"{self.path} does not exist")
        self.names = sorted(found)

    def read(self, name: str) -> bytes:
        """The content of one file; raises `DataError` if it is missing or damaged."""
        try:
            return self._zip.read(name) if self._zip else (self.path / name).read_bytes()
        except (KeyError, FileNotFoundError):
            raise DataError(f"{self.path} has no {name}") from None
        except (zipfile.BadZipFile, OSError) as error:
            raise DataError(f"{name} in {self.path} cannot be read ({error})") from error
