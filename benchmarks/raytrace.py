"""Ray tracing: all layers in one trace against Sionna's radio maps layer by layer, in time and in error.

Cities in Sionna's wheel, cells of 1 m, transmitter at 1.5 m under layers at 1 … 20 m, line of sight and mirrors to
depth 3 (and edges, for diffraction), no refraction, one process, warm. Times are processor seconds of all threads,
which a busy machine hardly lengthens (on a GPU, wall seconds). Stock calls run once before they are timed, as each
height and number of rays needs separate kernels; ours after a smaller run. Stock calls give path gain of one layer;
ours give gain, delays, directions and masks of all. Comparisons at equal number of rays are with rays alone (estimator
"axis"); at equal error, with whichever estimator and number of rays is the fastest that errs no more than stock.
Diffraction too is of rays alone; the default, "paths", is timed at the same number of rays (`default_vs_stock`), and
in new processes, start included, whose kernel cache is empty and then filled.

Two more comparisons have separate cases. Moved (`shift_share_within`, `turn_share_lit`, `turn_median_db`): the map of a
city against those of the same city shifted, to UTM metres and beyond, as the share of voxels with equal masks, gain to
.01 dB, delay to .01 ns, direction to .01°, and against those of the city turned by quarters, as the share of lit voxels
that both maps light. Paths: with diffraction, and mirrors before and after it, the map against exact paths at voxels'
centres out of sight whose truth ten times fewer rays change by less than 0.1 dB; the greater of the places counts.

Errors are RMSE in dB out of sight against one truth, Sionna's exact paths at voxels' centres, or their mean over eight
points of the voxel. Voxels are drawn from all outdoors and out of sight to which the truth has a path; a cell that a
map misses counts as -140 dB. Exact paths are timed on more voxels and extrapolated to all outdoors. Figures are the
lesser of the cities' (of errors, the greater).
"""

from __future__ import annotations

import functools
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from harness import main
from raytrace_checks import in_new_processes, moved, of_one_material

from geoml.cli.tables import show
from geoml.grids.grid import Grid
from radiomaps.maps.layout import Transmitter
from radiomaps.raytrace import TraceOptions, activate, find_paths, trace
from radiomaps.scenes import Scene, load

#: Streets with a transmitter at 1.5 m, as in the published set, and above the roofs.
PLACES = {"etoile": (0.0, -10.0), "munich": (59.0, 59.0)}
FLOOR_DB = -140.0
Gains = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Case:
    """Size of a case: `rays` for comparisons at equal number, `voxels` for errors."""

    scene: Scene
    transmitter: Transmitter
    grid: Grid
    rays: int
    voxels: int
    truth_rays: int

    @property
    def options(self) -> TraceOptions:
        return TraceOptions(rays=self.rays)


def cases(quick: bool, only: str = "") -> list[Case]:
    half, layers, rays = (24, 4, 200_000) if quick else (128, 20, 4_000_000)
    found = []
    for name in [only] if only else ["etoile"] if quick else ["etoile", "munich"]:
        x, y = PLACES[name]
        x0, y0 = np.round([x, y]) + (40.0 if quick else 0.0)  # a small grid about the transmitter lies all in sight
        grid = Grid.box(
            {"z": 0.5, "y": y0 - half, "x": x0 - half}, {"z": 0.5 + layers, "y": y0 + half, "x": x0 + half}, 1.0
        )
        transmitter = Transmitter((x, y, 1.5))
        found.append(Case(load(name), transmitter, grid, rays, 12 if quick else 128, 100_000 if quick else 300_000))
    return found


def timed(run: Callable[[], Any], *, warm: Callable[[], Any] | None = None) -> tuple[float, Any]:
    """Return the seconds of a run and its result; `warm` runs before the clock starts."""
    clock = time.perf_counter if activate().startswith("cuda") else time.process_time
    if warm is not None:
        warm()
    start = clock()
    result = run()
    return clock() - start, result


