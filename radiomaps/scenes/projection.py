"""Coordinate reference systems of files, and the conversion of their coordinates to the local metres of a scene."""

from __future__ import annotations

import contextlib
import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoml.errors import DataError, UserError

__all__ = ["WGS84", "Frame", "is_turned", "local_crs", "project", "reference_system", "shifted_crs"]

WGS84 = "EPSG:4326"
#: Largest deviation of a projected system from true metres east and north to be kept: in scale, and in direction.
_SCALE_ERROR, _TURN = 2e-3, math.radians(10.0)
#: Local metres are kept up to this distance from (0, 0), beyond which float32 is less accurate than a centimetre.
_SMALL_M = 1e5
#: Within this distance of (0, 0), coordinates of a system that is not true to scale there are taken as local metres.
_ORIGIN_M = 1e4
#: Largest extent of a scene, and largest coordinate of one in metres (the Earth's circumference is 4e7 m).
_WIDEST_M, _FARTHEST_M = 1e6, 1e9
_CUT = "cut one area out of the file, or give crs=local if they are metres"
_AUTHORITY = re.compile(r"(?:.*\W)?(EPSG|ESRI|IGNF)\W(?:.*\W)?([A-Za-z]*\d+)", re.IGNORECASE)


def local_crs(longitude: float, latitude: float) -> str:
    """A transverse Mercator projection centred on a point: true to scale within 1e-5 for some kilometres around it."""
    if not (-540 <= longitude <= 540 and -90 <= latitude <= 90):
        raise DataError(f"({longitude:g}, {latitude:g}) is no longitude and latitude")
    longitude = (longitude + 180) % 360 - 180
    return f"+proj=tmerc +lat_0={latitude:.7f} +lon_0={longitude:.7f} +k=1 +x_0=0 +y_0=0 +datum=WGS84 +units=m +no_defs"


def reference_system(name: Any, *, where: str) -> Any:
    """The rasterio `CRS` of a name: EPSG, OGC and ESRI codes as URN, URL or "EPSG:25832", WKT, or a PROJ string.

    Nothing is fetched: only the authority and code of a URL are used.

    >>> reference_system("urn:ogc:def:crs:EPSG::25832", where="city.geojson").to_epsg()
    25832
    """
    from rasterio import Env
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    text = re.sub(r"/(proj4|ogcwkt|esriwkt|wkt|gml)?/?$", "", str(name).strip())
    with contextlib.suppress(CRSError, ValueError, OverflowError), Env():  # Env: GDAL raises and prints nothing
        if re.fullmatch(r"(.*[:/])?CRS:?84h?|urn:.*OGC:.*:84|WGS ?84", text, re.IGNORECASE):
            return CRS.from_string(WGS84)
        if text.isdigit():
            return CRS.from_epsg(int(text))
        if text.startswith("+proj") or re.match(r"[A-Z_]+\s*\[", text):
            return CRS.from_string(text)
        if re.fullmatch(r"EPSG:\d+\+\d+", text, re.IGNORECASE):  # horizontal and vertical
            return CRS.from_string(text)
        if found := _AUTHORITY.fullmatch(re.sub(r"^urn:ogc:def:crs,crs:([^,]*),.*", r"\1", text)):
            return CRS.from_authority(found[1].upper(), found[2])
    way_out = "write EPSG:25832 or the like, or local for metres"
    raise UserError(f"{where}: crs {text[:80]!r} is no reference system; {way_out}")


def shifted_crs(crs: Any, x: float, y: float) -> str:
    """WKT of a projected rasterio `CRS` with its origin moved to (x, y): the system of coordinates minus (x, y)."""
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


def project(points: NDArray[np.float64], source: Any, target: Any) -> NDArray[np.float64]:
    """Project points (n, 2), x or longitude first, between reference systems; not finite outside their domain.

    >>> crs = local_crs(2.295, 48.8738)
    >>> project(np.array([[2.295, 48.8747]]), WGS84, crs).round(1).tolist()
    [[0.0, 100.1]]
    """
    from rasterio.errors import CRSError
    from rasterio.warp import transform

    try:
        x, y = transform(source, target, points[:, 0].tolist(), points[:, 1].tolist())
    except CRSError:
        raise
    except Exception:  # GDAL's error for points outside of a projection has no public class
        return np.full(points.shape, np.nan)
    return np.column_stack([x, y])


