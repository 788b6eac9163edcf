"""Interpolate projected and curvilinear grids to regular latitudes and longitudes, and log the loss of variance."""

from __future__ import annotations

import logging
import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from geoml.errors import DataError
from geoml.grids.coordinates import rounding
from geoml.grids.grid import Grid

__all__ = ["rectified"]

logger = logging.getLogger(__name__)

PROJECTED = (("projection_y_coordinate", "projection_x_coordinate"), ("grid_latitude", "grid_longitude"))
#: Names of projected coordinates without a standard name.
USUAL = (("y", "x"), ("Y", "X"), ("northing", "easting"))
#: Attributes that define a grid mapping completely, as text or EPSG code.
AS_TEXT = ("crs_wkt", "spatial_ref", "proj4", "proj4_params", "proj4_string", "proj_params", "epsg_code", "EPSG_code")
NAMES = {"lat": ("latitude", "lat", "xlat", "nav_lat"), "lon": ("longitude", "lon", "xlong", "nav_lon")}
UNITS = {"lat": ("degrees_north", "degree_north"), "lon": ("degrees_east", "degree_east")}
#: PROJ names of CF grid mappings and of their parameters.
PROJECTIONS = {"lambert_conformal_conic": "lcc", "polar_stereographic": "stere", "stereographic": "stere",
               "lambert_azimuthal_equal_area": "laea", "albers_conical_equal_area": "aea", "mercator": "merc",
               "transverse_mercator": "tmerc", "azimuthal_equidistant": "aeqd"}  # fmt: skip
PARAMETERS = {
    "latitude_of_projection_origin": "lat_0", "longitude_of_projection_origin": "lon_0",
    "longitude_of_central_meridian": "lon_0", "straight_vertical_longitude_from_pole": "lon_0",
    "scale_factor_at_central_meridian": "k_0", "scale_factor_at_projection_origin": "k_0", "false_easting": "x_0",
    "false_northing": "y_0", "semi_major_axis": "a", "semi_minor_axis": "b", "earth_radius": "R",
    "inverse_flattening": "rf",
}  # fmt: skip
#: Triangles with sides this many times longer than the median are outside the domain, across a concave edge.
FAR = 2.5
#: Relative difference of steps above which an axis is uneven, and ratio of steps above which it is an error.
UNEVEN, MOST_UNEVEN = 2e-3, 1.9
#: Steps of the target grids in degrees, times a power of ten.
NICE = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)


def rectified(array: xr.DataArray, dataset: xr.Dataset, label: str) -> xr.DataArray:
    """Return an array `(time, …)` on regular latitudes and longitudes; unchanged if it already is on such a grid.

    Supported are two-dimensional latitudes and longitudes (WRF, swaths, rotated poles in CF), projected coordinates
    with a CF grid mapping, and latitudes and longitudes of uneven steps (Gaussian grids). Values are interpolated
    linearly, along each axis or on a Delaunay triangulation (SciPy), to about the original spacing; the loss of
    variance is logged. Cells outside the domain are missing. Raises `DataError` if their position is unknown.
    """
    places = _positions(array, dataset, label)
    if places is not None and (plain := _along_axes(array, *places)) is not None:
        array, places = plain, None
    if (uneven := _uneven_axes(array)) is not None:
        dims, rows, columns = uneven
        grid = _grid_for(*np.meshgrid(rows, columns, indexing="ij"), label)
        weights: _Weights | _AlongAxes = _AlongAxes.of(rows, columns, grid)
    elif places is not None:
        dims, lat, lon = places
        grid = _grid_for(lat, lon, label)
        weights = _Weights.of(lat, lon, grid)
    else:
        return array
    array = array.transpose(..., *dims) if array.chunks else array.transpose(..., *dims).chunk()
    lead = [dim for dim in array.dims if dim not in dims]
    shape = grid.shape
    data = array.data.rechunk({array.ndim - 2: -1, array.ndim - 1: -1})
    made = data.map_blocks(weights.apply, dtype=np.float32, chunks=(*data.chunks[:-2], (shape[0],), (shape[1],)))
    coords = {dim: array[dim] for dim in lead if dim in array.coords}
    found = xr.DataArray(made, {**coords, **grid.coords()}, (*lead, *grid.names), array.name, array.attrs)
    found.encoding = dict(array.encoding)
    _state_cost(array, found, label)
    return found


