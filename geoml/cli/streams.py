"""Protect a command from errors of its standard streams."""

from __future__ import annotations

import contextlib
import os
import sys

__all__ = ["any_character", "discard_output", "output_fails"]


def any_character() -> None:
    """Escape characters that the encoding of standard output or standard error lacks, instead of raising an error."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def output_fails() -> bool:
    """Return whether writing the buffered output to standard output fails."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        return True
    return False


def discard_output() -> None:
    """Redirect standard output to the null device, so that the interpreter's final flush does not fail again."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
