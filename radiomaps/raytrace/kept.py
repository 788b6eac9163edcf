"""The strongest paths of each voxel, stored so that an antenna can be applied to them later.

The paths are those found for one source. Each is computed again for unit fields of both polarisations. This gives its
complex amplitudes and its direction of departure, independently of the antenna.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import drjit as dr
import mitsuba as mi
import numpy as np
from numpy.typing import NDArray
from sionna.rt.antenna_pattern import antenna_pattern_registry, antenna_pattern_to_world_implicit

from geoml.constants import SPEED_OF_LIGHT
from radiomaps.maps.layout import Transmitter, direction_angles, wrapped
from radiomaps.raytrace.arrays import integers
from radiomaps.raytrace.backwards import arrive
from radiomaps.raytrace.bounce import BOUNCE_BITS, find_images
from radiomaps.raytrace.chains import CentrePaths
from radiomaps.raytrace.diffraction import Bender
from radiomaps.raytrace.options import TraceOptions
from radiomaps.raytrace.path_slots import ImageTable
from radiomaps.raytrace.sight import Sight
from radiomaps.raytrace.voxels import Voxels
from radiomaps.raytrace.world import Source, World

__all__ = ["FoundPaths", "keep", "plain"]

_CHUNK = 1 << 20
_WEAKEST = 1e-16


def plain(transmitter: Transmitter) -> Transmitter:
    """The transmitter as a single isotropic antenna, whose pattern suppresses no path."""
    return replace(transmitter, pattern="iso", polarization="V", rows=1, columns=1, weights=())


@dataclass(frozen=True)
class FoundPaths:
    """All paths of a trace: line of sight, specular paths with their image sources, diffracted paths."""

    sight: Sight
    mirrored: CentrePaths
    images: ImageTable | None
    bent: CentrePaths
    bender: Bender | None


class _Probe(Source):
    """A source of unit field in one polarisation that records the directions in which it was evaluated."""

    directions: list[mi.Vector3f]
    polarization: str

    @classmethod
    def of(cls, source: Source, polarization: str) -> _Probe:
        probe = cls(plain(source.transmitter), source.wavelength_m)
        object.__setattr__(probe, "directions", [])
        object.__setattr__(probe, "polarization", polarization)
        return probe

    def field(self, direction: mi.Vector3f) -> mi.Vector4f:
        self.directions.append(direction)
        return _unit_field(self.polarization, direction, "out")


def _unit_field(polarization: str, direction: mi.Vector3f, way: str) -> mi.Vector4f:
    """The field of an isotropic antenna of one polarisation along `direction`, transmitted or received."""
    (pattern,) = antenna_pattern_registry.get("iso")(polarization=polarization).patterns
    upright = mi.Matrix3f([[1, 0, 0], [0, 1, 0], [0, 0, 1]])
    return antenna_pattern_to_world_implicit(pattern, upright, direction, direction=way)


def keep(
    world: World, voxels: Voxels, source: Source, options: TraceOptions, found: FoundPaths
) -> dict[str, NDArray[np.float32]]:
    """Variables of `radiomaps.antennas.stored.PATH_VARIABLES`, `(voxel, path, …)`, strongest first, NaN-padded."""
    count = options.paths_per_voxel
    seen = np.flatnonzero(found.sight.seen & (found.sight.gain > 0)).astype(np.uint32)
    cell = np.concatenate([seen, found.mirrored.cell, found.bent.cell])
    strength = np.concatenate([found.sight.gain[seen], found.mirrored.strength, found.bent.strength])
    chosen, slot = _strongest(cell, strength, count)
    size = voxels.size * count
    departure, toward = (np.full((size, 3), np.nan, np.float32) for _ in range(2))
    amplitude = np.full((size, 2, 2), np.nan, np.complex64)
    first = np.cumsum([0, len(seen), len(found.mirrored), len(found.bent)])
    scale = world.wavelength_m / (4 * np.pi)
    probes = [_Probe.of(source, name) for name in "VH"]
    for kind in range(3):
        mine = np.flatnonzero((chosen >= first[kind]) & (chosen < first[kind + 1]))
        rows = chosen[mine] - first[kind]
        if not len(rows):
            continue
        if kind == 0:
            waves = _direct(voxels, probes, seen[rows])
        elif kind == 1:
            assert found.images is not None
            places = find_images(world, source, found.images.kept, options)
            waves = _mirrored(world, voxels, probes, found.mirrored[rows], (found.images, places))
        else:
            assert found.bender is not None
            waves = found.bender.waves(probes, found.bent[rows])
        for part, fields, away in waves:
            here = slot[mine[part]]
            dr.eval(away, probes[0].directions[-1], *fields)
            departure[here] = probes[0].directions[-1].numpy().T
            toward[here] = away.numpy().T
            amplitude[here] = scale * _received(fields, dr.normalize(away))
            for probe in probes:
                probe.directions.clear()
    return _variables(departure, toward, amplitude, (voxels.size, count))


def _strongest(
    cell: NDArray[np.uint32], strength: NDArray[np.float32], count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the `count` strongest paths of each voxel, and their slots, `count` per voxel."""
    order = np.lexsort((-strength, cell))
    ordered = cell[order].astype(np.int64)
    begin = np.flatnonzero(np.r_[True, np.diff(ordered) != 0]) if len(ordered) else np.zeros(0, np.int64)
    rank = np.arange(len(ordered)) - np.repeat(begin, np.diff(np.r_[begin, len(ordered)]))
    inside = rank < count
    return order[inside], ordered[inside] * count + rank[inside]


