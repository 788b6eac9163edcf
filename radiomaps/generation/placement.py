"""Transmitters of generated maps: cells of a sites file, given positions, or random ones in streets and on roofs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from geoml.errors import UserError
from geoml.grids.grid import Grid
from radiomaps.antennas.sites import RadioCell, cells_of
from radiomaps.maps.layout import Transmitter
from radiomaps.scenes import Scene

__all__ = ["Placement"]


@dataclass(frozen=True)
class Placement:
    """Transmitters of a scene: the cells of `sites`, or `positions_m`, or `count` at random places in the window.

    `sites` is a file or its content (`radiomaps.antennas.sites`); its cells define antennas and powers. Random
    transmitters are `height_m` above the ground ([low, high]: log-uniform between them), at least `clear_m` from walls
    if the scene has such positions. The last `on_roofs` of the `count` stand `mast_m` above a roof instead.
    """

    count: int = 1
    height_m: float | tuple[float, float] = 1.5
    power_dbm: float = 23.0
    positions_m: tuple[tuple[float, float, float], ...] = ()
    pattern: str = "iso"
    polarization: str = "V"
    clear_m: float = 1.0
    sites: Any = ()
    on_roofs: int = 0
    mast_m: float = 3.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "height_m", _height_or_range(self.height_m))
        if not 0 <= self.on_roofs <= self.count:
            raise UserError(f"transmitters: on_roofs={self.on_roofs} of count={self.count}; expected 0 … count")
        if self.sites:
            if self.positions_m:
                raise UserError("transmitters: give sites or positions_m, not both")
            object.__setattr__(self, "sites", tuple(cell.describe() for cell in cells_of(self.sites)))
        try:
            places = tuple(tuple(map(float, place)) for place in self.positions_m or ())
        except (TypeError, ValueError):
            given = list(self.positions_m)
            raise UserError(f"transmitters: positions_m={given}; expected [[x, y, z], …] in metres") from None
        object.__setattr__(self, "positions_m", places)
        if self.number < 1:
            raise UserError("transmitters: give positions_m, or a count of at least 1")

    @property
    def number(self) -> int:
        return len(self.sites or self.positions_m) or self.count

    @property
    def cells(self) -> tuple[RadioCell, ...]:
        """The cells of `sites`."""
        return cells_of(list(self.sites)) if self.sites else ()

    def transmitters(self, scene: Scene, grid: Grid, seed: Sequence[int]) -> list[Transmitter]:
        """Positions; equal for the same scene, grid and seed."""
        if self.sites:
            return [cell.transmitter(scene) for cell in self.cells]
        places = self.positions_m or self.random_places(scene, grid, seed)
        return [
            Transmitter(place, self.power_dbm, f"tx{index}", self.pattern, self.polarization)
            for index, place in enumerate(places)
        ]

    def random_places(self, scene: Scene, grid: Grid, seed: Sequence[int]) -> list[tuple[float, float, float]]:
        """`count` different cells of the grid outdoors, at `height_m` above their ground."""
        from scipy.ndimage import distance_transform_edt

        random = np.random.default_rng(list(seed))
        ground = scene.ground_height(grid)
        level = Grid(grid.axes[1:]).with_axis(Grid.box({"z": 0}, {"z": 1}, 1.0)["z"])
        roofs = scene.height_map(level) - ground
        room = np.pad(roofs <= 0, 1, mode="edge")
        distance = distance_transform_edt(room)[1:-1, 1:-1] * grid["x"].step
        in_streets = self.count - self.on_roofs
        free = np.flatnonzero(distance > self.clear_m)
        if free.size < in_streets:
            free = np.flatnonzero(roofs <= 0)
        chosen = [
            _some_cells(random, cells, count, f"scene {scene.name!r}: {what} in the window")
            for cells, count, what in (
                (free, in_streets, "free cells"),
                (np.flatnonzero(roofs > 0), self.on_roofs, "cells of roofs"),
            )
        ]
        rows, columns = np.unravel_index(np.concatenate(chosen), ground.shape)
        heights: Any = np.full(self.count, self.height_m if not isinstance(self.height_m, tuple) else np.nan)
        if isinstance(self.height_m, tuple):
            low, high = map(math.log, self.height_m)
            heights = np.exp(random.uniform(low, high, self.count)).round(2)
        heights[in_streets:] = (roofs[rows, columns] + self.mast_m)[in_streets:]
        return [
            (float(grid["x"].coordinates[i]), float(grid["y"].coordinates[j]), float(ground[j, i] + height))
            for j, i, height in zip(rows, columns, heights, strict=True)
        ]


def _some_cells(random: np.random.Generator, cells: Any, count: int, where: str) -> Any:
    """Choose `count` different cells at random; raises `UserError` if there are fewer."""
    if cells.size < count:
        raise UserError(f"{where}: {cells.size}; {count} antennas do not fit")
    return random.choice(cells, count, replace=False) if count else cells[:0]


def _height_or_range(value: Any) -> Any:
    """A height in metres, or two, positive and ascending."""
    try:
        if not isinstance(value, Sequence) or isinstance(value, str):
            float(value)
            return value
        low, high = map(float, value)
    except (TypeError, ValueError):
        raise UserError(f"transmitters: height_m={value!r}; expected metres, or [low, high]") from None
    if not 0 < low <= high:
        raise UserError(f"transmitters: height_m={list(value)}; expected 0 < low <= high")
    return low, high
