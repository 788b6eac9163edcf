"""Errors that are the user's to mend: shown as one message without a traceback, exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """What came, what was expected, and the way out, in one message."""


class DataError(UserError):
    """A file, store or array that cannot be used as it is; names the file and the cause."""


class Diverged(UserError):
    """A training or a prediction that left the finite numbers: a finding about the model, not a mistake."""


def unknown(kind: str, name: object, choices: Iterable[object], *, hint: str = "") -> UserError:
    """The error for a name that is not among `choices`, with the nearest right one.

    >>> str(unknown("region", "melanesa", ["melanesia", "caribbean"]))
    "region 'melanesa' unknown; did you mean 'melanesia'? (known: caribbean, melanesia)"
    """
    known = sorted(str(choice) for choice in choices)
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    guess = f" did you mean {near[0]!r}?" if near else ""
    listing = ", ".join(known) if known else "none"
    return UserError(f"{kind} {str(name)!r} unknown;{guess} (known: {listing}){' ' + hint if hint else ''}")
