"""ERA5 as the Climate Data Store gives it: NetCDF of the old and the new style, and GRIB, as one set of fields.

Old NetCDF has `time`, a dimension `expver` where preliminary data are among final ones, and packed integers; new NetCDF
has `valid_time`, `number` and `expver` beside it, instantaneous and accumulated fields in files of their own; GRIB has
forecasts by `time` and `step`. Sums (`tp`, `cp`, `tisr`) are those of the hour that ends at the valid time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoml.data.netcdf import HDF5, read_dataset
from geoml.errors import DataError, UserError
from geoml.grids.grid import Grid, conform, grid_of
from rainshift.sources.boxes import cut
from rainshift.sources.rain_files import check_rain
from rainshift.sources.time_blocks import TimeBlocks, of_years
from rainshift.sources.variables import VARIABLES, inside_factor

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Field", "find_files", "hdf5_engine", "read_fields", "to_dataset"]

NETCDF, GRIB = (".nc", ".nc4", ".zarr", ".zip"), (".grib", ".grb", ".grib2", ".grb2")
LEVELS = ("level", "pressure_level", "isobaricInhPa", "plev")
#: Other names of the variables: of requests, of ARCO-ERA5, and of the fields that are mean rates already.
ALIASES = {
    "convective_available_potential_energy": "cape", "convective_precipitation": "cp", "surface_pressure": "sp",
    "total_column_cloud_liquid_water": "tclw", "total_column_water": "tcw", "toa_incident_solar_radiation": "tisr",
    "total_precipitation": "tp", "u_component_of_wind": "u", "v_component_of_wind": "v", "mtpr": "tp",
    "avg_tprate": "tp", "mean_total_precipitation_rate": "tp", "mcpr": "cp", "avg_cpr": "cp", "land_sea_mask": "lsm",
    "geopotential_at_surface": "z",
}  # fmt: skip
BLOCK_HOURS = 24


@dataclass(frozen=True)
class Field:
    """Some times of one variable in one file: `(lead…, lat, lon)` as the file has it, and its valid times."""

    name: str
    array: xr.DataArray
    time: NDArray[np.datetime64]
    label: str
    preliminary: bool = False

    @property
    def grid(self) -> Grid:
        """The grid of the field."""
        return grid_of(self.array, registration="node")

    def hours(self, grid: Grid, keep: NDArray[np.intp]) -> Any:
        """Those of its times on a grid, lazily, in the units inside."""
        rows, columns = cut(self.grid, grid, self.label)
        array = self.array.isel(lat=rows, lon=columns)
        per_row = array.sizes["step"] if "step" in array.dims else 1
        units = array.attrs.get("units")
        factor = inside_factor(self.name, units, label=self.label) if self.name in VARIABLES else 1.0
        shape = (len(self.time), grid.shape[0], grid.shape[1])
        length = max(1, BLOCK_HOURS // per_row) * per_row
        lazy = TimeBlocks(_Era5Reader(self.name, array, factor, per_row, self.label), shape, length).lazy()
        return lazy if len(keep) == len(self.time) else lazy[keep]


@dataclass(frozen=True)
class _Era5Reader:
    """Reads times of a field: runs and steps in one line, final data before preliminary ones, units inside."""

    name: str
    array: xr.DataArray
    factor: float
    per_row: int
    label: str

    def __call__(self, part: slice) -> NDArray[np.float32]:
        rows = slice(part.start // self.per_row, -(-part.stop // self.per_row))
        try:
            values = np.asarray(self.array.isel(time=rows).values, np.float64)
        except (OSError, ValueError, RuntimeError, EOFError) as error:
            raise DataError(f"{self.label} cannot be read at {rows}: {error}") from error
        if "expver" in self.array.dims:
            final = values[:, 0]
            for other in range(1, values.shape[1]):
                final = np.where(np.isnan(final), values[:, other], final)
            values = final
        values = values.reshape(-1, *values.shape[-2:])
        row = VARIABLES.get(self.name)
        if row is not None and row.units == "mm h-1":
            return check_rain(values, self.label, self.factor)
        return (values * self.factor).astype(np.float32)


def find_files(root: Path) -> list[Path]:
    """ERA5 files in a folder, or the one file."""
    if root.is_file() or root.suffix == ".zarr":
        return [root]
    found = sorted(path for path in root.rglob("*") if path.suffix.lower() in (*NETCDF, *GRIB)
                   and not any(parent.suffix == ".zarr" for parent in path.parents))  # fmt: skip
    if not found:
        raise UserError(f"{root} holds no file that ends in {', '.join((*NETCDF, *GRIB))}")
    return found


def read_fields(paths: Sequence[Path], names: Sequence[str], *, level_hpa: float = 700.0) -> list[Field]:
    """The fields of some variables in all files; `u`, `v` and what else has levels at one of them."""
    fields = []
    for path in paths:
        for dataset in _datasets(path):
            for given, array in dataset.data_vars.items():
                name = str(given) if str(given) in names else ALIASES.get(str(given), str(given))
                if name in names and name not in ("lsm", "z"):
                    fields.append(_field(name, array, dataset, f"{path}: {str(given)!r}", level_hpa))
    return fields


def _datasets(path: Path) -> Iterator[xr.Dataset]:
    """The data sets in a file: one in NetCDF, one for each kind of level and step in GRIB."""
    if path.suffix.lower() not in GRIB:
        yield read_dataset(path, **hdf5_engine(path))
        return
    try:
        import cfgrib
    except ImportError as error:
        raise UserError(f"{path} is GRIB, which needs cfgrib: pip install 'geoml[grib]'") from error
    with open(path, "rb") as stream:
        if stream.read(4) != b"GRIB":
            raise DataError(f"{path} does not begin as GRIB does; it may be truncated or of another format")
    try:
        found = cfgrib.open_datasets(str(path), backend_kwargs={"indexpath": "", "errors": "raise"})
    except Exception as error:  # those of eccodes and cfgrib share no base
        raise DataError(f"{path} cannot be read as GRIB; it may be truncated: {error}") from error
    yield from found


def hdf5_engine(path: Path) -> dict[str, str]:
    """HDF5 is read through h5py, as IMERG is: the library inside netCDF4 beside it crashes when both read at once."""
    if not path.is_file() or path.suffix == ".zip":
        return {}
    with open(path, "rb") as stream:
        return {"engine": "h5netcdf"} if stream.read(8) == HDF5 else {}


def _field(name: str, array: xr.DataArray, dataset: xr.Dataset, label: str, level_hpa: float) -> Field:
    array = _at_level(array, level_hpa, label)
    for dim in ("number", "realization", "member"):
        if dim in array.dims:
            if array.sizes[dim] > 1:
                raise DataError(
                    f"{label} is an ensemble of {array.sizes[dim]}; take one member or the deterministic run"
                )
            array = array.isel({dim: 0})
    preliminary = False
    if "expver" in array.dims:  # 1 is final, 5 preliminary
        order = np.argsort([int(str(value)) for value in array["expver"].values])
        array = array.isel(expver=order)
        preliminary = array.sizes["expver"] > 1
    elif "expver" in array.coords:
        preliminary = bool(np.isin(np.asarray(array["expver"].values).astype(str), ("0005", "5")).any())
    array, time = _valid_times(array, label)
    try:
        array = conform(array.reset_coords(drop=True), registration="node")
    except DataError as error:
        raise DataError(f"{label}: {error}") from error
    lead = [dim for dim in ("time", "expver", "step") if dim in array.dims]
    if strange := [dim for dim in array.dims if dim not in (*lead, "lat", "lon")]:
        raise DataError(f"{label} has dims {array.dims}; {strange[0]!r} is not understood")
    if "expver" in lead and "step" in lead:
        raise DataError(f"{label} has both expver and step; split the file")
    if array.dtype.kind in "iu":
        raise DataError(f"{label} holds integers without scale_factor; they mean nothing unscaled")
    return Field(name, array.transpose(*lead, "lat", "lon"), time, label, preliminary)


def _at_level(array: xr.DataArray, level_hpa: float, label: str) -> xr.DataArray:
    name = next((level for level in LEVELS if level in array.coords or level in array.dims), None)
    if name is None or name not in array.coords:
        return array
    levels = np.atleast_1d(array[name].values).astype(float) / (100.0 if name == "plev" else 1.0)
    place = np.flatnonzero(np.isclose(levels, level_hpa))
    if not place.size:
        raise DataError(f"{label} is at {', '.join(f'{v:g}' for v in levels)} hPa; data.level_hpa is {level_hpa:g}")
    return array.isel({name: int(place[0])}) if name in array.dims else array


def _valid_times(array: xr.DataArray, label: str) -> tuple[xr.DataArray, NDArray[np.datetime64]]:
    """The array with a leading dim `time` (and `step`), and its valid times in one line."""
    if "valid_time" in array.dims:
        array = array.drop_vars("time", errors="ignore").rename({"valid_time": "time"})
    elif "time" not in array.dims and "step" in array.dims:
        array = array.drop_vars("time", errors="ignore").rename({"step": "time"})
    elif "time" not in array.dims:
        array = array.expand_dims("time")
    valid = array["valid_time"] if "valid_time" in array.coords else array.coords.get("time")
    if valid is None or valid.dtype.kind != "M":
        raise DataError(f"{label} has no times that are dates; dims are {array.dims}")
    if "step" in array.dims:
        valid = valid.transpose("time", "step")
    time = np.atleast_1d(valid.values).astype("datetime64[ns]").ravel()
    count = array.sizes["time"] * (array.sizes["step"] if "step" in array.dims else 1)
    if len(time) != count or np.isnat(time).any():
        raise DataError(f"{label} has {len(time)} valid times for {count} fields")
    return array, time


def to_dataset(
    fields: Sequence[Field], names: Sequence[str], grid: Grid, label: str, *, years: Sequence[int] | None = None
) -> xr.Dataset:
    """Variables on one grid at the times that all of them have, ascending, lazily, in the units inside."""
    import dask.array as da
    import xarray as xr

    placed: dict[str, tuple[NDArray[np.datetime64], Any]] = {}
    for name in names:
        parts = [field for field in fields if field.name == name]
        if not parts:
            held = ", ".join(sorted({field.name for field in fields})) or "none of them"
            raise DataError(f"{label} lacks {name}; wanted are {', '.join(names)}, found are {held}")
        kept = [_known(field, grid) for field in parts]
        time = np.concatenate([field.time[keep] for field, keep in zip(parts, kept, strict=True)])
        values = da.concatenate([field.hours(grid, keep) for field, keep in zip(parts, kept, strict=True)])
        order = np.argsort(time, kind="stable")
        if (same := np.flatnonzero(np.diff(time[order]) == np.timedelta64(0))).size:
            source = np.repeat(np.arange(len(parts)), [len(keep) for keep in kept])[order]
            pair = [parts[source[same[0] + i]].label for i in (0, 1)]
            raise DataError(f"{' and '.join(dict.fromkeys(pair))} have {time[order][same[0]]} twice; keep one")
        placed[name] = time[order], values if (np.diff(order) == 1).all() else values[order]
    common = np.array(sorted(set.intersection(*(set(time) for time, _ in placed.values()))), "datetime64[ns]")
    if not len(common):
        spans = "; ".join(f"{name} {time[0]} to {time[-1]}" for name, (time, _) in placed.items())
        raise DataError(f"{label}: the variables have no time in common: {spans}")
    common = common[of_years(common, years, label)]
    data = {}
    for name, (time, values) in placed.items():
        attrs = VARIABLES[name].attrs if name in VARIABLES else {"units": str(_units(fields, name))}
        keep = np.searchsorted(time, common)
        data[name] = (("time", *grid.names), values if len(keep) == len(time) else values[keep], attrs)
    return xr.Dataset(data, {"time": common, **grid.coords()})


def _units(fields: Sequence[Field], name: str) -> str:
    return next(str(field.array.attrs.get("units", "1")) for field in fields if field.name == name)


def _known(field: Field, grid: Grid) -> NDArray[np.intp]:
    """Positions of the times that a field has: of forecasts, the first and last run may lack steps."""
    count = len(field.time)
    if "step" not in field.array.dims:
        return np.arange(count)
    rows, columns = cut(field.grid, grid, field.label)
    corner = field.array.isel(lat=rows, lon=columns)
    steps = corner.sizes["step"]
    known = np.ones(count, bool)
    for run in {0, corner.sizes["time"] - 1}:
        values = np.asarray(corner.isel(time=run).values)
        known[run * steps : (run + 1) * steps] = np.isfinite(values).any(axis=(-2, -1))
    return np.flatnonzero(known)
