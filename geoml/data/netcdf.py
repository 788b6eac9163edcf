"""Read and write NetCDF4 files, and read Zarr stores written by other programs."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geoml.data.writer import CONVENTIONS
from geoml.errors import DataError
from geoml.runs.files import atomic_path

__all__ = ["read_dataset", "write_netcdf"]

#: Attributes of other programs that mark missing data, in addition to `missing_value` and `_FillValue`.
OTHER_FILLS = ("CodeMissingValue", "NODATA_value", "nodata", "no_data", "fill_value", "FillValue")
#: First bytes of NetCDF4 (HDF5) and classic NetCDF files.
HDF5, CLASSIC = b"\x89HDF\r\n\x1a\n", b"CDF"


def write_netcdf(path: str | os.PathLike[str], dataset: xr.Dataset, *, single: bool = True) -> None:
    """Write `dataset` atomically as compressed NetCDF4 with CF attributes; float64 becomes float32 if `single`."""
    dataset = dataset.assign_attrs({"Conventions": CONVENTIONS, **dataset.attrs}).drop_encoding()
    encoding: dict[str, dict[str, Any]] = {}
    for name, variable in dataset.data_vars.items():
        if variable.dtype.kind in "fiub":
            encoding[str(name)] = {"zlib": True, "complevel": 2, "shuffle": True, "fletcher32": variable.ndim > 0}
        if single and variable.dtype == np.float64 and variable.ndim > 1:
            encoding[str(name)]["dtype"] = "float32"
    for coordinate in dataset.coords:
        if dataset[coordinate].dtype.kind == "f":
            encoding[str(coordinate)] = {"_FillValue": None}
    with atomic_path(path) as partial:
        dataset.to_netcdf(partial, format="NETCDF4", engine="netcdf4", encoding=encoding)


def read_dataset(
    path: str | os.PathLike[str], *, group: str | None = None, chunks: Any = None, **options: Any
) -> xr.Dataset:
    """A NetCDF file, or a Zarr folder or zip, opened lazily with CF decoding; anything else raises `DataError`.

    Times that xarray cannot decode ("months since …") stay numbers with their units. Metadata of a Zarr folder are read
    from its arrays, not from the consolidated copy. In a Zarr array a `fill_value` other than 0 marks missing data; 0,
    the default of the format, marks missing data only if the array has a `scale_factor` or a `_FillValue`.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path} does not exist")
    try:
        return _decoded(_opened(path, group, options), chunks)
    except DataError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise DataError(f"{path} cannot be read; it may be truncated or no data set: {error}") from error
    except Exception as error:  # zipfile.BadZipFile and the errors of zarr share no base
        raise DataError(f"{path} cannot be read: {type(error).__name__}: {error}") from error


def _opened(path: Path, group: str | None, options: dict[str, Any]) -> xr.Dataset:
    """Open the data set without CF decoding."""
    if path.is_dir() or path.suffix == ".zip":
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*consolidated metadata")
            options = {"consolidated": False, **options}
            stored = xr.open_dataset(
                _zarr_store(path), engine="zarr", group=group, decode_cf=False, chunks=None, **options
            )
            _keep_zeros(stored)
            return stored
    with open(path, "rb") as stream:
        head = stream.read(8)
    if not head.startswith((HDF5, CLASSIC)):
        raise DataError(f"{path} is neither NetCDF nor Zarr (it begins with {head!r})")
    options.setdefault("engine", "netcdf4")
    return xr.open_dataset(path, group=group, decode_cf=False, chunks=None, **options)


def _keep_zeros(stored: xr.Dataset) -> None:
    """Use the `fill_value` of a Zarr array as `_FillValue`, unless it is 0, the default of the format."""
    for variable in stored.variables.values():
        version_3 = "serializer" in variable.encoding
        fill = variable.encoding.pop("fill_value", None) if version_3 else variable.attrs.pop("_FillValue", None)
        meant = fill is not None and (fill != 0 or (not version_3 and "scale_factor" in variable.attrs))
        if meant and variable.dtype.kind in "fiu":
            variable.attrs.setdefault("_FillValue", fill)


def _decoded(stored: xr.Dataset, chunks: Any) -> xr.Dataset:
    """Apply CF decoding lazily; variables that cannot be decoded as times stay numbers."""
    later: dict[str, str] = {}
    for name, variable in stored.variables.items():
        _tidy(variable, str(name))
        if " since " in str(variable.attrs.get("units", "")) and not _has_times(variable):
            later[str(name)] = variable.attrs.pop("units")
    decoded = xr.decode_cf(stored)
    decoded.set_close(stored.close)
    for name, units in later.items():
        decoded[name].attrs["units"] = units
    return decoded if chunks is None else decoded.chunk(chunks or None)


def _tidy(variable: xr.Variable, name: str) -> None:
    """Convert fill values to the type of the data, so that they compare equal, and numeric attributes from text.

    Raises `DataError` if such an attribute is not a number.
    """
    attrs = variable.attrs
    other = next((attrs[key] for key in OTHER_FILLS if key in attrs), None)
    if other is not None and variable.ndim > 1 and not {"missing_value", "_FillValue"} & set(attrs):
        attrs["missing_value"] = other
    if variable.dtype.kind not in "iuf":
        return
    for key in ("missing_value", "_FillValue", "scale_factor", "add_offset"):
        if key not in attrs:
            continue
        try:
            number = np.asarray(attrs[key], np.float64) if isinstance(attrs[key], str) else np.asarray(attrs[key])
        except ValueError as error:
            raise DataError(f"{name!r} has {key} = {attrs[key]!r}; expected a number") from error
        if key in ("missing_value", "_FillValue") and variable.dtype.kind == "f":
            number = number.astype(variable.dtype)
        attrs[key] = number if number.ndim else number[()]


def _has_times(variable: xr.Variable) -> bool:
    """Return True if xarray can decode the variable's units as times."""
    attrs = {name: variable.attrs[name] for name in ("units", "calendar") if name in variable.attrs}
    head = xr.Variable((), np.zeros((), variable.dtype), attrs)
    try:
        xr.conventions.decode_cf_variable("time", head)
    except (ValueError, OverflowError):
        return False
    return True


def _zarr_store(path: Path) -> Any:
    from geoml.data.zip_stores import open_zip

    return open_zip(path) if path.suffix == ".zip" else path
