"""Edges that a transmitter lights, directly or by reflections: found by rays, each with its image source."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import drjit as dr
import mitsuba as mi
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from radiomaps.raytrace.arrays import floats
from radiomaps.raytrace.bounce import (
    BOUNCE_BITS,
    Hit,
    RayState,
    aimed,
    follow,
    identity_of,
    ray_names,
    replay,
    start_rays,
)
from radiomaps.raytrace.options import TraceOptions
from radiomaps.raytrace.path_slots import ImageTable, mix
from radiomaps.raytrace.world import Edges, Source, World

__all__ = ["LitEdges", "lit_edges"]

#: Maximum number of pairs of an edge and an image source; those with most power are kept.
_MOST = 1 << 18
#: How much weaker than the strongest source of an edge others may be.
_WEAKEST = 1e-4
#: Distance between the points of an edge that are tested for sight of the transmitter.
_PROBE_M = 2.0
#: Rays to and from a solid edge are tested this far outside it too, so that none runs along a face into the solid.
OFFSET_M = 0.05


@dataclass(frozen=True)
class LitEdges:
    """Pairs of an edge (by number) and an image source: the source's position, number of reflections, and power.

    `power` is |E|² over the squared distance to the edge's middle, by which pairs are ranked.
    """

    edge: NDArray[np.int64]
    start: NDArray[np.float64]
    mirrors: NDArray[np.int64]
    power: NDArray[np.float64]

    COLUMNS: ClassVar = ("edge", "start", "mirrors", "power")

    def __len__(self) -> int:
        return len(self.edge)

    def __getitem__(self, chosen: NDArray[np.int64]) -> LitEdges:
        return LitEdges(*(getattr(self, name)[chosen] for name in self.COLUMNS))


def lit_edges(world: World, source: Source, options: TraceOptions, edges: Edges) -> LitEdges:
    """The edges that the transmitter lights, directly and over up to `depth` - 1 reflections, sorted by material."""
    found = _direct(world, source, edges)
    if options.specular and options.depth > 1 and len(edges):
        mirrored = _mirrored(world, source, options, edges)
        joined = (np.concatenate([getattr(one, name) for one in (found, mirrored)]) for name in LitEdges.COLUMNS)
        found = _strongest(LitEdges(*joined), len(edges))
    return found[np.lexsort((found.edge, edges.shape[found.edge]))]


def _direct(world: World, source: Source, edges: Edges) -> LitEdges:
    """Edges with a face towards the transmitter and a point in its sight."""
    start = np.broadcast_to(source.position, edges.origin.shape)
    chosen = np.flatnonzero(_faces(edges, np.arange(len(edges)), start))
    chosen = chosen[_seen(world, source, edges[chosen])] if len(chosen) else chosen
    middle = edges.origin[chosen] + edges.along[chosen] * edges.length[chosen, None] / 2
    distance2 = np.maximum(((middle - source.position) ** 2).sum(axis=1), 1e-4)
    return LitEdges(chosen, start[chosen], np.zeros(len(chosen), np.int64), 1 / distance2)


def _faces(edges: Edges, edge: NDArray[np.int64], start: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether edges have a face towards a point."""
    toward = start - edges.origin[edge]
    return (np.einsum("ekj,ej->ek", edges.normals[edge], toward) > 1e-6).any(axis=1)


def _seen(world: World, source: Source, edges: Edges) -> NDArray[np.int64]:
    """Edges with a point in sight of the transmitter."""
    count = np.ceil(edges.length / _PROBE_M).astype(np.int64)
    edge = np.repeat(np.arange(len(edges)), count)
    step = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
    place = (step + 0.5) * (edges.length / count)[edge]
    middle = edges.normals.sum(axis=1)
    length = np.linalg.norm(middle, axis=1, keepdims=True)
    outside = np.where(length > 1e-3, middle / np.maximum(length, 1e-3), 0.0)  # none about a free edge
    points = edges.origin[edge] + place[:, None] * edges.along[edge] + OFFSET_M * outside[edge]
    target = mi.Point3f(*(floats(points[:, k]) for k in range(3)))
    dr.make_opaque(target)
    return np.unique(edge[clear(world, source.point(), target).numpy()])


