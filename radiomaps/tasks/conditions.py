"""Conditions of a map: buildings, roofs, and the transmitter, inside the window or not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoml.grids.grid import Grid
from radiomaps.scenes import Footprint
from radiomaps.scenes.footprints import burn

__all__ = ["HEIGHT_M", "Site", "constant", "distance_of", "roof_map", "transmitter_channels"]

#: Unit of heights: the top layer of the published maps.
HEIGHT_M = 20.0
#: Decades of distance in one unit of `tx_distance`: 1 km is 1.
_DECADES = 3.0
#: Lower limit of distances.
_NEAREST_M = 0.5


@dataclass(frozen=True)
class Site:
    """A transmitter in the metres of the window, inside it or not, with its carrier."""

    position_m: tuple[float, float, float]
    power_dbm: float
    frequency_hz: float

    def towards(self, grid: Grid) -> NDArray[np.float64]:
        """East, north and up from every voxel to the transmitter, in metres: `(3, z, y, x)`."""
        z, y, x = np.meshgrid(*(axis.coordinates for axis in grid.axes), indexing="ij")
        return np.stack([place - axis for place, axis in zip(self.position_m, (x, y, z), strict=True)])


def transmitter_channels(name: str, site: Site, grid: Grid) -> list[NDArray[np.float32]]:
    """The channels of one way to show a transmitter.

    - "map": 1 in its column of voxels, 0 elsewhere, and everywhere if it stands outside;
    - "distance": log10 of the distance in metres, divided by 3;
    - "direction": the unit vector from the voxel to it, east, north, up.
    """
    if name == "map":
        field = np.zeros(grid.shape, np.float32)
        cells = [
            math.floor((place - grid[axis].extent[0]) / grid[axis].step)
            for axis, place in zip("yx", site.position_m[1::-1], strict=True)
        ]
        if all(0 <= cell < grid[axis].size for axis, cell in zip("yx", cells, strict=True)):
            field[:, cells[0], cells[1]] = 1
        return [field]
    vector = site.towards(grid)
    distance = np.maximum(np.linalg.norm(vector, axis=0), _NEAREST_M)
    if name == "distance":
        return [(np.log10(distance) / _DECADES).astype(np.float32)]
    return list((vector / distance).astype(np.float32))


def distance_of(channel: Any) -> Any:
    """Metres from a channel `tx_distance`."""
    return 10.0 ** (_DECADES * channel)


def constant(name: str, site: Site) -> float:
    """A condition with one value per map: decades above 1 GHz, power in 30 dBm, height in 20 m."""
    if name == "frequency":
        return math.log10(site.frequency_hz / 1e9)
    return site.power_dbm / 30 if name == "power" else site.position_m[2] / HEIGHT_M


def roof_map(
    building: NDArray[np.bool_], footprints: Sequence[Footprint], grid: Grid, *, above_ground: bool = False
) -> NDArray[np.float32]:
    """Height of each column's roof in units of 20 m, 0 where there is none: `(y, x)`.

    Footprints, in the window's metres, include roofs above the highest layer; without a footprint the roof is that of
    the voxels.
    """
    z = grid["z"]
    tops = np.where(building, (z.coordinates + z.step / 2)[:, None, None], 0.0).max(axis=0)
    drawn = sorted(footprints, key=lambda footprint: footprint.top_m)
    if drawn:
        shapes = ((f.polygon, f.height_m if above_ground else f.top_m) for f in drawn)
        x, y = grid["x"], grid["y"]
        found = burn(shapes, (y.size, x.size), cell_m=(x.step, y.step), corner_m=(x.extent[0], y.extent[0]))
        tops = np.where(found > 0, np.maximum(found, tops - z.step), tops)
    return (tops / HEIGHT_M).astype(np.float32)
