"""One floor of a building: a corridor with rooms on both sides, or a hall with cabinets; walls are thin surfaces."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import shapely

from geoml.errors import UserError
from radiomaps.scenes.extrude import extrude, flat_ground
from radiomaps.scenes.scene import Footprint, Mesh, Scene

__all__ = ["Rooms", "rooms"]

#: A wall in plan: its ends, in metres.
Wall = tuple[tuple[float, float], tuple[float, float]]
DOOR_M, LEAST_ROOM_M = 0.9, 2.0


@dataclass(frozen=True)
class Rooms:
    """Parameters of a floor; lengths in metres.

    The share `halls` of seeds are one hall with cabinets of metal; the others have a corridor along x and rooms on both
    sides. Every room has a door, which is open with probability `open`. Inner walls of a floor have one of `walls`,
    outer walls and the ceiling are of concrete. Walls are surfaces without thickness: with `options.refraction=true`
    waves go through a slab of `options.thickness_m`.
    """

    size_m: tuple[float, float] = (32.0, 18.0)
    height_m: tuple[float, float] = (2.6, 4.0)
    corridor_m: tuple[float, float] = (1.8, 3.0)
    room_m: tuple[float, float] = (3.0, 8.0)
    halls: float = 0.25
    cabinets: int = 12
    open: float = 0.6
    walls: tuple[str, ...] = ("plasterboard", "brick", "glass", "concrete")

    def __post_init__(self) -> None:
        width, depth = self.size_m
        if min(width, depth) < 6 or self.room_m[0] < LEAST_ROOM_M or depth < self.corridor_m[1] + 2 * LEAST_ROOM_M:
            raise UserError(
                f"a floor of {width} × {depth} m with rooms of {self.room_m} m and corridors of {self.corridor_m} m; "
                f"expected 6 m or more, and {LEAST_ROOM_M:g} m or more on both sides of the corridor"
            )


def rooms(seed: int, options: Rooms | None = None, *, name: str = "") -> Scene:
    """A floor from (0, 0); equal seeds and options give equal scenes.

    >>> scene = rooms(7)
    >>> scene.hash == rooms(7).hash, scene.hash == rooms(8).hash
    (True, False)
    """
    options = options or Rooms()
    random = np.random.default_rng([0x4005, seed])
    width, depth = options.size_m
    height = float(random.uniform(*options.height_m))
    inner = str(random.choice(list(options.walls)))
    hall = random.random() < options.halls
    around = [(0.0, 0.0), (width, 0.0), (width, depth), (0.0, depth), (0.0, 0.0)]
    meshes = [flat_ground((0.0, 0.0, width, depth)), _ceiling(options, height)]
    meshes += [_upright(f"outer-{i}", wall, height, "concrete") for i, wall in enumerate(itertools.pairwise(around))]
    if hall:
        meshes += _cabinets(random, options, height)
    else:
        walls = enumerate(_inner(random, options))
        meshes += [_upright(f"inner-{index}", wall, height, inner) for index, wall in walls]
    return Scene(name or f"rooms-{seed}", tuple(meshes), licence="CC0-1.0 (generated)")


def _ceiling(options: Rooms, height: float) -> Mesh:
    plane = flat_ground((0.0, 0.0, *options.size_m), z=height)
    return replace(plane, name="ceiling", faces=plane.faces[:, ::-1], kind="object", building="")


def _upright(name: str, wall: Wall, height: float, material: str) -> Mesh:
    """A vertical rectangle over a line."""
    (x0, y0), (x1, y1) = wall
    vertices = np.array([[x0, y0, 0.0], [x1, y1, 0.0], [x1, y1, height], [x0, y0, height]])
    return Mesh(name, vertices, np.array([[0, 1, 2], [0, 2, 3]], np.int32), material, "object")


def _inner(random: np.random.Generator, options: Rooms) -> Iterator[Wall]:
    """Walls between rooms, and along both sides of the corridor with the gaps of open doors."""
    width, depth = options.size_m
    corridor = float(random.uniform(*options.corridor_m))
    free = depth - corridor - 2 * LEAST_ROOM_M
    low = LEAST_ROOM_M + free * float(random.uniform(0.3, 0.7))
    for edge, end in ((low, 0.0), (low + corridor, depth)):
        at = 0.0
        while at < width:
            stop = at + float(random.uniform(*options.room_m))
            stop = width if stop > width - options.room_m[0] else stop
            door = float(random.uniform(at + 0.3, stop - 0.3 - DOOR_M))
            if random.random() < options.open:
                yield (at, edge), (door, edge)
                yield (door + DOOR_M, edge), (stop, edge)
            else:
                yield (at, edge), (stop, edge)
            if stop < width:
                yield (stop, min(edge, end)), (stop, max(edge, end))
            at = stop


def _cabinets(random: np.random.Generator, options: Rooms, height: float) -> Iterator[Mesh]:
    """Boxes of metal on the floor, lower than the ceiling, none over another."""
    width, depth = options.size_m
    taken = shapely.Polygon()
    for index in range(options.cabinets):
        sides = random.uniform([0.5, 0.5], [4.0, 1.5])
        x, y = random.uniform([1.0, 1.0], [width - 5.0, depth - 5.0])
        if random.random() < 0.5:
            sides = sides[::-1]
        box = shapely.box(x, y, x + sides[0], y + sides[1])
        top = float(random.uniform(1.0, 0.8 * height))
        if box.intersects(taken):
            continue
        taken = shapely.union(taken, box.buffer(0.3))
        yield replace(extrude(Footprint(box, round(top, 2), material="metal", name=f"cabinet-{index}")))