def clear(world: World, start: mi.Point3f, end: mi.Point3f) -> mi.Bool:
    """Whether the segments between points are unobstructed, up to a small distance before the end."""
    away = end - start
    distance = dr.norm(away)
    width = dr.width(away)
    ray = mi.Ray3f(o=start + mi.Vector3f(dr.zeros(mi.Float, width)), d=away * dr.rcp(dr.maximum(distance, 1e-6)))
    ray.maxt = dr.maximum(distance * (1 - 1e-5) - 1e-4, 0.0)
    ray.time = dr.zeros(mi.Float, width)
    return ~world.mi_scene.ray_test(ray, coherent=False, active=distance > 1e-3)


def _mirrored(world: World, source: Source, options: TraceOptions, edges: Edges) -> LitEdges:
    """Edges of the faces that reflected rays hit, with the image sources of these rays."""
    plain = replace(options, diffuse=False, refraction=False, estimator="axis")
    table = ImageTable()
    lattice = aimed(world, source, plain, 0)
    straight = source.point()
    for begin in range(0, lattice.lanes, options.chunk_rays):
        lane = dr.arange(mi.UInt, min(options.chunk_rays, lattice.lanes - begin)) + dr.opaque(mi.UInt, begin)
        name = ray_names(lane, lattice)

        def enter(state: RayState, hit: Hit, name: mi.UInt = name) -> None:
            key = mix(world.face_number(hit.si) + mix(identity_of(state.image - straight)))
            table.put(key, (name << BOUNCE_BITS) | state.depth, state.active & hit.found & (state.depth > 0))

        follow(world, start_rays(source, lattice, lane), name, plain, options.depth - 1, enter)
        dr.eval(table.names)
    names = dr.gather(mi.UInt, table.names, dr.compress(table.names != 0))
    width = dr.width(names)
    if not width:
        none = np.zeros(0, np.int64)
        return LitEdges(none, np.zeros((0, 3)), none, np.zeros(0))
    face, power = dr.zeros(mi.UInt, width), dr.zeros(mi.Float, width)
    image = dr.zeros(mi.Point3f, width)
    dr.make_opaque(face, power, image)

    def keep(state: RayState, hit: Hit, row: mi.UInt, last: mi.Bool) -> None:
        dr.scatter(face, world.face_number(hit.si), row, last)
        dr.scatter(image, state.image, row, last)
        dr.scatter(power, dr.squared_norm(state.field), row, last)

    replay(world, source, names, plain, keep, options.depth - 1)
    dr.eval(face, image, power)
    mirrors = (names & ((1 << BOUNCE_BITS) - 1)).numpy().astype(np.int64)
    return _at_edges(world, edges, face.numpy(), image.numpy().T.astype(np.float64), mirrors, power.numpy())


def _at_edges(
    world: World,
    edges: Edges,
    face: NDArray[np.uint32],
    image: NDArray[np.float64],
    mirrors: NDArray[np.int64],
    power: NDArray[np.float32],
) -> LitEdges:
    """Pairs for the edges of lit faces: edge and face are matched by the middle of their common side."""
    tree = cKDTree(edges.origin + edges.along * edges.length[:, None] / 2)
    middles = world.side_middles()
    distance, nearest = tree.query(middles.reshape(-1, 3), distance_upper_bound=2e-3)
    sides = np.where(np.isfinite(distance), nearest, -1).reshape(-1, 3)
    edge = sides[face].ravel()
    row = np.repeat(np.arange(len(face)), 3)[edge >= 0]
    edge = edge[edge >= 0]
    facing = _faces(edges, edge, image[row])
    edge, row = edge[facing], row[facing]
    middle = edges.origin[edge] + edges.along[edge] * edges.length[edge, None] / 2
    strength = power[row] / np.maximum(((middle - image[row]) ** 2).sum(axis=1), 1e-4)
    # An edge between two lit faces is found twice with each of its sources.
    keys = np.column_stack([edge, np.floor((image[row] - image.mean(axis=0)) * 20 + 0.37).astype(np.int64)])
    _, first = np.unique(keys, axis=0, return_index=True)
    return LitEdges(edge[first], image[row[first]], mirrors[row[first]], strength[first].astype(np.float64))


def _strongest(found: LitEdges, edges: int) -> LitEdges:
    """Pairs that are not much weaker than their edge's strongest, and of these the `_MOST` strongest."""
    best = np.zeros(edges)
    np.maximum.at(best, found.edge, found.power)
    kept = np.flatnonzero(found.power > _WEAKEST * best[found.edge])
    return found[kept[np.argsort(-found.power[kept], kind="stable")[:_MOST]]]
