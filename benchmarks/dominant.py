"""Error of the dominant-path solver against exact paths, out of sight at street level, in cities outside its fit.

Cities are munich and etoile at 5.9 GHz, with random transmitters at 1.5, 5 and 10 m in their streets and random
receivers at 1.5 m within 180 m. The truth is the power of all exact paths of Sionna with up to three interactions, one
of them a diffraction; roofs have the walls' material. If it finds no path, or only one over the second edge of a roof
or corner, the truth is unknown. Therefore gains below -140 dB count as -140 dB in both, and receivers without a path
are excluded. This floor is about 30 dB below the noise of 20 MHz at 23 dBm transmit power.

The peers are free space and the first version of the solver, with a knife edge at every corner and no reflections.

`--fit` prints the errors for other constants of the corner model, and the best one with an interval over scenes. It
uses generated streets at 2, 5.9 and 28 GHz with the same kind of truth, and no real city. It takes about ten minutes.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import shapely
from harness import main
from raytrace_checks import of_one_material

from geoml.cli.tables import show
from geoml.grids.grid import Grid
from radiomaps import dominant
from radiomaps.dominant import DominantOptions, streets
from radiomaps.generation.plan import Placement
from radiomaps.maps.layout import Transmitter, friis_gain_db
from radiomaps.raytrace import TraceOptions, find_paths
from radiomaps.scenes import Scene, load

FLOOR_DB = -140.0
HALF_M, STEP_M, HEIGHT_M = 180.0, 2.0, 1.5
HEIGHTS_M = (1.5, 5.0, 10.0)
CITIES = ("munich", "etoile")
#: For `--fit`: types of generated streets as in experiment=general_maps, carriers, and candidate constants in m.
KINDS: tuple[dict[str, Any], ...] = (
    {},
    {"block_m": (30, 60), "street_m": (8, 16), "empty": 0.1, "height_m": (9, 30), "median_height_m": 17},
    {"street_m": (18, 40), "empty": 0.35, "towers": 0.1, "tower_height_m": (30, 80)},
    {"block_m": (60, 110), "courtyards": 0.7, "height_m": (14, 28), "median_height_m": 20},
)
CARRIERS_HZ, FIT_SCENES = (2e9, 5.9e9, 28e9), 24
CONSTANTS_M = (0.1, 0.2, 0.4, 0.75, 1.5, 3.0, 6.0, 12.0, 24.0)
Gains = np.ndarray[Any, np.dtype[Any]]
#: The dominant-path solver and the methods with which it is compared.
RIVALS: dict[str, DominantOptions | None] = {
    "dominant": DominantOptions(), "first version": DominantOptions(version=1), "free space": None
}  # fmt: skip


def moved(city: Scene, x: float, y: float) -> Scene:
    """Return the city with (x, y) as its origin, since exact paths far from the origin lose reflections to rounding."""
    shift = np.array([x, y])
    meshes = [replace(mesh, vertices=mesh.vertices - [x, y, 0.0]) for mesh in city.meshes]
    footprints = [replace(f, polygon=shapely.transform(f.polygon, lambda p: p - shift)) for f in city.footprints]
    return replace(city, meshes=tuple(meshes), footprints=tuple(footprints))


@functools.cache
def window(city: str) -> Grid:
    """Return the area of transmitters: the centre of a city."""
    lower, upper = load(city).extent
    x, y = ((lower[k] + upper[k]) / 2 for k in (0, 1))
    return Grid.box({"z": 1, "y": y - 150, "x": x - 150}, {"z": 3, "y": y + 150, "x": x + 150}, 2.0)


def street(
    whole: Scene, area: Grid, number: int, height: float, receivers: int, frequency_hz: float
) -> tuple[Scene, Transmitter, Grid, Gains, Gains]:
    """Draw a transmitter (the origin of its scene), the grid around it, and receivers out of sight with their gains."""
    (x, y, z), *_ = Placement(count=1, height_m=height, clear_m=2).random_places(whole, area, (number, 0))
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
    options = TraceOptions(depth=3, diffraction=True, frequency_hz=frequency_hz)
    table = find_paths(scene, [transmitter], points, options, top=8).isel(tx=0)
    direct = ((table["bounces"] == 0) & table["delay_s"].notnull()).any("path").values
    truth = table["path_gain_db"].values
    known = np.isfinite(truth) & ~direct
    return scene, transmitter, grid, points[known], truth[known]


def wrong(gains: Gains, truth: Gains) -> Gains:
    """Return errors in dB of gains above the floor."""
    return np.maximum(gains, FLOOR_DB) - np.maximum(truth, FLOOR_DB)


def at(points: Gains, grid: Grid, maps: Any) -> Gains:
    """Return the gains of the voxels that contain the points."""
    rows, columns = (np.rint((points[:, k] - grid[n].start) / STEP_M).astype(int) for k, n in ((1, "y"), (0, "x")))
    gains: Gains = maps["path_gain_db"].values[0, 0, rows, columns]
    return gains


def errors(city: str, number: int, height: float, receivers: int) -> dict[str, Gains]:
    """Return errors in dB of all methods at receivers out of sight that have a path."""
    frequency = TraceOptions().frequency_hz
    scene, transmitter, grid, points, truth = street(
        of_one_material(load(city)), window(city), number, height, receivers, frequency
    )  # fmt: skip
    found = {}
    for name, options in RIVALS.items():
        if options is None:
            gains = friis_gain_db(np.linalg.norm(points - transmitter.position, axis=1), frequency)
        else:
            gains = at(points, grid, dominant.trace(scene, [transmitter], grid, options))
        found[name] = wrong(gains, truth)
    return found


def fit() -> None:
    """Print errors by constant of the corner model on generated streets, and the best constant with its interval."""
    found: dict[float, list[Gains]] = {}
    for number in range(FIT_SCENES):
        scene = load({"name": "procedural", "seed": 20000 + number, "size_m": 384, **KINDS[number % len(KINDS)]})
        frequency, height = CARRIERS_HZ[number % len(CARRIERS_HZ)], HEIGHTS_M[number // 2 % len(HEIGHTS_M)]
        area = Grid.box({"z": 1, "y": 42, "x": 42}, {"z": 3, "y": 342, "x": 342}, 2.0)
        moved_scene, transmitter, grid, points, truth = street(scene, area, number, height, 512, frequency)
        for constant in CONSTANTS_M:
            with mock.patch.object(streets, "CORNER_M", constant):
                maps = dominant.trace(moved_scene, [transmitter], grid, DominantOptions(frequency_hz=frequency))
            found.setdefault(constant, []).append(wrong(at(points, grid, maps), truth))
    squares = np.array([[np.sum(e**2) for e in rows] for rows in found.values()])
    sums = np.array([[np.sum(e) for e in rows] for rows in found.values()])
    counts = np.array([len(e) for e in found[CONSTANTS_M[0]]])
    rows = []
    for constant, square, total in zip(CONSTANTS_M, squares.sum(axis=1), sums.sum(axis=1), strict=True):
        rmse, bias = np.sqrt(square / counts.sum()), total / counts.sum()
        rows.append({"constant, m": constant, "rmse, dB": rmse, "bias, dB": bias})
    show(rows, title=f"{counts.sum()} receivers out of sight in {FIT_SCENES} generated scenes")
    draws = np.random.default_rng(0).integers(FIT_SCENES, size=(2000, FIT_SCENES))
    errors_of = np.sqrt(squares[:, draws].sum(axis=2) / counts[draws].sum(axis=1))
    best = np.array([least(row) for row in errors_of.T])
    low, high = np.percentile(best, [2.5, 97.5])
    chosen = least(np.sqrt(squares.sum(axis=1) / counts.sum()))
    now = f"now {streets.CORNER_M:g} m"
    print(f"least error at {chosen:.2g} m, 95 % interval over scenes {low:.2g} to {high:.2g} m; {now}")


def least(values: Gains) -> float:
    """Return the constant with the smallest error, from a parabola through the best of `CONSTANTS_M` and neighbours."""
    middle = int(np.clip(np.argmin(values), 1, len(values) - 2))
    places = np.log(CONSTANTS_M[middle - 1 : middle + 2])
    curve, slope, _ = np.polyfit(places, values[middle - 1 : middle + 2], 2)
    top = -slope / (2 * curve) if curve > 0 else places[np.argmin(values[middle - 1 : middle + 2])]
    return float(np.exp(np.clip(top, places[0], places[-1])))


def measure(quick: bool) -> dict[str, float | None]:
    """Return the figures of this script by the keys of targets.yaml."""
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
    if sys.argv[1:] == ["--fit"]:
        fit()
        sys.exit(0)
    main("dominant", measure)
