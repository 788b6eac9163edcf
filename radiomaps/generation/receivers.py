"""Receivers of path tables: given positions, a walk along waypoints, or random positions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoml.errors import UserError
from geoml.grids.grid import Grid
from radiomaps.generation.plan import Placement
from radiomaps.scenes import Scene

__all__ = ["Motion", "Receivers"]

_MOST = 10_000_000


@dataclass(frozen=True, eq=False)
class Motion:
    """Positions and velocities `(n, 3)` in m and m/s, and times `(n,)` in s, of receivers or of one moving receiver."""

    position_m: NDArray[np.float64]
    velocity_m_s: NDArray[np.float64]
    time_s: NDArray[np.float64]


@dataclass(frozen=True)
class Receivers:
    """`positions_m` as given, or a walk through `waypoints_m`, or `count` random positions outdoors in a window.

    A walk goes straight from waypoint to waypoint at `speed_m_s`, sampled every `interval_s`. Random receivers are
    `height_m` above the ground and move in random directions at `speed_m_s`. Given positions do not move.
    """

    positions_m: tuple[tuple[float, float, float], ...] = ()
    waypoints_m: tuple[tuple[float, float, float], ...] = ()
    count: int = 100
    height_m: float = 1.5
    speed_m_s: float = 0.0
    interval_s: float = 0.1

    def __post_init__(self) -> None:
        for name in ("positions_m", "waypoints_m"):
            object.__setattr__(self, name, _places(name, getattr(self, name) or ()))
        if self.positions_m and self.waypoints_m:
            raise UserError("receivers: give positions_m or waypoints_m, not both")
        if not (0 <= self.speed_m_s < 1e5 and 0 < self.interval_s < math.inf):
            raise UserError(
                f"receivers: speed_m_s={self.speed_m_s} and interval_s={self.interval_s} describe no motion"
            )
        if self.waypoints_m and (len(self.waypoints_m) < 2 or not self.speed_m_s):
            raise UserError("receivers: a walk needs two waypoints_m or more and a speed_m_s above 0")
        if not 1 <= self.count <= _MOST:
            raise UserError(f"receivers: count={self.count}; expected 1 … {_MOST}")

    def motion(self, scene: Scene, grid: Grid, seed: int) -> Motion:
        """Positions and velocities; `grid` is the window of random receivers."""
        if self.waypoints_m:
            return self._walk()
        random = np.random.default_rng([seed, 1])
        if self.positions_m:
            position = np.array(self.positions_m)
            return Motion(position, np.zeros_like(position), np.zeros(len(position)))
        places = Placement(count=self.count, height_m=self.height_m).random_places(scene, grid, (seed, 2))
        position = np.array(places)
        heading = random.uniform(0, 2 * np.pi, len(position))
        velocity = self.speed_m_s * np.stack([np.cos(heading), np.sin(heading), np.zeros_like(heading)], axis=1)
        return Motion(position, velocity, np.zeros(len(position)))

    def _walk(self) -> Motion:
        points = np.array(self.waypoints_m)
        legs = np.diff(points, axis=0)
        lengths = np.linalg.norm(legs, axis=1)
        if not (lengths > 0).all():
            raise UserError("receivers: two consecutive waypoints are equal")
        ends = np.cumsum(lengths)
        number = int(ends[-1] / self.speed_m_s / self.interval_s + 1e-9) + 1
        if number > _MOST:
            raise UserError(f"receivers: a walk of {number} positions; the maximum is {_MOST}, increase interval_s")
        time = self.interval_s * np.arange(number)
        way = np.minimum(time * self.speed_m_s, ends[-1])
        leg = np.minimum(np.searchsorted(ends, way, side="right"), len(legs) - 1)
        ahead = legs[leg] / lengths[leg, None]
        position = points[leg] + (way - (ends - lengths)[leg])[:, None] * ahead
        return Motion(position, np.asarray(self.speed_m_s * ahead, np.float64), np.asarray(time, np.float64))


def _places(name: str, values: Sequence[Any]) -> tuple[tuple[float, ...], ...]:
    """Triples of finite numbers."""
    try:
        places = tuple(tuple(float(part) for part in place) for place in values)
    except (TypeError, ValueError):
        places = ((),)
    if any(len(place) != 3 or not all(map(math.isfinite, place)) for place in places):
        raise UserError(f"receivers: {name}={list(values)}; expected [[x, y, z], …] in metres")
    return places