class Stock:
    """Sionna's RadioMapSolver, one call per layer."""

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
        """Return the path gain `(z, y, x)` in dB of the lowest `layers`."""
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


def places(case: Case, maps: Any) -> Gains:
    """Return the outdoor voxels out of sight (z, y, x indices) in random order."""
    dark = np.argwhere(~maps.building.values & (maps.los_fraction.where(~maps.no_path, 0) == 0).values)
    return np.random.default_rng(0).permutation(dark)


def points(case: Case, chosen: Gains) -> Gains:
    """Return the centres of voxels in metres."""
    return np.stack([case.grid[name].coordinates[chosen[:, k]] for name, k in (("x", 2), ("y", 1), ("z", 0))], -1)


def exact(case: Case, where: Gains, rays: int) -> Gains:
    found = find_paths(case.scene, [case.transmitter], where, case.options, rays=rays, top=64)
    return np.maximum(found.path_gain_db.values[0], FLOOR_DB)


@dataclass(frozen=True)
class Truth:
    """Voxels with their exact gains at the centre, and as a mean of eight points."""

    chosen: Gains
    centre: Gains
    mean: Gains

    @classmethod
    def of(cls, case: Case, dark: Gains) -> Truth:
        dark = dark[: case.voxels]
        centre = exact(case, points(case, dark), case.truth_rays)
        chosen, centre = dark[centre > FLOOR_DB], centre[centre > FLOOR_DB]
        shifts = np.stack(np.meshgrid(*[[-0.25, 0.25]] * 3), -1).reshape(-1, 3) * [case.grid[n].step for n in "xyz"]
        around = (points(case, chosen)[:, None] + shifts).reshape(-1, 3)
        powers = 10 ** (exact(case, around, case.truth_rays).reshape(-1, 8) / 10)
        return cls(chosen, centre, 10 * np.log10(powers.mean(axis=1)))

    def errors(self, gain: Gains) -> dict[str, float]:
        """Return the RMSE of a map in dB against both truths, and the share of these voxels that the map covers."""
        values = np.nan_to_num(gain[tuple(self.chosen.T)], nan=FLOOR_DB, neginf=FLOOR_DB)
        values = np.maximum(values, FLOOR_DB)
        centre, mean = (float(np.sqrt(np.mean((values - truth) ** 2))) for truth in (self.centre, self.mean))
        return {"rmse_db": centre, "rmse_mean_db": mean, "covered": float((values > FLOOR_DB).mean())}


