"""The ray-tracing engine: all height layers of a scene in one trace. Only this package imports Sionna RT and Dr.Jit.

Importing this package imports neither. The first call does, after `radiomaps.raytrace.availability.prove` succeeded.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import metadata
from typing import TYPE_CHECKING, Any

from geoml.errors import UserError
from radiomaps.maps.layout import DIMS, Transmitter
from radiomaps.raytrace.options import TraceOptions

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr
    from numpy.typing import NDArray

    from geoml.grids.grid import Grid
    from radiomaps.raytrace.world import World
    from radiomaps.scenes import Scene

#: At this distance a 32-bit float resolves coordinates to 6 cm.
_FARTHEST_M = 1e6

__all__ = ["TraceOptions", "activate", "find_paths", "trace"]


def activate() -> str:
    """Select the Mitsuba variant that was verified to work, before Sionna selects one. Returns its name."""
    from radiomaps.raytrace.availability import prove

    variant = prove().variant
    import mitsuba

    if mitsuba.variant() is None:
        mitsuba.set_variant(variant)
    elif not str(mitsuba.variant()).endswith("_ad_mono_polarized"):
        raise UserError(
            f"Mitsuba runs variant {mitsuba.variant()!r} in this process; ray tracing needs {variant!r}, "
            "selected before any other code selects one"
        )
    return str(mitsuba.variant())


def trace(
    scene: Scene,
    transmitters: Sequence[Transmitter],
    grid: Grid,
    options: TraceOptions | None = None,
    *,
    advance: Callable[[float], None] | None = None,
) -> xr.Dataset:
    """Radio maps of all voxels of a grid, for each transmitter in one trace.

    grid: axes `z, y, x` in the scene's metres (z above the ground with `options.above_ground`). Returns the layout of
    `radiomaps.maps.layout`: path gain, strongest path's time and direction of arrival, first arrival, mean delay,
    spreads, masks. Line of sight is exact; the rest is the mean over each voxel estimated from rays, with the strongest
    path's delay and direction exact at its centre where it has mirrored only. Memory stays within `options.memory_mb`,
    in addition to the scene and the result. `advance` is called with each completed fraction of the work (sum 1).

    Raises `UserError` for a transmitter inside a building, a grid outside the scene, a material without properties at
    the frequency, and a machine without a working CUDA or LLVM.
    """
    import numpy as np

    from radiomaps.antennas.stored import with_paths
    from radiomaps.maps.layout import assemble

    options = options or TraceOptions()
    if not transmitters:
        raise UserError("no transmitter to trace; give at least one")
    if options.paths_per_voxel and options.estimator != "paths":
        raise UserError(f"paths_per_voxel={options.paths_per_voxel} needs estimator=paths, not {options.estimator}")
    if grid.names != DIMS[1:]:
        raise UserError(f"a radio map has axes z, y, x, not {', '.join(grid.names)}")
    scene.require_inside(grid)
    scene.require_outdoors([one.position for one in transmitters], [one.name for one in transmitters])
    _require_near(transmitters, np.array([[grid[name].extent[side] for name in "xyz"] for side in (0, 1)]))
    variant = activate()
    from radiomaps.raytrace.world import World

    ground = scene.ground_height(grid) if options.above_ground else None
    world = World(scene, options, _middle([grid[name].extent for name in "xyz"], ground))
    building = scene.building_mask(grid, above_ground=options.above_ground)
    fields, kept, rays, errors = _solve_all(world, transmitters, grid, options, ground, advance)
    fields["building"] = building
    fields["no_path"] = (fields.pop("gain") <= 0) & ~building
    fields["los"] &= ~building
    fields["error_db"] = np.array(errors, np.float32)
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("sionna-rt", "mitsuba"))
    attrs = {
        "frequency_hz": options.frequency_hz,
        "solver": "sionna-rt one-trace",
        "solver_version": f"{versions}, {variant}",
        "scene": scene.name,
        "scene_hash": scene.hash,
        "licence": scene.licence,
        **options.to_attrs(),
        "rays": rays,
    }
    return with_paths(assemble(grid, transmitters, fields, attrs=attrs, ground_m=ground), kept)


def _solve_all(
    world: World,
    transmitters: Sequence[Transmitter],
    grid: Grid,
    options: TraceOptions,
    ground: NDArray[np.float64] | None,
    advance: Callable[[float], None] | None,
) -> tuple[dict[str, Any], dict[str, Any], int, list[float]]:
    """Fields and kept paths of all transmitters on the grid, the largest number of rays, and the error of each."""
    import numpy as np

    from radiomaps.raytrace.kept import plain
    from radiomaps.raytrace.solve import error_db, pieces, solve

    fields: dict[str, Any] = {}
    kept: dict[str, Any] = {}
    rays, errors = 0, []
    for index, transmitter in enumerate(transmitters):
        alone, relative = plain(transmitter), []
        for cut, piece in pieces(grid, options):
            part = piece.size / grid.size / len(transmitters)
            report = None if advance is None else functools.partial(_advance, advance, part)
            heights = None if ground is None else ground[cut[1:]]
            again = bool(options.paths_per_voxel) and transmitter != alone
            once = replace(options, paths_per_voxel=0) if again else options
            outcome = solve(world, piece, transmitter, once, heights, advance=report)
            paths = solve(world, piece, alone, options, heights).kept if again else outcome.kept
            for found, values_of in ((fields, outcome.fields), (kept, paths)):
                for name, values in values_of.items():
                    if name not in found:
                        shape = (len(transmitters), *grid.shape, *values.shape[3:])
                        found[name] = np.empty(shape, values.dtype)
                    found[name][(index, *cut)] = values
            rays = max(rays, outcome.rays)
            relative.append(outcome.relative_errors)
        errors.append(error_db(np.concatenate(relative)))
    return fields, kept, rays, errors


def find_paths(
    scene: Scene,
    transmitters: Sequence[Transmitter],
    points: NDArray[np.float64],
    options: TraceOptions | None = None,
    *,
    rays: int = 100_000,
    top: int = 16,
    velocities: NDArray[np.float64] | None = None,
) -> xr.Dataset:
    """Exact paths to receivers at `points` `(n, 3)` in metres: the reference for maps, and path tables for channels.

    Sionna's image method on chains of surfaces that `rays` discovered; where they suffice, ten times as many give the
    same paths. Dims `tx, rx, path`: the `top` strongest paths of each pair, strongest first, padded with NaN: gain,
    complex coefficient (`polarisation`: V and H), delay, angles of arrival and departure, bounces, and the Doppler
    shift for receivers that move with `velocities` `(n, 3)` in m/s. `path_gain_db` sums all powers of the table,
    `coherent_gain_db` its amplitudes. With diffraction, edges between walls and a roof of two materials are not found,
    unlike in maps of `trace`; a warning gives the number of such buildings.
    """
    import numpy as np

    options = options or TraceOptions()
    points = np.atleast_2d(np.asarray(points, np.float64))
    if points.ndim != 2 or points.shape[1] != 3 or not len(points) or not np.isfinite(points).all():
        raise UserError(f"receivers of shape {points.shape}; expected at least one finite position (n, 3)")
    if velocities is not None and np.shape(velocities) != points.shape:
        raise UserError(f"velocities of shape {np.shape(velocities)} for receivers of shape {points.shape}")
    if not transmitters:
        raise UserError("no transmitter to trace; give at least one")
    scene.require_outdoors([one.position for one in transmitters], [one.name for one in transmitters])
    _require_near(transmitters, points)
    carriers = {transmitter.frequency_hz or options.frequency_hz for transmitter in transmitters}
    if len(carriers) > 1:
        raise UserError(f"a path table has one carrier; these transmitters have {len(carriers)}: find paths of each")
    options = replace(options, frequency_hz=carriers.pop())
    activate()
    from radiomaps.raytrace.path_dataset import path_table

    table = path_table(scene, transmitters, points, options, rays=rays, top=top, velocities=velocities)
    table.attrs = {
        "frequency_hz": options.frequency_hz,
        "solver": "sionna-rt PathSolver",
        "solver_version": f"sionna-rt {metadata.version('sionna-rt')}",
        "scene": scene.name,
        "scene_hash": scene.hash,
        "licence": scene.licence,
        "rays": rays,
        "depth": options.depth,
    }
    return table


def _require_near(transmitters: Sequence[Transmitter], points: NDArray[np.float64]) -> None:
    """Refuse transmitters so far away that float32 no longer resolves walls."""
    for transmitter in transmitters:
        away = max(sum((a - b) ** 2 for a, b in zip(point, transmitter.position, strict=True)) for point in points)
        if away > _FARTHEST_M**2:
            raise UserError(
                f"transmitter {transmitter.name or '?'} is {away**0.5 / 1000:.0f} km away; rays reach "
                f"{_FARTHEST_M / 1000:g} km: place it in the same direction, nearer, and take free space between off"
            )


def _advance(advance: Callable[[float], None], part: float, share: float) -> None:
    advance(part * share)


def _middle(bounds: Sequence[tuple[float, float]], ground_m: NDArray[np.float64] | None = None) -> list[float]:
    """The middle of a box, given by its bounds along x, y, z (above the ground, where there is one)."""
    x, y, z = ((float(low) + float(high)) / 2 for low, high in bounds)
    return [x, y, z if ground_m is None else z + float(ground_m.mean())]