def _along_axes(
    array: xr.DataArray, dims: tuple[str, str], lat: NDArray[np.float64], lon: NDArray[np.float64]
) -> xr.DataArray | None:
    """Return the array with one-dimensional latitudes and longitudes if its grid is rectilinear, else None."""
    steps = np.abs(np.diff(lat[:, 0])), np.abs(np.diff(lon[0]))
    if not all(each.size and np.isfinite(each).all() for each in steps):
        return None
    apart = np.abs(lat - lat[:, :1]).max() / steps[0].min(initial=np.inf), np.abs(lon - lon[:1]).max() / steps[1].min()
    if not max(apart) < 1e-3:
        return None
    kept = array.drop_vars([name for name in array.coords if name in dims or array[name].ndim == 2])
    return kept.assign_coords({
        dims[0]: (dims[0], lat[:, 0], {"units": "degrees_north"}),
        dims[1]: (dims[1], lon[0], {"units": "degrees_east"}),
    })  # fmt: skip


def _uneven_axes(array: xr.DataArray) -> tuple[tuple[str, str], NDArray[np.float64], NDArray[np.float64]] | None:
    """Return dims, latitudes and longitudes of axes with uneven steps; None if all steps are even."""
    found: dict[str, Any] = {}
    for dim in array.dims:
        if dim in array.coords and array[dim].ndim == 1 and (kind := _kind(str(dim), array[dim])) is not None:
            found[kind] = array[dim]
    if len(found) < 2 or min(each.size for each in found.values()) < 3:
        return None
    rows, columns = (np.asarray(found[kind].values, np.float64) for kind in ("lat", "lon"))
    if not (np.isfinite(rows).all() and np.isfinite(columns).all()):
        return None
    columns = np.rad2deg(np.unwrap(np.deg2rad(columns)))
    even = True
    for values in (rows, columns):
        steps = np.diff(values)
        if not ((steps > 0).all() or (steps < 0).all()):
            return None  # repeated or unsorted values: read_axis reports the position
        off = np.abs(values - np.linspace(values[0], values[-1], len(values))).max()
        even &= bool(
            np.abs(steps - steps.mean()).max() <= UNEVEN * abs(steps.mean()) or off <= rounding(values, steps.mean())
        )
        if np.abs(steps).max() > MOST_UNEVEN * np.abs(steps).min():
            return None  # a missing row or a misplaced value is an error, not an uneven grid
    return None if even else ((str(found["lat"].name), str(found["lon"].name)), rows, columns)


def _positions(
    array: xr.DataArray, dataset: xr.Dataset, label: str
) -> tuple[tuple[str, str], NDArray[np.float64], NDArray[np.float64]] | None:
    """Return the two dims and the cell positions of a grid that is not rectilinear; None for a rectilinear grid."""
    plain = {dim for dim in array.dims if dim in array.coords and _is_degrees(array[dim])}
    if len(plain) >= 2:
        return None
    every = {**dataset.variables, **array.coords}
    flat: dict[str, Any] = {}
    for name, coordinate in every.items():
        if coordinate.ndim == 2 and (kind := _kind(str(name), coordinate)) is not None:
            flat.setdefault(kind, coordinate)
    if len(flat) == 2 and set(flat["lat"].dims) <= set(array.dims):
        dims = (str(flat["lat"].dims[0]), str(flat["lat"].dims[1]))
        lat, lon = (np.asarray(flat[kind].transpose(*dims).values, float) for kind in ("lat", "lon"))
        if np.nanmax(np.abs(lat)) > 90.001 or np.nanmax(np.abs(lon)) > 540:
            raise DataError(
                f"{label} has latitudes from {np.nanmin(lat):g} to {np.nanmax(lat):g} and longitudes from "
                f"{np.nanmin(lon):g} to {np.nanmax(lon):g}; if these mark missing positions, declare their _FillValue"
            )
        return dims, lat, lon
    return _projected(array, dataset, label)


def _is_degrees(coordinate: xr.DataArray) -> bool:
    return coordinate.ndim == 1 and _kind(str(coordinate.name), coordinate) in ("lat", "lon")


def _kind(name: str, coordinate: Any) -> str | None:
    units, standard = str(coordinate.attrs.get("units", "")).lower(), str(coordinate.attrs.get("standard_name", ""))
    if standard in ("latitude", "longitude"):
        return standard[:3]
    if standard.startswith(("grid_", "projection_")):
        return None
    for kind, words in NAMES.items():
        if name.lower() in words or units in UNITS[kind]:
            return kind
    return None


