"""Rings of multipolygons: ways joined at their ends, and their area by the even-odd rule."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import shapely
from shapely.geometry.base import BaseGeometry

__all__ = ["Ring", "distinct", "fill", "join", "unwrap"]


@dataclass(frozen=True)
class Ring:
    """A closed line of nodes, and the ways it was joined from."""

    nodes: tuple[str, ...]
    ways: tuple[str, ...]


def join(lines: Mapping[str, Sequence[str]]) -> tuple[list[Ring], list[str]]:
    """Join lines of nodes at equal ends, in either direction, to rings; returns the rings and the remaining lines.

    Where more than two lines meet, several results are possible; by the even-odd rule all of them enclose the same
    area.

    >>> rings, rest = join({"a": ["1", "2", "3"], "b": ["1", "4", "3"], "c": ["7", "8"]})
    >>> rings[0].nodes, rest
    (('1', '2', '3', '4', '1'), ['c'])
    """
    ends: dict[str, set[str]] = defaultdict(set)
    for name, nodes in lines.items():
        if len(nodes) > 1:
            ends[nodes[0]].add(name)
            ends[nodes[-1]].add(name)
    rings: list[Ring] = []
    rest: list[str] = []
    pending = {name: None for name, nodes in lines.items() if len(nodes) > 1}
    while pending:
        name = next(iter(pending))
        chain, ways = list(lines[name]), [name]
        del pending[name]
        while chain[0] != chain[-1]:
            following = next((way for way in sorted(ends[chain[-1]]) if way in pending), None)
            if following is None:
                break
            nodes = lines[following]
            chain += nodes[1:] if nodes[0] == chain[-1] else nodes[-2::-1]
            ways.append(following)
            del pending[following]
        if chain[0] == chain[-1] and len(set(chain)) >= 3:
            rings.append(Ring(tuple(chain), tuple(ways)))
        else:
            rest += ways
    return rings, rest


def distinct(rings: Sequence[Ring]) -> list[Ring]:
    """The rings without those that repeat the nodes of an earlier one, from wherever and in whichever direction.

    >>> [ring.ways for ring in distinct([Ring(("1", "2", "3", "1"), ("a",)), Ring(("3", "2", "1", "3"), ("b",))])]
    [('a',)]
    """
    found: dict[frozenset[frozenset[str]], Ring] = {}
    for ring in rings:
        edges = zip(ring.nodes[:-1], ring.nodes[1:], strict=True)
        found.setdefault(frozenset(frozenset(edge) for edge in edges), ring)
    return list(found.values())


def fill(polygons: Sequence[BaseGeometry]) -> tuple[BaseGeometry, list[int]]:
    """The area that rings enclose by the even-odd rule, and the number of other rings around each.

    >>> yard, depths = fill([shapely.box(0, 0, 6, 6), shapely.box(1, 1, 5, 5)])
    >>> yard.area, depths
    (20.0, [0, 1])
    """
    solid = [shapely.make_valid(polygon) for polygon in polygons]
    filled: BaseGeometry = shapely.Polygon()
    for polygon in solid:
        filled = filled.symmetric_difference(polygon)
    inner = [polygon.representative_point() for polygon in solid]
    depths = [
        sum(other.area > polygon.area and other.contains(point) for other in solid if other is not polygon)
        for polygon, point in zip(solid, inner, strict=True)
    ]
    return filled, depths


def unwrap(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Longitudes and latitudes of one line without the jump at 180°: each longitude within 180° of the first.

    >>> unwrap([(179.9, 0.0), (-179.9, 0.0)])
    [(179.9, 0.0), (180.1, 0.0)]
    """
    first = points[0][0]
    return [(x + 360 * round((first - x) / 360), y) for x, y in points]
