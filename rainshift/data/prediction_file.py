"""Define the CF file of a prediction: dimensions, coordinates and empty variables, which the caller fills."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rainshift.sources.variables import VARIABLES

if TYPE_CHECKING:
    from rainshift.models.trust import Trust

__all__ = ["MEMBER_ATTRS", "TRUST_MAPS", "bound_attrs", "define", "define_trust"]

#: Coordinates by name, with values and CF attributes.
Coords: TypeAlias = Mapping[str, tuple[NDArray[Any], dict[str, Any]]]
MEMBER_ATTRS = {"standard_name": "realization", "units": "1"}
TIME_ATTRS = {
    "standard_name": "time",
    "units": "seconds since 1970-01-01",
    "calendar": "proleptic_gregorian",
}
#: Variables of a trust map: type, unit and long name.
TRUST_MAPS = {
    "expected_error": ("f4", "mm h-1", "expected absolute error of the ensemble mean"),
    "error_bound": ("f4", "mm h-1", "bound of the absolute error of the ensemble mean"),
    "novelty": ("f4", "1", "Mahalanobis distance from the data that the trust map was fitted to, about 1 if familiar"),
    "familiar": ("i1", "1", "1 if the novelty is within the range of the data that the trust map was fitted to"),
}


def define(file: Any, coords: Coords, members: int, attrs: Mapping[str, Any]) -> Any:
    """Create dimensions, coordinates and the empty rain variable. `coords` ends with latitude and longitude."""
    file.setncatts({"Conventions": "CF-1.11", **{key: str(value) for key, value in attrs.items()}})
    places = {"member": (np.arange(members, dtype="i4"), MEMBER_ATTRS), **coords}
    for name, (values, about) in places.items():
        file.createDimension(name, len(values))
        if values.dtype.kind == "M":
            values, about = values.astype("datetime64[s]").astype(np.int64), TIME_ATTRS | about
        coordinate = file.createVariable(name, values.dtype, (name,))
        coordinate.setncatts(about)
        coordinate[:] = values
    rain = _variable(file, "precipitation", "f4", tuple(places), fill_value=np.float32(np.nan))
    rain.setncatts(VARIABLES["precipitation"].attrs)
    return rain


def _variable(file: Any, name: str, kind: str, dims: tuple[str, ...], **options: Any) -> Any:
    """Create a compressed variable with one field per chunk."""
    sizes = [file.dimensions[dim].size for dim in dims]
    chunks = (*(1 for _ in dims[:-2]), *sizes[-2:])
    return file.createVariable(name, kind, dims, compression="zlib", complevel=1, chunksizes=chunks, **options)


def define_trust(file: Any, dims: tuple[str, ...], trust: Trust) -> dict[str, Any]:
    """Create the empty variables of a trust map on `dims`; returns them by field name."""
    made = {}
    for name, (kind, units, long_name) in TRUST_MAPS.items():
        variable = _variable(file, name, kind, dims)
        variable.setncatts({"units": units, "long_name": long_name})
        made[name.removeprefix("error_")] = variable
    made["bound"].setncatts(bound_attrs(trust))
    return made


def bound_attrs(trust: Trust) -> dict[str, Any]:
    comment = f"valid for {trust.level:.0%} of the cells in weather as in training"
    return {"comment": comment, "level": trust.level}
