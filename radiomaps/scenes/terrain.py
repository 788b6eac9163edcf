"""The ground of a scene from a GeoTIFF of terrain heights: a mesh, and heights at points."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geoml.errors import DataError, UserError
from radiomaps.scenes.heights import Heights, read_heights
from radiomaps.scenes.projection import Frame
from radiomaps.scenes.repairs import Repairs
from radiomaps.scenes.scene import Mesh

__all__ = ["MOST_POINTS", "Terrain", "sheet"]

#: Largest number of points of the mesh; denser rasters are thinned.
MOST_POINTS = 4_000_000


@dataclass(frozen=True)
class Terrain:
    """Heights of the ground for a scene in the metres of `frame`."""

    heights: Heights
    frame: Frame

    @classmethod
    def read(cls, path: Path, *, repairs: Repairs, crs: str | None = None) -> Terrain:
        """Read a raster and fill its voids from their neighbours."""
        return cls(read_heights(path, crs=crs, repairs=repairs).filled(repairs), Frame())

    def placed(self, frame: Frame) -> Terrain:
        """The same ground for a scene in the metres of `frame`."""
        if (frame.crs == "local") != (self.heights.system is None):
            raise UserError(
                f"{self.heights.path}: only one of terrain and footprints has a reference system; expected both. "
                "Give crs=EPSG:… for the footprints, or assign one to the raster (gdal_edit.py -a_srs)"
            )
        return Terrain(self.heights, frame)

    def at(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Height at points (n, 2) in the scene's metres, interpolated linearly between cell centres."""
        from scipy.ndimage import map_coordinates

        there = points + np.asarray(self.frame.origin) if self.frame.crs == "local" else self._projected(points)
        columns, rows = self.heights.pixels(there)
        count_y, count_x = self.heights.values.shape
        # The ground is constant up to half a cell beyond the outer cell centres, and unknown farther out.
        outside = (columns < -0.01) | (rows < -0.01) | (columns > count_x + 0.01) | (rows > count_y + 0.01)
        if outside.any():
            x, y = points[np.flatnonzero(outside)[0]]
            raise DataError(
                f"{self.heights.path} does not reach ({x:.0f}, {y:.0f}) m of the scene; take a raster that covers it "
                "all, or a smaller bounds_m"
            )
        return map_coordinates(self.heights.values, [rows - 0.5, columns - 0.5], order=1, mode="nearest")

    def _projected(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.frame.back(points, self.heights.system)

    def lowest(self, polygon: shapely.Polygon) -> float:
        """The lowest ground along the walls of a building."""
        step = max(self._step_m(), 0.5)
        return float(self.at(shapely.get_coordinates(shapely.segmentize(polygon, step))).min())

    def mesh(self, bounds: tuple[float, float, float, float]) -> Mesh:
        """The ground over (xmin, ymin, xmax, ymax), with about the resolution of the raster."""
        x0, y0, x1, y1 = bounds
        step = max(self._step_m(), float(np.sqrt((x1 - x0) * (y1 - y0) / MOST_POINTS)))
        x = np.linspace(x0, x1, max(round((x1 - x0) / step), 1) + 1)
        y = np.linspace(y0, y1, max(round((y1 - y0) / step), 1) + 1)
        xx, yy = np.meshgrid(x, y)
        return sheet(xx, yy, self.at(np.column_stack([xx.ravel(), yy.ravel()])).reshape(xx.shape))

    def _step_m(self) -> float:
        return self.heights.step_m


def sheet(x: NDArray[Any], y: NDArray[Any], z: NDArray[Any]) -> Mesh:
    """A ground mesh through a lattice of points: three arrays of one shape (rows, columns), normals upward."""
    rows, columns = z.shape
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    faces = np.concatenate(
        [
            np.stack([corner, corner + 1, corner + columns + 1], axis=1),
            np.stack([corner, corner + columns + 1, corner + columns], axis=1),
        ]
    )
    vertices = np.column_stack([x.ravel(), y.ravel(), z.ravel()])
    a, b, c = (vertices[faces[0, k], :2] for k in range(3))
    if (b[0] - a[0]) * (c[1] - a[1]) < (b[1] - a[1]) * (c[0] - a[0]):
        faces = faces[:, ::-1]
    return Mesh("terrain", vertices, faces, "concrete", "ground")
