"""Trace one transmitter over one piece of the grid: from rays to fields."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import drjit as dr
import mitsuba as mi
import numpy as np
from numpy.typing import NDArray

from geoml.grids.grid import Grid
from radiomaps.maps.layout import Transmitter
from radiomaps.raytrace.accumulators import Parts
from radiomaps.raytrace.arrays import floats
from radiomaps.raytrace.bounce import aimed, find_images, shoot
from radiomaps.raytrace.chains import CentrePaths, join, mirrored_paths
from radiomaps.raytrace.diffraction import BENT, Bender, deposit, toward_edges
from radiomaps.raytrace.kept import FoundPaths, keep
from radiomaps.raytrace.moments import Sums
from radiomaps.raytrace.options import TraceOptions
from radiomaps.raytrace.path_slots import SLOTS, TABLES, ImageTable, PathTable
from radiomaps.raytrace.sight import Sight, line_of_sight, no_sight
from radiomaps.raytrace.voxels import Voxels
from radiomaps.raytrace.wedges import Wedges
from radiomaps.raytrace.world import Source, World

__all__ = ["Outcome", "error_db", "pieces", "solve"]

#: Approximate share of the time spent on rays, if exact paths are computed afterwards.
_RAYS_SHARE = 0.6

Fields = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Outcome:
    """Fields `(z, y, x)`, the number of rays, and the relative errors of gain outside line of sight.

    `kept` are the paths of each voxel, `(z, y, x, path, …)`, if `paths_per_voxel` is above 0.
    """

    fields: Fields
    rays: int
    relative_errors: NDArray[np.float32]
    kept: Fields = field(default_factory=dict)


def pieces(grid: Grid, options: TraceOptions) -> Iterator[tuple[tuple[slice, ...], Grid]]:
    """Pieces of the grid that fit into `memory_mb`: halved along the longest axis until they do."""
    tables = (1 + options.diffraction) * SLOTS * TABLES * 8 * 3 if options.estimator == "paths" else 0
    limit = options.memory_mb * 1e6 / (Sums.bytes_a_voxel() + tables + 160 * options.paths_per_voxel)
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


def error_db(relative: NDArray[np.float32]) -> float:
    """The median relative error of a power, in dB; 0 if no voxel has an error."""
    return float(10 * np.log10(1 + np.median(relative))) if len(relative) else 0.0


def solve(
    world: World,
    grid: Grid,
    transmitter: Transmitter,
    options: TraceOptions,
    ground_m: NDArray[np.float64] | None = None,
    *,
    advance: Callable[[float], None] | None = None,
) -> Outcome:
    """Trace one transmitter over one piece of a grid; heights are above `ground_m` `(y, x)`, if given.

    `advance` is called with each completed fraction of the work (sum 1).
    """
    run = _Run(world, grid, transmitter, options, ground_m)
    run.trace(advance or (lambda share: None))
    fields = run.fields()
    if advance is not None:
        advance(1 - run.done)
    rays = run.sums.batches * options.rays_a_batch
    shaped = {name: values.reshape(grid.shape) for name, values in fields.items()}
    kept = run.kept() if options.paths_per_voxel else {}
    kept = {name: values.reshape(*grid.shape, *values.shape[1:]) for name, values in kept.items()}
    return Outcome(shaped, rays, run.relative_errors(), kept)


class _Run:
    """State of one transmitter and one piece of a grid while its batches of rays are traced."""

    def __init__(
        self,
        world: World,
        grid: Grid,
        transmitter: Transmitter,
        options: TraceOptions,
        ground_m: NDArray[np.float64] | None,
    ) -> None:
        self.world, self.options = world, options
        # Heights are relative to the ground.
        zero = world.lower if ground_m is None else world.lower * (1, 1, 0)
        grid = world.local_grid(grid, "xyz" if ground_m is None else "xy")
        ground_m = None if ground_m is None else ground_m - world.origin[2]
        self.voxels = Voxels(grid, options.estimator, ground_m, zero=zero)
        self.source = Source(world.local(transmitter), world.wavelength_m)
        visible = line_of_sight if options.line_of_sight else no_sight
        self.sight: Sight = visible(world, self.voxels, self.source)
        self.exact = options.estimator == "paths"
        # For an isotropic antenna no path is stronger than line of sight.
        everywhere = not self.source.isotropic
        self.sums = Sums(self.voxels, (self.sight.fraction < 1) | everywhere)
        self.tables = (PathTable(self.voxels.size), ImageTable()) if self.exact else None
        self.wedges = Wedges(world, self.source, options) if options.diffraction else None
        self.bender: Bender | None = None
        if self.exact and self.wedges is not None:
            self.bender = Bender(self.wedges, self.voxels, self.sight.gain * self.sight.seen)
        self.mirrored = self.bent = CentrePaths.none()
        self.before = np.zeros(self.voxels.size, np.float32)
        self.done = 0.0

    def trace(self, advance: Callable[[float], None]) -> None:
        """Trace a fixed number of batches, or until the median error is small enough."""
        options, sums = self.options, self.sums
        if not options.bounces and self.wedges is None:
            return
        most = max(options.batches, options.max_rays // options.rays_a_batch) if options.error_db else options.batches
        half = options.batches // 2
        while sums.batches < most:
            lattice = aimed(self.world, self.source, options, sums.batches)
            if self.bender is not None:
                self.bender.shoot(sums.batches)
            elif self.wedges is not None:
                deposit(self.wedges, self.voxels, sums.batches, sums)
            if options.bounces:
                for begin in range(0, lattice.lanes, options.chunk_rays):
                    lanes = min(options.chunk_rays, lattice.lanes - begin)
                    shoot(self.world, self.voxels, self.source, lattice, begin, lanes, options, sums, self.tables)
            sums.close_batch()
            if sums.batches <= options.batches:
                share = (_RAYS_SHARE if self.exact else 1.0) / options.batches
                self.done += share
                advance(share)
            if sums.batches == half:
                self.before = self._found()
            if sums.batches == 2 * half and options.error_db and sums.batches < most:
                if error_db(self.relative_errors()) <= options.error_db:
                    break
                half, self.before = sums.batches, self._found()

    def _found(self) -> NDArray[np.float32]:
        """Strength of all paths found so far, per voxel, before exact paths are computed."""
        found = np.zeros(self.voxels.size, np.float32)
        if self.tables is not None:
            found += self.tables[0].strength()
        if self.bender is not None:
            found += self.bender.table.strength()
        return found

    def relative_errors(self) -> NDArray[np.float32]:
        """Relative errors of gain in voxels without line of sight that rays reached.

        For means: the spread of the batches over the square root of their number. For paths: the gain that the second
        half of the rays added to that of the first, an upper bound of what more rays would add.
        """
        dark = ~self.sight.seen & (self.sight.fraction == 0)
        if self.sums.batches < 2:
            return np.zeros(0, np.float32)
        if not self.exact:
            _, relative = self.sums.relative_error()
            return relative[np.isfinite(relative) & dark]
        found = self._found()
        chosen = dark & (found > 0)
        return (found[chosen] - self.before[chosen]) / found[chosen]

    def fields(self) -> Fields:
        """Fields of `radiomaps.maps.layout.VARIABLES` and the linear `gain`, flat; undefined where there is no path."""
        centre = self.voxels.centres(dr.arange(mi.UInt, self.voxels.size))
        direct = self.sight.gain * (self.sight.seen if self.exact else self.sight.fraction)
        parts = Parts(floats(direct), self.source.point() - centre)
        if self.sums.batches:
            parts.add_means(self.sums)
        if self.exact:
            parts.add_paths(self._paths())
        elif self.sums.batches:
            self._rank_means(parts)
        fields = parts.fields((self.world.wavelength_m / (4 * np.pi)) ** 2)
        return fields | {"los_fraction": self.sight.fraction, "los": self.sight.seen}

    def kept(self) -> Fields:
        """The strongest paths of each voxel, for antennas that are applied later; call `fields` first."""
        images = self.tables[1] if self.tables is not None else None
        found = FoundPaths(self.sight, self.mirrored, images, self.bent, self.bender)
        return dict(keep(self.world, self.voxels, self.source, self.options, found))

    def _paths(self) -> CentrePaths:
        found = []
        if self.tables is not None and self.options.bounces:
            self.mirrored = mirrored_paths(self.world, self.voxels, self.source, self.tables, self.options)
            found.append(self.mirrored)
        if self.bender is not None:
            gain = self.sight.gain * self.sight.seen
            for paths in found:
                gain = gain + np.bincount(paths.cell, paths.strength, self.voxels.size).astype(np.float32)
            self.bent = self.bender.paths(gain)
            found.append(self.bent)
        return join(found) if found else CentrePaths.none()

    def _rank_means(self, parts: Parts) -> None:
        """Enter the strongest path of each voxel, known by its ray's name (specular) or its edge's (diffracted)."""
        strength, names = self.sums.strongest()
        cell = dr.compress(strength > parts.strongest)
        if not dr.width(cell):
            return
        bent = (dr.gather(mi.UInt, names, cell) & mi.UInt(BENT)) != 0
        for chosen in (dr.compress(~bent), dr.compress(bent)):
            if not dr.width(chosen):
                continue
            mine = dr.gather(mi.UInt, cell, chosen)
            name, centre = dr.gather(mi.UInt, names, mine), self.voxels.centres(mine)
            if (name[0] & BENT) == 0:
                away = find_images(self.world, self.source, name, self.options) - centre
            else:
                assert self.wedges is not None
                away = toward_edges(self.wedges, name, centre)
            parts.rank(mine, dr.gather(mi.Float, strength, mine), away)
