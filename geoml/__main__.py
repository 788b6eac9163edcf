"""The command line `geoml`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from geoml.cli import app
from geoml.cli.definitions import App, Verb

__all__ = ["APP", "main"]

APP = App(
    name="geoml",
    config_module="geoml.conf",
    help="the core that the domains share",
    verbs=(
        Verb(
            "doctor",
            "geoml.cli.doctor:main",
            "Show what this machine has, what is missing, and how to fix it",
            example="geoml doctor --need torch,llvm",
            plain=True,
        ),
        Verb(
            "report",
            "geoml.report.gather:main",
            "Make one page for a browser of finished runs of any kind",
            example="geoml report runs/benchmark/demo --output report.html",
            plain=True,
        ),
        Verb(
            "exec",
            "geoml.cli.scripts:main",
            "Run another command line of this distribution, by its name",
            example="geoml exec mcp-experts serve",
            plain=True,
        ),
    ),
    extra="report",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `geoml` with these arguments (default: those of the process); returns the exit code."""
    return app.main(APP, argv)


if __name__ == "__main__":
    sys.exit(main())
