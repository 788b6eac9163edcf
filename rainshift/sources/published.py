"""Read the RainShift data set in its published layout without unpacking.

    {region}/{train,test}_data_in.zarr.zip    nine predictors, CF-packed int16, with times
    {region}/{train,test}_data_out.zarr.zip   `precipitation` float32, without times: paired by index
    {region}/static_variables.nc              `lsm`, `z` on the fine grid

The files are Zarr v2, consolidated, with 200 hours per chunk. Latitudes descend. Longitudes are 0–360 in the Americas
and ±180 elsewhere. This description of the layout is from headers of the published files, as reported by third parties.
"""

from __future__ import annotations

import contextlib
import io
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from geoml.data.zip_stores import names_in, open_zip
from geoml.errors import DataError, UserError
from geoml.grids.grid import conform
from rainshift.sources.time_blocks import TimeBlocks
from rainshift.sources.validity import check_rain
from rainshift.sources.variables import PREDICTORS, VARIABLES, inside_factor

__all__ = ["CHUNK_HOURS", "PARTS", "PublishedPart", "file_of", "place", "read_static"]

PARTS = ("train", "test")
CHUNK_HOURS = 200
STATIC = "static_variables.nc"


def file_of(region: str, part: str, side: str) -> str:
    """Return the relative path of a file of the data set; `side` is "in", "out" or "static"."""
    return f"{region}/{STATIC}" if side == "static" else f"{region}/{part}_data_{side}.zarr.zip"


def place(root: str | os.PathLike[str], name: str) -> str:
    """Return the path or URL of a file under `root`, which is a folder or a URL that fsspec supports."""
    return f"{str(root).rstrip('/')}/{name}"


@dataclass(frozen=True)
class PublishedPart:
    """The training or test files of one region under `root`, opened on demand."""

    root: str
    region: str
    part: str

    @cached_property
    def inputs(self) -> xr.Dataset:
        """Predictors in the units of the file, decoded lazily, on canonical axes."""
        return self._open("in")

    @cached_property
    def outputs(self) -> xr.Dataset:
        """Fine rain in the units of the file."""
        return self._open("out")

    def label(self, side: str) -> str:
        """Return the location of a file, for messages."""
        return place(self.root, file_of(self.region, self.part, side))

    def _open(self, side: str) -> xr.Dataset:
        label = self.label(side)
        dataset = _open_zip(label)
        for wanted in PREDICTORS if side == "in" else ("precipitation",):
            if wanted not in dataset:
                raise DataError(f"{label} contains {', '.join(map(str, dataset.data_vars))}; {wanted} is missing")
        try:
            return conform(dataset)
        except DataError as error:
            raise DataError(f"{label}: {error}") from error

    @cached_property
    def time(self) -> NDArray[np.datetime64]:
        """Valid times, ascending: the ends of the hours."""
        label = self.label("in")
        if "time" not in self.inputs.coords or self.inputs["time"].dtype.kind != "M":
            raise DataError(f"{label} has no datetime coordinate `time`; the hours are unknown")
        time = self.inputs["time"].values.astype("datetime64[ns]")
        steps = np.diff(time)
        if (steps <= np.timedelta64(0)).any():
            raise DataError(f"{label}: times do not ascend after {time[int(np.argmax(steps <= np.timedelta64(0)))]}")
        if (steps % np.timedelta64(1, "h")).any():
            raise DataError(f"{label}: time steps are not full hours; expected hourly times")
        hours = self._lead(self.outputs["precipitation"], "out").shape[0]
        if hours != len(time):
            raise DataError(
                f"{self.label('out')} has {hours} hours and {label} {len(time)}. They are paired by index and must "
                "have the same number; one of them is truncated or of another release. Download both again"
            )
        return time

    def _lead(self, array: xr.DataArray, side: str) -> xr.DataArray:
        """Return an array as (time, lat, lon). A level of size 1 is dropped; the first dimension may have any name."""
        others = [dim for dim in array.dims if dim not in ("lat", "lon")]
        single = [dim for dim in others if dim != "time" and array.sizes[dim] == 1 and len(others) > 1]
        array = array.squeeze(single, drop=True)
        lead = [dim for dim in array.dims if dim not in ("lat", "lon")]
        if len(lead) != 1 or array.ndim != 3:
            raise DataError(f"{self.label(side)}: {array.name!r} has dims {array.dims}; expected time, lat and lon")
        return array.rename({lead[0]: "time"}) if lead[0] != "time" else array

    def condition(self) -> xr.Dataset:
        """Return the predictors, lazy, in internal units."""
        return self._fields(self.inputs, PREDICTORS, "in")

    def target(self) -> xr.Dataset:
        """Return the fine rain, lazy, in mm/h; non-finite values are NaN."""
        return self._fields(self.outputs, ("precipitation",), "out")

    def _fields(self, dataset: xr.Dataset, names: tuple[str, ...], side: str) -> xr.Dataset:
        made = {}
        for name in names:
            array = self._lead(dataset[name].reset_coords(drop=True), side)
            label = f"{self.label(side)}: {name!r}"
            if array.dtype.kind in "iu":
                raise DataError(
                    f"{label} has integers without a scale_factor; unscaled values have no physical meaning"
                )
            factor = inside_factor(name, array.attrs.get("units"), label=label)
            blocks = TimeBlocks(_PublishedReader(array, name, factor, label), _shape(array), _block_length(array))
            coords = {"time": self.time, **{dim: array[dim] for dim in ("lat", "lon")}}
            made[name] = xr.DataArray(blocks.lazy(), coords, ("time", "lat", "lon"), attrs=VARIABLES[name].attrs)
        return xr.Dataset(made)


