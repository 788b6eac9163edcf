"""The dominant-path solver against exact paths, out of sight at street level, in cities it was not fitted to.

Munich and etoile, 5.9 GHz, transmitters at 1.5, 5 and 10 m in their streets, receivers at 1.5 m within 180 m, by
chance. Truth is the power of all of Sionna's exact paths with up to three interactions, one diffraction among them.
Where it finds none, or only what a roof's or a corner's second edge leaves, truth is not known: both gains count as
-140 dB below that, some 30 dB under the noise of 20 MHz at 23 dBm sent, and receivers without a path are left out.

The peers are free space and the first version of the solver, with a knife edge at every corner and no mirrors.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import shapely
from harness import main

from geoml.cli.tables import show
from geoml.grids.grid import Grid
from radiomaps import dominant
from radiomaps.dominant import DominantOptions
from radiomaps.generation.plan import Placement
from radiomaps.maps.layout import Transmitter, friis_gain_db
from radiomaps.raytrace import TraceOptions, find_paths
from radiomaps.scenes import Scene, load

FLOOR_DB = -140.0
HALF_M, STEP_M, HEIGHT_M = 180.0, 2.0, 1.5
HEIGHTS_M = (1.5, 5.0, 10.0)
CITIES = ("munich", "etoile")
Gains = np.ndarray[Any, np.dtype[Any]]
#: The solver, and the methods it is compared with.
RIVALS: dict[str, DominantOptions | None] = {
    "dominant": DominantOptions(), "first version": DominantOptions(version=1), "free space": None
}  # fmt: skip


def moved(city: Scene, x: float, y: float) -> Scene:
    """The city with (x, y) as its origin, near which exact paths lose no reflection to rounding."""
    shift = np.array([x, y])
    meshes = [replace(mesh, vertices=mesh.vertices - [x, y, 0.0]) for mesh in city.meshes]
    footprints = [replace(f, polygon=shapely.transform(f.polygon, lambda p: p - shift)) for f in city.footprints]
    return replace(city, meshes=tuple(meshes), footprints=tuple(footprints))


@functools.cache
def window(city: str) -> Grid:
    """Where transmitters stand: the middle of a city."""
    lower, upper = load(city).extent
    x, y = ((lower[k] + upper[k]) / 2 for k in (0, 1))
    return Grid.box({"z": 1, "y": y - 150, "x": x - 150}, {"z": 3, "y": y + 150, "x": x + 150}, 2.0)


def errors(city: str, number: int, height: float, receivers: int) -> dict[str, Gains]:
    """Errors in dB of all methods at receivers out of sight with a path."""
    whole = load(city)
    (x, y, z), *_ = Placement(count=1, height_m=height, clear_m=2).random_places(whole, window(city), (number, 0))
    scene = moved(whole, x, y)
    lower, upper = scene.extent
    low = [STEP_M * np.ceil(max(-HALF_M, lower[k]) / STEP_M) for k in (0, 1)]
    high = [STEP_M * np.floor(min(HALF_M, upper[k]) / STEP_M) for k in (0, 1)]
    grid = Grid.box(
        {"z": HEIGHT_M - 0.5, "y": low[1], "x": low[0]}, {"z": HEIGHT_M + 0.5, "y": high[1], "x": high[0]},
        {"z": 1.0, "y": STEP_M, "x": STEP_M},
    )  # fmt: skip
    points = np.array(Placement(count=receivers, height_m=HEIGHT_M).random_places(scene, grid, (number, 1)))
    transmitter = Transmitter((0.0, 0.0, z))
    table = find_paths(scene, [transmitter], points, TraceOptions(depth=3, diffraction=True), top=8).isel(tx=0)
    direct = ((table["bounces"] == 0) & table["delay_s"].notnull()).any("path").values
    truth = table["path_gain_db"].values
    known = np.isfinite(truth) & ~direct
    rows, columns = (np.rint((points[:, k] - grid[n].start) / STEP_M).astype(int) for k, n in ((1, "y"), (0, "x")))
    found = {}
    for name, options in RIVALS.items():
        if options is None:
            gains = friis_gain_db(np.linalg.norm(points - [0.0, 0.0, z], axis=1), TraceOptions().frequency_hz)
        else:
            gains = dominant.trace(scene, [transmitter], grid, options)["path_gain_db"].values[0, 0, rows, columns]
        found[name] = (np.maximum(gains, FLOOR_DB) - np.maximum(truth, FLOOR_DB))[known]
    return found


def measure(quick: bool) -> dict[str, float | None]:
    """The figures of this script, by the keys of targets.yaml."""
    cities, count, receivers = (CITIES[1:], 1, 256) if quick else (CITIES, 9, 512)
    parts = {
        (city, number): errors(city, number, HEIGHTS_M[number % len(HEIGHTS_M)], receivers)
        for city in cities
        for number in range(count)
    }
    statistics: dict[str, Callable[[Gains], Any]] = {
        "bias": np.mean, "median": np.median, "rmse": lambda e: np.sqrt(np.mean(e**2))
    }  # fmt: skip
    rows, worst = [], {"bias": 0.0, "rmse": 0.0}
    for city in cities:
        for name in RIVALS:
            pooled = np.concatenate([found[name] for (of, _), found in parts.items() if of == city])
            values = {key: float(function(pooled)) for key, function in statistics.items()}
            rows.append({"city": city, "solver": name, "receivers": len(pooled), **values})
            if name == "dominant":
                worst = {key: max(worst[key], values[key], key=abs) for key in worst}
    show(rows, title="error out of sight in dB")
    return {"bias_db": abs(worst["bias"]), "rmse_db": worst["rmse"]}


if __name__ == "__main__":
    main("dominant", measure)
