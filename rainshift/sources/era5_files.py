"""Read ERA5 files of the Climate Data Store as one set of fields: old and new NetCDF layout, and GRIB.

The old NetCDF layout has `time`, packed integers, and a dimension `expver` if preliminary data are included. The new
NetCDF layout has `valid_time` with coordinates `number` and `expver`, and separate files for instantaneous and
accumulated fields. GRIB has forecasts by `time` and `step`. Accumulations (`tp`, `cp`, `tisr`) are over the hour that
ends at the valid time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from geoml.data.netcdf import HDF5, read_dataset
from geoml.errors import DataError, UserError
from geoml.grids.grid import Grid, conform, grid_of
from rainshift.sources.boxes import cut
from rainshift.sources.intervals import bounds_of, cell_method
from rainshift.sources.opening import GRIB, grib_data_sets
from rainshift.sources.time_blocks import TimeBlocks, of_years
from rainshift.sources.times import snapped
from rainshift.sources.usual import versions
from rainshift.sources.validity import Validity, check_rain, validity_of
from rainshift.sources.variables import VARIABLES, inside_factor

__all__ = ["Field", "find_files", "hdf5_engine", "read_fields", "to_dataset"]

NETCDF = (".nc", ".nc4", ".zarr", ".zip")
LEVELS = ("level", "pressure_level", "isobaricInhPa", "plev")
#: Other names of the variables: in requests, in ARCO-ERA5, and for fields that are mean rates.
ALIASES = {
    "convective_available_potential_energy": "cape", "convective_precipitation": "cp", "surface_pressure": "sp",
    "total_column_cloud_liquid_water": "tclw", "total_column_water": "tcw", "toa_incident_solar_radiation": "tisr",
    "total_precipitation": "tp", "u_component_of_wind": "u", "v_component_of_wind": "v", "mtpr": "tp",
    "avg_tprate": "tp", "mean_total_precipitation_rate": "tp", "mcpr": "cp", "avg_cpr": "cp", "land_sea_mask": "lsm",
    "geopotential_at_surface": "z",
}  # fmt: skip
BLOCK_HOURS = 24
HOUR = np.timedelta64(1, "h")
EVERYTHING = Validity()
#: GRIB step types of instantaneous and hourly fields.
HOURLY_KINDS = ("instant", "accum", "avg", "max", "min", "diff", "unknown")


@dataclass(frozen=True)
class Field:
    """Times of one variable in one file: `(lead…, lat, lon)` as in the file, with valid times."""

    name: str
    array: xr.DataArray
    time: NDArray[np.datetime64]
    label: str
    preliminary: bool = False
    validity: Validity = EVERYTHING
    method: str | None = None
    width_hours: float | None = None
    #: Whether values are accumulated since the start of a forecast.
    running: bool = False

    @property
    def grid(self) -> Grid:
        """The grid of the field."""
        return grid_of(self.array, registration="node")

    def hours(self, grid: Grid, keep: NDArray[np.intp]) -> Any:
        """Return the times at positions `keep` on a grid, lazily, in internal units."""
        rows, columns = cut(self.grid, grid, self.label)
        array = self.array.isel(lat=rows, lon=columns)
        per_row = array.sizes["step"] if "step" in array.dims else 1
        units = array.attrs.get("units")
        factor = inside_factor(self.name, units, label=self.label) if self.name in VARIABLES else 1.0
        shape = (len(self.time), grid.shape[0], grid.shape[1])
        length = max(1, BLOCK_HOURS // per_row) * per_row
        lazy = TimeBlocks(_Era5Reader(self, array, factor, per_row), shape, length).lazy()
        return lazy if len(keep) == len(self.time) else lazy[keep]


@dataclass(frozen=True)
class _Era5Reader:
    """Read times of a field in internal units. Runs and steps are flattened; final data replace preliminary data."""

    field: Field
    array: xr.DataArray
    factor: float
    per_row: int

    def __call__(self, part: slice) -> NDArray[np.float32]:
        field, label = self.field, self.field.label
        rows = slice(part.start // self.per_row, -(-part.stop // self.per_row))
        try:
            values = np.asarray(self.array.isel(time=rows).values, np.float64)
        except (OSError, ValueError, RuntimeError, EOFError) as error:
            raise DataError(f"{label} cannot be read at {rows}: {error}") from error
        values = field.validity.apply(values, label)
        if "expver" in self.array.dims:
            final = values[:, 0]
            for other in range(1, values.shape[1]):
                final = np.where(np.isnan(final), values[:, other], final)
            values = final
        if field.running:
            values = np.maximum(np.diff(values, axis=1, prepend=np.zeros_like(values[:, :1])), 0)
        values = values.reshape(-1, *values.shape[-2:])
        row = VARIABLES.get(field.name)
        if row is not None and row.units == "mm h-1":
            return check_rain(values, label, self.factor)
        return (values * self.factor).astype(np.float32)


def find_files(root: Path) -> list[Path]:
    """Return the ERA5 files in a folder, or the single file."""
    if root.is_file() or root.suffix == ".zarr":
        return [root]
    found = sorted(path for path in root.rglob("*") if path.suffix.lower() in (*NETCDF, *GRIB)
                   and not any(parent.suffix == ".zarr" for parent in path.parents))  # fmt: skip
    if not found:
        raise UserError(f"{root} contains no ERA5 file; expected files with suffix {', '.join((*NETCDF, *GRIB))}")
    return found


def read_fields(paths: Sequence[Path], names: Sequence[str], *, level_hpa: float = 700.0) -> list[Field]:
    """Return the fields of the variables `names` in all files. Variables on levels (`u`, `v`, …) are at `level_hpa`."""
    fields = []
    for path in paths:
        for dataset in _datasets(path):
            for given, array in dataset.data_vars.items():
                name = str(given) if str(given) in names else ALIASES.get(str(given), str(given))
                if name in names and name not in ("lsm", "z"):
                    fields.append(_field(name, array, dataset, f"{path}: {str(given)!r}", level_hpa))
    return fields


def _datasets(path: Path) -> Iterator[xr.Dataset]:
    """Yield the data sets in a file: one for NetCDF, one per type of level and step for GRIB."""
    if path.suffix.lower() in GRIB:
        yield from grib_data_sets(path)
    else:
        yield read_dataset(path, **hdf5_engine(path))


def hdf5_engine(path: Path) -> dict[str, str]:
    """Return the keywords of `xarray.open_dataset` that read HDF5 with h5py, as for IMERG.

    netCDF4 contains a second copy of the HDF5 library. Reading with both at the same time crashes.
    """
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
                    f"{label} is an ensemble of {array.sizes[dim]}; select one member or the deterministic run"
                )
            array = array.isel({dim: 0})
    rain = name in VARIABLES and VARIABLES[name].units == "mm h-1"
    validity, method = validity_of(array, label, rain=rain), cell_method(array)
    _refuse_statistics(array, label)
    width = _width(dataset, array)
    preliminary = False
    if "expver" in array.dims:  # 1 is final, 5 preliminary
        order = np.argsort(versions(array, label), kind="stable")
        array = array.isel(expver=order)
        preliminary = array.sizes["expver"] > 1
    elif "expver" in array.coords:
        preliminary = 5 in versions(array, label)
    array, time = _valid_times(array, label)
    try:
        array = conform(array.reset_coords(drop=True), registration="node")
    except DataError as error:
        raise DataError(f"{label}: {error}") from error
    lead = [dim for dim in ("time", "expver", "step") if dim in array.dims]
    if strange := [dim for dim in array.dims if dim not in (*lead, "lat", "lon")]:
        raise DataError(f"{label} has dims {array.dims}; {strange[0]!r} is unknown. Select one position along it")
    if "expver" in lead and "step" in lead:
        raise DataError(f"{label} has both expver and step; write one file for each expver")
    if array.dtype.kind in "iu":
        raise DataError(f"{label} has integers without a scale_factor; expected CF packing. Download it again")
    array = array.transpose(*lead, "lat", "lon")
    summed = name in VARIABLES and VARIABLES[name].published_factor != 1.0
    running = summed and _is_sum_of_forecast(array, label)
    return Field(name, array, time, label, preliminary, validity, method, width, running)


def _refuse_statistics(array: xr.DataArray, label: str) -> None:
    """Raise `DataError` for GRIB fields that are means or extremes over days or months."""
    kind = str(array.attrs.get("GRIB_stepType", "instant"))
    if kind not in HOURLY_KINDS:
        raise DataError(f"{label} has the step type {kind} (a monthly or daily statistic); expected hourly fields")


def _width(dataset: xr.Dataset, array: xr.DataArray) -> float | None:
    """Return the length of the time bounds in hours, the longest if they differ; None without bounds."""
    name = next((dim for dim in ("valid_time", "time") if dim in array.dims), "time")
    bounds = bounds_of(dataset, name, slice(None))
    return None if bounds is None else float((np.diff(bounds, axis=1) / np.timedelta64(1, "h")).max())


def _is_sum_of_forecast(array: xr.DataArray, label: str) -> bool:
    """Return whether values accumulate along forecast steps; in ERA5 they are hourly, in other models they do."""
    if "step" not in array.dims or array.sizes["step"] < 4:
        return False
    thin: dict[str, Any] = {dim: slice(None, None, max(1, array.sizes[dim] // 40)) for dim in ("lat", "lon")}
    values = np.asarray(array.isel({"time": 0, **thin}).values, np.float64)
    if (np.isnan(values).all((1, 2))).any():
        values = np.asarray(array.isel({"time": array.sizes["time"] // 2, **thin}).values, np.float64)
    change = np.diff(values, axis=0)
    slack = 1e-4 * np.nanmax(np.abs(values), initial=0)
    grows = bool((change[np.isfinite(change)] >= -slack).all() and (change > slack).any())
    if not grows or np.nanmean(values[-1]) < 2 * np.nanmean(values[0]):
        return False
    steps = array["step"].values / np.timedelta64(1, "h") if array["step"].dtype.kind == "m" else None
    if steps is None or not (np.diff(steps) == 1).all() or steps[0] not in (0, 1):
        raise DataError(f"{label} is accumulated since the start of the forecast; expected hourly steps from 0 or 1 h")
    return True


def _at_level(array: xr.DataArray, level_hpa: float, label: str) -> xr.DataArray:
    name = next((level for level in LEVELS if level in array.coords or level in array.dims), None)
    if name is None or name not in array.coords:
        return array
    levels = np.atleast_1d(array[name].values).astype(float) / (100.0 if name == "plev" else 1.0)
    place = np.flatnonzero(np.isclose(levels, level_hpa))
    if not place.size:
        raise DataError(
            f"{label} is at {', '.join(f'{v:g}' for v in levels)} hPa, but data.level_hpa is {level_hpa:g}; set it to "
            "one of these"
        )
    return array.isel({name: int(place[0])}) if name in array.dims else array


def _valid_times(array: xr.DataArray, label: str) -> tuple[xr.DataArray, NDArray[np.datetime64]]:
    """Return the array with a leading dimension `time` (and `step`), and its flattened valid times."""
    if "valid_time" in array.dims:
        array = array.drop_vars("time", errors="ignore").rename({"valid_time": "time"})
    elif "time" not in array.dims and "step" in array.dims:
        array = array.drop_vars("time", errors="ignore").rename({"step": "time"})
    elif "time" not in array.dims:
        array = array.expand_dims("time")
    valid = array["valid_time"] if "valid_time" in array.coords else array.coords.get("time")
    if valid is None or valid.dtype.kind != "M":
        raise DataError(f"{label} has no datetime coordinate; its dims are {array.dims}")
    if "step" in array.dims:
        valid = valid.transpose("time", "step")
    time = snapped(np.atleast_1d(valid.values).astype("datetime64[ns]").ravel(), label)
    count = array.sizes["time"] * (array.sizes["step"] if "step" in array.dims else 1)
    if len(time) != count or np.isnat(time).any():
        raise DataError(f"{label} has {len(time)} valid times for {count} fields")
    return array, time


def to_dataset(
    fields: Sequence[Field], names: Sequence[str], grid: Grid, label: str, *, years: Sequence[int] | None = None
) -> xr.Dataset:
    """Combine variables on one grid at their common times, ascending and lazy, in internal units."""
    import dask.array as da

    placed: dict[str, tuple[NDArray[np.datetime64], Any]] = {}
    for name in names:
        parts = [field for field in fields if field.name == name]
        if not parts:
            held = ", ".join(sorted({field.name for field in fields})) or "none of them"
            raise DataError(f"{label} has no {name}; expected {', '.join(names)}, found {held}")
        kept = [_known(field, grid) for field in parts]
        time = np.concatenate([field.time[keep] for field, keep in zip(parts, kept, strict=True)])
        values = da.concatenate([field.hours(grid, keep) for field, keep in zip(parts, kept, strict=True)])
        order = np.argsort(time, kind="stable")
        if (same := np.flatnonzero(np.diff(time[order]) == np.timedelta64(0))).size:
            source = np.repeat(np.arange(len(parts)), [len(keep) for keep in kept])[order]
            pair = [parts[source[same[0] + i]].label for i in (0, 1)]
            raise DataError(f"{' and '.join(dict.fromkeys(pair))} contain {time[order][same[0]]} twice; keep one")
        _require_hourly(name, parts, time[order])
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


def _require_hourly(name: str, parts: Sequence[Field], time: NDArray[np.datetime64]) -> None:
    """Raise `DataError` for sums, means and extremes over more than an hour.

    The interval is taken from time bounds, cell methods or the spacing of the times.
    """
    hours = float(np.diff(time).min() / HOUR) if len(time) > 1 else 1.0
    summed = name in VARIABLES and VARIABLES[name].published_factor != 1.0
    for field in parts:
        over = field.method in ("sum", "mean", "maximum", "minimum")
        width = field.width_hours if summed or over else None
        if width is None and ((over and hours > 1) or (summed and hours >= 24)):
            width = hours
        if width is not None and abs(width - 1) > 1e-6:
            what = f"is a {field.method}" if over else "is summed"
            raise DataError(
                f"{field.label} {what} over {width:g} h by its {'bounds' if field.width_hours else 'times'}; hourly "
                "fields are required, as in 'ERA5 hourly data on single levels'"
            )
    off = time - time.astype("datetime64[h]")
    if off.any():
        raise DataError(f"{parts[0].label} has times that are not full hours, the first {time[np.flatnonzero(off)[0]]}")


def _units(fields: Sequence[Field], name: str) -> str:
    return next(str(field.array.attrs.get("units", "1")) for field in fields if field.name == name)


def _known(field: Field, grid: Grid) -> NDArray[np.intp]:
    """Return positions of the times with data; the first and the last forecast run may have missing steps."""
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
