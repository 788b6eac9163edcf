"""Procedural city blocks: streets, blocks split into plots, buildings with courtyards, a few towers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import shapely
from shapely import affinity

from geoml.errors import UserError
from radiomaps.scenes.extrude import scene_of_footprints
from radiomaps.scenes.footprints import polygons_of
from radiomaps.scenes.scene import Footprint, Scene

__all__ = ["CityBlocks", "city_blocks"]


@dataclass(frozen=True)
class CityBlocks:
    """Parameters of city blocks; lengths in metres.

    Heights are log-normal with median `median_height_m`, clipped to `height_m` (6.6 … 19.8 m, the range of the
    published UrbanRadio3D maps). The share `towers` has heights in `tower_height_m` instead. The share `empty` has no
    building.
    """

    size_m: float = 256.0
    block_m: tuple[float, float] = (45.0, 90.0)
    street_m: tuple[float, float] = (12.0, 28.0)
    plot_m: float = 24.0
    height_m: tuple[float, float] = (6.6, 19.8)
    median_height_m: float = 12.0
    towers: float = 0.0
    tower_height_m: tuple[float, float] = (40.0, 120.0)
    empty: float = 0.2
    courtyards: float = 0.25
    material: str = "concrete"

    def __post_init__(self) -> None:
        low, high = self.height_m
        if not (0 < low <= self.median_height_m <= high) or self.size_m < 32 or self.plot_m < 6:
            raise UserError(
                f"city blocks of {self.size_m} m with plots of {self.plot_m} m and heights {low} … {high} m around "
                f"{self.median_height_m} m make no city: 0 < low <= median <= high, size >= 32, plots >= 6"
            )


def city_blocks(seed: int, options: CityBlocks | None = None, *, name: str = "") -> Scene:
    """City blocks on ground of `size_m` by `size_m` from (0, 0); equal seeds and options give equal scenes.

    >>> scene = city_blocks(7)
    >>> scene.hash == city_blocks(7).hash, scene.hash == city_blocks(8).hash
    (True, False)
    """
    options = options or CityBlocks()
    random = np.random.default_rng([0x5C37E, seed])
    size = options.size_m
    square = shapely.box(0.0, 0.0, size, size)
    reach = size * math.sqrt(2) / 2
    angle = float(random.uniform(0, 90))
    columns, rows = (_streets(random, reach, options) for _ in range(2))
    footprints = []
    for x0, x1 in columns:
        for y0, y1 in rows:
            for plot in _plots(random, (x0, y0, x1, y1), options):
                turned = affinity.translate(affinity.rotate(plot, angle, origin=(0, 0)), size / 2, size / 2)
                footprints += _buildings(random, turned.intersection(square), options)
    bounds = (0.0, 0.0, size, size)
    licence = "CC0-1.0 (generated)"
    return scene_of_footprints(name or f"procedural-{seed}", footprints, bounds=bounds, licence=licence)


def _streets(random: np.random.Generator, reach: float, options: CityBlocks) -> list[tuple[float, float]]:
    """Intervals of blocks along one axis from -reach to reach, with streets between them."""
    spans, at = [], -reach - float(random.uniform(0, options.block_m[0]))
    while at < reach:
        width = float(random.uniform(*options.block_m))
        spans.append((at, at + width))
        at += width + float(random.uniform(*options.street_m))
    return spans


def _plots(
    random: np.random.Generator, box: tuple[float, float, float, float], options: CityBlocks
) -> list[shapely.Polygon]:
    """The plots of a block: one perimeter building with a courtyard, or plots along its longer side."""
    x0, y0, x1, y1 = box
    if random.random() < options.courtyards:
        depth = float(random.uniform(9, 14))
        outer, inner = shapely.box(x0, y0, x1, y1), shapely.box(x0 + depth, y0 + depth, x1 - depth, y1 - depth)
        return [outer.difference(inner)] if min(x1 - x0, y1 - y0) > 2 * depth + 8 else [outer]
    if max(x1 - x0, y1 - y0) < 2 * options.plot_m or (
        max(x1 - x0, y1 - y0) < 3 * options.plot_m and random.random() < 0.3
    ):
        back, side = float(random.uniform(0, 5)), float(random.uniform(0, 3))
        return [shapely.box(x0 + side, y0 + back, x1 - side, y1 - back)]
    cut = float(random.uniform(0.4, 0.6))
    if x1 - x0 >= y1 - y0:
        middle = x0 + cut * (x1 - x0)
        halves = [(x0, y0, middle, y1), (middle, y0, x1, y1)]
    else:
        middle = y0 + cut * (y1 - y0)
        halves = [(x0, y0, x1, middle), (x0, middle, x1, y1)]
    return [plot for half in halves for plot in _plots(random, half, options)]


def _buildings(random: np.random.Generator, plot: shapely.Geometry, options: CityBlocks) -> list[Footprint]:
    """The building on a plot; the number of random draws is constant."""
    empty, tower, high, spread = random.random(), random.random(), random.uniform(), random.normal(0.0, 0.3)
    if tower < options.towers:
        low, top = options.tower_height_m
        height = low + (top - low) * float(high)
    else:
        height = float(np.clip(options.median_height_m * math.exp(spread), *options.height_m))
    if empty < options.empty:
        return []
    return [
        Footprint(polygon, round(height, 1), material=options.material)
        for polygon in polygons_of(plot)
        if polygon.area > 16
    ]
