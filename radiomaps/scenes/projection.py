"""Between longitude and latitude and the local metres of a scene."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoml.errors import DataError

__all__ = ["WGS84", "local_crs", "project", "shifted_crs"]

WGS84 = "EPSG:4326"


def local_crs(longitude: float, latitude: float) -> str:
    """A transverse Mercator projection centred on a point: true to scale within 1e-5 for some kilometres around it."""
    if not (-180 <= longitude <= 360 and -84 <= latitude <= 84):
        raise DataError(f"({longitude:g}, {latitude:g}) is no longitude and latitude within 84° of the equator")
    return f"+proj=tmerc +lat_0={latitude:.7f} +lon_0={longitude:.7f} +k=1 +x_0=0 +y_0=0 +datum=WGS84 +units=m +no_defs"


def shifted_crs(crs: Any, x: float, y: float) -> str:
    """WKT of a projected rasterio `CRS` with its origin moved to (x, y): what coordinates less (x, y) are in."""
    wkt = re.sub(r",AUTHORITY\[[^\]]*\]", "", crs.to_wkt())
    for name, offset in (("false_easting", x), ("false_northing", y)):
        wkt, found = re.subn(
            rf'(PARAMETER\["{name}",)([^\]]+)\]',
            lambda match, offset=offset: f"{match[1]}{float(match[2]) - offset!r}]",  # type: ignore[misc]
            wkt,
        )
        if not found:
            raise DataError(f"{crs.to_string()} has no {name.replace('_', ' ')}; warp to a UTM zone, or give crs=local")
    return wkt


def project(points: NDArray[np.float64], source: str, target: str) -> NDArray[np.float64]:
    """Points (n, 2), x or longitude first, from one reference system to another.

    >>> crs = local_crs(2.295, 48.8738)
    >>> project(np.array([[2.295, 48.8747]]), WGS84, crs).round(1).tolist()
    [[0.0, 100.1]]
    """
    from rasterio.warp import transform

    x, y = transform(source, target, points[:, 0].tolist(), points[:, 1].tolist())
    return np.column_stack([x, y])
