"""Sets of maps in a store: one job per group of transmitters of a scene, in this process or on Dask, resumable."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from geoml.cli.progress import Bar, progress_bar
from geoml.data.store import Packing, StoreWriter
from geoml.errors import DataError, UserError
from geoml.grids.grid import Grid
from geoml.runs.files import write_json
from geoml.runs.workers import ambient_client, spread
from radiomaps.antennas.arrays import omnidirectional
from radiomaps.antennas.stored import PATH_VARIABLES
from radiomaps.generation.plan import Plan, solver_version
from radiomaps.maps.layout import VARIABLES, at_most_pi, wrapped
from radiomaps.maps.store import SceneRecord

__all__ = ["PACKING", "PLACE", "SAMPLE", "compute", "generate", "store_template"]

_STEPS = {"dB": Packing(0.01), "s": Packing(1e-12, dtype="int32"), "rad": Packing(1e-4, dtype="uint16")}
_BYTE, _UNIT = Packing(1.0, dtype="uint8"), Packing(1e-4)
#: Precision of each variable: 0.01 dB, 1 ps, 0.1 mrad, 1 cm of ground; masks as bytes.
PACKING = {name: _BYTE if about.kind == "mask" else _STEPS.get(about.units, _UNIT) for name, about in VARIABLES.items()}
PACKING["ground_m"] = Packing(0.01, dtype="int32")
PACKING |= {name: _STEPS[units] for name, (_, units, _) in PATH_VARIABLES.items()}
#: Positions of transmitters, which float32 would round to half a metre in UTM coordinates.
PLACE = ("tx_x", "tx_y", "tx_z")
SAMPLE = "sample"
_SPACE = ("z", "y", "x")


def compute(plan: Plan, start: int, stop: int, advance: Callable[[float], None] | None = None) -> dict[str, xr.Dataset]:
    """Compute the store's groups of variables for samples `start … stop`.

    The result depends on the plan and the numbers only. `advance` is called with each completed fraction of the work.
    """
    maps = plan.trace(start, stop, advance)
    missing = [name for name in plan.variables if name not in maps]
    if missing:
        raise UserError(f"solver {plan.solver!r} does not compute {', '.join(missing)}; remove it from variables")
    count = stop - start
    target = {name: ((SAMPLE, *VARIABLES[name].dims[1:]), maps[name].values) for name in plan.variables}
    target = {name: (dims, _within_limits(name, values)) for name, (dims, values) in target.items()}
    building = np.broadcast_to(maps["building"].values, (count, *maps["building"].shape))
    grid = plan.grid(start // plan.maps_a_scene)
    transmitter = {f"tx_{letter}": ((SAMPLE,), maps[f"tx_{letter}"].values) for letter in "xyz"}
    if plan.store_grid is None:  # the store's axes begin at each window's corner
        for letter in "xy":
            transmitter[f"tx_{letter}"] = ((SAMPLE,), transmitter[f"tx_{letter}"][1] - grid[letter].extent[0])
    transmitter["tx_power_dbm"] = ((SAMPLE,), maps["tx_power_dbm"].values)
    condition = xr.Dataset({"building": ((SAMPLE, *_SPACE), building)})
    if "ground_m" in maps.coords:
        ground = maps["ground_m"].values
        condition["ground_m"] = ((SAMPLE, "y", "x"), np.broadcast_to(ground, (count, *ground.shape)))
    groups = {"target": xr.Dataset(target), "condition": condition, "transmitter": xr.Dataset(transmitter)}
    if plan.paths_per_voxel:
        kept = {}
        for name, (dims, _, _) in PATH_VARIABLES.items():
            kept[name] = ((SAMPLE, *_SPACE, *dims), _within_limits(name, maps[name].values))
        groups["paths"] = xr.Dataset(kept)
    return groups


def _within_limits(name: str, values: NDArray[Any]) -> NDArray[Any]:
    """Values whose angles, rounded to the store's precision, stay below 2π (azimuth, phase) and at most π (zenith)."""
    if name.endswith("_zenith"):
        return at_most_pi(values, PACKING[name].scale)
    return wrapped(values, PACKING[name].scale) if name.endswith(("_azimuth", "_amplitude_rad")) else values


