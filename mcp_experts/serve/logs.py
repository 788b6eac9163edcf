"""Log records of the server: one line each on standard error, without client data and without tracebacks."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

__all__ = ["log_in_lines"]

MOST = 500


class _OneLine(logging.Formatter):
    """Formats a record as one line; exceptions show type and place only, since their text may hold data."""

    def format(self, record: logging.LogRecord) -> str:
        text = f"{record.levelname.lower()}: {record.name}: {record.getMessage()}"
        if record.exc_info and record.exc_info[0] is not None:
            text += f" ({record.exc_info[0].__name__}{_place(record.exc_info[2])})"
        return " ".join(text.encode("ascii", "backslashreplace").decode().split())[:MOST]


def _place(trace: TracebackType | None) -> str:
    frames = traceback.extract_tb(trace)
    return f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""


@contextmanager
def log_in_lines() -> Iterator[None]:
    """Write the records of all loggers to standard error in this format, and restore the root logger at the end.

    Enter it before the SDK adds its handlers.
    """
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine())
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    try:
        yield
    finally:
        root.handlers[:] = before
        root.setLevel(level)
