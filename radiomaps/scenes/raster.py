"""Scenes from GeoTIFF: heights of buildings above ground, or surface models with the terrain below them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geoml.errors import DataError
from radiomaps.scenes.extrude import parse_bounds, scene_of_footprints
from radiomaps.scenes.heights import Heights, read_heights
from radiomaps.scenes.projection import Frame
from radiomaps.scenes.repairs import Repairs
from radiomaps.scenes.scene import Footprint, Mesh, Scene
from radiomaps.scenes.tags import HIGHEST_M
from radiomaps.scenes.terrain import MOST_POINTS, Terrain, sheet

__all__ = ["load_raster", "prisms"]

#: Share of cells that are ground, at least, where heights are above it: a surface model over the sea has none.
_LEAST_GROUND = 0.005

Mapping2D = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def load_raster(
    path: str | os.PathLike[str],
    *,
    terrain: str | os.PathLike[str] | None = None,
    level_m: float = 3.0,
    lowest_m: float = 2.5,
    simplify_m: float | None = None,
    crs: str | None = None,
    bounds_m: Sequence[float] | None = None,
    material: str = "concrete",
    licence: str = "",
) -> Scene:
    """A scene from a raster of heights in its reference system, or `crs`; rotated rasters are supported.

    Without `terrain` the values are heights above flat ground. With `terrain`, another GeoTIFF that covers the area,
    the values are a surface model, the terrain is the ground, and buildings are the cells above it. Cells at least
    `lowest_m` high are grouped by height, in steps of `level_m`, into prisms whose outline follows the cells,
    simplified by `simplify_m` (default: half a cell). The band's scale, offset and unit are applied; cells without data
    are ground.
    """
    path, repairs = Path(path), Repairs()
    for name, value in (("level_m", level_m), ("lowest_m", lowest_m)):
        if not value > 0:
            raise DataError(f"{name}={value}; expected metres above 0")
    heights = read_heights(path, crs=crs, repairs=repairs)
    edge = heights.outline
    frame = Frame.of(edge, heights.system, where=str(path), corner_m=0.0)

    def local(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
        return frame.local(heights.points(pixels[:, 0], pixels[:, 1]))

    floor, ground = np.zeros_like(heights.values), None
    (x0, y0), (x1, y1) = frame.local(edge).min(axis=0).tolist(), frame.local(edge).max(axis=0).tolist()
    around, bounds = (x0, y0, x1, y1), parse_bounds(bounds_m)
    if terrain is not None:
        below = Terrain.read(Path(terrain), repairs=repairs, crs=crs)
        below = Terrain(below.heights, frame) if below.heights.system == heights.system else below.placed(frame)
        floor = _floor(below, heights, local)
        ground = below.mesh(bounds or around) if bounds or floor.size > MOST_POINTS else _ground(floor, local)
    above = np.nan_to_num(heights.values - floor, nan=0.0)
    if terrain is None and (high := above > HIGHEST_M).any():
        repairs.note("cells with impossible heights taken as no data", f"{above[high][0]:g} m", count=int(high.sum()))
        above[high] = 0.0
    if not above.max() >= lowest_m:
        noted = "".join(f" ({line})" for line in repairs.lines())
        raise DataError(
            f"{path} has no cell {lowest_m:g} m or more above ground; its highest is {above.max():g} m{noted}"
        )
    if terrain is None and (above < lowest_m).mean() < _LEAST_GROUND:
        raise DataError(
            f"{path} has no ground: its lowest cell is {above.min():g} m high. If it is a surface model, name the "
            "terrain below it (terrain=dem.tif); heights above ground are 0, or no data, where there is no building"
        )
    smooth = simplify_m if simplify_m is not None else 0.5 * heights.step_m
    footprints = prisms(above, floor, local, level_m=level_m, lowest_m=lowest_m, simplify_m=smooth, material=material)
    return scene_of_footprints(
        path.stem, footprints, bounds=bounds or around, cut=bounds is not None, ground=ground, crs=frame.crs,
        licence=licence, source=str(path), repairs=repairs,
    )  # fmt: skip


def _floor(below: Terrain, surface: Heights, local: Mapping2D) -> NDArray[np.float64]:
    """Heights of the ground at the centres of the surface's cells."""
    rows, columns = surface.values.shape
    corners = [np.array([0.0, columns, 0.0]), np.array([0.0, 0.0, rows])]
    apart = np.abs(below.heights.points(*corners) - surface.points(*corners)).max()
    step = np.abs(np.diff(surface.points(*corners), axis=0)).max() / max(rows, columns)
    if below.heights.values.shape == surface.values.shape and apart <= 0.01 * step:
        return below.heights.values
    xx, yy = np.meshgrid(np.arange(columns) + 0.5, np.arange(rows) + 0.5)
    return below.at(local(np.column_stack([xx.ravel(), yy.ravel()]))).reshape(rows, columns)


def prisms(
    above: NDArray[np.float64],
    floor: NDArray[np.float64],
    local: Mapping2D,
    *,
    level_m: float,
    lowest_m: float,
    simplify_m: float,
    material: str,
) -> list[Footprint]:
    """Polygons of connected cells within one step of height, with the mean height of their cells.

    `above` and `floor` are `[row, column]`; `local` maps columns and rows (n, 2) of cell corners to metres.
    """
    from rasterio.features import shapes
    from scipy import ndimage

    levels = np.where(above >= lowest_m, np.maximum(np.rint(above / level_m), 1), 0).astype(np.int32)
    labels = np.zeros(levels.shape, np.int32)
    for level in np.unique(levels[levels > 0]):
        found, _ = ndimage.label(levels == level)
        labels = np.where(found > 0, found + labels.max(), labels)
    numbers = np.arange(labels.max() + 1)
    mean = ndimage.mean(above, labels, numbers)
    base = ndimage.minimum(floor, labels, numbers)
    top = ndimage.mean(above + floor, labels, numbers)
    found = list(shapes(labels, mask=labels > 0, connectivity=4))
    polygons = np.array([shapely.geometry.shape(geometry) for geometry, _ in found], dtype=object)
    polygons = shapely.simplify(shapely.transform(polygons, local), simplify_m)
    flat = not np.ptp(floor) > 0
    return [
        Footprint(
            polygon,
            float(mean[number] if flat else top[number] - base[number]),
            float(base[number]),
            material,
            f"{number}",
        )
        for polygon, number in zip(polygons, (int(value) for _, value in found), strict=True)
    ]


def _ground(heights: NDArray[np.float64], local: Mapping2D) -> Mesh:
    """The ground through the centres of cells, extended horizontally to the raster's edges."""
    rows, columns = heights.shape
    x = np.concatenate([[0.0], np.arange(columns) + 0.5, [columns]])
    y = np.concatenate([[0.0], np.arange(rows) + 0.5, [rows]])
    z: Any = np.pad(heights, 1, mode="edge")
    xx, yy = np.meshgrid(x, y)
    points = local(np.column_stack([xx.ravel(), yy.ravel()]))
    return sheet(points[:, 0].reshape(z.shape), points[:, 1].reshape(z.shape), z)
