"""Calibration on synthetic drives with known truth: coverage of intervals, gain on held-out blocks, and false changes.

A drive is a walk through the streets of a procedural city with three directive cells; each reading is of the strongest
one or two. The true powers are traced in another version of the city: building heights differ by 10 % (standard
deviation), and one building is missing. The true cells differ by 5 dB and 8° in azimuth, and walls reflect up to a few
dB less (standard deviations; losses half-normal with 2.5 dB). Readings have correlated shadowing (4 dB in sight, 6 dB
out of sight, 20 m) and 1.5 dB of independent noise. The calibration has only the city as mapped, with default priors.

Coverage is the share of parameters within their 90 % intervals over all drives. The gain is the decrease of the RMSE on
held-out blocks by calibration over the decrease with the true parameters, both in the city as mapped, from sums over
drives. Drives without errors (city as mapped, true parameters, only shadowing) show changes that a calibration makes
without need.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from harness import main

from geoml.cli.tables import show
from geoml.grids.grid import Grid
from radiomaps.antennas.sites import RadioCell, cells_of
from radiomaps.generation.plan import Placement
from radiomaps.raytrace import TraceOptions
from radiomaps.raytrace.calibration import Measurements, Priors
from radiomaps.raytrace.calibration.fit import fit
from radiomaps.raytrace.calibration.forward import StoredPaths, store_paths
from radiomaps.raytrace.calibration.run import held_out, matched, rmse
from radiomaps.scenes import Scene, load
from radiomaps.scenes.extrude import scene_of_footprints

Array = np.ndarray[Any, np.dtype[Any]]
OFFSET_DB, AZIMUTH_DEG, LOSS_DB = 5.0, 8.0, 2.5
SHADOW_DB, DISTANCE_M, ALONE_DB = (4.0, 6.0), 20.0, 1.5
FEWEST_DBM = -125.0
READINGS, POOL, BLOCK_M = 240, 512, 40.0
MATERIALS = ("concrete", "brick")
OPTIONS = TraceOptions(frequency_hz=3.5e9, depth=3, diffraction=True)


@dataclass(frozen=True)
class City:
    """A city as mapped and the true city, with cells, places in the streets, and stored paths of both to each place."""

    cells: tuple[RadioCell, ...]
    places: Measurements
    mapped: StoredPaths
    actual: StoredPaths


def as_it_is(scene: Scene, bounds: tuple[float, float, float, float], random: np.random.Generator) -> Scene:
    """Return the true scene: changed building heights, and one building missing."""
    missing = int(random.integers(len(scene.footprints)))
    footprints = [
        replace(one, height_m=float(one.height_m * np.exp(random.normal(0, 0.1))))
        for number, one in enumerate(scene.footprints)
        if number != missing
    ]
    return scene_of_footprints(scene.name, footprints, bounds=bounds)


@functools.cache
def city(seed: int) -> City:
    """Generate the city of a seed and trace it as mapped and as it is."""
    random = np.random.default_rng([seed, 5])
    drawn = load({"name": "procedural", "seed": 200 + seed, "size_m": 224})
    lower, upper = drawn.extent
    bounds = (lower[0], lower[1], upper[0], upper[1])
    prints = [replace(f, material=MATERIALS[k % 2]) for k, f in enumerate(drawn.footprints)]
    scene = scene_of_footprints(drawn.name, prints, bounds=bounds)
    grid = Grid.box({"z": 1, "y": 0, "x": 0}, {"z": 2, "y": 224, "x": 224}, {"z": 1, "y": 2, "x": 2})
    corners = Placement(count=3, height_m=8.0, clear_m=2).random_places(scene, grid, (seed, 1))
    cells = cells_of(
        [
            {"name": f"cell{k}", "x": x, "y": y, "z": z, "pattern": "tr38901", "power_dbm": 40.0,
             "azimuth_deg": float(random.uniform(0, 360))}
            for k, (x, y, z) in enumerate(corners)
        ]
    )  # fmt: skip
    points = np.array(Placement(count=POOL, height_m=1.5).random_places(scene, grid, (seed, 2)))
    every = Measurements(
        np.tile(points, (3, 1)), np.repeat([cell.name for cell in cells], POOL), np.zeros(3 * POOL),
        np.ones(3 * POOL, np.int64),
    )  # fmt: skip
    transmitters = [cell.transmitter(scene) for cell in cells]
    mapped = store_paths(scene, transmitters, every, OPTIONS, top=16)
    actual = store_paths(as_it_is(scene, bounds, random), transmitters, every, OPTIONS, top=16)
    return City(cells, every, mapped, actual)


@dataclass(frozen=True)
class Drive:
    """Readings with their truth: stored paths in the city as mapped, powers, and the true parameters by name."""

    mapped: StoredPaths
    measured: Measurements
    truth: dict[str, float]


def drive(place: City, number: int, *, wrong: bool) -> Drive:
    """Readings along a walk: places by chance near a few streets' points, each of cells that are heard there."""
    random = np.random.default_rng([number, 6 + wrong])
    source = place.actual if wrong else place.mapped
    names = source.parameters.names
    scale = {"offset_db": OFFSET_DB, "azimuth_deg": AZIMUTH_DEG, "loss_db": LOSS_DB}
    drawn = {name: float(random.normal(0, scale[name.partition(":")[0]])) if wrong else 0.0 for name in names}
    truth = {name: abs(value) if name.startswith("loss_db") else value for name, value in drawn.items()}
    power = source.predict(np.array([truth[name] for name in names]), source.parameters)[0]
    points = place.places.points
    sigma = np.where(source.direct, *SHADOW_DB)
    for cell in np.unique(place.places.cell):
        here = np.flatnonzero(place.places.cell == cell)
        apart = np.linalg.norm(points[here, None] - points[None, here], axis=-1)
        factor = np.linalg.cholesky(np.exp(-apart / DISTANCE_M) + 1e-9 * np.eye(len(here)))
        power[here] += sigma[here] * (factor @ random.normal(size=len(here)))
    power += random.normal(0, ALONE_DB, len(power))
    known = np.isfinite(power) & (power > FEWEST_DBM) & (place.mapped.power.sum(axis=1) > 0)
    # Two places of the walk are its ends, and readings lie near the line between them.
    ends = points[random.choice(len(points), 4), :2]
    legs = np.stack([_distance(points[:, :2], ends[k], ends[k + 1]) for k in range(3)])
    order = np.argsort(legs.min(axis=0) + random.uniform(0, 5, len(points)))
    chosen = np.sort(order[known[order]][:READINGS])
    return Drive(place.mapped[chosen], replace(place.places[chosen], power_dbm=power[chosen]), truth)


