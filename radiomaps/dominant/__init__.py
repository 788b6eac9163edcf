"""Dominant-path radio maps: one path a voxel, straight, over roofs or around corners; no ray tracer needed.

A prior for networks, a stand-in where ray tracing is not to be had, and what fills the shadows that single diffraction
leaves. It knows buildings as upright prisms, and path loss as free space along the path plus knife edges.

UrbanRadio3D was made by such a model whose losses at obstructions are not published. Here each edge loses what
ITU-R P.526-15, equation 31, gives for its Fresnel parameter, and a wall what `DominantOptions.wall_loss_db` says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from numpy.typing import NDArray

from geoml.errors import UserError
from geoml.grids.grid import Grid
from radiomaps.dominant.corners import best_corner, reach_corners
from radiomaps.dominant.knife_edges import knife_edge_loss_db, over_the_top
from radiomaps.dominant.walls import Walls, convex_corners, crossings, walls_of
from radiomaps.maps.layout import SPEED_OF_LIGHT, Transmitter, assemble
from radiomaps.scenes import Scene

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["VERSION", "DominantOptions", "knife_edge_loss_db", "trace"]

#: Raised whenever the same input gives other maps.
VERSION = "1"
_MOST_CROSSINGS = 4096
#: Layers within this height share their ways around corners, looked for at its lower end.
_BAND_M = 5.0
#: Corners farther than this from the grid and the transmitter are left out.
_BESIDE_M = 60.0


@dataclass(frozen=True)
class DominantOptions:
    """`turns`: corners on one path, 0 to 3. `wall_loss_db`: also look through buildings, at this loss a wall.

    For a wall's loss, ITU-R P.2040 gives 1636 σ/√ε' dB a metre: some 26 dB for 20 cm of concrete (ε' 5.24,
    σ 0.0462 f^0.7822 S/m, f in GHz) at 5.9 GHz.

    `above_ground`: heights of the grid are those above the ground of each column. Corner paths are left out where the
    ground is not level.
    """

    frequency_hz: float = 5.9e9
    turns: int = 2
    wall_loss_db: float | None = None
    above_ground: bool = False

    def __post_init__(self) -> None:
        if not (1e8 <= self.frequency_hz <= 1e12):
            raise UserError(f"frequency {self.frequency_hz:g} Hz is not within 1e8 … 1e12 Hz")
        if not 0 <= self.turns <= 3:
            raise UserError(f"turns={self.turns}: a path bends around 0 to 3 corners")
        if self.wall_loss_db is not None and not self.wall_loss_db > 0:
            raise UserError(f"wall_loss_db={self.wall_loss_db} has to be above 0, or null to keep paths outdoors")


def trace(
    scene: Scene, transmitters: Sequence[Transmitter], grid: Grid, options: DominantOptions | None = None
) -> xr.Dataset:
    """Maps of the strongest of: the straight path, the path over the roofs, around corners, through walls.

    Returns the Dataset of `radiomaps.maps.layout` with path gain, time and direction of arrival and the masks. Gain is
    free space along the path less the loss of its edges (ITU-R P.526 knife edges; see `over_the_top`). Corner paths
    keep below the roofs: every building that reaches above the lower end of the path blocks them. Transmitters are
    isotropic; other patterns raise `UserError`, as do transmitters in buildings and grids beside the scene.
    """
    options = options or DominantOptions()
    if not transmitters:
        raise UserError("no transmitter was given")
    for transmitter in transmitters:
        if transmitter.pattern != "iso" or transmitter.rows * transmitter.columns != 1:
            raise UserError(f"the dominant-path solver knows isotropic transmitters only, not {transmitter.pattern!r}")
    scene.require_inside(grid)
    scene.require_outdoors([transmitter.position for transmitter in transmitters])
    building = scene.building_mask(grid, above_ground=options.above_ground)
    ground = scene.ground_height(grid)
    level = float(np.ptp(ground)) < 0.01
    walls, corners = walls_of(scene.footprints), convex_corners(scene.footprints)
    maps = [_one(transmitter, grid, options, walls, corners, ground, level, building) for transmitter in transmitters]
    fields: dict[str, NDArray[Any]] = {name: np.stack([part[name] for part in maps]) for name in maps[0]}
    attrs = {
        "title": f"Dominant-path radio maps of {scene.name}",
        "frequency_hz": options.frequency_hz,
        "solver": "radiomaps.dominant",
        "solver_version": VERSION,
        "scene": scene.name,
        "scene_hash": scene.hash,
        "licence": scene.licence,
        **{name: value for name, value in asdict(options).items() if value is not None},
    }
    attrs = {**attrs, "above_ground": int(options.above_ground), "crs": scene.crs}
    floor = ground if options.above_ground else None
    return assemble(grid, transmitters, {**fields, "building": building}, attrs=attrs, ground_m=floor)


def _one(
    transmitter: Transmitter,
    grid: Grid,
    options: DominantOptions,
    walls: Walls,
    corners: NDArray[np.float64],
    ground: NDArray[np.float64],
    level: bool,
    building: NDArray[np.bool_],
) -> dict[str, NDArray[Any]]:
    """All fields of one transmitter."""
    x0, y0, z0 = transmitter.position
    wavelength = SPEED_OF_LIGHT / options.frequency_hz
    z, y, x = (np.ascontiguousarray(grid[name].coordinates) for name in "zyx")
    source = (x0, y0, z0)
    rise = np.zeros_like(ground)
    if options.above_ground and level:
        z = z + ground[0, 0]
    elif options.above_ground:
        rise = ground
    length, loss, towards, los = _straight_and_over(
        walls, source, z, y, x, building, ground, rise, level, options.wall_loss_db or -1.0, wavelength
    )
    heights = np.minimum(np.floor(z / _BAND_M) * _BAND_M, z0)
    near = _near(corners, source, x, y)
    for height in np.unique(heights) if level and options.turns and len(near) else ():
        ways = reach_corners(walls, near, x0, y0, float(height), wavelength, options.turns)
        layers = np.flatnonzero(heights == height)
        _around(walls, near, ways, source, z, y, x, layers, height, building, los, length, loss, towards, wavelength)
    gain = 20 * np.log10(wavelength / (4 * np.pi * length)) - loss
    azimuth = np.arctan2(towards[..., 1], towards[..., 0]) % (2 * np.pi)
    zenith = np.arctan2(np.hypot(towards[..., 0], towards[..., 1]), towards[..., 2])
    return {
        "path_gain_db": gain,
        "toa_s": length / SPEED_OF_LIGHT,
        "doa_azimuth": np.where(azimuth >= 2 * np.pi, 0.0, azimuth),
        "doa_zenith": zenith,
        "los": los,
        "no_path": np.zeros_like(los),
    }


def _near(
    corners: NDArray[np.float64], source: tuple[float, float, float], x: NDArray[np.float64], y: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The corners around the grid and the transmitter."""
    keep = np.ones(len(corners), bool)
    for column, values, own in ((0, x, source[0]), (1, y, source[1])):
        low, high = min(values.min(), own) - _BESIDE_M, max(values.max(), own) + _BESIDE_M
        keep &= (corners[:, column] >= low) & (corners[:, column] <= high)
    return np.ascontiguousarray(corners[keep])


