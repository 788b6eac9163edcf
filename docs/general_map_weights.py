"""The weights of the general model of radio maps, from nothing: maps, a training, then what predicts into the package.

    python docs/general_map_weights.py runs [rival] [NAME=VALUE …]

If interrupted, the same command resumes. Further arguments are settings of the training (`trainer.samples=20000`). With
`rival` the 3-D U-Net that `benchmarks/city_maps.py` compares is trained instead, with the parameters, samples and maps
of the general model and squared errors, and exported to `benchmarks/weights/cities/unet3d`. The maps take some 20
minutes of one core, a training 10; nothing of munich or etoile is read.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

#: The rival of the benchmark: settings that give it the network of the general model.
UNET = ("model=unet3d", "model.network.multipliers=[1,2,4,4]", "model.network.first_axis_halvings=1")
RIVAL = Path(__file__).resolve().parents[1] / "benchmarks" / "weights" / "cities" / "unet3d"


def main(arguments: Sequence[str]) -> int:
    """Maps, training and export; returns the exit code."""
    from geoml.cli import app
    from geoml.train.checkpoint import chosen, export
    from radiomaps.__main__ import APP
    from radiomaps.models.gating import GATE_FILE
    from radiomaps.trained import GRID_FILE, SPLIT_FILE, TASK_FILE, WEIGHTS

    if not arguments or "=" in arguments[0]:
        print(__doc__, file=sys.stderr)
        return 2
    folder, *settings = arguments
    maps, run, target = Path(folder, "general_maps"), Path(folder, "general"), WEIGHTS / "general"
    if settings[:1] == ["rival"]:
        run, target, settings = Path(folder, "unet3d"), RIVAL, [*UNET, *settings[1:]]
    store = f"store={maps / 'maps.zarr'}"
    for words in (
        ["trace", "experiment=general_maps", f"run.dir={maps}"],
        ["train", "experiment=general", store, f"run.dir={run}", *settings],
    ):
        if code := app.main(APP, words):
            return int(code)
    export(chosen(run), target)
    names = (TASK_FILE, GRID_FILE, GATE_FILE, *((SPLIT_FILE,) if target == RIVAL else ()))
    for name in names:
        if (kept := run / "checkpoints" / name).exists():
            shutil.copyfile(kept, target / name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