def _projected(
    array: xr.DataArray, dataset: xr.Dataset, label: str
) -> tuple[tuple[str, str], NDArray[np.float64], NDArray[np.float64]] | None:
    """Compute positions from projected coordinates and their CF grid mapping."""
    pair = next(
        ((y, x) for names in PROJECTED for y in array.dims for x in array.dims
         if y in array.coords and x in array.coords
         and (array[y].attrs.get("standard_name"), array[x].attrs.get("standard_name")) == names),
        next((names for names in USUAL if {*names} <= {*array.dims} & {*array.coords}), None),
    )  # fmt: skip
    if pair is None:
        return None
    mapping = array.attrs.get("grid_mapping") or array.encoding.get("grid_mapping") or ""
    mapping = re.split(r"[:\s]", str(mapping))[0] or next(
        (n for n in ("spatial_ref", "crs") if n in dataset.variables), None
    )
    if mapping not in dataset.variables:
        raise DataError(
            f"{label} has projected coordinates {pair} without a grid mapping; the position of its cells is unknown. "
            "Add a CF grid_mapping, or two-dimensional latitudes and longitudes"
        )
    from rasterio.crs import CRS
    from rasterio.errors import CRSError
    from rasterio.warp import transform

    attrs = {key: np.ravel(value).tolist() for key, value in dataset[mapping].attrs.items()}
    if attrs.get("grid_mapping_name") == ["rotated_latitude_longitude"]:
        names = (str(pair[0]), str(pair[1]))
        rlat, rlon = (np.asarray(array[name].values, float) for name in names)
        return names, *_unrotated(rlat, rlon, attrs, label)
    text = next((attrs[key][0] for key in AS_TEXT if attrs.get(key)), None)
    try:
        system = CRS.from_user_input(text if text else _proj_text(attrs))
    except (CRSError, KeyError) as error:
        raise DataError(f"{label}: its grid mapping {mapping!r} is not understood: {error}") from error
    scale = 1000.0 if str(array[pair[1]].attrs.get("units", "m")).lower().startswith(("km", "kilom")) else 1.0
    east, north = (np.asarray(array[name].values, float) * scale for name in (pair[1], pair[0]))
    x, y = np.meshgrid(east, north)
    lon, lat = transform(system, CRS.from_epsg(4326), x.ravel(), y.ravel())
    return (str(pair[0]), str(pair[1])), np.reshape(lat, x.shape), np.reshape(lon, x.shape)


