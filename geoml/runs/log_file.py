"""Log files whose errors do not stop a command."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

__all__ = ["LogFile"]


class LogFile(logging.FileHandler):
    """A log file. If the disk is full, logging stops with one line on standard error, and the command continues."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self.broken = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, unless logging has stopped."""
        if not self.broken:
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Stop logging if the file cannot be written; other errors are handled as usual."""
        error = sys.exception()
        if isinstance(error, OSError):
            self._end(error)
        else:
            super().handleError(record)

    def close(self) -> None:
        """Close the file, whether or not the rest of it can be written."""
        try:
            super().close()
        except OSError as error:
            self._end(error)

    def _end(self, error: OSError) -> None:
        if not self.broken:
            self.broken = True
            print(f"{self.baseFilename} is not written any more: {error.strerror}", file=sys.stderr)
