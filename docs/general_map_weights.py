"""The weights of the general model of radio maps, from nothing: maps, a training, then what predicts into the package.

    python docs/general_map_weights.py runs [NAME=VALUE …]

If interrupted, the same command resumes. Further arguments are settings of the training (`trainer.samples=20000`). The
maps take some seven minutes of one core, the training four; nothing of munich or etoile is read.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str]) -> int:
    """Maps, training and export; returns the exit code."""
    from geoml.cli import app
    from geoml.train.checkpoint import chosen, export
    from radiomaps.__main__ import APP
    from radiomaps.models.gating import GATE_FILE
    from radiomaps.trained import GRID_FILE, TASK_FILE, WEIGHTS

    if not arguments or "=" in arguments[0]:
        print(__doc__, file=sys.stderr)
        return 2
    folder, *settings = arguments
    maps, run = Path(folder, "general_maps"), Path(folder, "general")
    store = f"store={maps / 'maps.zarr'}"
    for words in (
        ["trace", "experiment=general_maps", f"run.dir={maps}"],
        ["train", "experiment=general", store, f"run.dir={run}", *settings],
    ):
        if code := app.main(APP, words):
            return int(code)
    export(chosen(run), WEIGHTS / "general")
    for name in (TASK_FILE, GRID_FILE, GATE_FILE):
        shutil.copyfile(run / "checkpoints" / name, WEIGHTS / "general" / name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
