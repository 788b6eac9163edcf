"""Data of one's own, or the synthetic planet, written in the layout in which RainShift is published."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoml.data.netcdf import write_netcdf
from geoml.errors import UserError
from geoml.runs.files import atomic_path
from rainshift.sources.published import CHUNK_HOURS, PARTS, file_of
from rainshift.sources.variables import VARIABLES

if TYPE_CHECKING:
    import xarray as xr

    from rainshift.sources.base import RegionData

__all__ = ["write_part"]

FILL = -32767


def write_part(root: str | os.PathLike[str], data: RegionData, part: str, *, lon_360: bool | None = None) -> list[Path]:
    """One region's training or test hours in the published layout; the files, static ones last.

    So data of one's own can be read by what was made for RainShift. `lon_360` counts longitudes from 0 to 360; by
    default where the region's YAML says so, else where it lies in the Americas.
    """
    if part not in PARTS:
        raise UserError(f"part is {part!r}; expected one of {', '.join(PARTS)}")
    folder = Path(root)
    made = []
    for side, dataset in (("in", data.condition), ("out", data.target)):
        path = folder / file_of(data.name, part, side)
        _write_zip(path, _as_published(dataset, data.name, lon_360), with_time=side == "in")
        made.append(path)
    if data.static is not None:
        path = folder / file_of(data.name, part, "static")
        write_netcdf(path, _as_published(data.static, data.name, lon_360))
        made.append(path)
    return made


def _as_published(dataset: xr.Dataset, region: str, lon_360: bool | None) -> xr.Dataset:
    """North first, published units, the region's way to count longitudes."""
    from rainshift.places.regions import regions

    known = regions().get(region)
    if lon_360 is None:
        lon_360 = known.dataset_lon == "0..360" if known else bool(dataset["lon"].values[0] < -30)
    dataset = dataset.isel(lat=slice(None, None, -1))
    lon = dataset["lon"].values
    dataset = dataset.assign_coords(lon=("lon", lon % 360 if lon_360 else lon, dataset["lon"].attrs))
    made: dict[str, Any] = {}
    for name, array in dataset.data_vars.items():
        row = VARIABLES[str(name)]
        values = array / row.published_factor if row.published_factor != 1 else array
        made[str(name)] = values.assign_attrs(units=row.published_units, long_name=row.long_name)
    return dataset.assign(made)


def _packing(dataset: xr.Dataset) -> dict[str, dict[str, Any]]:
    """Scale and offset of each variable that fit its values into an int16, all in one pass over the data."""
    import dask

    names = [str(name) for name in dataset.data_vars]
    bounds = dask.compute([(dataset[name].min().data, dataset[name].max().data) for name in names])[0]
    packed = {}
    for name, (low, high) in zip(names, bounds, strict=True):
        scale = max(float(high) - float(low), 1e-12) / 65_000
        offset = (float(low) + float(high)) / 2
        packed[name] = {"dtype": "int16", "scale_factor": scale, "add_offset": offset, "_FillValue": np.int16(FILL)}
    return packed


def _write_zip(path: Path, dataset: xr.Dataset, *, with_time: bool) -> None:
    """A consolidated Zarr v2 group in an uncompressed zip, so that chunks are read by ranges; whole or not at all."""
    dataset = dataset.drop_encoding() if with_time else dataset.drop_encoding().drop_vars("time")
    packed = _packing(dataset) if with_time else {str(name): {"dtype": "float32"} for name in dataset.data_vars}
    encoding: dict[str, Mapping[str, Any]] = {}
    for name, array in dataset.data_vars.items():
        chunks = (min(CHUNK_HOURS, array.shape[0]), *array.shape[1:])
        encoding[str(name)] = {**packed[str(name)], "chunks": chunks}
    # Blocks of the file, each computed once however the source is cut.
    dataset = dataset.chunk({"time": CHUNK_HOURS, "lat": -1, "lon": -1})
    with atomic_path(path) as partial, tempfile.TemporaryDirectory(dir=path.parent) as folder:
        group = Path(folder)
        dataset.to_zarr(group, mode="w", zarr_format=2, consolidated=True, encoding=encoding, write_empty_chunks=True)
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as sink:
            for file in sorted(group.rglob("*")):
                if file.is_file():
                    sink.write(file, file.relative_to(group).as_posix())
