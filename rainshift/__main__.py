"""The command line `rainshift`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from geoml.cli import app
from geoml.cli.definitions import App, Verb

__all__ = ["APP", "main"]

APP = App(
    name="rainshift",
    config_module="rainshift.conf",
    help="precipitation downscaling across regions",
    extra="rainshift",
    verbs=(
        Verb(
            "regions",
            "rainshift.verbs:regions",
            "List the regions and their bounds",
            example="rainshift regions --json",
            plain=True,
        ),
        Verb(
            "prepare",
            "rainshift.verbs:prepare",
            "Make the CF stores that training and scoring read",
            "rainshift prepare data=synthetic regions=[melanesia,caribbean]",
        ),
        Verb(
            "train",
            "rainshift.verbs:train",
            "Train one model on one or several regions",
            "rainshift train region=melanesia model=unet",
        ),
        Verb(
            "trust",
            "rainshift.verbs:trust",
            "Learn how far a trained model may be trusted, cell by cell",
            "rainshift trust checkpoint=runs/train/melanesia",
        ),
        Verb(
            "predict",
            "rainshift.verbs:predict",
            "Predict fine rain with a trained model, as CF NetCDF",
            "rainshift predict checkpoint=runs/train/melanesia region=caribbean members=8",
        ),
        Verb(
            "evaluate",
            "rainshift.verbs:evaluate",
            "Score a trained model or a file of predictions",
            "rainshift evaluate checkpoint=runs/train/melanesia region=caribbean",
        ),
        Verb(
            "benchmark",
            "rainshift.verbs:benchmark",
            "Train and score models, in and out of distribution",
            "rainshift benchmark experiment=demo",
        ),
        Verb(
            "report",
            "rainshift.verbs:report",
            "Make one page for a browser of finished runs",
            "rainshift report runs/benchmark/demo",
            plain=True,
        ),
    ),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `rainshift` with these words, those of the shell by default; returns the exit code."""
    return app.main(APP, argv)


if __name__ == "__main__":
    sys.exit(main())
