"""The ray-tracing engine: all height layers of a scene in one trace. The only importer of Sionna RT and Dr.Jit.

Importing this package imports neither: a call does, after `radiomaps.llvm.prove` found that they work here.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any

from geoml.errors import UserError
from radiomaps.maps import DIMS, Transmitter
from radiomaps.raytrace.options import TraceOptions

if TYPE_CHECKING:
    import xarray as xr

    from geoml.grids import Grid
    from radiomaps.scenes import Scene

__all__ = ["TraceOptions", "activate", "trace"]


def activate() -> str:
    """Choose the variant of Mitsuba that was proved to work, before Sionna chooses one; returns its name."""
    from radiomaps.llvm import prove

    variant = prove().variant
    import mitsuba

    if mitsuba.variant() is None:
        mitsuba.set_variant(variant)
    elif not str(mitsuba.variant()).endswith("_ad_mono_polarized"):
        raise UserError(
            f"Mitsuba runs variant {mitsuba.variant()!r} in this process; ray tracing needs {variant!r}, "
            "chosen before anything else does"
        )
    return str(mitsuba.variant())


def trace(
    scene: Scene, transmitters: Sequence[Transmitter], grid: Grid, options: TraceOptions | None = None
) -> xr.Dataset:
    """Radio maps of all voxels of a grid, for each transmitter in one trace.

    grid: axes `z, y, x` in the scene's metres. Returns the layout of `radiomaps.maps`: path gain, strongest path's time
    and direction of arrival, first arrival, mean delay, spreads, masks. Line of sight is exact; the rest is the mean
    over each voxel estimated from rays, with the strongest path's delay and direction exact at its centre where it
    has mirrored only. Memory stays within `options.memory_mb`, beside the scene and the result.

    Raises `UserError` for a transmitter in a building, a grid outside the scene, a material without properties at the
    frequency, and machines without a working CUDA or LLVM.
    """
    import numpy as np

    from radiomaps.maps import assemble

    options = options or TraceOptions()
    if not transmitters:
        raise UserError("no transmitter to trace; give at least one")
    if grid.names != DIMS[1:]:
        raise UserError(f"a radio map lives on axes z, y, x, not {', '.join(grid.names)}")
    scene.require_inside(grid)
    scene.require_outdoors([transmitter.position for transmitter in transmitters])
    variant = activate()
    from radiomaps.raytrace.solve import error_db, pieces, solve
    from radiomaps.raytrace.world import World

    world = World(scene, options)
    building = scene.building_mask(grid)
    fields: dict[str, Any] = {}
    rays, errors = [], []
    for index, transmitter in enumerate(transmitters):
        most, relative = 0, []
        for cut, piece in pieces(grid, options):
            outcome = solve(world, piece, transmitter, options)
            for name, values in outcome.fields.items():
                whole = fields.setdefault(name, np.empty((len(transmitters), *grid.shape), values.dtype))
                whole[(index, *cut)] = values
            most = max(most, outcome.rays)
            relative.append(outcome.relative_errors)
        rays.append(most)
        errors.append(error_db(np.concatenate(relative)))
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
        "rays": max(rays),
    }
    return assemble(grid, transmitters, fields, attrs=attrs)
