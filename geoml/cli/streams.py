"""Standard streams that cannot end a command."""

from __future__ import annotations

import contextlib
import os
import sys

__all__ = ["any_character", "discard_output", "output_fails"]


def any_character() -> None:
    """Let standard output and error print every character: in an encoding that lacks one, it is escaped."""
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
    """Send what is left for standard output to nowhere, where the interpreter's final flush cannot fail again."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
