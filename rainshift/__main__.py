"""The command line `rainshift`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

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
            "Prepare the CF stores for training and scoring",
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
            "Fit a trust map: the expected error of a trained model",
            "rainshift trust checkpoint=runs/train/melanesia",
        ),
        Verb(
            "predict",
            "rainshift.verbs:predict",
            "Predict fine rain with a trained model, as CF NetCDF",
            "rainshift predict model=general input=COARSE.nc members=8",
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
            "Write one HTML page of finished runs",
            "rainshift report runs/benchmark/demo",
            plain=True,
        ),
    ),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `rainshift` with the arguments `argv`, by default those of the shell; returns the exit code."""
    return app.main(APP, _own_names(list(sys.argv[1:] if argv is None else argv)))


def _own_names(words: list[str]) -> list[str]:
    """Rewrite `region=` and `regions=` to the setting of the verb, so that every verb accepts both."""
    if not words or words[0] not in {"prepare", "train", "trust", "predict", "evaluate", "benchmark"}:
        return words
    verb, shipped = words[0], Path(__file__).parent / "conf" / "region"
    key = "train_regions" if verb == "train" else "regions"
    said = []
    for word in words:
        name, _, value = word.partition("=")
        if name == "regions" and verb == "train":
            word = f"{key}={value}"
        elif name == "region" and value:
            names = [part.strip() for part in value.strip("[]").split(",")]
            grouped = verb in ("train", "predict", "evaluate")
            if not grouped or not all((shipped / f"{each}.yaml").exists() for each in names):
                sweep = {"-m", "--multirun"} & set(words) and not value.startswith("[")
                word = f"{key}={','.join(f'[{each}]' for each in names)}" if sweep else f"{key}=[{','.join(names)}]"
        said.append(word)
    return said


if __name__ == "__main__":
    sys.exit(main())
