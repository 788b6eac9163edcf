"""Inputs derived from buildings and transmitter: distance to walls, obstructed straight paths, height over roofs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoml.grids.grid import Grid
from radiomaps.tasks.conditions import HEIGHT_M, Site

__all__ = ["EMPTY", "FEATURES", "ONCE_FEATURE", "feature_channels"]

#: The input from the dominant-path solver: gain of the strongest path with at most one diffraction.
ONCE_FEATURE = "diffracted_once"
#: Derived inputs and their channels.
FEATURES = {
    "walls": ("wall_distance",),
    "obstruction": ("obstructed_length", "obstructed_height"),
    "roofs": ("above_roofs",),
    ONCE_FEATURE: ("gain_diffracted_once",),
}
#: Values of the channels in a scene without buildings; `above_roofs` is the height there.
EMPTY = {"wall_distance": 1.0, "obstructed_length": 0.0, "obstructed_height": 0.0}
#: Distance to walls that counts as far, and points per straight path.
_FAR_M, _POINTS = 64.0, 48
#: Radius in which roofs are averaged.
_AROUND_M = 60.0


def feature_channels(
    name: str, site: Site | None, grid: Grid, building: NDArray[np.bool_], roof: NDArray[np.float32]
) -> list[NDArray[np.float32]]:
    """The channels of a derived input, each `(z, y, x)`.

    - "walls": horizontal distance to the nearest building voxel of the layer, its logarithm on 0 … 1 (64 m);
    - "obstruction": length inside buildings of the straight path from the transmitter, and the largest height of a roof
      over that path;
    - "roofs": height above the mean roof within 60 m.

    "diffracted_once" is made by the dominant-path solver, see `radiomaps.tasks.priors.dominant_store`.

    `roof` is in units of 20 m, `(y, x)`.
    """
    if name == "walls":
        return [_wall_distance(grid, building)]
    if name == "roofs":
        return [_above_roofs(grid, roof)]
    assert site is not None, "the obstruction of a path needs a transmitter"
    return _obstruction(site, grid, roof)


def _wall_distance(grid: Grid, building: NDArray[np.bool_]) -> NDArray[np.float32]:
    from scipy.ndimage import distance_transform_edt

    steps = [grid["y"].step, grid["x"].step]
    made = np.full(building.shape, _FAR_M)
    for layer, walls in enumerate(building):
        if walls.any():
            made[layer] = distance_transform_edt(~walls, sampling=steps)
    return (np.log1p(np.minimum(made, _FAR_M)) / np.log1p(_FAR_M)).astype(np.float32)


def _above_roofs(grid: Grid, roof: NDArray[np.float32]) -> NDArray[np.float32]:
    from scipy.ndimage import uniform_filter

    width = [2 * round(_AROUND_M / grid[axis].step) + 1 for axis in "yx"]
    built = uniform_filter((roof > 0).astype(np.float64), width, mode="constant")
    mean = uniform_filter(roof.astype(np.float64), width, mode="constant") / np.maximum(built, 1e-9)
    height = grid["z"].coordinates[:, None, None] / HEIGHT_M
    return (height - np.where(built > 1e-9, mean, 0.0)).astype(np.float32)


def _obstruction(site: Site, grid: Grid, roof: NDArray[Any]) -> list[NDArray[np.float32]]:
    z, y, x = (axis.coordinates.astype(np.float32) for axis in grid.axes)
    x0, y0, z0 = (np.float32(value) for value in site.position_m)
    shape = (z.size, y.size, x.size)
    roofs = (np.pad(roof, 1) * HEIGHT_M).astype(np.float32)  # nothing is known outside the window: no building there
    inside, over = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for share in (np.arange(_POINTS, dtype=np.float32) + 0.5) / _POINTS:
        row = _cells(y0 + share * (y - y0), grid["y"])
        column = _cells(x0 + share * (x - x0), grid["x"])
        excess = roofs[row[:, None], column] - (z0 + share * (z - z0))[:, None, None]
        inside += excess > 0
        np.maximum(over, excess, out=over)
    distance = np.linalg.norm(site.towards(grid), axis=0).astype(np.float32)
    return [(np.log1p(inside / _POINTS * distance / 10) / 3).astype(np.float32), over / np.float32(HEIGHT_M)]


def _cells(places: NDArray[np.float32], axis: Any) -> NDArray[np.intp]:
    """Indices into an axis that is padded by one cell on either side."""
    found = np.floor((places - np.float32(axis.extent[0])) / np.float32(axis.step)).astype(np.intp) + 1
    return np.clip(found, 0, axis.size + 1)
