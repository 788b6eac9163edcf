"""From rays to fields: one transmitter over one piece of the grid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoml.grids import Grid
from radiomaps.maps import SPEED_OF_LIGHT, Transmitter, direction_angles
from radiomaps.raytrace.bounce import find_images, shoot
from radiomaps.raytrace.chains import CentrePaths, join, mirrored_paths
from radiomaps.raytrace.diffraction import Bender
from radiomaps.raytrace.lattice import Lattice
from radiomaps.raytrace.options import TraceOptions
from radiomaps.raytrace.sight import Sight, line_of_sight, no_sight
from radiomaps.raytrace.table import SLOTS, TABLES, PathTable
from radiomaps.raytrace.voxels import Sums, Voxels
from radiomaps.raytrace.world import Source, World

__all__ = ["Outcome", "error_db", "pieces", "solve"]

Fields = dict[str, NDArray[Any]]

#: Ratios above this many dB are as good as infinite.
_MOST_DB = 100.0


@dataclass(frozen=True)
class Outcome:
    """Fields `(z, y, x)`, the rays that were shot, and the relative errors of gain outside line of sight."""

    fields: Fields
    rays: int
    relative_errors: NDArray[np.float32]


def pieces(grid: Grid, options: TraceOptions) -> Iterator[tuple[tuple[slice, ...], Grid]]:
    """Cuts of the grid that fit into `memory_mb`, halved along the longest axis until they do."""
    tables = (1 + options.diffraction) * SLOTS * TABLES * 8 * 3 if options.estimator == "paths" else 0
    limit = options.memory_mb * 1e6 / (Sums.bytes_a_voxel() + tables)
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
    """The median relative error of a power, in dB; 0 where there is none to speak of."""
    return float(10 * np.log10(1 + np.median(relative))) if len(relative) else 0.0


def solve(
    world: World,
    grid: Grid,
    transmitter: Transmitter,
    options: TraceOptions,
    ground_m: NDArray[np.float64] | None = None,
) -> Outcome:
    """Trace one transmitter over one piece of a grid; heights are above `ground_m` `(y, x)` where that is given."""
    run = _Run(world, grid, transmitter, options, ground_m)
    run.trace()
    fields = run.fields()
    rays = run.sums.batches * options.rays_a_batch
    shaped = {name: values.reshape(grid.shape) for name, values in fields.items()}
    return Outcome(shaped, rays, run.relative_errors())


class _Run:
    """What is known about one transmitter and one piece of a grid while its batches of rays are traced."""

    def __init__(
        self,
        world: World,
        grid: Grid,
        transmitter: Transmitter,
        options: TraceOptions,
        ground_m: NDArray[np.float64] | None,
    ) -> None:
        self.world, self.options = world, options
        self.voxels = Voxels(grid, options.estimator, ground_m)
        self.source = Source(transmitter, world.wavelength_m)
        visible = line_of_sight if options.line_of_sight else no_sight
        self.sight: Sight = visible(world, self.voxels, self.source)
        self.exact = options.estimator == "paths"
        self.sums = Sums(self.voxels)
        self.table = PathTable(self.voxels.size) if self.exact else None
        self.bender = Bender(world, self.source, options, self.voxels) if options.diffraction else None
        self.before = np.zeros(self.voxels.size, np.float32)
        z, y, x = np.meshgrid(*(grid[name].coordinates for name in "zyx"), indexing="ij")
        z = z if ground_m is None else z + ground_m
        self.centres = np.stack([x, y, z], axis=-1).reshape(-1, 3)

    def trace(self) -> None:
        """Batches by number, or until the median error is small enough."""
        options, sums = self.options, self.sums
        if not options.bounces and self.bender is None:
            return
        most = max(options.batches, options.max_rays // options.rays_a_batch) if options.error_db else options.batches
        half = options.batches // 2
        while sums.batches < most:
            lattice = Lattice(options.rays_a_batch, sums.batches, options.seed)
            if self.bender is not None:
                self.bender.shoot(lattice)
            if options.bounces:
                for begin in range(0, lattice.lanes, options.chunk_rays):
                    lanes = min(options.chunk_rays, lattice.lanes - begin)
                    shoot(self.world, self.voxels, self.source, lattice, begin, lanes, options, sums, self.table)
            sums.close_batch()
            if sums.batches == half:
                self.before = self._found()
            if sums.batches == 2 * half and options.error_db and sums.batches < most:
                if error_db(self.relative_errors()) <= options.error_db:
                    break
                half, self.before = sums.batches, self._found()

    def _found(self) -> NDArray[np.float32]:
        """Strength of all paths found so far, a voxel each, before any is made exact."""
        found = np.zeros(self.voxels.size, np.float32)
        for table in (self.table, self.bender.table if self.bender is not None else None):
            if table is not None:
                found += table.strength()
        return found

    def relative_errors(self) -> NDArray[np.float32]:
        """Relative errors of gain in voxels that the transmitter does not see and rays reached.

        Of means: the spread of batches over the root of their number. Of paths: what the second half of the rays
        added to what the first had found, which bounds what more rays would add.
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
        """Fields of `radiomaps.maps.VARIABLES` and the linear `gain`, flat; nonsense where there is no path."""
        away = self.source.position - self.centres
        distance = np.maximum(np.linalg.norm(away, axis=1), 1e-6)
        direct = self.sight.gain * (self.sight.seen if self.exact else self.sight.fraction)
        parts = _Parts.line_of_sight(direct.astype(np.float64), away, distance)
        parts.add_means(self.sums, distance)
        if self.exact:
            parts.add_paths(self._paths(), distance)
        else:
            self._rank_means(parts)
        return parts.fields(self.sight, (self.world.wavelength_m / (4 * np.pi)) ** 2)

    def _paths(self) -> CentrePaths:
        found = []
        if self.table is not None and self.options.bounces:
            found.append(mirrored_paths(self.world, self.voxels, self.source, self.table, self.options))
        if self.bender is not None:
            found.append(self.bender.paths())
        return join(found) if found else CentrePaths.none()

    def _rank_means(self, parts: _Parts) -> None:
        """Enter the strongest mirrored path of each voxel, found by its ray's name."""
        strength, names = self.sums.strongest()
        cell = np.flatnonzero(strength > 0)
        if not len(cell):
            return
        images = find_images(self.world, self.source, names[cell], self.options)
        toward = images.position - self.centres[cell]
        parts.rank(cell, strength[cell], toward, np.linalg.norm(toward, axis=1))


