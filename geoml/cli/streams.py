"""Standard streams and log files that cannot end a command."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from pathlib import Path

__all__ = ["LogFile", "any_character", "discard_output", "output_fails"]


def any_character() -> None:
    """Let standard output and error print every character: in an encoding that lacks one, it is escaped."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def output_fails() -> bool:
    """Whether what was printed cannot be written to standard output."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        return True
    return False


def discard_output() -> None:
    """Send what is left for standard output to nowhere, where the interpreter's final flush cannot fail again."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class LogFile(logging.FileHandler):
    """A log file. When its disk is full the log ends, with one line on standard error, and the command continues."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self.broken = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, unless the log has ended."""
        if not self.broken:
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """End the log if it cannot be written; other errors are of the record."""
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
