"""Errors that a user can fix. Shown as one message without a traceback. Exit code 2, or 1 for limits of the machine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class UserError(Exception):
    """An error whose message says what was found, what was expected and how to fix it."""


class DataError(UserError):
    """A file, store or array that cannot be used; the message names the file and the cause."""


class MachineError(UserError):
    """The machine lacks a resource: disk space, memory or open files. Exit code 1."""


class Diverged(UserError):
    """A training or prediction with values that are not finite: a result about the model, not a user's mistake."""


def unknown(kind: str, name: object, choices: Iterable[object], *, hint: str = "") -> UserError:
    """The error for a name that is not in `choices`; it suggests the nearest one.

    >>> str(unknown("region", "melanesa", ["melanesia", "caribbean"]))
    "region 'melanesa' unknown; did you mean 'melanesia'? (known: caribbean, melanesia)"
    """
    import difflib  # every command imports this module, few look for a name

    known = sorted(str(choice) for choice in choices)
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    guess = f"; did you mean {near[0]!r}?" if near else ""
    listing = ", ".join(known) if known else "none"
    return UserError(f"{kind} {str(name)!r} unknown{guess} (known: {listing}){' ' + hint if hint else ''}")


class missing_packages:
    """Converts a failed import of a missing package into a `UserError` with the command that installs it."""

    def __init__(self, extra: str) -> None:
        self.extra = extra

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if not isinstance(error, ModuleNotFoundError) or not error.name:
            return
        top = error.name.partition(".")[0]
        if top not in ("geoml", "rainshift", "radiomaps", "mcp_experts"):
            raise UserError(f"{top} is not installed; pip install 'geoml[{self.extra}]' installs it") from error
