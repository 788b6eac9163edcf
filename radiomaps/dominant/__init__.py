"""Dominant-path radio maps: one path per voxel, straight, over roofs, reflected or around corners, without ray tracing.

A prior for networks, a substitute where ray tracing is not available, and a fill for shadows that single diffraction
leaves empty. Buildings are upright prisms of one material. Path gain is that of free space over the path's apparent
length, which includes the losses at roofs (ITU-R P.526 knife edges), walls (reflection by ITU-R P.2040 slabs) and
corners (Berg's recursive model, see `radiomaps.dominant.corners`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geoml.constants import SPEED_OF_LIGHT, VACUUM_PERMITTIVITY
from geoml.errors import UserError
from geoml.grids.grid import Grid
from radiomaps.dominant.knife_edges import knife_edge_loss_db
from radiomaps.dominant.roofs import NO_PATH_DB, straight_and_over
from radiomaps.dominant.streets import along_streets
from radiomaps.dominant.version1 import around_knife_edges
from radiomaps.dominant.walls import convex_corners, walls_of
from radiomaps.maps.layout import Transmitter, assemble
from radiomaps.materials import materials_used
from radiomaps.scenes import Footprint, Scene

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["ONCE", "VERSION", "DominantOptions", "knife_edge_loss_db", "trace"]

#: Increased whenever the maps of equal inputs change.
VERSION = 2
#: Options of paths with at most one diffraction, as `radiomaps trace` finds them.
ONCE = {"turns": 1, "edges": 1}
#: Corners farther than this (m) from the grid and the transmitter are ignored.
_BESIDE_M = 60.0


@dataclass(frozen=True)
class DominantOptions:
    """Options of the dominant-path solver. `turns`: corners per path, 0 to 3. `bounces`: reflections per path, 0 to 6.
    `edges`: largest number of roof edges per path, 0 for any number. Voxels that only paths over more edges reach have
    no path.

    `wall_loss_db`: also allow paths through buildings, with this loss per wall. ITU-R P.2040 gives 1636 σ/√ε' dB/m:
    about 26 dB for 20 cm of concrete (ε' 5.24, σ 0.0462 f^0.7822 S/m, f in GHz) at 5.9 GHz. `thickness_m`: thickness of
    reflecting walls whose material has none.
    `above_ground`: heights of the grid are above the ground of each column.
    `version`: 1 is the model without reflections and with knife edges at corners, for networks trained with it.
    """

    frequency_hz: float = 5.9e9
    turns: int = 2
    bounces: int = 3
    edges: int = 0
    wall_loss_db: float | None = None
    thickness_m: float = 0.1
    above_ground: bool = False
    version: int = VERSION

    def __post_init__(self) -> None:
        if not (1e8 <= self.frequency_hz <= 1e12):
            raise UserError(f"frequency {self.frequency_hz:g} Hz is not within 1e8 … 1e12 Hz")
        if not 0 <= self.turns <= 3:
            raise UserError(f"turns={self.turns}; expected 0 to 3 corners per path")
        if not 0 <= self.edges <= 9:
            raise UserError(f"edges={self.edges}; expected 1 to 9 edges of roofs per path, or 0 for any number")
        if not 0 <= self.bounces <= 6:
            raise UserError(f"bounces={self.bounces}; expected 0 to 6 reflections per path")
        if self.wall_loss_db is not None and not self.wall_loss_db > 0:
            raise UserError(
                f"wall_loss_db={self.wall_loss_db}; expected a loss above 0, or null for outdoor paths only"
            )
        if not 1e-6 <= self.thickness_m <= 100:
            raise UserError(f"thickness_m={self.thickness_m} of walls; expected 1e-06 … 100")
        if self.version not in (1, VERSION):
            raise UserError(f"version={self.version} of the dominant-path solver; expected {VERSION}, or 1")


def trace(
    scene: Scene, transmitters: Sequence[Transmitter], grid: Grid, options: DominantOptions | None = None
) -> xr.Dataset:
    """Radio maps of the strongest path per voxel: straight, over roofs, reflected, around corners, or through walls.

    Returns a Dataset with the layout of `radiomaps.maps.layout`: path gain (dB), time (s) and direction (rad) of
    arrival, and masks. No gain exceeds that of free space over the straight distance. Paths around corners stay below
    the roofs: every building that reaches above the lower end of the path blocks them. On uneven ground, streets follow
    the ground, and paths along them end where the ground hides the straight path.

    Raises `UserError` for transmitters that are not isotropic or inside a building, and for a grid outside the scene.
    """
    options = options or DominantOptions()
    if not transmitters:
        raise UserError("no transmitter to trace; give at least one")
    for transmitter in transmitters:
        if transmitter.pattern != "iso" or transmitter.rows * transmitter.columns != 1:
            raise UserError(
                f"the dominant-path solver supports isotropic transmitters only, not {transmitter.pattern!r}"
            )
    scene.require_inside(grid)
    scene.require_outdoors([one.position for one in transmitters], [one.name for one in transmitters])
    building = scene.building_mask(grid, above_ground=options.above_ground)
    ground = scene.ground_height(grid)
    maps = [_one(transmitter, scene, grid, options, ground, building) for transmitter in transmitters]
    fields: dict[str, NDArray[Any]] = {name: np.stack([part[name] for part in maps]) for name in maps[0]}
    attrs = {
        "title": f"Dominant-path radio maps of {scene.name}",
        "frequency_hz": options.frequency_hz,
        "solver": "radiomaps.dominant",
        "solver_version": str(options.version),
        "scene": scene.name,
        "scene_hash": scene.hash,
        "licence": scene.licence,
        **{name: value for name, value in asdict(options).items() if value is not None and name != "version"},
    }
    attrs = {**attrs, "above_ground": int(options.above_ground), "crs": scene.crs}
    floor = ground if options.above_ground else None
    return assemble(grid, transmitters, {**fields, "building": building}, attrs=attrs, ground_m=floor)


def _one(
    transmitter: Transmitter,
    scene: Scene,
    grid: Grid,
    options: DominantOptions,
    ground: NDArray[np.float64],
    building: NDArray[np.bool_],
) -> dict[str, NDArray[Any]]:
    """Compute all fields of one transmitter."""
    source = transmitter.position
    wavelength = SPEED_OF_LIGHT / options.frequency_hz
    level = float(np.ptp(ground)) < 0.01
    z, y, x = (np.ascontiguousarray(grid[name].coordinates) for name in "zyx")
    rise = ground if options.above_ground and not level else np.zeros_like(ground)
    if options.above_ground and level:
        z = z + ground[0, 0]
    footprints = _below(scene.footprints, source) if options.version > 1 else scene.footprints
    walls = walls_of(footprints, surfaces=_surfaces(scene, options, wavelength))
    length, loss, towards, los, hill = straight_and_over(
        walls, source, z, y, x, building, ground, rise, level, level and options.version == 1,
        options.wall_loss_db or -1.0, wavelength, options.edges,
    )  # fmt: skip
    corners = _near(convex_corners(footprints), source, x, y)
    if options.version == 1:
        if level and options.turns and len(corners):
            fields = (building, los, length, loss, towards)
            around_knife_edges(walls, corners, source, z, y, x, fields, options.turns, wavelength)
    else:
        under = _ground_at(scene, source)
        height = z[:, None, None] + rise
        # Streets follow the ground, so heights of buildings are taken above it.
        foot_of_walls, foot_of_corners = (under, under) if level else (walls.base, corners[:, 2])
        flat = walls._replace(top=walls.top - foot_of_walls, base=walls.base - foot_of_walls)
        shifted = corners.copy()
        shifted[:, 2:4] -= np.asarray(foot_of_corners).reshape(-1, 1)
        along_streets(
            flat, shifted, (source[0], source[1], source[2] - under), height - ground, height, y, x,
            (length, loss, towards), drop=under, open_air=~(building | los | hill), turns=options.turns,
            bounces=options.bounces, wavelength_m=wavelength,
        )  # fmt: skip
    gain = 20 * np.log10(wavelength / (4 * np.pi * length)) - loss
    azimuth = np.arctan2(towards[..., 1], towards[..., 0]) % (2 * np.pi)
    zenith = np.arctan2(np.hypot(towards[..., 0], towards[..., 1]), towards[..., 2])
    return {
        "path_gain_db": gain,
        "toa_s": length / SPEED_OF_LIGHT,
        "doa_azimuth": np.where(azimuth >= 2 * np.pi, 0.0, azimuth),
        "doa_zenith": zenith,
        "los": los,
        "no_path": loss >= NO_PATH_DB,
    }


def _below(footprints: Sequence[Footprint], source: tuple[float, float, float]) -> list[Footprint]:
    """Lower the prism on which a transmitter stands to the transmitter's height, if a sloped roof would enclose it."""
    point = shapely.Point(source[:2])
    return [
        replace(footprint, height_m=source[2] - footprint.base_m)
        if footprint.base_m < source[2] < footprint.top_m and footprint.polygon.contains(point)
        else footprint
        for footprint in footprints
    ]


def _surfaces(scene: Scene, options: DominantOptions, wavelength: float) -> dict[str, tuple[complex, float]]:
    """Complex permittivity of the walls' materials, and their thickness in wavelengths."""
    used = materials_used({footprint.material for footprint in scene.footprints}, scene.materials, options.frequency_hz)
    found = {}
    for name, material in used.items():
        eps_r, sigma, _ = material.at(options.frequency_hz)
        eta = complex(eps_r, -sigma / (2 * np.pi * options.frequency_hz * VACUUM_PERMITTIVITY))
        found[name] = (eta, (material.thickness_m or options.thickness_m) / wavelength)
    return found


def _ground_at(scene: Scene, source: tuple[float, float, float]) -> float:
    """Height of the ground under a transmitter."""
    x, y, z = source
    column = Grid.box({"z": z - 1, "y": y - 1, "x": x - 1}, {"z": z + 1, "y": y + 1, "x": x + 1}, 2.0)
    return float(scene.ground_height(column)[0, 0])


def _near(
    corners: NDArray[np.float64], source: tuple[float, float, float], x: NDArray[np.float64], y: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the corners near the grid and the transmitter."""
    keep = np.ones(len(corners), bool)
    for column, values, own in ((0, x, source[0]), (1, y, source[1])):
        low, high = min(values.min(), own) - _BESIDE_M, max(values.max(), own) + _BESIDE_M
        keep &= (corners[:, column] >= low) & (corners[:, column] <= high)
    return np.ascontiguousarray(corners[keep])