@numba.njit(cache=True, nogil=True)
def _straight_and_over(
    walls: Any, source: Any, z: Any, y: Any, x: Any, building: Any, ground: Any, rise: Any, level: bool,
    wall_loss_db: float, wavelength: float,
) -> Any:  # fmt: skip
    """Length, loss, direction and line of sight of straight paths, or else of those over the roofs, per voxel."""
    shape = building.shape
    length, loss = np.ones(shape), np.zeros(shape)
    towards, los = np.zeros((*shape, 3)), np.zeros(shape, np.bool_)
    at, which = np.empty(_MOST_CROSSINGS), np.empty(_MOST_CROSSINGS, np.int64)
    distance, height = np.empty(2 * _MOST_CROSSINGS), np.empty(2 * _MOST_CROSSINGS)
    sx, sy, sz = source
    for j in range(shape[1]):
        for i in range(shape[2]):
            dx, dy = sx - x[i], sy - y[j]
            reach = max(math.hypot(dx, dy), 1e-6)
            count = crossings(walls, sx, sy, x[i], y[j], at, which)
            tops = 0
            for k in range(count):
                distance[k], height[k] = at[k] * reach, walls.top[which[k]]
            tops = count
            if not level:
                tops = _add_ground(distance, height, count, ground, source, x, y, i, j, reach)
            for layer in range(shape[0]):
                if building[layer, j, i]:
                    continue
                here_z = z[layer] + rise[j, i]
                dz = sz - here_z
                through = 0
                for k in range(count):
                    here = sz - at[k] * dz
                    through += walls.base[which[k]] < here < walls.top[which[k]]
                hidden = through > 0
                for k in range(tops if not level else 0):
                    hidden |= sz - distance[k] / reach * dz < height[k]
                straight = math.sqrt(reach * reach + dz * dz)
                towards[layer, j, i] = (dx, dy, dz)
                length[layer, j, i] = max(straight, wavelength)
                if not hidden:
                    los[layer, j, i] = True
                    continue
                over, over_db, slope = over_the_top(distance, height, tops, sz, reach, here_z, wavelength, level)
                if wall_loss_db > 0 and through > 0:
                    through_db = wall_loss_db * through
                    if through_db + 20 * math.log10(straight) < over_db + 20 * math.log10(over):
                        loss[layer, j, i] = through_db
                        continue
                length[layer, j, i], loss[layer, j, i] = over, over_db
                towards[layer, j, i, 2] = slope * reach
    return length, loss, towards, los


