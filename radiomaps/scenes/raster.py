"""Scenes from GeoTIFF: heights of buildings above ground, or surface models with the terrain below them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geoml.data.raster import require_metres
from geoml.errors import DataError, UserError
from radiomaps.scenes.extrude import scene_of_footprints
from radiomaps.scenes.projection import local_crs, project, shifted_crs
from radiomaps.scenes.scene import Footprint, Mesh, Scene

__all__ = ["load_raster", "prisms", "terrain_mesh"]


def load_raster(
    path: str | os.PathLike[str],
    *,
    terrain: str | os.PathLike[str] | None = None,
    level_m: float = 3.0,
    lowest_m: float = 2.5,
    simplify_m: float | None = None,
    crs: str | None = None,
    material: str = "concrete",
    licence: str = "",
) -> Scene:
    """A scene from a raster of heights; north is up, metres are taken from its reference system or `crs`.

    Without `terrain` the values are heights above flat ground; with it, a GeoTIFF of the same cells, they are a
    surface, the terrain becomes the ground, and buildings are what rises above it. Cells at least `lowest_m` high are
    grouped by their height, in steps of `level_m`, into prisms whose outline follows the cells, simplified by
    `simplify_m` (default: half a cell). No data counts as ground.
    """
    path = Path(path)
    heights, (x0, y0, step_x, step_y), found = _read(path, crs)
    ground, floor = None, np.zeros_like(heights)
    if terrain is not None:
        floor, place, _ = _read(Path(terrain), crs)
        if floor.shape != heights.shape or np.abs(np.subtract(place, (x0, y0, step_x, step_y))).max() > 0.01 * step_x:
            raise DataError(f"{terrain} has other cells than {path}; resample one onto the other")
        low = float(np.nanmin(floor)) if np.isfinite(floor).any() else 0.0
        floor = np.nan_to_num(floor, nan=low)
        ground = terrain_mesh(floor, x0, y0, step_x, step_y)
    above = np.nan_to_num(heights - floor, nan=0.0)
    if not above.max() >= lowest_m:
        raise DataError(f"{path} has no cell {lowest_m:g} m or more above ground; its highest is {above.max():g} m")
    footprints = prisms(above, floor, (x0, y0, step_x, step_y), level_m, lowest_m, simplify_m, material)
    rows, columns = heights.shape
    bounds = (x0, y0, x0 + columns * step_x, y0 + rows * step_y)
    return scene_of_footprints(
        path.stem, footprints, bounds=bounds, ground=ground, crs=found, licence=licence, source=str(path)
    )


def _read(path: Path, crs: str | None) -> tuple[NDArray[np.float64], tuple[float, float, float, float], str]:
    """Band 1 as `[y, x]` from the south, its south-west corner and steps in local metres, and the reference system.

    Projected coordinates are counted from the south-west corner, as ray tracers calculate in single precision. Degrees
    become metres around the middle of the raster: cells are scaled, which is right to 1e-4 over some kilometres.
    """
    import rasterio

    try:
        with rasterio.open(path) as file:
            band = file.read(1, masked=True).astype(np.float64).filled(np.nan)[::-1]
            transform, system, bounds = file.transform, file.crs, file.bounds
    except rasterio.errors.RasterioError as error:
        raise DataError(f"{path} is no readable raster ({error})") from error
    if abs(transform.b) > 1e-9 or abs(transform.d) > 1e-9 or transform.e >= 0:
        raise DataError(f"{path} is rotated or not north up; warp it first (gdalwarp)")
    if crs == "local":
        return band, (bounds.left, bounds.bottom, transform.a, -transform.e), "local"
    try:
        known = rasterio.crs.CRS.from_string(crs) if crs else system
    except rasterio.errors.CRSError as error:
        raise UserError(
            f"crs={crs!r} is no reference system ({error}); write EPSG:4326, or local for metres"
        ) from error
    if known is None:
        raise UserError(f"{path} names no reference system; give crs=EPSG:… or crs=local for metres")
    require_metres(known, path)
    if not known.is_geographic:
        return band, (0.0, 0.0, transform.a, -transform.e), shifted_crs(known, bounds.left, bounds.bottom)
    text = known.to_string()
    middle = ((bounds.left + bounds.right) / 2, (bounds.bottom + bounds.top) / 2)
    local = local_crs(*middle)
    edges = np.array(
        [[bounds.left, middle[1]], [bounds.right, middle[1]], [middle[0], bounds.bottom], [middle[0], bounds.top]]
    )
    west, east, south, north = project(edges, text, local)
    rows, columns = band.shape
    steps = (float(east[0] - west[0]) / columns, float(north[1] - south[1]) / rows)
    return band, (float(west[0]), float(south[1]), *steps), local


def prisms(
    above: NDArray[np.float64],
    floor: NDArray[np.float64],
    place: tuple[float, float, float, float],
    level_m: float,
    lowest_m: float,
    simplify_m: float | None,
    material: str,
) -> list[Footprint]:
    """Connected cells of one step of height as polygons, each as high as its cells on average."""
    from rasterio.features import shapes
    from scipy import ndimage

    x0, y0, step_x, step_y = place
    levels = np.where(above >= lowest_m, np.maximum(np.rint(above / level_m), 1), 0).astype(np.int32)
    labels = np.zeros(levels.shape, np.int32)
    for level in np.unique(levels[levels > 0]):
        found, _ = ndimage.label(levels == level)
        labels = np.where(found > 0, found + labels.max(), labels)
    numbers = np.arange(labels.max() + 1)
    mean = ndimage.mean(above, labels, numbers)
    base = ndimage.minimum(floor, labels, numbers)
    top = ndimage.mean(above + floor, labels, numbers)
    footprints = []
    for geometry, value in shapes(labels, mask=labels > 0, connectivity=4, transform=(step_x, 0, x0, 0, step_y, y0)):
        polygon = shapely.geometry.shape(geometry)
        smooth = simplify_m if simplify_m is not None else 0.5 * max(step_x, step_y)
        polygon = shapely.simplify(polygon, smooth) if smooth else polygon
        number = int(value)
        height = float(top[number] - base[number]) if np.ptp(floor) > 0 else float(mean[number])
        footprints.append(Footprint(polygon, height, float(base[number]), material, f"{number}"))
    return footprints


def terrain_mesh(heights: Any, x0: float, y0: float, step_x: float, step_y: float) -> Mesh:
    """The ground through the middles of cells `[y, x]`, continued level to the raster's edges."""
    rows, columns = heights.shape
    x = np.concatenate([[x0], x0 + step_x * (np.arange(columns) + 0.5), [x0 + step_x * columns]])
    y = np.concatenate([[y0], y0 + step_y * (np.arange(rows) + 0.5), [y0 + step_y * rows]])
    z = np.pad(np.asarray(heights, np.float64), 1, mode="edge")
    xx, yy = np.meshgrid(x, y)
    width = columns + 2
    corner = (np.arange(rows + 1)[:, None] * width + np.arange(columns + 1)).ravel()
    faces = np.concatenate(
        [
            np.stack([corner, corner + 1, corner + width + 1], axis=1),
            np.stack([corner, corner + width + 1, corner + width], axis=1),
        ]
    )
    return Mesh("terrain", np.column_stack([xx.ravel(), yy.ravel(), z.ravel()]), faces, "concrete", "ground")
