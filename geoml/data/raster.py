"""Reading and writing GeoTIFF with rasterio."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geoml.errors import DataError
from geoml.grids.grid import conform

__all__ = ["read_raster", "require_metres"]


def read_raster(path: str | os.PathLike[str], *, crs: str | None = None, band: int = 1) -> xr.DataArray:
    """One band as a DataArray on its grid, axes ascending, NaN where the file has no data.

    The band's scale and offset are applied; attrs hold the `crs`, the number of `bands`, and the band's `units` if
    the file has them.

    A file without a coordinate reference system, rotated, in feet, or unreadable raises `DataError`; `crs`
    ("EPSG:4326") is used if the file has none.
    """
    import rasterio

    path = Path(path)
    if not path.exists():
        raise DataError(f"{path} does not exist")
    try:
        with rasterio.open(path) as source:
            found, transform = source.crs, source.transform
            values, bands = source.read(band, masked=True), source.count
            scale, offset, unit = source.scales[band - 1], source.offsets[band - 1], source.units[band - 1]
    except (rasterio.errors.RasterioError, IndexError) as error:
        raise DataError(f"{path} cannot be read as a raster, band {band}: {error}") from error
    if found is None and crs is None:
        raise DataError(f"{path} has no coordinate reference system; pass it, for example crs='EPSG:4326'")
    if transform.b or transform.d:
        raise DataError(f"{path} is rotated or sheared ({tuple(transform)[:6]}); warp it to a north-up grid first")
    system = rasterio.crs.CRS.from_user_input(found or crs)
    require_metres(system, path)
    names = ("lat", "lon") if system.is_geographic else ("y", "x")
    units = ("degrees_north", "degrees_east") if system.is_geographic else ("m", "m")
    starts, steps = (transform.f, transform.c), (transform.e, transform.a)
    coords: dict[str, Any] = {
        name: (name, start + step * (np.arange(size) + 0.5), {"units": unit, "registration": "centre"})
        for name, start, step, size, unit in zip(names, starts, steps, values.shape, units, strict=True)
    }
    filled = (values.astype(np.float64) * scale + offset).astype(np.float32).filled(np.nan)
    attrs = {"crs": system.to_string(), "bands": bands, **({"units": unit} if unit else {})}
    array = xr.DataArray(filled, coords, names, name=path.stem, attrs=attrs)
    return conform(array)


def require_metres(system: Any, path: Path) -> None:
    """Raise `DataError` if the coordinates of a projected rasterio `CRS` are not in metres."""
    if system.is_projected and abs(system.linear_units_factor[1] - 1) > 1e-9:
        raise DataError(f"{path} has coordinates in {system.linear_units}; warp it to metres first (gdalwarp -t_srs …)")
