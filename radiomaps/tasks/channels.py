"""The condition channels of one map: buildings, transmitter, observations and prior."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoml.grids.grid import Grid
from radiomaps.scenes import Footprint
from radiomaps.tasks.conditions import HEIGHT_M, Site, constant, transmitter_channels
from radiomaps.tasks.features import FEATURES, ONCE_FEATURE, feature_channels
from radiomaps.tasks.priors import everywhere, free_space, interpolate
from radiomaps.tasks.task import SIGHT, TRANSMITTER, Task

__all__ = ["base_height_m", "map_channels"]

Array = NDArray[Any]


def map_channels(
    task: Task,
    grid: Grid,
    site: Site,
    building: NDArray[np.bool_],
    roof: NDArray[np.float32],
    *,
    observed: Mapping[str, Array] | None = None,
    guess: Mapping[str, Array] | None = None,
    once: Array | None = None,
) -> dict[str, Array]:
    """Every condition channel of a map by name, each `(z, y, x)` on `grid`, whose coordinates the site uses, too.

    Args:
        building: True inside buildings, `(z, y, x)`.
        roof: see `roof_map`, `(y, x)`.
        observed: for each target its physical values where observed, NaN elsewhere, of a task with observations.
        guess: fields of a solver for each target and `sight_prior`, of a task whose prior is one of a solver.
        once: gain of dominant paths with at most one diffraction, NaN without one, of a task with that feature.
    """
    made: dict[str, Array] = {"building": building.astype(np.float32), "roof": np.broadcast_to(roof, building.shape)}
    z = grid["z"].coordinates.astype(np.float32)
    made["height"] = np.broadcast_to((z / HEIGHT_M)[:, None, None], building.shape)
    if task.knows_transmitter:
        for name in task.transmitter:
            made |= zip(TRANSMITTER[name], transmitter_channels(name, site, grid), strict=True)
        made |= {name: np.full(building.shape, constant(name, site), np.float32) for name in task.constants}
    for name in task.features:
        if name == ONCE_FEATURE:
            assert once is not None, "paths with one diffraction come from a solver"
            made |= zip(FEATURES[name], [_audible(task, once)], strict=True)
            continue
        made |= zip(FEATURES[name], feature_channels(name, site, grid, building, roof), strict=True)
    if observed is not None:
        here = np.isfinite(observed[task.targets[0]])
        values = zip(task.target_channels, task.encode(observed), strict=True)
        made |= {f"{name}_observed": np.where(here, channel, np.float32(0)) for name, channel in values}
        made["observed"] = here.astype(np.float32)
    if task.prior is not None:
        names = (f"{name}_prior" for name in task.target_channels)
        made |= zip(names, _prior(task, grid, site, made, guess), strict=True)
    if SIGHT in task.channels.condition:  # free space has it everywhere
        made[SIGHT] = (
            np.ones(building.shape, np.float32) if guess is None else np.asarray(guess[SIGHT] > 0.5, np.float32)
        )
    return made


def _prior(
    task: Task, grid: Grid, site: Site, made: Mapping[str, Array], guess: Mapping[str, Array] | None
) -> list[Array]:
    """The prior of every target channel."""
    if guess is not None:
        return task.encode({name: everywhere(guess[name]) for name in task.targets})
    if task.prior == "free_space":
        return task.encode(free_space(site, grid))
    observed = np.stack([made[f"{name}_observed"] for name in task.target_channels])
    return list(interpolate(observed, made["observed"] > 0, grid))


def _audible(task: Task, gain: Array) -> Array:
    """An encoded gain, at least 0; 0 without a path."""
    (encoded,) = task.codecs.encode("path_gain_db", gain)
    return np.maximum(np.nan_to_num(encoded), np.float32(0))


def base_height_m(footprints: Sequence[Footprint]) -> float:
    """Height of the ground that footprints stand on: the median of their bases, 0 without any."""
    bases = [footprint.base_m for footprint in footprints]
    return float(np.median(bases)) if bases else 0.0
