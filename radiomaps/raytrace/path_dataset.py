"""Path tables: the exact paths from transmitters to receivers as one self-describing dataset."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from geoml.constants import SPEED_OF_LIGHT
from radiomaps.maps.layout import Transmitter, at_most_pi, direction_angles, wrapped
from radiomaps.raytrace.exact import Paths, find_paths
from radiomaps.raytrace.options import TraceOptions
from radiomaps.raytrace.path_names import ABOUT
from radiomaps.raytrace.surfaces import buildings_of
from radiomaps.raytrace.world import World
from radiomaps.scenes import Scene

__all__ = ["path_table"]

#: Receivers within squares of this size (m) are traced together, with the origin at their middle.
_TILE_M = 256.0


def path_table(
    scene: Scene,
    transmitters: Sequence[Transmitter],
    points: NDArray[np.float64],
    options: TraceOptions,
    *,
    rays: int,
    top: int,
    velocities: NDArray[np.float64] | None,
) -> xr.Dataset:
    """`radiomaps.raytrace.find_paths` for checked arguments."""
    if options.diffraction:
        _warn_of_two_materials(scene)
    columns: list[dict[str, NDArray[Any]]] = [{} for _ in transmitters]
    materials = sorted({mesh.material for mesh in scene.meshes} | {mesh.roof_material for mesh in scene.meshes} - {""})
    for tile in _tiles(points):
        world = World(scene, options, (points[tile].min(axis=0) + points[tile].max(axis=0)) / 2)
        for column, transmitter in zip(columns, transmitters, strict=True):
            for part, paths in find_paths(world, transmitter, points[tile], options, rays=rays, top=top):
                rows = tile[part]
                velocity = np.zeros((len(rows), 3)) if velocities is None else velocities[rows]
                for name, values in _columns(paths, velocity, world, top, materials).items():
                    column.setdefault(name, np.empty((len(points), *values.shape[1:]), values.dtype))[rows] = values
    variables = {}
    for name, (units, long_name) in ABOUT.items():
        values = np.stack([column[name] for column in columns])
        last = ("polarisation", "path") if name.startswith("amplitude") else ("path", "material")
        dims = ("tx", "rx", *last)
        variables[name] = (dims[: values.ndim], values, {"units": units, "long_name": long_name})
    coords: dict[str, Any] = {
        "tx": [transmitter.name or f"tx{index}" for index, transmitter in enumerate(transmitters)],
        "polarisation": ["V", "H"],
        "material": materials,
    }
    places = np.array([transmitter.position for transmitter in transmitters])
    for axis, letter in enumerate("xyz"):
        coords[f"tx_{letter}"] = ("tx", places[:, axis], {"units": "m"})
        coords[f"rx_{letter}"] = ("rx", points[:, axis], {"units": "m"})
        speed = np.zeros(len(points)) if velocities is None else velocities[:, axis]
        coords[f"rx_velocity_{letter}"] = ("rx", speed, {"units": "m s-1"})
    return xr.Dataset(variables, coords)


def _warn_of_two_materials(scene: Scene) -> None:
    """Warn of edges between walls and roofs of two materials, at which Sionna's solver does not diffract."""
    buildings = [parts for parts in buildings_of(scene.meshes) if parts[0].kind == "building"]
    used = [{mesh.material for mesh in parts} | {mesh.roof_material for mesh in parts} - {""} for parts in buildings]
    if count := sum(len(materials) > 1 for materials in used):
        warnings.warn(
            f"{count} of {len(buildings)} buildings have walls and a roof of two materials, and exact paths do not "
            "bend over the edges between them; maps of `radiomaps trace` do, and so do exact paths if materials.walls "
            "and materials.roofs are the same",
            stacklevel=4,
        )


def _tiles(points: NDArray[np.float64]) -> list[NDArray[np.int64]]:
    """Rows of receivers that lie close together: far from its origin the solver's float32 loses paths over edges."""
    place = np.floor((points - points.min(axis=0))[:, :2] / _TILE_M)
    _, tile = np.unique(place, axis=0, return_inverse=True)
    return [np.flatnonzero(tile.ravel() == index) for index in range(int(tile.max()) + 1)]


def _columns(
    paths: Paths, velocity: NDArray[np.float64], world: World, top: int, materials: Sequence[str]
) -> dict[str, NDArray[Any]]:
    """The table's columns for a slice of receivers: `top` paths each, padded with NaN."""
    wavelength_m = world.wavelength_m
    power = np.where(paths.valid, paths.power, 0.0)
    valid = paths.valid
    # Sionna's coefficients exclude the carrier's phase over the delay.
    cycles = np.where(valid, paths.delay_s, 0.0).astype(np.float64) * (SPEED_OF_LIGHT / wavelength_m)
    amplitude = paths.amplitude * np.exp(-2j * np.pi * (cycles % 1.0))[:, None]
    arrival, departure = direction_angles(paths.arrival), direction_angles(paths.departure)
    # A receiver that moves towards the direction of arrival has a positive Doppler shift.
    doppler = np.einsum("rpk,rk->rp", paths.arrival, velocity) / wavelength_m
    with np.errstate(divide="ignore"):
        table = {
            "gain_db": 10 * np.log10(power),
            "delay_s": paths.delay_s,
            "arrival_azimuth": arrival[0],
            "arrival_zenith": arrival[1],
            "departure_azimuth": departure[0],
            "departure_zenith": departure[1],
            "doppler_hz": doppler,
        }
        totals = {
            "path_gain_db": 10 * np.log10(power.sum(axis=1)),
            "coherent_gain_db": 10 * np.log10((np.abs(amplitude.sum(axis=2)) ** 2).sum(axis=1)),
            "path_count": valid.sum(axis=1).astype(np.int32),
        }
    table = {name: np.where(valid, values, np.nan).astype(np.float32) for name, values in table.items()}
    for end in ("arrival", "departure"):
        table[f"{end}_azimuth"] = wrapped(table[f"{end}_azimuth"])
        table[f"{end}_zenith"] = at_most_pi(table[f"{end}_zenith"])
    table = {name: _padded(values, top) for name, values in table.items()}
    table |= {
        "bounces": _padded(np.where(valid, paths.bounces, 0), top),
        "diffracted": _padded(paths.diffracted & valid, top),
        "amplitude_real": _padded(amplitude.real.astype(np.float32), top),
        "amplitude_imag": _padded(amplitude.imag.astype(np.float32), top),
    }
    # Number of reflections of a path by each material.
    of = np.array([materials.index(surface.material) for surface in world.shapes] + [-1])[paths.mirrors]
    counts = [((of == number).sum(axis=-1) * valid).astype(np.int8) for number in range(len(materials))]
    table["reflections"] = np.stack([_padded(count, top) for count in counts], axis=-1)
    return table | totals


def _padded(values: NDArray[Any], width: int) -> NDArray[Any]:
    """The last axis padded to `width` with NaN or zero."""
    room = [(0, 0)] * (values.ndim - 1) + [(0, width - values.shape[-1])]
    return np.pad(values, room, constant_values=np.nan if values.dtype.kind == "f" else 0)
