"""Exact paths to points by Sionna's PathSolver (image method): the reference for maps, and path tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import drjit as dr
import mitsuba as mi
import numpy as np
import sionna.rt as rt
from numpy.typing import NDArray
from sionna.rt.antenna_pattern import antenna_pattern_registry
from sionna.rt.constants import InteractionType
from sionna.rt.path_solvers.sb_candidate_generator import SBCandidateGenerator

from radiomaps.antennas.arrays import array_factor
from radiomaps.maps.layout import Transmitter
from radiomaps.raytrace.arrays import floats
from radiomaps.raytrace.options import TraceOptions
from radiomaps.raytrace.patterns import antenna_pattern
from radiomaps.raytrace.world import World

__all__ = ["Paths", "find_paths"]

#: Points per call, initial number of candidates per call, and slots of the solver's hash table of known chains.
#: Of two chains in one slot the later is lost, so the table is much larger than the number of chains.
_POINTS = 256
_CANDIDATES = 1 << 18
_SLOTS = 1 << 24
#: Offset of ray origins from surfaces in Mitsuba, per metre of the point's coordinates.
_MOVED = 8.9e-5


@dataclass(frozen=True)
class Paths:
    """Paths of one transmitter to points, padded: `(point, path)`, strongest first; `valid` marks existing paths.

    `amplitude` `(point, 2, path)` is complex, for isotropic receivers of vertical and horizontal polarisation.
    `mirrors` `(point, path, depth)` numbers the surfaces of the world that reflect, -1 for none.
    """

    valid: NDArray[np.bool_]
    amplitude: NDArray[np.complex64]
    delay_s: NDArray[np.float32]
    arrival: NDArray[np.float32]
    departure: NDArray[np.float32]
    bounces: NDArray[np.int8]
    diffracted: NDArray[np.bool_]
    mirrors: NDArray[np.int16]

    @property
    def power(self) -> NDArray[np.float64]:
        """|a|² of paths over both polarisations."""
        return (np.abs(self.amplitude.astype(np.complex128)) ** 2).sum(axis=1)


def find_paths(
    world: World,
    transmitter: Transmitter,
    points: NDArray[np.float64],
    options: TraceOptions,
    *,
    rays: int = 100_000,
    top: int | None = None,
) -> Iterator[tuple[slice, Paths]]:
    """Paths to points `(n, 3)`, a slice of points at a time, each with its `top` strongest.

    `rays` discover chains of surfaces; the image method then computes each path exactly. All points form the antenna
    array of one receiver, because one receiver per point would compile one kernel per point.
    """
    scene = world.scene
    for name in (*scene.transmitters, *scene.receivers):
        scene.remove(name)
    scene.tx_array = rt.AntennaArray(antenna_pattern(transmitter), mi.Point3f(0.0, 0.0, 0.0))
    where = world.local(transmitter)
    place, turn = (mi.Point3f(*(float(v) for v in part)) for part in (where.position, where.orientation))
    scene.add(rt.Transmitter("tx", position=place, orientation=turn))
    scene.add(rt.Receiver("points", position=mi.Point3f(0.0, 0.0, 0.0)))
    solver = _CountingSolver()
    begin, room = 0, _CANDIDATES
    while begin < len(points):
        part = slice(begin, min(begin + _POINTS, len(points)))
        scaled = ((points[part] - world.origin) / float(scene.wavelength[0])).astype(np.float32)
        places = mi.Point3f(*(floats(scaled[:, k]) for k in range(3)))
        dr.make_opaque(places)
        scene.rx_array = rt.AntennaArray(antenna_pattern_registry.get("iso")(polarization="VH"), places)
        found = solver(
            scene,
            max_depth=options.depth,
            max_num_paths_per_src=room,
            samples_per_src=rays,
            synthetic_array=False,
            los=options.line_of_sight,
            specular_reflection=options.specular,
            diffuse_reflection=options.diffuse,
            refraction=options.refraction,
            diffraction=options.diffraction,
            edge_diffraction=options.edge_diffraction,
            seed=options.seed,
        )
        if solver.candidates >= room:  # Sionna may have dropped candidates
            room *= 4
            continue
        yield part, _gather(found, part.stop - part.start, transmitter, top, world.surface_of_object)
        begin = part.stop


class _Candidates(SBCandidateGenerator):
    """A generator half of whose rays leave an edge from outside it, not from within its wall.

    Sionna keeps an edge for a target that sees the point on it, and tests this by a ray that Mitsuba moves along the
    normal of one face, to the target's side. For a target in the shadow that is into the building, where rounding
    decides whether the other face is in the way: corners would be lost in some coordinates, and kept in others.
    """

    def _sample_diffraction_point(self, *arguments: Any, **named: Any) -> Any:
        chosen, probability, point, wedge = super()._sample_diffraction_point(*arguments, **named)
        outward = wedge.n0 + wedge.nn
        length = dr.norm(outward)
        # A free edge has opposite normals; outwards is then away from its face.
        aside = dr.cross(wedge.e_hat, wedge.n0)
        outward = dr.select(length > 0.02, outward * dr.rcp(dr.maximum(length, 1e-6)), aside)
        gap = 1e-3 + 2 * _MOVED * (1 + dr.max(dr.abs(point)))
        sample = named["sample2"] if "sample2" in named else arguments[4]
        moved = (mi.UInt(sample.y * (1 << 20)) & 1) == 0
        return chosen, probability, dr.select(moved, point + outward * gap, point), wedge


class _CountingSolver(rt.PathSolver):
    """A solver that counts the candidates it found: Sionna drops those beyond its limit without a warning."""

    def __init__(self) -> None:
        super().__init__()
        generate: Any = _Candidates()
        assert "_candidate_generator" in vars(self), "another version of Sionna RT keeps its generator elsewhere"
        self.candidates = 0

        def counted(**arguments: Any) -> Any:
            usual = SBCandidateGenerator.MIN_SPEC_COUNT_SIZE
            SBCandidateGenerator.MIN_SPEC_COUNT_SIZE = _SLOTS
            try:
                buffer = generate(**arguments)
            finally:
                SBCandidateGenerator.MIN_SPEC_COUNT_SIZE = usual
            self.candidates = int(buffer.paths_counter.numpy()[0])
            return buffer

        self._candidate_generator = counted


def _gather(
    found: rt.Paths, count: int, transmitter: Transmitter, top: int | None, surfaces: Mapping[int, int]
) -> Paths:
    """Sionna's tensors as `Paths`, sorted by power; `surfaces` maps ids of objects to surface numbers."""
    shape = (2, count, found.a[0].shape[3], -1) if found.a[0].shape[-1] else None
    if shape is None:
        empty = np.zeros((count, 0), np.float32)
        none = np.zeros((count, 0), bool)
        vectors = np.zeros((count, 0, 3), np.float32)
        return Paths(none, np.zeros((count, 2, 0), np.complex64), empty, vectors, vectors, none.astype(np.int8), none,
                     np.zeros((count, 0, 1), np.int16))  # fmt: skip
    amplitude = (found.a[0].numpy() + 1j * found.a[1].numpy()).reshape(shape)
    # A dual-polarised transmitter feeds both ports equally; an array factor depends on the direction of departure.
    elements = amplitude.shape[2]
    amplitude = amplitude.sum(axis=2) / np.sqrt(elements)
    amplitude = np.moveaxis(amplitude, 0, 1).astype(np.complex64)

    def angles(tensor: Any) -> NDArray[np.float32]:
        return tensor.numpy().reshape(shape)[0, :, 0]

    departure = _unit(angles(found.theta_t), angles(found.phi_t))
    amplitude = (amplitude * array_factor(transmitter, departure)[:, None]).astype(np.complex64)
    delay = angles(found.tau)
    kinds = found.interactions.numpy()
    kinds = kinds.reshape(kinds.shape[0], 2, count, elements, delay.shape[-1])[:, 0, :, 0]
    met = found.objects.numpy().reshape(kinds.shape[0], 2, count, elements, delay.shape[-1])[:, 0, :, 0]
    mirrors = np.full(kinds.shape, -1, np.int16)
    for identity, number in surfaces.items():
        mirrors[(met == identity) & (kinds == InteractionType.SPECULAR)] = number
    valid = delay >= 0
    power = np.where(valid, (np.abs(amplitude) ** 2).sum(axis=1), -1.0)
    order = np.argsort(-power, axis=1, kind="stable")[:, : top or power.shape[1]]

    def sort(values: NDArray[Any]) -> NDArray[Any]:
        return np.take_along_axis(values, order, axis=1)

    def sort_vectors(values: NDArray[Any]) -> NDArray[Any]:
        return np.take_along_axis(values, order[:, :, None], axis=1)

    valid = sort(valid)
    return Paths(
        valid=valid,
        amplitude=np.take_along_axis(amplitude, order[:, None], axis=2) * valid[:, None],
        delay_s=np.where(valid, sort(delay), np.nan).astype(np.float32),
        arrival=sort_vectors(_unit(angles(found.theta_r), angles(found.phi_r))),
        departure=sort_vectors(departure),
        bounces=sort((kinds != InteractionType.NONE).sum(axis=0).astype(np.int8)),
        diffracted=sort((kinds == InteractionType.DIFFRACTION).any(axis=0)),
        mirrors=sort_vectors(np.moveaxis(mirrors, 0, -1)),
    )


def _unit(zenith: NDArray[np.float32], azimuth: NDArray[np.float32]) -> NDArray[np.float32]:
    """Unit vectors along the last axis."""
    return np.stack([np.sin(zenith) * np.cos(azimuth), np.sin(zenith) * np.sin(azimuth), np.cos(zenith)], axis=-1)