Waves = Iterator[tuple[NDArray[np.int64], list[mi.Vector4f], mi.Vector3f]]


def _direct(voxels: Voxels, probes: list[_Probe], cells: NDArray[np.uint32]) -> Waves:
    for begin in range(0, len(cells), _CHUNK):
        part = np.arange(begin, min(begin + _CHUNK, len(cells)))
        away = probes[0].point() - voxels.centres(integers(cells[part]))
        distance = dr.maximum(dr.norm(away), probes[0].wavelength_m)
        yield part, [probe.field(dr.normalize(-away)) * dr.rcp(distance) for probe in probes], away


def _mirrored(
    world: World, voxels: Voxels, probes: list[_Probe], paths: CentrePaths, seen: tuple[ImageTable, mi.Point3f]
) -> Waves:
    images, places = seen
    order = np.argsort(paths.chain, kind="stable")
    for begin in range(0, len(order), _CHUNK):
        part = order[begin : begin + _CHUNK]
        cell, row = integers(paths.cell[part]), integers(paths.chain[part])
        dr.make_opaque(cell, row)
        image, walls = (
            dr.gather(mi.Point3f, places, row),
            dr.gather(mi.UInt, images.kept, row) & ((1 << BOUNCE_BITS) - 1),
        )
        centre = voxels.centres(cell)
        away = image - centre
        fields = [arrive(world, probe, centre, image, walls)[0] * dr.rcp(dr.norm(away)) for probe in probes]
        yield part, fields, away


def _received(fields: list[mi.Vector4f], toward: mi.Vector3f) -> NDArray[np.complex64]:
    """Amplitudes `(n, sent, received)` at isotropic receivers of fields that arrive from `toward`."""
    found = []
    for field in fields:
        for name in "VH":
            port = _unit_field(name, toward, "in")  # real: an isotropic pattern has no phase
            real, imaginary = port.x * field.x + port.y * field.y, port.x * field.z + port.y * field.w
            dr.eval(real, imaginary)
            found.append(real.numpy() + 1j * imaginary.numpy())
    return np.stack(found, -1).reshape(-1, 2, 2).astype(np.complex64)


def _variables(
    departure: NDArray[np.float32], toward: NDArray[np.float32], amplitude: NDArray[Any], shape: tuple[int, int]
) -> dict[str, NDArray[np.float32]]:
    """Angles and delays from vectors, levels and phases from complex amplitudes."""
    angles = {"departure": direction_angles(departure), "arrival": direction_angles(toward)}
    fields = {"path_delay_s": np.linalg.norm(toward, axis=-1) / SPEED_OF_LIGHT}
    for end, (azimuth, zenith) in angles.items():
        fields |= {f"path_{end}_azimuth": wrapped(azimuth.astype(np.float32)), f"path_{end}_zenith": zenith}
    magnitude = np.abs(amplitude)
    with np.errstate(invalid="ignore"):
        level = 20 * np.log10(np.maximum(magnitude, _WEAKEST))  # -320 dB: none in this pair of polarisations
    fields["path_amplitude_db"] = level
    fields["path_amplitude_rad"] = wrapped((np.angle(amplitude) % (2 * np.pi)).astype(np.float32))
    return {name: values.astype(np.float32).reshape(*shape, *values.shape[1:]) for name, values in fields.items()}
