"""The command line `rainshift`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from geoml import app

__all__ = ["APP", "main"]

APP = app.App(
    name="rainshift",
    config_module="rainshift.conf",
    help="precipitation downscaling across regions",
    extra="rainshift",
    verbs=(app.Verb("regions", "rainshift.verbs:regions", "List the regions and their bounds", plain=True),),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `rainshift` with these words, those of the shell by default; returns the exit code."""
    return app.main(APP, argv)


if __name__ == "__main__":
    sys.exit(main())