@dataclass(frozen=True)
class _PublishedReader:
    """Read times of one variable in internal units, with NaN for missing values. Raises for impossible values."""

    array: xr.DataArray
    name: str
    factor: float
    label: str

    def __call__(self, part: slice) -> NDArray[np.float32]:
        try:
            values = np.asarray(self.array[part].values)
        except (zipfile.BadZipFile, OSError, ValueError, RuntimeError) as error:
            raise DataError(f"{self.label} cannot be read at hours {part.start}–{part.stop}: {error}") from error
        if VARIABLES[self.name].units == "mm h-1":
            return check_rain(values, self.label, self.factor)
        scaled = (values * self.factor).astype(np.float32)
        scaled[~np.isfinite(scaled)] = np.nan
        return scaled


def _shape(array: xr.DataArray) -> tuple[int, int, int]:
    times, rows, columns = array.shape
    return times, rows, columns


def _block_length(array: xr.DataArray) -> int:
    chunks = array.encoding.get("preferred_chunks") or {}
    return int(next((chunks[dim] for dim in ("time", *chunks) if dim not in ("lat", "lon") and dim in chunks), 200))


def _open_zip(label: str) -> xr.Dataset:
    """Open a zipped Zarr group from a file or a URL without unpacking it."""
    with _refusals(label):
        store = open_zip(label)
        opened = xr.open_dataset(store, engine="zarr", chunks=None)
        # A fill value of 0, the default of Zarr for unwritten chunks, is a valid value and not missing data.
        if zero := [name for name, array in opened.data_vars.items() if array.encoding.get("_FillValue") == 0]:
            raw = xr.open_dataset(store, engine="zarr", chunks=None, mask_and_scale=False)
            opened = opened.assign({name: _unmasked(str(name), raw[name]) for name in zero})
        held = set(names_in(store))
        for name, array in opened.data_vars.items():
            _require_chunks(label, str(name), array, held)
        return opened


def _unmasked(name: str, raw: xr.DataArray) -> xr.Variable:
    """Return the variable with scale and offset applied lazily, without masking of the fill value."""
    variable = raw.variable.copy(deep=False)
    variable.attrs = {key: value for key, value in raw.attrs.items() if key != "_FillValue"}
    variable.encoding = {key: value for key, value in raw.encoding.items() if key != "_FillValue"}
    return xr.conventions.decode_cf_variable(name, variable)


def _require_chunks(label: str, name: str, array: xr.DataArray, held: set[str]) -> None:
    """Raise `DataError` if chunks are missing, since they would be read as the fill value, which may be 0."""
    chunks = array.encoding.get("chunks")
    if not chunks or not array.size:
        return
    expected = int(np.prod([-(-size // chunk) for size, chunk in zip(array.shape, chunks, strict=True)]))
    found = sum(key.startswith(f"{name}/") and not key.rpartition("/")[2].startswith(".") for key in held)
    if found < expected:
        raise DataError(
            f"{label}: {name!r} has {found} of {expected} chunks; missing chunks would be read as fill values. "
            "Download the file again"
        )


def _stream(url: str) -> Any:
    import fsspec

    return fsspec.open(url, "rb").open()


@contextlib.contextmanager
def _refusals(label: str) -> Iterator[None]:
    """Context manager: convert errors on opening a file into a `DataError` that contains its path."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        way_out = "point data.root at the data set, or set data.fetch=true"
        raise DataError(f"{label} does not exist; {way_out}") from error
    except ImportError as error:
        raise UserError(f"{label}: {error}; install the package that fsspec requires for this kind of URL") from error
    except Exception as error:  # zipfile.BadZipFile and errors of zarr and fsspec have no common base class
        raise DataError(
            f"{label} cannot be read; it may be truncated or of another format: {type(error).__name__}: {error}"
        ) from error


def read_static(root: str, region: str) -> xr.Dataset:
    """Read `lsm` and `z` of a region on canonical axes into memory."""
    label = place(root, file_of(region, "", "static"))
    with _refusals(label):
        source = io.BytesIO(_stream(label).read()) if "://" in label else label
        with xr.open_dataset(source, engine="h5netcdf" if "://" in label else None) as opened:
            loaded = conform(opened.load())
    made = {}
    for name in ("lsm", "z"):
        if name not in loaded:
            raise DataError(f"{label} contains {', '.join(map(str, loaded.data_vars))}; {name} is missing")
        array = loaded[name].reset_coords(drop=True)
        array = array.squeeze([dim for dim in array.dims if dim not in ("lat", "lon") and array.sizes[dim] == 1])
        if array.dims != ("lat", "lon"):
            raise DataError(f"{label}: {name!r} has dims {array.dims}; expected lat and lon")
        factor = inside_factor(name, array.attrs.get("units"), label=f"{label}: {name!r}")
        made[name] = (array.astype(np.float32) * np.float32(factor)).assign_attrs(VARIABLES[name].attrs)
    return xr.Dataset(made)
