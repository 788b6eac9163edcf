"""Ray tracing: all layers in one trace against Sionna's radio maps layer by layer, in time and in error.

Cities in Sionna's wheel, cells of 1 m, line of sight and mirrors to depth 3 (and edges, for diffraction), no
refraction, one process, warm: everything runs once before it is timed. Stock calls give path gain of one layer; ours
give gain, delays, directions and masks of all. Errors are RMSE in dB outside line of sight against one truth: Sionna's
exact paths at voxels' centres, or their mean over eight points of the voxel. A missing cell counts as -140 dB. Exact
paths are timed on these voxels and extrapolated to all. Figures are the lesser of the cities' (of errors, the greater).
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from harness import main

from geoml.grids import Grid
from geoml.tables import show
from radiomaps.maps import Transmitter
from radiomaps.raytrace import TraceOptions, activate, find_paths, trace
from radiomaps.scenes import Scene, load

#: Streets where a transmitter stands at 1.5 m, as in the published set, and above the roofs.
PLACES = {"etoile": (0.0, -10.0), "munich": (59.0, 59.0)}
FLOOR_DB = -140.0
Gains = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Case:
    """What is traced: `rays` for the comparisons at equal number, `voxels` for errors."""

    scene: Scene
    transmitter: Transmitter
    grid: Grid
    rays: int
    voxels: int
    truth_rays: int

    @property
    def options(self) -> TraceOptions:
        return TraceOptions(rays=self.rays)


def cases(quick: bool) -> list[Case]:
    half, layers, rays = (24, 4, 200_000) if quick else (128, 20, 4_000_000)
    found = []
    for name in ("etoile",) if quick else ("etoile", "munich"):
        x, y = PLACES[name]
        x0, y0 = np.round([x, y]) + (40.0 if quick else 0.0)  # a small grid about the transmitter lies all in sight
        grid = Grid.box(
            {"z": 0.5, "y": y0 - half, "x": x0 - half}, {"z": 0.5 + layers, "y": y0 + half, "x": x0 + half}, 1.0
        )
        transmitter = Transmitter((x, y, 1.5))
        found.append(Case(load(name), transmitter, grid, rays, 12 if quick else 64, 100_000 if quick else 1_000_000))
    return found


def timed(run: Callable[[], Any], *, warm: bool = True) -> tuple[float, Any]:
    """Seconds of a run, and what it returned; once before the clock where `warm`."""
    if warm:
        run()
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


class Stock:
    """Sionna's RadioMapSolver, a call a layer."""

    def __init__(self, case: Case) -> None:
        activate()
        import mitsuba as mi
        import sionna.rt as rt

        from radiomaps.raytrace.world import World

        self.case, self.mi = case, mi
        self.scene = World(case.scene, case.options).scene
        self.scene.tx_array = rt.PlanarArray(num_rows=1, num_cols=1, pattern="iso", polarization="V")
        self.scene.add(rt.Transmitter("tx", position=mi.Point3f(*case.transmitter.position)))
        self.solver = rt.RadioMapSolver()

    def __call__(self, rays: int, layers: int, *, diffraction: bool = False) -> Gains:
        """Path gain `(z, y, x)` in dB of the lowest `layers`."""
        grid, mi = self.case.grid, self.mi
        width = [grid[name].size * grid[name].step for name in "xy"]
        middle = [grid[name].extent[0] + grid[name].step * (grid[name].size - 1) / 2 for name in "xy"]
        gains = []
        for z in grid["z"].coordinates[:layers]:
            found = self.solver(
                self.scene,
                center=mi.Point3f(*map(float, middle), float(z)),
                orientation=mi.Point3f(0.0, 0.0, 0.0),
                size=mi.Point2f(*map(float, width)),
                cell_size=mi.Point2f(grid["x"].step, grid["y"].step),
                samples_per_tx=rays,
                max_depth=3,
                refraction=False,
                diffraction=diffraction,
            )
            gains.append(found.path_gain.numpy()[0])
        with np.errstate(divide="ignore"):
            return 10 * np.log10(np.stack(gains))


def ours(case: Case, **changes: Any) -> Any:
    layers = changes.pop("layers", case.grid["z"].size)
    options = replace(case.options, **changes)
    return trace(case.scene, [case.transmitter], case.grid.crop(z=slice(0, layers)), options).isel(tx=0)


def truths(case: Case, maps: Any) -> tuple[Gains, Gains, Gains]:
    """Voxels (z, y, x indices) out of sight, and their exact gains at the centre and as a mean of eight points."""
    dark = np.argwhere(
        ~maps.los.values & ~maps.building.values & ~maps.no_path.values & (maps.los_fraction.values == 0)
    )
    chosen = dark[np.random.default_rng(0).choice(len(dark), min(case.voxels, len(dark)), replace=False)]
    axes = [case.grid[name].coordinates for name in "zyx"]
    centres = np.stack([axes[k][chosen[:, k]] for k in (2, 1, 0)], axis=-1)
    shifts = (np.stack(np.meshgrid(*[[-0.25, 0.25]] * 3), -1).reshape(-1, 3)) * [case.grid[n].step for n in "xyz"]
    points = np.concatenate([centres, (centres[:, None] + shifts).reshape(-1, 3)])
    gain = exact(case, points, case.truth_rays)
    count = len(chosen)
    mean = 10 * np.log10((10 ** (gain[count:].reshape(count, 8) / 10)).mean(axis=1))
    return chosen, gain[:count], mean