def _distance(points: Array, start: Array, stop: Array) -> Array:
    """Return distances of points from the line between two places."""
    along = stop - start
    share = np.clip((points - start) @ along / max(float(along @ along), 1e-9), 0, 1)
    return np.linalg.norm(points - start - share[:, None] * along, axis=1)


def judged(one: Drive, number: int) -> dict[str, Any]:
    """Calibrate on a drive without its held-out blocks, and compare the result with the truth."""
    apart = held_out(one.measured.points, BLOCK_M, 0.25, number)
    kept = one.measured[~apart]
    found = fit(one.mapped[~apart], kept.points, kept.power_dbm, kept.count, Priors(), seed=number)
    low, high = found.interval()
    truth = np.array([one.truth.get(name, 0.0) for name in found.parameters.names])
    covered = (low - 1e-6 <= truth) & (truth <= high + 1e-6)
    parameters = one.mapped.parameters
    tested = {
        "before": np.zeros(len(parameters)),
        "after": matched(found, parameters.names),
        "truth": np.array([one.truth.get(name, 0.0) for name in parameters.names]),
    }
    powers = {name: one.mapped.predict(values, parameters)[0] for name, values in tested.items()}
    errors = {name: rmse((one.measured.power_dbm - power)[apart]) for name, power in powers.items()}
    kinds = [name.partition(":")[0] for name in found.parameters.names]
    changed = rmse(powers["after"] - powers["before"])
    return {"covered": dict(zip(found.parameters.names, covered, strict=True)), "kinds": kinds, **errors,
            "changed": changed, "width": dict(zip(kinds, high - low, strict=True))}  # fmt: skip


def measure(quick: bool) -> dict[str, float | None]:
    """Return the figures of this script by the keys of targets.yaml."""
    cities, each, unchanged = (1, 16, 6) if quick else (5, 42, 10)
    outcomes = [judged(drive(city(k), n, wrong=True), n) for k in range(cities) for n in range(each)]
    nothing = [judged(drive(city(k), n, wrong=False), n) for k in range(cities) for n in range(unchanged)]
    flat = [(name.partition(":")[0], hit) for one in outcomes for name, hit in one["covered"].items()]
    show(
        [
            {"parameter": kind, "number": sum(k == kind for k, _ in flat),
             "coverage_90": float(np.mean([hit for k, hit in flat if k == kind]))}
            for kind in dict.fromkeys(k for k, _ in flat)
        ],
        title=f"{len(outcomes)} drives",
    )  # fmt: skip
    total = {name: sum(one[name] for one in outcomes) / len(outcomes) for name in ("before", "after", "truth")}
    show([{"held-out RMSE in dB": name, "mean over drives": value} for name, value in total.items()])
    changes = np.array([one["changed"] for one in nothing])
    print(f"nothing wrong: {len(changes)} drives, change {np.quantile(changes, [0.5, 0.95, 1.0]).round(3)} dB")
    coverage = float(np.mean([hit for _, hit in flat]))
    return {
        "coverage_90": coverage,
        "coverage_90_excess": coverage - 0.9,
        "gain_share": (total["before"] - total["after"]) / (total["before"] - total["truth"]),
        "change_without_cause_db": float(np.quantile(changes, 0.95)),
    }


if __name__ == "__main__":
    main("calibrate", measure)
