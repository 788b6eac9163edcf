"""The general model on a real city that its training leaves out: the yardstick by which its inputs are chosen.

    python docs/general_map_left_out.py RUNS [CITY] [NAME=VALUE …]

trains `experiment=general_left_out` on the maps `RUNS/general_maps` (see `docs/general_map_weights.py`) without those
of CITY, florence or san_francisco, in `RUNS/without-CITY`, and prints errors of path gain in dB: on the city, and by
kind on the procedural scenes that validate. An interrupted run resumes. Further arguments are settings of the training,
such as `task.features=[walls]`. munich and etoile are not read.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geoml.cli import app
from geoml.cli.tables import show
from radiomaps.__main__ import APP
from radiomaps.baselines import baseline
from radiomaps.maps.store import MapStore
from radiomaps.scores import MapScores, score
from radiomaps.tasks.splits import parts_of
from radiomaps.trained import Trained, load_trained

CITIES = ("florence", "san_francisco")
GAIN = "path_gain_db"
#: Kinds of procedural scenes of `experiment=general_maps`, by the beginning of their names.
KINDS = {
    "street grid": "procedural-10",
    "old town": "procedural-11",
    "estate": "procedural-12",
    "courtyards": "procedural-13",
}


def rows(trained: Trained, store: MapStore) -> Iterator[dict[str, Any]]:
    """Errors by group of maps, ours and the dominant path's."""
    parts = parts_of(store, dict(trained.split or {}))
    builders = {"model": trained, "dominant path": baseline("dominant", trained.task.changed(features=(), prior=None))}
    scores = {
        (part, name): score(builder, store.path, parts[part], members=8, title=f"{name}, {part}")
        for part in ("test", "validation")
        for name, builder in builders.items()
    }
    names = np.array([record["name"] for record in store.records])[store.scenes]
    groups = {"city left out": parts["test"]} | {
        kind: [n for n in parts["validation"] if names[n].startswith(begin)] for kind, begin in KINDS.items()
    }
    for group, samples in groups.items():
        part = "test" if group == "city left out" else "validation"
        row: dict[str, Any] = {"maps": group, "number": len(samples)}
        for title, seen in (("dark", "nlos"), ("sight", "los")):
            for name in builders:
                row[f"{name}, {title}"] = scores[part, name].select(samples).values(GAIN, seen)["rmse"]
        row["deviation over error, dark"] = deviation(scores[part, "model"].select(samples))
        yield row


def deviation(scores: MapScores) -> float:
    """Root-mean-square deviation of members out of sight over the error of their mean; members stand in pairs."""
    values = scores.values(GAIN, "nlos")
    return float(values["spread"] * np.sqrt(1 - 1 / scores.members) / values["rmse"])


def main(arguments: Sequence[str]) -> int:
    """Training and table; returns the exit code."""
    if not arguments or "=" in arguments[0]:
        print(__doc__, file=sys.stderr)
        return 2
    folder, *settings = arguments
    city = settings.pop(0) if settings and settings[0] in CITIES else CITIES[0]
    store, run = Path(folder, "general_maps", "maps.zarr"), Path(folder, f"without-{city}")
    words = [f"store={store}", f"run.dir={run}", f"split.parts.test=['{city}*']", *settings]
    if code := app.main(APP, ["train", "experiment=general_left_out", *words]):
        return int(code)
    show(list(rows(load_trained(run), MapStore.open(store))), title=f"path gain, error in dB, without {city}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
