"""The command line `radiomaps`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from geoml import app

__all__ = ["APP", "main"]

APP = app.App(
    name="radiomaps", config_module="radiomaps.conf", help="ray-traced 3-D radio maps", extra="radiomaps", verbs=()
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `radiomaps` with these words, those of the shell by default; returns the exit code."""
    return app.main(APP, argv)


if __name__ == "__main__":
    sys.exit(main())
