"""The weights of the general models, from nothing: two trainings, then what predicts of them into the package.

    python docs/general_weights.py runs/general [NAME=VALUE …]

If interrupted, the same command resumes. Further arguments are settings of both trainings (`trainer.samples=200000`).
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

#: Folder of the weights and the model that is trained for it.
STAGES = {"general": "anchored", "general-regression": "anchored-regression"}


def main(arguments: Sequence[str]) -> int:
    """Both stages; returns the exit code."""
    from geoml.cli import app
    from geoml.train.checkpoint import chosen, export
    from rainshift.__main__ import APP
    from rainshift.models.general import WEIGHTS

    if not arguments or "=" in arguments[0]:
        print(__doc__, file=sys.stderr)
        return 2
    folder, *settings = arguments
    for name, model in STAGES.items():
        run = Path(folder, name)
        words = ["train", "experiment=general", f"model={model}", f"run.dir={run}", *settings]
        if code := app.main(APP, words):
            return int(code)
        export(chosen(run), WEIGHTS / name)
        shutil.copyfile(run / "checkpoints" / "geometry.json", WEIGHTS / name / "geometry.json")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