def _unrotated(
    rlat: NDArray[np.float64], rlon: NDArray[np.float64], attrs: dict[str, list[Any]], label: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute latitudes and longitudes of a grid with a rotated pole (CF appendix F)."""
    try:
        pole_lat, pole_lon = (float(attrs[f"grid_north_pole_{name}"][0]) for name in ("latitude", "longitude"))
    except (KeyError, ValueError) as error:
        raise DataError(f"{label}: its grid mapping has no position of the rotated pole ({error}); add it") from error
    turn = math.radians(float(attrs.get("north_pole_grid_longitude", [0.0])[0]))
    up, east = np.deg2rad(rlat)[:, None], np.deg2rad(rlon)[None, :] - turn
    pole = math.radians(pole_lat)
    sine = np.sin(up) * math.sin(pole) + np.cos(up) * math.cos(pole) * np.cos(east)
    across = np.cos(up) * np.sin(east)
    along = np.sin(up) * math.cos(pole) - np.cos(up) * math.sin(pole) * np.cos(east)
    lon = pole_lon - np.rad2deg(np.arctan2(across, along))
    return np.rad2deg(np.arcsin(np.clip(sine, -1, 1))), (lon + 180) % 360 - 180


def _proj_text(attrs: dict[str, list[Any]]) -> str:
    """Return the PROJ string of a CF grid mapping. Raises `KeyError` if it is not among `PROJECTIONS`."""
    words = [f"+proj={PROJECTIONS[str(attrs['grid_mapping_name'][0])]}"]
    for name, values in attrs.items():
        if name == "standard_parallel":
            names = ("lat_1", "lat_2") if "lcc" in words[0] or "aea" in words[0] else ("lat_ts",)
            words += [f"+{key}={value}" for key, value in zip(names, [*values, values[-1]], strict=False)]
        elif name in PARAMETERS:
            words.append(f"+{PARAMETERS[name]}={values[0]}")
    return " ".join([*words, "+units=m", "+no_defs"])


def _grid_for(lat: NDArray[np.float64], lon: NDArray[np.float64], label: str) -> Grid:
    """Return a regular grid on the bounding box of the cells, with about their spacing."""
    if min(lat.shape) < 3 or not np.isfinite(lat).any():
        raise DataError(f"{label} has {lat.shape} positions; expected at least 3 x 3")
    middle = math.cos(math.radians(float(np.nanmean(lat))))
    lon = np.rad2deg(np.unwrap(np.deg2rad(lon), axis=1))
    across = np.hypot(np.diff(lat, axis=1), np.diff(lon, axis=1) * middle)
    down = np.hypot(np.diff(lat, axis=0), np.diff(lon, axis=0) * middle)
    spacing = float(np.nanmedian(np.concatenate([across.ravel(), down.ravel()])))
    power = 10.0 ** math.floor(math.log10(spacing))
    step = float(f"{min((n for n in (*NICE, 10.0)), key=lambda n: abs(math.log(n * power / spacing))) * power:.10g}")
    low_lat, high_lat = (_snap(v, step, up) for v, up in ((np.nanmin(lat), True), (np.nanmax(lat), False)))
    low_lon, high_lon = (_snap(v, step, up) for v, up in ((np.nanmin(lon), True), (np.nanmax(lon), False)))
    return Grid.latlon(low_lat, high_lat, low_lon, high_lon, step)


def _snap(value: float, step: float, up: bool) -> float:
    return round((math.ceil(value / step) if up else math.floor(value / step)) * step, 10)


@dataclass(frozen=True)
class _Weights:
    """Three source cells per target cell with their barycentric weights; weights are NaN outside the domain."""

    index: NDArray[np.intp]
    weight: NDArray[np.float32]
    shape: tuple[int, ...]

    @classmethod
    def of(cls, lat: NDArray[np.float64], lon: NDArray[np.float64], grid: Grid) -> _Weights:
        from scipy.spatial import Delaunay

        middle = math.cos(math.radians(float(np.nanmean(lat))))
        lon = np.rad2deg(np.unwrap(np.deg2rad(lon), axis=1))
        points = np.column_stack([lat.ravel(), lon.ravel() * middle])
        known = np.flatnonzero(np.isfinite(points).all(axis=1))
        mesh = Delaunay(points[known])
        rows, columns = np.meshgrid(grid["lat"].coordinates, grid["lon"].coordinates, indexing="ij")
        wanted = np.column_stack([rows.ravel(), columns.ravel() * middle])
        found = mesh.find_simplex(wanted)
        transform = mesh.transform[found]
        two = np.einsum("nij,nj->ni", transform[:, :2], wanted - transform[:, 2])
        weight = np.column_stack([two, 1 - two.sum(axis=1)]).clip(0, 1)
        corners = mesh.points[mesh.simplices]
        longest = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(axis=1)
        # Long triangles across a concave edge are outside the domain.
        weight[(found < 0) | (longest[found] > FAR * np.median(longest))] = np.nan
        return cls(known[mesh.simplices[found]], weight.astype(np.float32), grid.shape)

    def apply(self, block: NDArray[Any]) -> NDArray[np.float32]:
        """Interpolate `(…, y, x)` to the grid."""
        flat = block.reshape(*block.shape[:-2], -1)
        made = sum(flat[..., self.index[:, k]] * self.weight[:, k] for k in range(3))
        return np.asarray(made, np.float32).reshape(*block.shape[:-2], *self.shape)


@dataclass(frozen=True)
class _AlongAxes:
    """Linear interpolation along axes: index of the lower source row (column), and weight of the next one."""

    rows: tuple[NDArray[np.intp], NDArray[np.float32]]
    columns: tuple[NDArray[np.intp], NDArray[np.float32]]

    @classmethod
    def of(cls, rows: NDArray[np.float64], columns: NDArray[np.float64], grid: Grid) -> _AlongAxes:
        lat, lon = (grid[name].coordinates for name in ("lat", "lon"))
        lon = lon + 360.0 * np.round((columns.mean() - lon.mean()) / 360.0)
        return cls(_between(rows, lat), _between(columns, lon))

    def apply(self, block: NDArray[Any]) -> NDArray[np.float32]:
        """Interpolate `(…, y, x)` to the grid."""
        (y, up), (x, right) = self.rows, self.columns
        made = block[..., y, :] * (1 - up[:, None]) + block[..., y + 1, :] * up[:, None]
        return np.asarray(made[..., x] * (1 - right) + made[..., x + 1] * right, np.float32)


def _between(have: NDArray[np.float64], wanted: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    descends = have[0] > have[-1]
    ascending = have[::-1] if descends else have
    place = np.clip(np.searchsorted(ascending, wanted, "right") - 1, 0, len(have) - 2)
    share = (wanted - ascending[place]) / (ascending[place + 1] - ascending[place])
    share[(share < -1e-6) | (share > 1 + 1e-6)] = np.nan
    if descends:
        return len(have) - 2 - place, (1 - share).astype(np.float32)
    return place, share.astype(np.float32)


def _state_cost(before: xr.DataArray, after: xr.DataArray, label: str) -> None:
    """Log the share of variance and of the mean that interpolation preserves, at the middle time."""
    lead = {dim: before.sizes[dim] // 2 for dim in before.dims[:-2]}
    old, new = (np.asarray(each.isel(lead).values, float) for each in (before, after))
    variance, mean = (f(new) / f(old) if f(old) > 0 else 1.0 for f in (np.nanvar, np.nanmean))
    step = float(after["lat"][1] - after["lat"][0])
    logger.warning(
        "%s is not on regular latitudes and longitudes: interpolated to %g degrees, keeping %.0f %% of its variance "
        "and %.1f %% of its mean at the middle time",
        label, step, 100 * variance, 100 * mean,
    )  # fmt: skip
