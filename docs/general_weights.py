"""The weights of the general models, from nothing: two trainings, then what predicts of them into the package.

    python docs/general_weights.py runs/general [NAME=VALUE …]

If interrupted, the same command resumes. Further arguments are settings of both trainings (`trainer.samples=200000`).
Without them each sees as many samples as the shipped weights did: 147,424 and 4,800, about 45 minutes of one core. The
shipped diffusion reached that number in seven stages with `start=`, the last on 640 climates, six of ten with texture
(as climates of this version); its regression was trained on 160 climates without texture.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

#: Folder of the weights, the model that is trained for it, and the number of samples.
STAGES = {"general": ("anchored", 147_424), "general-regression": ("anchored-regression", 4_800)}


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
    for name, (model, samples) in STAGES.items():
        run = Path(folder, name)
        words = ["train", "experiment=general", f"model={model}", f"run.dir={run}", f"trainer.samples={samples}"]
        words += settings
        if code := app.main(APP, words):
            return int(code)
        export(chosen(run), WEIGHTS / name)
        shutil.copyfile(run / "checkpoints" / "geometry.json", WEIGHTS / name / "geometry.json")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
