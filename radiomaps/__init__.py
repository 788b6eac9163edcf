"""Ray-traced 3-D radio maps: `trace` gives path gain, time and direction of arrival on an x, y, z grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import os

    import xarray as xr

    from geoml.grids.grid import Grid
    from radiomaps.maps.layout import Transmitter
    from radiomaps.scenes import Scene

__all__ = ["trace"]


def trace(
    scene: Scene | str | os.PathLike[str] | Mapping[str, Any],
    transmitters: Sequence[Transmitter | Sequence[float]],
    grid: Grid,
    *,
    solver: str = "sionna",
    frequencies_hz: Sequence[float] = (),
    **options: Any,
) -> xr.Dataset:
    """Radio maps `(tx, z, y, x)` of transmitters in a scene, in the layout of `radiomaps.maps.layout`.

    `scene` is a `Scene` or what `radiomaps.scenes.load` takes, a transmitter a `Transmitter` or its x, y, z in metres,
    `grid` has axes z, y, x in the scene's metres, `options` are those of the solver, "sionna" or "dominant". Maps of
    several frequencies follow each other along `tx`, with their `frequency_hz` as a coordinate.

    >>> from geoml.grids.grid import Grid
    >>> grid = Grid.box({"z": 1, "y": 96, "x": 96}, {"z": 5, "y": 160, "x": 160}, {"z": 4, "y": 8, "x": 8})
    >>> maps = trace("procedural-0", [(60.0, 100.0, 40.0)], grid, solver="dominant")
    >>> maps["path_gain_db"].dims, maps["path_gain_db"].attrs["units"]
    (('tx', 'z', 'y', 'x'), 'dB')
    """
    from geoml.errors import unknown
    from radiomaps import scenes
    from radiomaps.generation.plan import run_solver
    from radiomaps.maps import layout as maps

    if solver not in ("sionna", "dominant"):
        raise unknown("solver", solver, ("sionna", "dominant"))
    if not isinstance(scene, scenes.Scene):
        scene = scenes.load(scene)
    places = [t if isinstance(t, maps.Transmitter) else maps.Transmitter(tuple(t)) for t in transmitters]  # type: ignore[arg-type]
    if not frequencies_hz:
        return run_solver(solver, scene, places, grid, options)
    import xarray as xr

    parts = [run_solver(solver, scene, places, grid, {**options, "frequency_hz": hz}) for hz in frequencies_hz]
    sweep = xr.concat(parts, "tx", data_vars="minimal", coords="minimal", compat="override", join="exact")
    return sweep.assign_attrs({**parts[0].attrs, "frequency_hz": list(map(float, frequencies_hz))})
