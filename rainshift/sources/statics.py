"""Static fields of any grid brought to the fine one: land fraction and surface geopotential."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from geoml.errors import DataError
from geoml.grids.grid import Grid, conform, grid_of
from geoml.regrid import Method, Regridder
from rainshift.sources.era5_files import hdf5_engine
from rainshift.sources.variables import VARIABLES, inside_factor

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["read_statics"]

GRAVITY_M_S2 = 9.80665
NAMES = {
    "lsm": ("lsm", "land_fraction", "land_sea_mask", "landfrac", "landseamask", "sftlf"),
    "z": ("z", "geopotential", "geopotential_at_surface", "orog", "orography", "elevation", "height", "topo"),
}
METRES = ("m", "metre", "metres", "meter", "meters")


def read_statics(files: Mapping[str, str], grid: Grid) -> xr.Dataset:
    """`lsm` (0–1) and `z` (m² s⁻²) on `grid`, from NetCDF or GeoTIFF files; heights in metres become geopotential.

    Finer fields are averaged over the cells, coarser ones interpolated. A file that does not cover the grid raises
    `DataError`.
    """
    import xarray as xr

    made = {}
    for name, given in files.items():
        path = Path(str(given)).expanduser()
        array = conform(_read(path, name))
        label = f"{path}: {array.name!r}"
        values = np.asarray(array.values, np.float64) * _factor(name, array, label)
        if array.name == "landseamask":  # IMERG's own mask counts water, in per cent
            values = 1 - np.asarray(array.values, np.float64) / 100
        source = grid_of(array)
        method: Method = "conservative" if source["lat"].step <= grid["lat"].step else "bilinear"
        _require_cover(source, grid, label)
        field = Regridder(source, grid, method)(values)
        if name == "lsm":
            if np.nanmin(field) < -0.01 or np.nanmax(field) > 1.01:
                raise DataError(f"{label} runs from {np.nanmin(field):g} to {np.nanmax(field):g}; expected 0 to 1")
            field = np.clip(field, 0, 1)
        made[name] = (grid.names, field.astype(np.float32), VARIABLES[name].attrs)
    return xr.Dataset(made, grid.coords())


def _read(path: Path, name: str) -> xr.DataArray:
    if path.suffix.lower() in (".tif", ".tiff"):
        from geoml.data.raster import read_raster

        array = read_raster(path)
        return array.assign_attrs(units="m" if name == "z" else "1")
    from geoml.data.netcdf import read_dataset

    dataset = read_dataset(path, **hdf5_engine(path))
    found = [given for given in dataset.data_vars if str(given).lower() in NAMES[name]]
    if len(found) != 1:
        held = ", ".join(map(str, dataset.data_vars))
        raise DataError(f"{path} holds {held}; expected one of {', '.join(NAMES[name])} for {name}")
    array = dataset[found[0]].reset_coords(drop=True)
    return array.squeeze([dim for dim in array.dims if array.sizes[dim] == 1], drop=True)


def _factor(name: str, array: xr.DataArray, label: str) -> float:
    units = array.attrs.get("units")
    if name == "z" and (str(units).lower() in METRES or (units is None and array.name != "z")):
        return GRAVITY_M_S2
    if array.name == "landseamask":
        return 1.0
    return inside_factor(name, units, label=label)


def _require_cover(source: Grid, grid: Grid, label: str) -> None:
    for have, want in zip(source.axes, grid.axes, strict=True):
        if have.period is None and (want.start < have.edges[0] - 1e-6 or want.stop > have.edges[-1] + 1e-6):
            raise DataError(
                f"{label}: {have.name} runs from {have.start:g} to {have.stop:g}; {want.start:g} to {want.stop:g} "
                "is needed"
            )
