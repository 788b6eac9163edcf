"""Rasters of heights from GeoTIFF: scale and offset, units, voids, and any affine transform."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoml.errors import DataError, UserError
from radiomaps.scenes.projection import WGS84, local_crs, project, reference_system
from radiomaps.scenes.repairs import Repairs

__all__ = ["Heights", "read_heights"]

#: Limits of plausible heights (m) above sea level; values outside are fill values.
_LOWEST_M, _HIGHEST_M = -500.0, 9500.0
_MOST_CELLS = 100_000_000
_UNITS = {
    **dict.fromkeys(("", "m", "metre", "metres", "meter", "meters"), 1.0),
    **dict.fromkeys(("ft", "foot", "feet", "international foot", "international feet"), 0.3048),
    **dict.fromkeys(("us survey foot", "us survey feet", "us-ft", "us_ft", "ftus", "us foot"), 1200 / 3937),
    "dm": 0.1, "decimetre": 0.1, "decimeter": 0.1, "cm": 0.01, "centimetre": 0.01, "centimeter": 0.01,
    "mm": 0.001, "millimetre": 0.001, "millimeter": 0.001, "km": 1000.0,
}  # fmt: skip


@dataclass(frozen=True)
class Heights:
    """Heights in metres `[row, column]`, NaN where unknown; `transform` maps column and row to x and y.

    `system` is a rasterio `CRS`, or None for local metres.
    """

    path: Path
    values: NDArray[np.float64]
    transform: Any
    system: Any

    def points(self, columns: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Coordinates (n, 2) of the raster's system; (0, 0) is the outer corner of the first cell."""
        x, y = self.transform @ (columns, rows)
        return np.column_stack([x, y])

    def pixels(self, points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Columns and rows of points (n, 2) in the raster's system."""
        x, y = points.T
        if self.system is not None and self.system.is_geographic:
            # The raster may count longitudes from 0 to 360.
            middle = self.points(np.array([self.values.shape[1] / 2]), np.array([self.values.shape[0] / 2]))[0, 0]
            x = (x - middle + 180) % 360 - 180 + middle
        columns, rows = ~self.transform @ (x, y)
        return columns, rows

    @property
    def outline(self) -> NDArray[np.float64]:
        """Points along the raster's edges, in its system."""
        rows, columns = self.values.shape
        along = np.linspace(0, 1, 9)
        edges = [(along * columns, 0 * along), (along * columns, 0 * along + rows)]
        edges += [(0 * along, along * rows), (0 * along + columns, along * rows)]
        return np.concatenate([self.points(*edge) for edge in edges])

    @property
    def step_m(self) -> float:
        """The shorter side of a cell in the middle of the raster, in metres."""
        rows, columns = self.values.shape
        middle = self.points(np.array([0, 1, 0]) + columns / 2, np.array([0, 0, 1]) + rows / 2)
        if self.system is not None:
            degrees = middle if self.system.is_geographic else project(middle, self.system, WGS84)
            middle = project(degrees, WGS84, local_crs(*degrees[0]))
        return float(min(np.hypot(*(middle[1] - middle[0])), np.hypot(*(middle[2] - middle[0]))))

    def filled(self, repairs: Repairs) -> Heights:
        """Voids filled from the known cells around them."""
        from rasterio.fill import fillnodata
        from scipy.ndimage import distance_transform_edt

        void = np.isnan(self.values)
        if not void.any():
            return self
        if void.all():
            raise DataError(f"{self.path} holds no height")
        repairs.note("void cells of the terrain filled from their neighbours", count=int(void.sum()))
        values = self.values.astype(np.float32)
        filled = fillnodata(values, mask=(~void).astype(np.uint8), max_search_distance=100.0)
        nearest = distance_transform_edt(void, return_distances=False, return_indices=True)
        far = void & ~np.isfinite(filled)
        values = np.where(void, filled.astype(np.float64), self.values)
        return replace(self, values=np.where(far, self.values[tuple(nearest)], values))


def read_heights(path: Path, *, crs: str | None, repairs: Repairs) -> Heights:
    """Band 1 in metres, by the band's scale, offset and unit; declared and implausible fill values become NaN.

    `crs` replaces a missing or wrong reference system of the file; "local" means that coordinates are metres.
    """
    import rasterio
    from rasterio.enums import ColorInterp

    if not path.is_file():
        raise UserError(f"{path} does not exist")
    try:
        with rasterio.open(path) as file:
            if file.width * file.height > _MOST_CELLS:
                raise DataError(f"{path} has {file.width} × {file.height} cells; cut a part out (gdal_translate)")
            if np.issubdtype(np.dtype(file.dtypes[0]), np.complexfloating):
                raise DataError(f"{path} holds complex numbers; heights were expected")
            if file.colorinterp[0] == ColorInterp.red and file.count >= 3:
                raise DataError(f"{path} is a picture (red, green, blue); a raster of heights was expected")
            band = file.read(1, masked=True)
            scale, offset, unit = file.scales[0], file.offsets[0], file.units[0]
            transform, system, count = file.transform, file.crs, file.count
    except rasterio.errors.RasterioError as error:
        raise DataError(f"{path} is no readable raster ({error})") from error
    if count > 1:
        repairs.note("bands after the first not read", count=count - 1)
    system = _system(path, system, crs)
    values = band.astype(np.float64).filled(np.nan) * scale + offset
    values *= _metres(path, unit, system)
    odd = (values < _LOWEST_M) | (values > _HIGHEST_M) | np.isinf(values)
    if odd.any():
        shown = f"{float(values[odd][0]):g} m"
        repairs.note("cells with impossible heights taken as no data", f"{path.name}: {shown}", count=int(odd.sum()))
        values[odd] = np.nan
    if transform.is_identity:  # how a missing georeference is read
        repairs.note("no georeference: cells of 1 m, the first row in the north")
        transform = rasterio.Affine(1, 0, 0, 0, -1, values.shape[0])
    if abs(transform.determinant) < 1e-300:
        raise DataError(f"{path} says nothing of the place and size of its cells")
    return Heights(path, values, transform, system)


def _system(path: Path, found: Any, crs: str | None) -> Any:
    if crs == "local":
        return None
    system = reference_system(crs, where=str(path)) if crs else found
    if system is None:
        raise UserError(f"{path} names no reference system; give crs=EPSG:… or crs=local for metres")
    return system


def _metres(path: Path, unit: str | None, system: Any) -> float:
    """Metres per unit of height: from the band's unit, else from the vertical reference system, else 1."""
    word = (unit or "").strip().lower()
    if not word and system is not None:
        vertical = re.search(r'VERT_CS\[.*?UNIT\["([^"]*)",([\d.eE+-]+)', system.to_wkt())
        if vertical:
            return float(vertical[2])
        if system.is_projected and abs(system.linear_units_factor[1] - 1) > 1e-9:
            raise DataError(
                f"{path} has coordinates in {system.linear_units} and heights of no stated unit; state the band's unit "
                "(gdal_edit.py -units), or warp it to metres (gdalwarp -t_srs …)"
            )
    if word not in _UNITS:
        raise DataError(f"{path}: heights in {unit!r} are not understood; expected m, dm, cm, ft or us-ft")
    return _UNITS[word]