def store_template(
    grid: Grid,
    variables: Sequence[str],
    scenes: Sequence[int],
    transmitters: Sequence[int],
    frequencies_hz: Sequence[float],
    *,
    above_ground: bool = False,
    paths: int = 0,
) -> dict[str, xr.Dataset]:
    """Dims, coordinates and attributes of a store, without values.

    Each sample has the number of its scene, the number of its transmitter, and a frequency. If heights are
    `above_ground`, it also has the height of the ground.
    """
    import dask.array as da

    sample = np.arange(len(scenes))
    coords: dict[str, Any] = {
        **grid.coords(),
        SAMPLE: (SAMPLE, sample, {"long_name": "map: one transmitter in one scene"}),
        "scene": (SAMPLE, np.asarray(scenes), {"long_name": "number of the scene, scenes/NNNNN.json"}),
        "tx": (SAMPLE, np.asarray(transmitters), {"long_name": "number of the transmitter in its scene"}),
        "frequency_hz": (SAMPLE, np.asarray(frequencies_hz, float), {"units": "Hz", "long_name": "carrier"}),
    }
    if above_ground:
        coords["z"] = ("z", coords["z"][1], {**coords["z"][2], "long_name": "height above the ground"})

    def lazy(name: str, dims: tuple[str, ...], units: str, long_name: str) -> xr.Variable:
        sizes = {SAMPLE: len(sample), **dict(zip(grid.names, grid.shape, strict=True))}
        sizes |= {"path": paths, "sent": 2, "received": 2}
        data = da.zeros(tuple(sizes[dim] for dim in dims), dtype="float32", chunks=-1)
        return xr.Variable(dims, data, {"units": units, "long_name": long_name})

    target = {
        name: lazy(name, (SAMPLE, *VARIABLES[name].dims[1:]), VARIABLES[name].units, VARIABLES[name].long_name)
        for name in variables
    }
    about = VARIABLES["building"]
    condition = {"building": lazy("building", (SAMPLE, *_SPACE), about.units, about.long_name)}
    if above_ground:
        condition["ground_m"] = lazy("ground_m", (SAMPLE, "y", "x"), "m", "height of the ground")
    transmitter = {f"tx_{a}": lazy(a, (SAMPLE,), "m", f"transmitter's {a} on the axes of the maps") for a in "xyz"}
    transmitter["tx_power_dbm"] = lazy("power", (SAMPLE,), "dBm", "transmitter's power")
    alone = {name: value for name, value in coords.items() if name not in grid.names}
    template = {
        "target": xr.Dataset(target, coords),
        "condition": xr.Dataset(condition, coords),
        "transmitter": xr.Dataset(transmitter, alone),
    }
    if paths:
        kept = {name: lazy(name, (SAMPLE, *_SPACE, *dims), units, long_name)
                for name, (dims, units, long_name) in PATH_VARIABLES.items()}  # fmt: skip
        template["paths"] = xr.Dataset(kept, coords)
    return template