def compare(case: Case) -> dict[str, float]:
    """Return all figures of one city."""
    layers, rays = case.grid["z"].size, case.rays
    stock = Stock(case)
    rows: list[dict[str, Any]] = []

    def note(what: str, count: int, seconds: float, errors: dict[str, float]) -> dict[str, Any]:
        rows.append({"what": what, "rays": count, "s": seconds, **errors})
        print(f"{case.scene.name}: {what}, {count} rays, {seconds:.2f} s, {errors}", flush=True)
        return rows[-1]

    small = rays // 64
    maps = ours(case, rays=small, estimator="axis")
    truth = Truth.of(case, dark := places(case, maps))
    for estimator, fewest in (("axis", 1), ("paths", 1), ("plane", 1)):
        ours(case, rays=small, estimator=estimator)
        for fewer in (64, 16, 4, 1) if estimator != "plane" else (1,):
            if fewer >= fewest:
                options = {"estimator": estimator, "rays": rays // fewer}
                seconds, some = timed(lambda options=options: ours(case, **options))  # type: ignore[misc]
                note(estimator, rays // fewer, seconds, truth.errors(some.path_gain_db.values))
    axis, default = (
        next(row for row in rows if row["what"] == estimator and row["rays"] == rays) for estimator in ("axis", "paths")
    )
    four_s, _ = timed(
        lambda: ours(case, layers=4, estimator="axis"), warm=lambda: ours(case, layers=4, estimator="axis", rays=small)
    )
    stock_s, stock_gain = timed(lambda: stock(rays, layers), warm=lambda: stock(rays, layers))
    peer = note("stock", rays, stock_s, truth.errors(stock_gain))
    four_stock_s, _ = timed(lambda: stock(rays, 4))
    equal_s = min((row["s"] for row in rows if row is not peer and row["rmse_db"] <= peer["rmse_db"]), default=np.inf)
    exact_s = _exact_seconds(case, dark, truth, axis["rmse_db"], note)
    bent_s, _ = timed(
        lambda: ours(case, rays=rays // 4, estimator="axis", diffraction=True),
        warm=lambda: ours(case, rays=small, estimator="axis", diffraction=True),
    )
    print(f"{case.scene.name}: diffraction {bent_s:.1f} s", flush=True)
    bent = functools.partial(stock, rays // 4, layers, diffraction=True)
    bent_stock_s, _ = timed(bent, warm=bent)
    show(rows)
    print(f"{case.scene.name}: diffraction {bent_s:.1f} s, stock {bent_stock_s:.1f} s", flush=True)
    empty_s, filled_s, peak_gb = in_new_processes(case.scene.name, layers < 20)
    return {
        "vs_stock_20_layers": stock_s / axis["s"],
        "default_vs_stock_20_layers": stock_s / default["s"],
        "default_vs_stock_new_process": stock_s / filled_s,
        "default_vs_stock_empty_cache": stock_s / empty_s,
        "default_peak_memory_gb": peak_gb,
        "vs_stock_4_layers": four_stock_s / four_s,
        "vs_stock_equal_error_20_layers": stock_s / equal_s,
        "vs_exact_paths": exact_s * int((~maps.building).sum()) / axis["s"],
        "rmse_over_stock_centre": axis["rmse_db"] / peer["rmse_db"],
        "rmse_over_stock_mean": axis["rmse_mean_db"] / peer["rmse_mean_db"],
        "diffraction_vs_stock_20_layers": bent_stock_s / bent_s,
    }


def _exact_seconds(case: Case, dark: Gains, truth: Truth, error: float, note: Callable[..., Any]) -> float:
    """Return the seconds per voxel of exact paths with the fewest rays whose error is at most `error`."""
    many = points(case, dark[: 16 * case.voxels])
    for rays in (10_000, 100_000, case.truth_rays):
        found = exact(case, points(case, truth.chosen), rays)
        errors = {"rmse_db": float(np.sqrt(np.mean((found - truth.centre) ** 2)))}
        if errors["rmse_db"] <= error:
            break
    seconds, _ = timed(lambda: exact(case, many, rays), warm=lambda: exact(case, many, rays))
    note(f"exact, {len(many)} voxels", rays, seconds, errors)
    return seconds / len(many)


def growth(case: Case) -> None:
    """Print cost by number of rays, layers, transmitters and triangles, and the peak memory."""
    rows: list[dict[str, Any]] = []
    few = case.rays // 4

    def note(what: str, count: int, run: Callable[[], Any]) -> None:
        rows.append({"with": what, "count": count, "s": timed(run, warm=run if what == "triangles" else None)[0]})

    for factor in (1, 2, 4):
        note("rays", few * factor, lambda f=factor: ours(case, rays=few * f, estimator="axis"))  # type: ignore[misc]
    for layers in (1, case.grid["z"].size // 2, case.grid["z"].size):
        note("layers", layers, lambda n=layers: ours(case, layers=n, rays=few, estimator="axis"))  # type: ignore[misc]
    options = replace(case.options, rays=few, estimator="axis")
    for count in (1, 2, 4):
        many = [replace(case.transmitter, name=str(index)) for index in range(count)]
        note("transmitters", count, lambda many=many: trace(case.scene, many, case.grid, options))  # type: ignore[misc]
    for name in ("etoile", "munich", "san_francisco"):
        scene = load(name)
        (x0, y0, _), (x1, y1, top) = scene.extent
        high = Transmitter(((x0 + x1) / 2, (y0 + y1) / 2, top + 5))
        note("triangles", scene.triangles, lambda s=scene, t=high: trace(s, [t], _around(case, s), options))  # type: ignore[misc]
    show(rows)


def agreement(quick: bool) -> dict[str, float]:
    """Compare maps with diffraction with exact paths out of sight: median and 95th percentile error, equal share."""
    streets = {  # the transmitter, half the window, and its step; all of it about the transmitter of etoile is in sight
        "simple_street_canyon": ((-20.0, 0.0, 5.0), 24.0 if quick else 56.0, 2.0),
        "etoile": ((0.0, -10.0, 5.0), 128.0, 4.0),
        "munich": ((59.0, 59.0, 1.5), 128.0, 4.0),
    }
    rows: list[dict[str, Any]] = []
    for name, (place, half, step) in list(streets.items())[: 1 if quick else None]:
        scene, transmitter = of_one_material(load(name)), Transmitter(place)
        x, y = place[:2]
        x -= 45.0 * quick  # round the corner of the street
        low, high = {"z": 1.5, "y": y - half, "x": x - half}, {"z": 3.5, "y": y + half, "x": x + half}
        grid = Grid.box(low, high, {"z": 2.0, "y": step, "x": step})
        options = TraceOptions(diffraction=True, rays=500_000 if quick else 4_000_000)
        case = Case(scene, transmitter, grid, options.rays, 24 if quick else 256, 100_000 if quick else 1_500_000)
        maps = trace(scene, [transmitter], grid, options).isel(tx=0)
        dark = places(case, maps)[: case.voxels]
        few, truth = (
            find_paths(
                scene, [transmitter], points(case, dark), options, rays=case.truth_rays // fewer, top=256
            ).path_gain_db.values[0]
            for fewer in (10, 1)
        )
        mine = maps.path_gain_db.values[tuple(dark.T)]
        lit = truth > FLOOR_DB, mine > FLOOR_DB  # not so without a path
        # If more rays still change the truth, it is not accurate enough.
        known = lit[0] & lit[1] & np.isfinite(few)
        known[known] = np.abs(few[known] - truth[known]) < 0.1
        median, tail = (float(np.percentile(np.abs(mine[known] - truth[known]), share)) for share in (50, 95))
        row = {"scene": name, "voxels": len(dark), "known": int(known.sum()), "db": median, "p95": tail}
        row["lit"] = float((lit[0] == lit[1]).mean())
        stock = np.maximum(Stock(case)(options.rays, 1, diffraction=True)[tuple(dark.T)], FLOOR_DB)
        apart = np.abs(stock - truth)[known]
        row |= {"stock_db": float(np.median(apart)), "stock_p95": float(np.percentile(apart, 95))}
        rows.append({**row, "stock_lit": float((lit[0] == (stock > FLOOR_DB)).mean())})
    show(rows)
    return {
        "paths_agreement_db": max(row["db"] for row in rows),
        "paths_agreement_p95_db": max(row["p95"] for row in rows),
        "paths_agreement_lit": float(min(row["lit"] for row in rows)),
    }


def _around(case: Case, scene: Scene) -> Grid:
    """Return the grid of the case, moved to the centre of another scene."""
    (x0, y0, _), (x1, y1, top) = scene.extent
    x, y, half, layers = (x0 + x1) / 2, (y0 + y1) / 2, case.grid["x"].size / 2, case.grid["z"].size
    return Grid.box({"z": top - layers, "y": y - half, "x": x - half}, {"z": top, "y": y + half, "x": x + half}, 1.0)


def measure(quick: bool) -> dict[str, float | None]:
    every = [compare(case) for case in cases(quick)]
    if not quick:
        growth(cases(quick)[0])
    worst = {name: max if name.startswith("rmse") or "memory" in name else min for name in every[0]}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    figures = {name: worst[name](figures[name] for figures in every) for name in every[0]}
    return {**figures, "peak_memory_gb": peak, **moved(quick), **agreement(quick)}


if __name__ == "__main__":
    main("raytrace", measure)