@dataclass
class _Parts:
    """Sums over paths of each voxel: gain, gain-weighted directions and excess lengths, and the strongest path."""

    direct: NDArray[np.float64]
    away: NDArray[np.float64]
    distance: NDArray[np.float64]
    gain: NDArray[np.float64]
    vector: NDArray[np.float64]
    excess: NDArray[np.float64]
    excess2: NDArray[np.float64]
    first: NDArray[np.float64]
    strongest: NDArray[np.float64]
    toward: NDArray[np.float64]
    reach: NDArray[np.float64]

    @classmethod
    def line_of_sight(
        cls, direct: NDArray[np.float64], away: NDArray[np.float64], distance: NDArray[np.float64]
    ) -> _Parts:
        zero = np.zeros_like(direct)
        vector = direct[:, None] * away / distance[:, None]
        first = np.where(direct > 0, 0.0, np.inf)
        return cls(
            direct,
            away,
            distance,
            direct.copy(),
            vector,
            zero.copy(),
            zero.copy(),
            first,
            direct.copy(),
            away.copy(),
            distance.copy(),
        )

    def add_means(self, sums: Sums, distance: NDArray[np.float64]) -> None:
        """Add the means of what rays deposited."""
        means = sums.means().astype(np.float64)
        self.gain += means[:, 0]
        self.vector += means[:, 1:4]
        self.excess += means[:, 4]
        self.excess2 += means[:, 5]
        self.first = np.minimum(self.first, sums.first_excess_m())

    def add_paths(self, paths: CentrePaths, distance: NDArray[np.float64]) -> None:
        """Add exact paths."""
        size = len(self.gain)
        cell, strength = paths.cell, paths.strength.astype(np.float64)
        excess = np.maximum(paths.length_m - distance[cell], 0.0)
        unit = paths.toward / np.maximum(np.linalg.norm(paths.toward, axis=1), 1e-6)[:, None]
        self.gain += np.bincount(cell, strength, size)
        self.excess += np.bincount(cell, strength * excess, size)
        self.excess2 += np.bincount(cell, strength * excess**2, size)
        for axis in range(3):
            self.vector[:, axis] += np.bincount(cell, strength * unit[:, axis], size)
        np.minimum.at(self.first, cell, excess)
        self.rank(cell, strength, paths.toward, paths.length_m)

    def rank(self, cell: NDArray[np.int64], strength: NDArray[Any], toward: NDArray[Any], reach: NDArray[Any]) -> None:
        """Let paths compete for strongest."""
        stronger = strength > self.strongest[cell]
        cell, strength, toward, reach = cell[stronger], strength[stronger], toward[stronger], reach[stronger]
        order = np.argsort(strength, kind="stable")  # of several, the last one assigned stays
        cell = cell[order]
        self.strongest[cell], self.toward[cell], self.reach[cell] = strength[order], toward[order], reach[order]

    def fields(self, sight: Sight, scale: float) -> Fields:
        """The fields that follow."""
        gain, distance = self.gain, self.distance
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = self.vector / gain[:, None]
            length = np.minimum(np.linalg.norm(mean, axis=1), 1.0)
            unit = mean / length[:, None]
            excess = self.excess / gain
            spread = np.sqrt(np.maximum(self.excess2 / gain - excess**2, 0.0))
            ratio = self.direct / np.maximum(gain - self.direct, gain * 10 ** (-_MOST_DB / 10))
            # Scattered light has no strongest path: its mean stands in.
            blurred = (self.strongest == 0) & (gain > 0)
            toward = np.where(blurred[:, None], unit, self.toward)
            reach = np.where(blurred, distance + excess, self.reach)
            azimuth, zenith = direction_angles(toward)
            fields = {
                "path_gain_db": 10 * np.log10(gain * scale),
                "toa_s": reach / SPEED_OF_LIGHT,
                "doa_azimuth": azimuth,
                "doa_zenith": zenith,
                "first_arrival_s": (distance + self.first) / SPEED_OF_LIGHT,
                "mean_delay_s": (distance + excess) / SPEED_OF_LIGHT,
                "delay_spread_s": spread / SPEED_OF_LIGHT,
                "angular_spread": np.sqrt(1 - length**2),
                "k_factor_db": np.where(self.direct > 0, 10 * np.log10(ratio), np.nan),
            }
        fields |= {f"mean_direction_{name}": unit[:, axis] for axis, name in enumerate("xyz")}
        fields = {name: values.astype(np.float32) for name, values in fields.items()}
        return fields | {"los_fraction": sight.fraction, "los": sight.seen.copy(), "gain": gain}