def generate(plan: Plan, path: str | os.PathLike[str], *, prepare_command: str = "") -> Path:
    """Write all maps of a plan to a store at `path` and return it; existing maps are not computed again.

    The workers of the active Dask client compute while this process writes; without a client, this process does both.
    A store of another plan raises `UserError`. The manifest is written last; readers refuse a store
    without it.
    """
    path = Path(path)
    _require_same_plan(path, plan)
    carriers = plan.frequencies_of(0, plan.samples)
    attrs = {
        "title": "Radio maps",
        "identity": plan.identity,
        "plan": json.dumps(plan.describe()),
        "solver": plan.solver,
        "solver_version": solver_version(plan.solver),
        "frequency_hz": carriers[0] if len(set(carriers)) == 1 else sorted(set(carriers)),
        "seed": plan.seed,
        "crs": "local",
        "frame": "scene" if plan.store_grid else "window",
    }
    sample, number = np.arange(plan.samples), plan.placement.number
    template = store_template(
        plan.store_grid or plan.window.grid(),
        plan.variables,
        (sample // plan.maps_a_scene).tolist(),
        (sample % number).tolist(),
        carriers,
        above_ground=plan.window.above_ground,
        paths=plan.paths_per_voxel,
    )
    writer = StoreWriter.create(
        path,
        template,
        slab=plan.task_size,
        packing=_packing(plan, (*plan.variables, *template["condition"], *template.get("paths", ()))),
        float64=PLACE,
        attrs=attrs,
        prepare_command=prepare_command,
    )
    with writer:
        todo = writer.missing()
        with progress_bar("tracing", plan.samples, unit="maps") as bar:
            bar.advance(plan.samples - len(todo) * plan.task_size)
            for start, groups in _results(plan, todo, bar):
                writer.write(start, groups)
        if not writer.complete:
            _record_scenes(plan, path)
            writer.finish()
    return path


def _packing(plan: Plan, names: Sequence[str]) -> dict[str, Packing]:
    """How variables are stored; delays in steps longer than 1 ps where a given transmitter is over 600 km away."""
    found = {name: PACKING[name] for name in names}
    if plan.placement.positions_m or plan.placement.sites:
        middle = np.array([np.mean(plan.grid(0)[axis].extent) for axis in "xyz"])
        away = max(float(np.linalg.norm(one.position - middle)) for one in plan.transmitters(0))
        if (longer := math.ceil(away / 600e3)) > 1:
            delays = {name for name, packing in PACKING.items() if packing == _STEPS["s"]}
            found |= {name: replace(found[name], scale=longer * 1e-12) for name in delays & set(names)}
    return found


def _require_same_plan(path: Path, plan: Plan) -> None:
    """Raise `UserError` for a store of another configuration, seed or solver."""
    if not (path / "zarr.json").exists():
        return
    found = json.loads((path / "zarr.json").read_text(encoding="utf-8")).get("attributes", {})
    if "identity" not in found or "plan" not in found:
        raise DataError(f"{path} holds a store that is not a set of radio maps; choose another path")
    if found["identity"] != plan.identity:
        before, now = json.loads(found["plan"]), plan.describe()
        changed = [key for key in now if before.get(key) != now[key]] or ["the solver's version"]
        raise UserError(f"{path} was made with other settings ({', '.join(changed)}); delete it or choose another path")
    if not (path / "manifest.json").exists() and found.get("frame") != ("scene" if plan.store_grid else "window"):
        raise UserError(f"{path} was begun by another version of this package; delete it or choose another path")


def _results(plan: Plan, starts: list[int], bar: Bar) -> Iterator[tuple[int, dict[str, xr.Dataset]]]:
    """Computed groups in order of completion; a client has two jobs per worker in flight."""
    if (client := ambient_client()) is None:
        for start in starts:
            left = 1.0

            def advance(share: float) -> None:
                nonlocal left
                left -= share
                bar.advance(share * plan.task_size)

            yield start, compute(plan, start, start + plan.task_size, advance)
            bar.advance(left * plan.task_size)
        return
    jobs = [(plan, start, start + plan.task_size) for start in starts]
    ahead = 2 * max(1, sum(client.nthreads().values()))
    for (_, start, _), result in spread(_compute_on_worker, jobs, client=client, ahead=ahead):
        yield start, result()
        bar.advance(plan.task_size)


def _compute_on_worker(plan: Plan, start: int, stop: int) -> dict[str, xr.Dataset]:
    """`compute` with the number of threads of the Dask worker."""
    if plan.solver == "sionna":
        from distributed import get_worker

        from radiomaps.raytrace.threads import limit_threads

        limit_threads(get_worker().state.nthreads)
    return compute(plan, start, stop)


def _record_scenes(plan: Plan, path: Path) -> None:
    """Write the scenes' records into the store, where the manifest covers them."""
    for index in range(len(plan.scenes)):
        grid = plan.grid(index)
        scene, transmitters = plan.scene(index), plan.transmitters(index)
        record = SceneRecord.of(
            scene.name,
            scene.hash,
            scene.footprints,
            licence=scene.licence,
            transmitters_m=[transmitter.position for transmitter in transmitters],
            origin_m=(0.0, 0.0) if plan.store_grid else (grid["x"].extent[0], grid["y"].extent[0]),
            crs=scene.crs,
            repairs=scene.repairs,
            cells=[
                {
                    "name": transmitter.name or f"tx{number}",
                    "azimuth_deg": None
                    if omnidirectional(transmitter)
                    else round((90.0 - math.degrees(transmitter.orientation[0])) % 360.0, 6),
                }
                for number, transmitter in enumerate(transmitters)
            ],
        )
        write_json(path / "scenes" / f"{index:05d}.json", record)