@dataclass(frozen=True)
class Frame:
    """Conversion between a file's coordinates and a scene's local metres.

    `crs` is the system of the local metres: "local", or a PROJ or WKT string. With `origin`, file coordinates are
    metres and only shifted. Without, they are projected from `source`.
    """

    crs: str = "local"
    source: Any = None
    origin: tuple[float, float] | None = (0.0, 0.0)

    @classmethod
    def of(cls, points: NDArray[np.float64], system: Any, *, where: str, corner_m: float = 1.0) -> Frame:
        """The frame of points (n, 2) in a rasterio `CRS`, or in local metres if `system` is None.

        A projected system that is true to scale (UTM and national grids) keeps its axes: the origin is the south-west
        corner of the points, rounded down to `corner_m` (0: not rounded). All others (degrees, Web Mercator, feet) are
        converted to a transverse Mercator projection about the middle of the points. Local metres are kept up to 100 km
        from (0, 0), as are coordinates of transverse Mercator or conic systems as near to (0, 0).
        """
        if not np.isfinite(points).all():
            raise DataError(f"{where} has coordinates that are not finite")
        low = points.min(axis=0)
        if np.abs(points).max() > _FARTHEST_M:
            raise DataError(
                f"{where}: coordinate {np.abs(points).max():g} lies beyond the Earth; metres or degrees were expected"
            )
        corner = np.floor(low / corner_m) * corner_m if corner_m else low
        origin = (float(corner[0]), float(corner[1]))
        if (system is None or not system.is_geographic) and np.ptp(points, axis=0).max() > _WIDEST_M:
            raise DataError(
                f"{where}: coordinates {low.tolist()} … {points.max(axis=0).tolist()} span more than 1000 km; leave "
                f"out what lies far from the rest, or {_CUT}"
            )
        if system is None or _near_zero(points, system):
            return cls("local", None, (0.0, 0.0) if np.abs(points).max() <= _SMALL_M else origin)
        if not system.is_geographic and _true_metres(points, system):
            try:
                return cls(shifted_crs(system, *origin), system, origin)
            except DataError:  # a projection without a false origin
                pass
        return cls(local_crs(*_middle(_degrees(points, system, where))), system, None)

    def local(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Local metres of points (n, 2) in the file's coordinates."""
        if self.origin is not None:
            return points - np.asarray(self.origin)
        return project(points, self.source, self.crs)

    def back(self, points: NDArray[np.float64], system: Any) -> NDArray[np.float64]:
        """Points (n, 2) in local metres as coordinates of another rasterio `CRS`."""
        if self.source is None or self.origin is None:
            return project(points, self.crs, system)
        there = points + np.asarray(self.origin)
        return there if system == self.source else project(there, self.source, system)


def _near_zero(points: NDArray[np.float64], system: Any) -> bool:
    """Whether coordinates with a UTM-like system are in fact local metres around (0, 0)."""
    if system.is_geographic or np.abs(points).max() > _ORIGIN_M or _true_metres(points, system):
        return False
    return system.to_dict().get("proj") in ("utm", "tmerc", "etmerc", "lcc", "omerc", "somerc", "sterea", "krovak")


def _degrees(points: NDArray[np.float64], system: Any, where: str) -> NDArray[np.float64]:
    """Longitudes and latitudes of points; raises an error for points outside the system's domain."""
    found = points if system.is_geographic else project(points, system, WGS84)
    if not np.isfinite(found).all() or np.abs(found[:, 1]).max() > 90 or np.abs(found[:, 0]).max() > 540:
        raise DataError(
            f"{where}: coordinates {points.min(axis=0).tolist()} … {points.max(axis=0).tolist()} lie outside "
            f"{system.to_string()[:60]}; give the right crs=EPSG:…, or crs=local for metres"
        )
    return found


def _middle(degrees: NDArray[np.float64]) -> tuple[float, float]:
    """Longitude and latitude of the middle of points, also across 180° and at the poles."""
    longitude, latitude = np.radians(degrees).T
    unit = np.stack([np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)])
    about = unit.mean(axis=1)
    if np.linalg.norm(about) < 0.5:
        raise DataError(f"the coordinates are spread over the Earth; {_CUT}")
    first = (math.degrees(math.atan2(about[1], about[0])), math.degrees(math.asin(about[2] / np.linalg.norm(about))))
    # The middle of the extent in the tangent plane at the mean.
    plane = local_crs(*first)
    flat = project(degrees, WGS84, plane)
    low, high = flat.min(axis=0), flat.max(axis=0)
    if not (np.isfinite(flat).all() and (high - low).max() < _WIDEST_M):
        raise DataError(f"the coordinates span more than 1000 km; {_CUT}")
    centre = project(((low + high) / 2)[None], plane, WGS84)[0]
    return float(centre[0]), float(centre[1])


def is_turned(points: NDArray[np.float64], system: Any) -> bool:
    """Whether points (n, 2) of a transverse Mercator system have northing before easting.

    That is so where they lie far outside of the projection, and inside of it with x and y exchanged.
    """
    if system.to_dict().get("proj") not in ("utm", "tmerc", "etmerc"):
        return False
    return _distortion(points, system)[1] > 0.05 and _true_metres(points[:, ::-1], system)


def _true_metres(points: NDArray[np.float64], system: Any) -> bool:
    """Whether a step of 1 in x and y is nearly a metre to the east and north in the middle of the points."""
    turn, scale = _distortion(points, system)
    return turn < _TURN and scale < _SCALE_ERROR


def _distortion(points: NDArray[np.float64], system: Any) -> tuple[float, float]:
    """Angle from east and north, and error in scale, of a step in x and y in the middle of the points."""
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    steps = middle + np.array([[0.0, 0], [100, 0], [0, 100]])
    degrees = project(steps, system, WGS84)
    if not np.isfinite(degrees).all() or np.abs(degrees[:, 1]).max() > 90:
        return math.inf, math.inf
    flat = project(degrees, WGS84, local_crs(*degrees[0]))
    east, north = (flat[1] - flat[0]) / 100, (flat[2] - flat[0]) / 100
    turns = (abs(math.atan2(east[1], east[0])), abs(math.atan2(-north[0], north[1])))
    scales = (abs(math.hypot(*east) - 1), abs(math.hypot(*north) - 1))
    return max(turns), max(scales)
