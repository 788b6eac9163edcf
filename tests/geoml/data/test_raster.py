"""GeoTIFF: round trip on the grid; what lacks a reference system is refused with the option."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
import xarray as xr

from geoml.data.raster import read_raster
from geoml.errors import DataError
from geoml.grids.grid import Grid, grid_of

GRIDS = {
    "EPSG:4326": Grid.latlon(40, 43, -5, 0, 0.5),
    "EPSG:3857": Grid.box({"y": 0, "x": 100}, {"y": 40, "x": 160}, 10),
}


def write_raster(path, array, crs):
    """A 2-D DataArray as GeoTIFF, north up."""
    rows, columns = grid_of(array).axes
    north = rows.start + rows.step * (rows.size - 0.5)
    transform = rasterio.Affine(columns.step, 0, columns.start - columns.step / 2, 0, -rows.step, north)
    profile = {"driver": "GTiff", "dtype": "float32", "count": 1, "nodata": np.nan, "transform": transform}
    with rasterio.open(path, "w", height=rows.size, width=columns.size, crs=crs, **profile) as sink:
        sink.write(array.values[::-1].astype(np.float32), 1)


@pytest.mark.parametrize("crs", GRIDS)
def test_round_trip(tmp_path, crs):
    grid = GRIDS[crs]
    values = np.arange(grid.size, dtype="f4").reshape(grid.shape)
    values[1, 2] = np.nan
    array = xr.DataArray(values, grid.coords(), grid.names, attrs={"crs": crs})
    write_raster(tmp_path / "a.tif", array, crs)
    back = read_raster(tmp_path / "a.tif")
    assert np.array_equal(back, values, equal_nan=True)
    assert all(mine.matches(its) for mine, its in zip(grid_of(back).axes, grid.axes, strict=True))


def test_without_reference_system(tmp_path):
    path = tmp_path / "a.tif"
    profile = {"driver": "GTiff", "dtype": "int16", "count": 1, "height": 3, "width": 4, "nodata": -9}
    with rasterio.open(path, "w", transform=rasterio.Affine(0.1, 0, 5, 0, -0.1, 52), **profile) as sink:
        sink.write(np.array([[1, 2, 3, -9]] * 3, "i2"), 1)
    with pytest.raises(DataError, match="crs='EPSG:4326'"):
        read_raster(path)
    array = read_raster(path, crs="EPSG:4326")
    assert array.dims == ("lat", "lon")
    assert np.allclose(array.lat, [51.75, 51.85, 51.95])
    assert np.isnan(array[:, 3]).all()
    path.write_text("no raster")
    with pytest.raises(DataError, match="cannot be read as a raster"):
        read_raster(path)


def test_feet_are_refused(tmp_path):
    profile = {"driver": "GTiff", "dtype": "float32", "count": 1, "height": 3, "width": 4, "crs": "EPSG:2263"}
    with rasterio.open(tmp_path / "a.tif", "w", transform=rasterio.Affine(3, 0, 0, 0, -3, 9), **profile) as sink:
        sink.write(np.zeros((3, 4), "f4"), 1)
    with pytest.raises(DataError, match="coordinates in US survey foot; warp it to metres"):
        read_raster(tmp_path / "a.tif")
