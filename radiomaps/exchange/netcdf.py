"""All maps of a store as one NetCDF4 file."""

from __future__ import annotations

import os

from geoml.data.store import write_netcdf
from radiomaps.maps.store import open_maps

__all__ = ["export_netcdf"]


def export_netcdf(store: str | os.PathLike[str], path: str | os.PathLike[str]) -> list[dict[str, str]]:
    """Write `(scene, tx, z, y, x)` with CF attributes, masks as bytes with flag meanings."""
    maps = open_maps(store)
    for name in maps.data_vars:
        if maps[name].dtype == bool:
            flags = {"flag_values": [0, 1], "flag_meanings": f"not_{name} {name}"}
            maps[name] = maps[name].astype("int8").assign_attrs({**maps[name].attrs, **flags})
            maps[name].attrs["flag_values"] = maps[name].dtype.type(0), maps[name].dtype.type(1)
    write_netcdf(path, maps)
    return [{"file": str(path)}]