@numba.njit(cache=True, nogil=True)
def _add_ground(
    distance: Any, height: Any, count: int, ground: Any, source: Any, x: Any, y: Any, i: int, j: int, reach: float
) -> int:
    """Points of the ground under the line, a cell apart, merged behind the roofs' edges and kept in order."""
    step = abs(x[1] - x[0]) if len(x) > 1 else 1.0
    points = min(int(reach / step), len(distance) - count - 1)
    total = count
    for k in range(1, points):
        t = k / points
        px, py = source[0] + t * (x[i] - source[0]), source[1] + t * (y[j] - source[1])
        column = round((px - x[0]) / step)
        row = round((py - y[0]) / (y[1] - y[0])) if len(y) > 1 else 0
        if 0 <= column < ground.shape[1] and 0 <= row < ground.shape[0]:
            distance[total], height[total] = t * reach, ground[row, column]
            total += 1
    order = np.argsort(distance[:total])
    distance[:total], height[:total] = distance[:total][order], height[:total][order]
    return total


@numba.njit(cache=True, nogil=True)
def _around(
    walls: Any, corners: Any, ways: Any, source: Any, z: Any, y: Any, x: Any, layers: Any, height: float, building: Any,
    los: Any, length: Any, loss: Any, towards: Any, wavelength: float,
) -> None:  # fmt: skip
    """Replace what is stronger around corners; layers share the way in plan and differ in its slope."""
    sx, sy, sz = source
    for j in range(len(y)):
        for i in range(len(x)):
            limit = -np.inf
            for layer in layers:
                if not (building[layer, j, i] or los[layer, j, i]):
                    limit = max(limit, 20 * math.log10(length[layer, j, i]) + loss[layer, j, i])
            if limit == -np.inf:
                continue
            row, plan, corner_db = best_corner(walls, corners, ways, x[i], y[j], sx, sy, height, wavelength, limit)
            if row < 0:
                continue
            cx, cy, base, top = corners[int(ways[row, 0])]
            leg = math.hypot(cx - x[i], cy - y[j])
            for layer in layers:
                if building[layer, j, i] or los[layer, j, i]:
                    continue
                dz = sz - z[layer]
                bend = z[layer] + dz * leg / plan
                total = math.sqrt(plan * plan + dz * dz)
                cost = 20 * math.log10(total) + corner_db
                if base <= bend <= top and cost < 20 * math.log10(length[layer, j, i]) + loss[layer, j, i]:
                    length[layer, j, i], loss[layer, j, i] = total, corner_db
                    towards[layer, j, i] = (cx - x[i], cy - y[j], bend - z[layer])
