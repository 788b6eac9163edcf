"""Open coarse fields from files of any supported format as one data set for predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoml.data.patch_groups import KNOWN
from geoml.errors import DataError, UserError
from geoml.grids.grid import grid_of
from rainshift.sources.catalogue import SUFFIXES, is_file_of
from rainshift.sources.opening import GRIB, RASTERS, open_rain
from rainshift.sources.pair import on_grid
from rainshift.sources.predictors import CoarsePredictor, read_predictor
from rainshift.sources.rain_files import find_rain
from rainshift.sources.units import rain_units
from rainshift.sources.valid_times import Timed, brought_to, rows_for

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["coarse_files", "open_coarse"]


def coarse_files(root: Path) -> list[Path]:
    """Return the files of coarse fields at a path: the path itself, or all files in a folder."""
    if root.is_file() or is_file_of(root) or not root.exists():
        return [root]
    inside = [path for path in sorted(root.rglob("*")) if is_file_of(path, (*SUFFIXES, *GRIB))]
    found = [path for path in inside if not any(parent.name.endswith(".zarr") for parent in path.parents)]
    if not found:
        raise UserError(f"{root} contains no coarse fields; expected files with suffix {', '.join((*SUFFIXES, *GRIB))}")
    return found


def open_coarse(root: Path, condition: Sequence[str], predictors: Any = None) -> xr.Dataset:
    """Open the predictors `condition` of a file or folder lazily; `predictors` are options as in `data=pair`.

    One NetCDF file or Zarr store of rates is returned unchanged. Other input (several files, GeoTIFF, GRIB, or amounts
    of rain, which may be accumulated since a start) is read like training data: rain is converted to rates, units are
    converted to internal units, and predictors are interpolated to the grid and the time intervals of the rain.
    """
    files = coarse_files(root)
    if len(files) == 1 and files[0].suffix.lower() not in (*RASTERS, *GRIB):
        data = open_rain(files[0])
        if not _is_amount(data):
            return data
    options = predictors if isinstance(predictors, Mapping) else {}
    wanted = [CoarsePredictor.of(name, options.get(name)) for name in condition if not name.endswith(KNOWN)]
    timed = {each.name: read_predictor(each, files) for each in wanted}
    guide = next((each.name for each in wanted if each.is_rain), wanted[0].name)
    return _together(timed, guide)


def _is_amount(data: xr.Dataset) -> bool:
    """Return whether the rain of a data set is an amount, at more than one time."""
    try:
        array = data[find_rain(data, None, Path())]
        return (
            rain_units(array.attrs.get("units")).amount and max(array.sizes.values(), default=0) > 1 and array.ndim > 2
        )
    except DataError:
        return False


def _together(timed: Mapping[str, Timed], guide: str) -> xr.Dataset:
    """Bring all predictors to the times and the grid of the predictor `guide`."""
    import xarray as xr

    lead = timed[guide]
    grid = grid_of(lead.values, registration="node")
    rows = {name: rows_for(each.start, each.end, lead.start, lead.end) for name, each in timed.items()}
    whole = np.array([all(row is not None for row in each) for each in zip(*rows.values(), strict=True)])
    if not whole.any():
        raise DataError(f"no time interval of {guide} is covered by all of the predictors {', '.join(timed)}")
    time, made = lead.values["time"].values[whole], {}
    for name, each in timed.items():
        values, _ = on_grid(each.values, grid_of(each.values, registration="node"), grid)
        kept = [row for row, keep in zip(rows[name], whole, strict=True) if keep]
        made[name] = values.isel(time=np.flatnonzero(whole)) if name == guide else brought_to(values, kept, time)
    return xr.Dataset({name: array.reset_coords(drop=True).assign_coords(time=time) for name, array in made.items()})
