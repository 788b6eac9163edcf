"""Regrid xarray objects: axes are identified by their coordinates, other variables are kept."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import xarray as xr

from geoml.errors import DataError
from geoml.grids.grid import Grid, conform, grid_of, require_same

if TYPE_CHECKING:
    from geoml.regrid.operator import Regridder

__all__ = ["regrid_labelled"]


def regrid_labelled(operator: Regridder, data: Any) -> Any:
    """Regrid a data array or data set to the operator's target grid; names, attributes and other coordinates are kept.

    The data may have any names, directions and longitude convention that `conform` accepts. Variables of a data set
    without the grid's dims are carried over; those with only some of them (bounds) are left out.
    """
    names = operator.source.names
    original = data.dims
    tidy = conform(data, time="time" in names)
    found = grid_of(tidy, time="time" in names)
    for mine, its in zip(operator.source.axes, found.axes, strict=False):
        if mine.period is not None and its.period is not None:  # around the globe, starting at another meridian
            cells = round((mine.start - its.start) / its.step)
            tidy = tidy.roll({its.name: -cells}, roll_coords=False)
            found = found.moved(**{its.name: cells * its.step})
    if found.names == names:  # coordinates do not determine the registration; the operator's source does
        axes = tuple(
            replace(a, registration=b.registration) for a, b in zip(found.axes, operator.source.axes, strict=True)
        )
        found = Grid(axes, operator.source.crs)
    what = f"{data.name!r}" if isinstance(data, xr.DataArray) and data.name else "the data"
    require_same(found, operator.source, f"{what} and the operator's source")
    if isinstance(tidy, xr.DataArray):
        result = _regrid_array(operator, tidy)
        return result.transpose(*original) if set(original) == set(result.dims) else result
    results = {}
    for name, variable in tidy.data_vars.items():
        here = set(names) & set(variable.dims)
        if here == set(names):
            results[name] = _regrid_array(operator, variable)
        elif not here:
            results[name] = variable
    if not results:
        raise DataError(f"no variable has all the dims {names}; found {dict(data.sizes)}")
    return xr.Dataset(results, attrs=data.attrs)


def _regrid_array(operator: Regridder, data: xr.DataArray) -> xr.DataArray:
    names = operator.source.names
    data = data.transpose(..., *names)
    coords = {key: value for key, value in data.coords.items() if not set(value.dims) & set(names)}
    result = xr.DataArray(operator(data.data), coords, data.dims, data.name, data.attrs)
    return result.assign_coords(operator.target.coords())
