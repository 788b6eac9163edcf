"""The batch of one map from a scene and a transmitter, for prediction without a store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
import torch
from numpy.typing import NDArray

from geoml.data.fields import Batch
from geoml.errors import DataError, UserError
from geoml.grids.grid import Grid
from radiomaps.dominant import ONCE
from radiomaps.generation.plan import run_solver
from radiomaps.maps.layout import Transmitter
from radiomaps.scenes import Scene
from radiomaps.tasks.channels import base_height_m, map_channels
from radiomaps.tasks.conditions import Site, roof_map
from radiomaps.tasks.encoding import AZIMUTH
from radiomaps.tasks.features import ONCE_FEATURE
from radiomaps.tasks.task import SIGHT, Task

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["observed_on", "scene_batch"]


def scene_batch(
    task: Task,
    scene: Scene,
    transmitter: Transmitter,
    grid: Grid,
    *,
    number: int = 0,
    frequency_hz: float = 5.9e9,
    above_ground: bool = False,
    observed: Mapping[str, NDArray[Any]] | None = None,
) -> tuple[Batch, Site]:
    """A batch of one map on `grid` (z, y, x, the scene's metres), moved to begin at x = y = 0, and its transmitter.

    Random numbers are keyed on `number`. A task with observations needs `observed`, the result of `observed_on`.

    Errors: `UserError` for a grid outside the scene, a transmitter in a building, missing or needless observations.
    """
    if (observed is None) is not (task.observations is None):
        needs = "needs observed voxels: observed=Dataset" if observed is None else "reads no observations"
        raise UserError(f"this model was trained with task.radiation={task.radiation} and {needs}")
    scene.require_inside(grid)
    if task.knows_transmitter:
        scene.require_outdoors([transmitter.position], [transmitter.name])
    x0, y0 = grid["x"].extent[0], grid["y"].extent[0]
    local = Grid(
        tuple(replace(axis, start=axis.start - {"x": x0, "y": y0}.get(axis.name, 0.0)) for axis in grid.axes), grid.crs
    )
    footprints = [
        replace(footprint, polygon=shapely.transform(footprint.polygon, lambda points: points - [x0, y0]))
        for footprint in scene.footprints
    ]
    building = scene.building_mask(grid, above_ground=above_ground)
    x, y, z = transmitter.position
    height = z - base_height_m(footprints) if above_ground else z
    site = Site((x - x0, y - y0, height), transmitter.power_dbm, frequency_hz)
    guess = once = None
    options = {"frequency_hz": frequency_hz, "above_ground": above_ground, "version": task.dominant_version}
    isotropic = replace(transmitter, pattern="iso", rows=1, columns=1)
    if task.prior == "dominant":
        maps = run_solver("dominant", scene, [isotropic], grid, options)
        guess = {name: maps[name].values[0] for name in task.targets} | {SIGHT: maps["los"].values[0]}
    if ONCE_FEATURE in task.features:
        once = run_solver("dominant", scene, [isotropic], grid, options | ONCE)["path_gain_db"].values[0]
    roof = roof_map(building, footprints, local, above_ground=above_ground)
    channels = map_channels(task, local, site, building, roof, observed=observed, guess=guess, once=once)
    condition = np.stack([channels[name] for name in task.channels.condition]).astype(np.float32)
    return Batch(torch.from_numpy(condition[None]), local, local, ids=(number,)), site


def observed_on(grid: Grid, task: Task, observed: xr.Dataset, *, number: int = 0) -> dict[str, NDArray[Any]]:
    """Physical values of a task's targets at observed voxels `(z, y, x)`, NaN elsewhere.

    Args:
        observed: variables of the targets' names, on the grid's axes `(z, y, x)` with NaN where nothing was observed,
            or along one dim of points with coordinates `x`, `y`, `z` in the scene's metres: their mean in each voxel,
            around the circle for an azimuth.
            With a dim `tx` those of transmitter `number` are taken.

    Errors: `DataError` for variables or coordinates that are missing, and where no point lies on the grid.
    """
    if "tx" in observed.dims:
        observed = observed.isel(tx=number)
    lacking = [name for name in (*task.targets, *"xyz") if name not in observed]
    if lacking:
        raise DataError(f"observations lack {', '.join(lacking)}; they have {', '.join(map(str, observed.variables))}")
    points = observed[task.targets[0]].dims
    if set(points) != {"z", "y", "x"} and len(points) != 1:
        raise DataError(f"observations are along {', '.join(map(str, points))}; expected z, y, x or one dim of points")
    flat = observed[[*task.targets]].stack(point=points) if len(points) > 1 else observed
    cells = [
        np.floor((np.asarray(flat[axis.name].values, np.float64) - axis.extent[0]) / axis.step) for axis in grid.axes
    ]
    values = np.stack([np.asarray(flat[name].values, np.float64) for name in task.targets])
    inside = np.isfinite(values).all(axis=0)
    for cell, axis in zip(cells, grid.axes, strict=True):
        inside &= (cell >= 0) & (cell < axis.size)
    if not inside.any():
        raise DataError("no observation is finite and within the grid; give places in the scene's metres")
    index = np.ravel_multi_index([cell[inside].astype(int) for cell in cells], grid.shape)
    counts = np.bincount(index, minlength=grid.size)
    found = {}
    for name, row in zip(task.targets, values, strict=True):
        turns = np.exp(1j * row[inside]) if name == AZIMUTH else row[inside]
        sums = np.bincount(index, turns.real, grid.size) + 1j * np.bincount(index, turns.imag, grid.size)
        mean = np.angle(sums) % (2 * np.pi) if name == AZIMUTH else sums.real / np.maximum(counts, 1)
        mean = np.where(counts > 0, mean, np.nan)
        found[name] = mean.reshape(grid.shape)
    return found
