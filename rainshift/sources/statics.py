"""Read static fields (land fraction, surface geopotential) and regrid them to the fine grid."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from geoml.constants import STANDARD_GRAVITY
from geoml.errors import DataError
from geoml.grids.grid import Grid, conform, grid_of
from geoml.regrid import Method, Regridder
from rainshift.sources.era5_files import hdf5_engine
from rainshift.sources.validity import validity_of
from rainshift.sources.variables import VARIABLES, inside_factor

__all__ = ["read_statics"]

NAMES = {
    "lsm": ("lsm", "land_fraction", "land_sea_mask", "landfrac", "landseamask", "sftlf"),
    "z": ("z", "geopotential", "geopotential_at_surface", "orog", "orography", "elevation", "height", "topo"),
}
#: Units of height in metres.
LENGTHS = {"m": 1.0, "metre": 1.0, "meter": 1.0, "dm": 0.1, "cm": 0.01, "mm": 0.001, "km": 1000.0, "ft": 0.3048,
           "foot": 0.3048, "feet": 0.3048, "us survey foot": 1200 / 3937}  # fmt: skip
#: Range of land heights in metres, from the Dead Sea to Mount Everest with some margin.
LAND_M = (-500.0, 9000.0)


def read_statics(files: Mapping[str, str], grid: Grid) -> xr.Dataset:
    """Read `lsm` (0–1), `z` (m² s⁻²) and others by name on `grid`, from NetCDF or GeoTIFF files.

    Heights are converted to geopotential; other fields keep their units.

    Finer fields are averaged over cells, coarser fields are interpolated. Raises `DataError` for a file that does not
    cover the grid, or has impossible values.
    """
    made = {}
    for name, given in files.items():
        path = Path(str(given)).expanduser()
        array = conform(_read(path, name))
        label = f"{path}: {array.name!r}"
        array = array.copy(
            data=validity_of(array, label, rain=False).apply(np.asarray(array.values, np.float64), label)
        )
        values = array.values * _factor(name, array, label)
        _refuse_voids(name, values, label)
        if array.name == "landseamask":  # the mask of IMERG is the share of water in percent
            values = 1 - np.asarray(array.values, np.float64) / 100
        source = grid_of(array)
        method: Method = "conservative" if source["lat"].step <= grid["lat"].step else "bilinear"
        _require_cover(source, grid, label)
        field = Regridder(source, grid, method)(values)
        if name == "lsm":
            if np.nanmin(field) < -0.01 or np.nanmax(field) > 1.01:
                raise DataError(f"{label} covers {np.nanmin(field):g} to {np.nanmax(field):g}; expected 0 to 1")
            field = np.clip(field, 0, 1)
        attrs = VARIABLES[name].attrs if name in VARIABLES else {"units": str(array.attrs.get("units", "1"))}
        made[name] = (grid.names, field.astype(np.float32), attrs)
    return xr.Dataset(made, grid.coords())


def _read(path: Path, name: str) -> xr.DataArray:
    if path.suffix.lower() in (".tif", ".tiff"):
        from geoml.data.raster import read_raster

        array = read_raster(path)
        return array.assign_attrs(units=array.attrs.get("units") or ("m" if name == "z" else "1"))
    from geoml.data.netcdf import read_dataset

    dataset = read_dataset(path, **hdf5_engine(path))
    known = NAMES.get(name, (name.lower(),))
    found = [given for given in dataset.data_vars if str(given).lower() in known]
    if not found and name not in NAMES and len(dataset.data_vars) == 1:
        found = list(dataset.data_vars)
    if len(found) != 1:
        held = ", ".join(map(str, dataset.data_vars))
        raise DataError(f"{path} contains {held}; expected one of {', '.join(known)} for {name}")
    array = dataset[found[0]].reset_coords(drop=True)
    return array.squeeze([dim for dim in array.dims if array.sizes[dim] == 1], drop=True)


def _factor(name: str, array: xr.DataArray, label: str) -> float:
    units = array.attrs.get("units")
    length = "m" if units is None and array.name != "z" else str(units).strip().lower()
    if name == "z" and (known := LENGTHS.get(length, LENGTHS.get(length.removesuffix("s")))):
        return STANDARD_GRAVITY * known
    if array.name == "landseamask":
        return 1.0
    return inside_factor(name, units, label=label) if name in VARIABLES else 1.0


def _refuse_voids(name: str, values: NDArray[np.float64], label: str) -> None:
    """Raise `DataError` for heights outside the range of land: undeclared fill values, or wrong units."""
    if name != "z" or not np.isfinite(values).any():
        return
    low, high = np.nanmin(values) / STANDARD_GRAVITY, np.nanmax(values) / STANDARD_GRAVITY
    if low < LAND_M[0] or high > LAND_M[1]:
        raise DataError(
            f"{label} has heights from {low:g} to {high:g} m; expected {LAND_M[0]:g} to {LAND_M[1]:g} m. "
            "If these values mark missing data, declare them (_FillValue, or nodata in a GeoTIFF); else check the "
            "units"
        )


def _require_cover(source: Grid, grid: Grid, label: str) -> None:
    for have, want in zip(source.axes, grid.axes, strict=True):
        if have.period is None and (want.start < have.edges[0] - 1e-6 or want.stop > have.edges[-1] + 1e-6):
            raise DataError(
                f"{label}: {have.name} covers {have.start:g} to {have.stop:g}; expected at least {want.start:g} to "
                f"{want.stop:g}"
            )
