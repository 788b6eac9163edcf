"""The weights of the general model of radio maps, from nothing: maps, a training, then what predicts into the package.

    python docs/general_map_weights.py runs [rival] [NAME=VALUE …]

If interrupted, the same command resumes. A second training leaves florence out: on its maps the spread and correlation
of members are fitted, since a city that the training saw needs less of it. Further arguments are settings of both
trainings (`trainer.samples=20000`). With `rival` the 3-D U-Net that `benchmarks/city_maps.py` compares is trained
instead, with the parameters, samples and maps of the general model and squared errors, and exported to
`benchmarks/weights/cities/unet3d`. The maps take some 20 minutes of one core, a training 5; nothing of munich or etoile
is read.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

#: The rival of the benchmark: settings that give it the network of the general model.
UNET = ("model=unet3d", "model.network.multipliers=[1,2,4,4]", "model.network.first_axis_halvings=1")
#: The city that is left out of the training behind the spread of members.
LEFT_OUT = "florence"
RIVAL = Path(__file__).resolve().parents[1] / "benchmarks" / "weights" / "cities" / "unet3d"


def calibrate(store: Path, run: Path, gate: Path) -> None:
    """Write to a gate file the spread and correlation of members on the maps that the training of `run` left out."""
    from geoml.runs.files import read_json, write_json
    from radiomaps.models.corrdiff3d import CorrDiff3D
    from radiomaps.models.gating import described, fit_gate
    from radiomaps.tasks.dataset import loader
    from radiomaps.tasks.splits import parts_of
    from radiomaps.trained import load_trained

    trained = load_trained(run)
    assert isinstance(trained.model, CorrDiff3D)
    unseen = parts_of(store, dict(trained.split or {}))["test"]
    maps = loader(store, list(map(int, unseen)), trained.task, batch_size=4, shuffle=False)
    found = described(fit_gate(trained.model, maps), trained.task.target_channels)
    write_json(gate, read_json(gate) | {name: found[name] for name in ("spread", "lengths")})


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
    settings, without = [f"store={maps / 'maps.zarr'}", *settings], Path(folder, f"without-{LEFT_OUT}")
    commands = [
        ["trace", "experiment=general_maps", f"run.dir={maps}"],
        ["train", "experiment=general", f"run.dir={run}", *settings],
    ]
    if target != RIVAL:
        commands.append(["train", "experiment=general_left_out", f"run.dir={without}", *settings])
    for words in commands:
        if code := app.main(APP, words):
            return int(code)
    export(chosen(run), target)
    names = (TASK_FILE, GRID_FILE, GATE_FILE, *((SPLIT_FILE,) if target == RIVAL else ()))
    for name in names:
        if (kept := run / "checkpoints" / name).exists():
            shutil.copyfile(kept, target / name)
    if target != RIVAL:
        calibrate(maps / "maps.zarr", without, target / GATE_FILE)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
