"""From sums over rays to fields: one transmitter over one piece of the grid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoml.grids import Grid
from radiomaps.maps import SPEED_OF_LIGHT, Transmitter, direction_angles
from radiomaps.raytrace.bounce import find_images, shoot
from radiomaps.raytrace.lattice import Lattice
from radiomaps.raytrace.options import TraceOptions
from radiomaps.raytrace.sight import Sight, line_of_sight
from radiomaps.raytrace.voxels import Sums, Voxels
from radiomaps.raytrace.world import Source, World

__all__ = ["Outcome", "pieces", "solve"]

Fields = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Outcome:
    """Fields `(z, y, x)`, the rays that were shot, and the relative errors of gain outside line of sight."""

    fields: Fields
    rays: int
    relative_errors: NDArray[np.float32]


def pieces(grid: Grid, options: TraceOptions) -> Iterator[tuple[tuple[slice, ...], Grid]]:
    """Cuts of the grid that fit into `memory_mb`, halved along the longest axis until they do."""
    limit = options.memory_mb * 1e6 / Sums.bytes_a_voxel()
    waiting = [tuple(slice(0, size) for size in grid.shape)]
    while waiting:
        cut = waiting.pop()
        sizes = [part.stop - part.start for part in cut]
        if np.prod(sizes) <= limit or max(sizes) == 1:
            yield cut, grid.crop(**dict(zip(grid.names, cut, strict=True)))
            continue
        axis = int(np.argmax(sizes))
        middle = cut[axis].start + sizes[axis] // 2
        for part in (slice(middle, cut[axis].stop), slice(cut[axis].start, middle)):
            waiting.append((*cut[:axis], part, *cut[axis + 1 :]))


def solve(world: World, grid: Grid, transmitter: Transmitter, options: TraceOptions) -> Outcome:
    """Trace one transmitter over one piece of a grid."""
    voxels = Voxels(grid, options.estimator)
    source = Source(transmitter, world.wavelength_m)
    if options.line_of_sight:
        sight = line_of_sight(world, voxels, source)
    else:
        nothing = np.zeros(voxels.size, np.float32)
        sight = Sight(nothing.astype(bool), nothing, nothing)
    sums = Sums(voxels)
    edges = None
    if options.diffraction:
        from radiomaps.raytrace.diffraction import Bender

        edges = Bender(world, source, options)
    if options.bounces or edges is not None:
        _shoot_batches(world, voxels, source, options, sums, sight, edges)
    fields = _fields(world, grid, source, sums, sight, options, edges)
    rays = sums.batches * options.rays_a_batch
    return Outcome({name: values.reshape(grid.shape) for name, values in fields.items()}, rays, _errors(sums, sight))


def _shoot_batches(
    world: World, voxels: Voxels, source: Source, options: TraceOptions, sums: Sums, sight: Sight, edges: Any
) -> None:
    """Batches by number, or until the median error is small enough."""
    most = max(options.batches, options.max_rays // options.rays_a_batch) if options.error_db else options.batches
    while sums.batches < most:
        lattice = Lattice(options.rays_a_batch, sums.batches, options.seed)
        if options.bounces:
            for begin in range(0, lattice.lanes, options.chunk_rays):
                lanes = min(options.chunk_rays, lattice.lanes - begin)
                shoot(world, voxels, source, lattice, begin, lanes, options, sums)
        if edges is not None:
            edges.shoot(voxels, lattice, sums)
        sums.close_batch()
        if options.error_db and sums.batches >= options.batches:
            errors = _errors(sums, sight)
            if not len(errors) or error_db(errors) <= options.error_db:
                break


def _errors(sums: Sums, sight: Sight) -> NDArray[np.float32]:
    """Relative standard errors of voxels that rays reached and that the transmitter does not see."""
    if sums.batches < 2:
        return np.zeros(0, np.float32)
    _, relative = sums.relative_error()
    return relative[np.isfinite(relative) & (sight.fraction == 0)]


def error_db(relative: NDArray[np.float32]) -> float:
    """The median relative error of a power, in dB."""
    return float(10 * np.log10(1 + np.median(relative)))


def _fields(
    world: World, grid: Grid, source: Source, sums: Sums, sight: Sight, options: TraceOptions, edges: Any
) -> Fields:
    """Fields of `radiomaps.maps.VARIABLES`, flat, with what the map's masks will blank left as it comes."""
    z, y, x = np.meshgrid(*(grid[name].coordinates for name in "zyx"), indexing="ij")
    centres = np.stack([x, y, z], axis=-1).reshape(-1, 3)
    away = source.position - centres
    distance = np.maximum(np.linalg.norm(away, axis=1), 1e-6)
    scale = (world.wavelength_m / (4 * np.pi)) ** 2
    means = sums.means().astype(np.float64)
    bounced, direct = means[:, 0], sight.gain.astype(np.float64)
    gain = bounced + direct
    with np.errstate(divide="ignore", invalid="ignore"):
        vector = (means[:, 1:4] + direct[:, None] * away / distance[:, None]) / gain[:, None]
        length = np.minimum(np.linalg.norm(vector, axis=1), 1.0)
        excess = means[:, 4] / gain
        spread = np.sqrt(np.maximum(means[:, 5] / gain - excess**2, 0.0))
        first = np.where(direct > 0, 0.0, sums.first_excess_m())
        fields = {
            "path_gain_db": 10 * np.log10(gain * scale),
            "first_arrival_s": (distance + first) / SPEED_OF_LIGHT,
            "mean_delay_s": (distance + excess) / SPEED_OF_LIGHT,
            "delay_spread_s": spread / SPEED_OF_LIGHT,
            "angular_spread": np.sqrt(1 - length**2),
            "k_factor_db": 10 * np.log10(direct / bounced),
            "los_fraction": sight.fraction,
        }
        unit = vector / length[:, None]
    for index, name in enumerate("xyz"):
        fields[f"mean_direction_{name}"] = unit[:, index]
    toward, toa = _strongest(world, source, sums, options, edges, centres)
    own = _own_strength(sums)
    lit = direct > own
    toward[lit], toa[lit] = away[lit], distance[lit]
    blurred = (direct == 0) & (own == 0)  # diffuse light has no strongest path: its mean stands in
    toward[blurred], toa[blurred] = unit[blurred], (distance + excess)[blurred]
    azimuth, zenith = direction_angles(toward)
    fields |= {"toa_s": toa / SPEED_OF_LIGHT, "doa_azimuth": azimuth, "doa_zenith": zenith}
    fields |= {"los": sight.seen, "gain": gain}
    return fields


def _own_strength(sums: Sums) -> NDArray[np.float32]:
    return sums.strongest()[0]


def _strongest(
    world: World,
    source: Source,
    sums: Sums,
    options: TraceOptions,
    edges: Any,
    centres: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Vector to where the strongest bounced or bent path comes from, and its length, at the voxels' centres."""
    strength, names = sums.strongest()
    toward = np.zeros_like(centres)
    reach = np.zeros(len(centres))
    found = strength > 0
    bent = found & ((names & np.uint32(7)) == 0)
    mirrored = np.flatnonzero(found & ~bent)
    if len(mirrored):
        images = find_images(world, source, names[mirrored], options)
        toward[mirrored] = images.position - centres[mirrored]
        reach[mirrored] = images.offset + np.linalg.norm(toward[mirrored], axis=1)
    if bent.any():
        chosen = np.flatnonzero(bent)
        toward[chosen], reach[chosen] = edges.paths(names[chosen], centres[chosen])
    return toward, reach
