"""The CF file of a prediction: dimensions, coordinates and empty variables, filled by whoever predicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rainshift.sources.variables import VARIABLES

if TYPE_CHECKING:
    from rainshift.models.trust import Trust

__all__ = ["MEMBER_ATTRS", "TRUST_MAPS", "bound_attrs", "define", "define_trust"]

#: Coordinates by name: values and CF attributes.
Coords: TypeAlias = Mapping[str, tuple[NDArray[Any], dict[str, Any]]]
MEMBER_ATTRS = {"standard_name": "realization", "units": "1"}
TIME_ATTRS = {
    "standard_name": "time",
    "units": "seconds since 1970-01-01",
    "calendar": "proleptic_gregorian",
}
#: What a trust map says, for the reader of a file: type, unit and long name by variable.
TRUST_MAPS = {
    "expected_error": ("f4", "mm h-1", "expected absolute error of the ensemble mean"),
    "error_bound": ("f4", "mm h-1", "bound of the absolute error of the ensemble mean"),
    "novelty": ("f4", "1", "distance from the weather that trust was learnt from, about 1 where it is familiar"),
    "familiar": ("i1", "1", "1 where the novelty is within what trust was learnt from"),
}


def define(file: Any, coords: Coords, members: int, attrs: Mapping[str, Any]) -> Any:
    """Dimensions, coordinates and the empty rain variable of a CF file; `coords` end with latitude and longitude."""
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
    """A compressed variable of one field a chunk."""
    sizes = [file.dimensions[dim].size for dim in dims]
    chunks = (*(1 for _ in dims[:-2]), *sizes[-2:])
    return file.createVariable(name, kind, dims, compression="zlib", complevel=1, chunksizes=chunks, **options)


def define_trust(file: Any, dims: tuple[str, ...], trust: Trust) -> dict[str, Any]:
    """The empty variables of a trust map on `dims`, by the name of its field."""
    made = {}
    for name, (kind, units, long_name) in TRUST_MAPS.items():
        variable = _variable(file, name, kind, dims)
        variable.setncatts({"units": units, "long_name": long_name})
        made[name.removeprefix("error_")] = variable
    made["bound"].setncatts(bound_attrs(trust))
    return made


def bound_attrs(trust: Trust) -> dict[str, Any]:
    comment = f"holds for {trust.level:.0%} of the cells of weather like that of training"
    return {"comment": comment, "level": trust.level}