def exact(case: Case, points: Gains, rays: int) -> Gains:
    found = find_paths(case.scene, [case.transmitter], points, case.options, rays=rays, top=64)
    return np.maximum(found.path_gain_db.values[0], FLOOR_DB)


def rmse(gain: Gains, chosen: Gains, truth: Gains) -> float:
    values = np.maximum(np.nan_to_num(gain[tuple(chosen.T)], nan=FLOOR_DB, neginf=FLOOR_DB), FLOOR_DB)
    return float(np.sqrt(np.mean((values - truth) ** 2)))


def compare(case: Case) -> dict[str, float]:
    """All figures for one city."""
    layers, rays = case.grid["z"].size, case.rays
    stock = Stock(case)
    stock_s, stock_gain = timed(lambda: stock(rays, layers))
    our_s, maps = timed(lambda: ours(case))
    four_stock_s, _ = timed(lambda: stock(rays, 4), warm=False)
    four_our_s, _ = timed(lambda: ours(case, layers=4))
    chosen, centre, mean = truths(case, maps)
    gain = maps.path_gain_db.values
    rows, equal_s = [], float("nan")
    stock_error = rmse(stock_gain, chosen, centre)
    for fewer in (64, 16, 4):  # the fewest rays with which we are no worse than stock
        seconds, some = timed(lambda fewer=fewer: ours(case, rays=rays // fewer))
        error = rmse(some.path_gain_db.values, chosen, centre)
        rows.append({"what": "ours", "rays": rays // fewer, "s": seconds, "rmse_db": error})
        if error <= stock_error and np.isnan(equal_s):
            equal_s = seconds
    error, error_mean = rmse(gain, chosen, centre), rmse(gain, chosen, mean)
    rows.append({"what": "ours", "rays": rays, "s": our_s, "rmse_db": error})
    for estimator in ("axis", "plane"):
        seconds, other = timed(lambda estimator=estimator: ours(case, estimator=estimator))
        values = other.path_gain_db.values
        rows.append({"what": estimator, "rays": rays, "s": seconds, "rmse_db": rmse(values, chosen, centre),
                     "rmse_mean_db": rmse(values, chosen, mean)})  # fmt: skip
        if estimator == "axis":
            error_mean = min(error_mean, rows[-1]["rmse_mean_db"])  # the estimator made for means
    rows.append({"what": "stock", "rays": rays, "s": stock_s, "rmse_db": stock_error,
                 "rmse_mean_db": rmse(stock_gain, chosen, mean)})  # fmt: skip
    points = np.stack([case.grid[name].coordinates[chosen[:, k]] for name, k in (("x", 2), ("y", 1), ("z", 0))], -1)
    for exact_rays in (10_000, 100_000, 1_000_000):
        exact_s, found = timed(lambda exact_rays=exact_rays: exact(case, points, exact_rays))
        exact_error = float(np.sqrt(np.mean((found - centre) ** 2)))
        rows.append({"what": f"exact, {len(points)} voxels", "rays": exact_rays, "s": exact_s, "rmse_db": exact_error})
        if exact_error <= error:
            break
    bent_stock_s, _ = timed(lambda: stock(rays // 4, layers, diffraction=True))
    bent_s, _ = timed(lambda: ours(case, rays=rays // 4, diffraction=True))
    show(rows)
    if layers > 4:
        growth(case)
    return {
        "vs_stock_20_layers": stock_s / our_s,
        "vs_stock_4_layers": four_stock_s / four_our_s,
        "vs_stock_equal_error_20_layers": stock_s / (equal_s if np.isfinite(equal_s) else our_s),
        "vs_exact_paths": exact_s * (case.grid.size / len(points)) / our_s,
        "rmse_over_stock_centre": error / stock_error,
        "rmse_over_stock_mean": error_mean / rmse(stock_gain, chosen, mean),
        "diffraction_vs_stock_20_layers": bent_stock_s / bent_s,
    }


def growth(case: Case) -> None:
    """How cost grows with rays, layers and transmitters, beside the memory taken so far."""
    rows = []
    few = case.rays // 4
    for factor in (1, 2, 4):
        rows.append({"with": "rays", "count": few * factor, "s": timed(lambda f=factor: ours(case, rays=few * f))[0]})
    for layers in (1, case.grid["z"].size // 2, case.grid["z"].size):
        rows.append({"with": "layers", "count": layers, "s": timed(lambda n=layers: ours(case, layers=n, rays=few))[0]})
    options = replace(case.options, rays=few)
    for count in (1, 2, 4):
        many = [replace(case.transmitter, name=str(index)) for index in range(count)]
        seconds = timed(lambda many=many: trace(case.scene, many, case.grid, options), warm=False)[0]
        rows.append({"with": "transmitters", "count": count, "s": seconds})
    show(rows)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{case.scene.name}: {case.scene.triangles} triangles, peak memory {peak:.2f} GB", flush=True)


def measure(quick: bool) -> dict[str, float | None]:
    every = [compare(case) for case in cases(quick)]
    worst = {name: max if name.startswith("rmse") else min for name in every[0]}
    return {name: worst[name](figures[name] for figures in every) for name in every[0]}


if __name__ == "__main__":
    main("raytrace", measure)
