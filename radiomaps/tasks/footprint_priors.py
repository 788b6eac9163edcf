"""Dominant paths for stores without a plan, such as imported ones, on scenes rebuilt from recorded footprints."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from geoml.cli.progress import track
from geoml.data.store import StoreWriter
from geoml.errors import DataError
from geoml.grids.grid import Grid, grid_of
from geoml.runs.files import read_json
from radiomaps.dominant import ONCE, VERSION
from radiomaps.generation.generate import PACKING, PLACE, SAMPLE, store_template
from radiomaps.generation.plan import run_solver
from radiomaps.maps.layout import VARIABLES, Transmitter
from radiomaps.maps.store import MapStore, SceneRecord
from radiomaps.scenes import Scene
from radiomaps.scenes.extrude import scene_of_footprints

__all__ = ["dominant_of_footprints", "scene_of_record"]

_VARIABLES = ("path_gain_db", "toa_s", "doa_azimuth", "doa_zenith", "los", "no_path")


def scene_of_record(record: SceneRecord, grid: Grid) -> Scene:
    """The scene of a store's record, in the metres of its window; raises `DataError` if it has no footprint."""
    if not record["footprints"]:
        raise DataError(
            f"scene {record['name']!r} was recorded without footprints, which dominant paths need; use prior=free_space"
        )
    (y0, y1), (x0, x1) = grid["y"].extent, grid["x"].extent
    footprints = record.local_footprints
    # Walls outside the window mirror into it.
    spans = np.array([(x0, y0, x1, y1), *(footprint.polygon.bounds for footprint in footprints)])
    low, high = spans[:, :2].min(axis=0), spans[:, 2:].max(axis=0)
    return scene_of_footprints(record["name"], footprints, bounds=(low[0], low[1], high[0], high[1]))


def dominant_of_footprints(
    store: str | os.PathLike[str], beside: Path, *, version: int = VERSION, once: bool = False
) -> None:
    """Write the dominant paths of every sample of `store` to a new store, resuming an interrupted run.

    `once`: only paths with at most one diffraction.
    """
    if (beside / "manifest.json").exists():
        return
    store = MapStore.open(store)
    target, sites = store.groups["target"], store.groups["transmitter"].load()
    grid, scenes = grid_of(target), store.scenes
    about = f"radiomaps.dominant {version}"
    options = {"version": version, **(ONCE if once else {})}
    attrs = {"title": "Dominant paths", "solver": "dominant", "solver_version": about, "of": store.path.name}
    carriers = sites["frequency_hz"].values
    template = store_template(grid, _VARIABLES, scenes.tolist(), target["tx"].values.tolist(), carriers.tolist())
    packing = {name: PACKING[name] for name in (*_VARIABLES, "building")}

    @functools.lru_cache(maxsize=2)
    def scene(number: int) -> Scene:
        return scene_of_record(SceneRecord(read_json(store.path / "scenes" / f"{number:05d}.json")), grid)

    with StoreWriter.create(beside, template, slab=1, packing=packing, float64=PLACE, attrs=attrs) as writer:
        for start in track(writer.missing(), "dominant paths", unit="maps"):
            writer.write(start, _solve(scene(int(scenes[start])), sites.isel({SAMPLE: start}), grid, options))
        writer.finish()


def _solve(scene: Scene, site: Any, grid: Grid, options: Mapping[str, Any]) -> dict[str, Any]:
    """One map as a slab of a store."""
    import xarray as xr

    x, y, z = (float(site[f"tx_{axis}"]) for axis in "xyz")
    carrier = {"frequency_hz": float(site["frequency_hz"])}
    maps = run_solver("dominant", scene, [Transmitter((x, y, z))], grid, {**options, **carrier})
    fields = {name: ((SAMPLE, *VARIABLES[name].dims[1:]), maps[name].values) for name in _VARIABLES}
    place = {f"tx_{axis}": ((SAMPLE,), np.array([value])) for axis, value in zip("xyz", (x, y, z), strict=True)}
    place["tx_power_dbm"] = ((SAMPLE,), np.array([float(site["tx_power_dbm"])]))
    building = {"building": ((SAMPLE, "z", "y", "x"), maps["building"].values[None])}
    return {"target": xr.Dataset(fields), "condition": xr.Dataset(building), "transmitter": xr.Dataset(place)}
