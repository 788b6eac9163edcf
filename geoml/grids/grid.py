"""Grids: named, evenly spaced axes in units of a coordinate reference system; 2-D, 3-D, with or without time."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from geoml.errors import DataError
from geoml.grids.axes import LATITUDE_UNITS, LONGITUDE_UNITS, Axis, Registration
from geoml.grids.coordinates import find_axes

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Axis", "Grid", "Registration", "conform", "grid_of", "require_same"]

WGS84 = "EPSG:4326"
Data = TypeVar("Data", "xr.Dataset", "xr.DataArray")


@dataclass(frozen=True)
class Grid:
    """Axes in the order of array dimensions, slowest first, and their coordinate reference system.

    >>> grid = Grid.latlon(40, 60, -5, 15, 0.1)
    >>> grid.shape, grid.names, grid["lat"].extent
    ((200, 200), ('lat', 'lon'), (40.0, 60.0))
    """

    axes: tuple[Axis, ...]
    crs: str = WGS84

    def __post_init__(self) -> None:
        object.__setattr__(self, "axes", tuple(self.axes))
        if not self.axes or len(set(self.names)) != len(self.axes):
            raise ValueError(f"a grid needs axes of different names, not {self.names}")

    @classmethod
    def latlon(
        cls,
        lat_min: float,
        lat_max: float,
        lon_min: float,
        lon_max: float,
        step: float,
        registration: Registration = "centre",
        *,
        half_open: bool = False,
    ) -> Grid:
        """The grid of `step` degrees in a box, south first.

        Centre cells fill the box; nodes run from edge to edge. A `half_open` node grid leaves out its southernmost
        row and easternmost column, which is how boxes cut from a global field north-west corner first are stored:

        >>> Grid.latlon(40, 60, -5, 15, 0.25, "node", half_open=True)["lat"].extent
        (40.25, 60.0)

        A box with `lon_max` below `lon_min` crosses the date line.
        """
        if lon_max <= lon_min:
            lon_max += 360.0
        axes = []
        for name, units, low, high in (
            ("lat", LATITUDE_UNITS, lat_min, lat_max),
            ("lon", LONGITUDE_UNITS, lon_min, lon_max),
        ):
            cells = round((high - low) / step)
            if cells < 1 or abs(cells * step - (high - low)) > 1e-6 * step * cells:
                raise ValueError(f"{name} {low} … {high} is not a whole number of steps of {step}")
            around = units == LONGITUDE_UNITS and math.isclose(cells * step, 360.0)
            start, size = (low, cells + 1) if registration == "node" else (low + step / 2, cells)
            if registration == "node" and (half_open or around):
                start, size = (low if name == "lon" else low + step), cells
            start = round(start, 12)
            axes.append(Axis(name, start, step, size, units, registration, 360.0 if around else None))
        return cls(tuple(axes))

    @classmethod
    def box(
        cls,
        lower: Mapping[str, float],
        upper: Mapping[str, float],
        step: float | Mapping[str, float],
        registration: Registration = "centre",
        *,
        crs: str = "local",
        units: str = "m",
    ) -> Grid:
        """A metric grid that fills a box, axes in the order of `lower`: usually `z, y, x`.

        >>> Grid.box({"z": 0, "y": 0, "x": 0}, {"z": 20, "y": 64, "x": 32}, {"z": 1, "y": 2, "x": 2}).shape
        (20, 32, 16)
        """
        axes = []
        for name, low in lower.items():
            width = float(step[name] if isinstance(step, Mapping) else step)
            cells = round((upper[name] - low) / width)
            if cells < 1 or abs(cells * width - (upper[name] - low)) > 1e-6 * width * cells:
                raise ValueError(f"{name} {low} … {upper[name]} is not a whole number of steps of {width}")
            start, size = (low, cells + 1) if registration == "node" else (low + width / 2, cells)
            axes.append(Axis(name, start, width, size, units, registration))
        return cls(tuple(axes), crs)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(axis.size for axis in self.axes)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(axis.name for axis in self.axes)

    @property
    def size(self) -> int:
        """Number of cells."""
        return math.prod(self.shape)

    def __getitem__(self, name: str) -> Axis:
        for axis in self.axes:
            if axis.name == name:
                return axis
        raise KeyError(f"no axis {name!r} among {self.names}")

    def _each(self, changes: Mapping[str, Axis]) -> Grid:
        return replace(self, axes=tuple(changes.get(axis.name, axis) for axis in self.axes))

    def _spread(self, value: Any) -> dict[str, Any]:
        """Map axis names to values, given one value for all axes or a mapping."""
        values = dict(value) if isinstance(value, Mapping) else dict.fromkeys(self.names, value)
        for name in values:
            self[name]
        return values

    def crop(self, **indices: slice) -> Grid:
        """The part of the grid at index slices: `grid.crop(lat=slice(0, 64))`."""
        return self._each({name: self[name].crop(part) for name, part in indices.items()})

    def slices(self, **bounds: tuple[float, float]) -> tuple[slice, ...]:
        """Index slices per axis of the coordinates within `name=(low, high)` (both included)."""
        for name in bounds:
            self[name]
        return tuple(axis.select(*bounds[axis.name]) if axis.name in bounds else slice(None) for axis in self.axes)

    def select(self, **bounds: tuple[float, float]) -> Grid:
        """Crop to coordinates within `name=(low, high)`; `slices` returns the index slices for arrays."""
        return self.crop(**dict(zip(self.names, self.slices(**bounds), strict=True)))

    def coarsen(self, factor: float | Mapping[str, float]) -> Grid:
        """Cells `factor` times as wide (not only integers): groups of centre cells, every n-th node.

        >>> Grid.latlon(40, 60, -5, 15, 0.1).coarsen(2.5)["lat"].coordinates[:2]
        array([40.125, 40.375])
        """
        return self._each({name: self[name].coarsen(value) for name, value in self._spread(factor).items()})

    def refine(self, factor: float | Mapping[str, float]) -> Grid:
        """Cells `factor` times as narrow: the inverse of `coarsen`."""
        return self.coarsen({name: 1 / value for name, value in self._spread(factor).items()})

    def pad(self, cells: int | tuple[int, int] | Mapping[str, int | tuple[int, int]]) -> Grid:
        """The grid with cells added around it: a count, or (before, after), for all axes or a mapping."""
        changes = {}
        for name, value in self._spread(cells).items():
            before, after = value if isinstance(value, tuple) else (value, value)
            changes[name] = self[name].pad(before, after)
        return self._each(changes)

    def moved(self, **offsets: float) -> Grid:
        """The grid shifted by `name=offset` in the axis' units."""
        return self._each({name: replace(self[name], start=self[name].start + by) for name, by in offsets.items()})

    def with_axis(self, axis: Axis, position: int = 0) -> Grid:
        """Return the grid with an additional axis at `position`, by default the first."""
        axes = list(self.axes)
        axes.insert(position, axis)
        return replace(self, axes=tuple(axes))

    def with_time(self, axis: Axis) -> Grid:
        """The grid with time as its slowest axis."""
        return self.with_axis(axis)

    def cell_weights(self, *, full: bool = True) -> NDArray[np.float64]:
        """Relative areas (volumes) of the cells with mean 1: differences of sin(lat), else plain products.

        Shape: the grid's, or, unless `full`, 1 along the axes on which nothing varies.

        >>> Grid.latlon(0, 60, 0, 30, 30).cell_weights(full=False).ravel().round(3)
        array([1.155, 0.845])
        """
        weights = np.ones((1,) * len(self.axes))
        for position, axis in enumerate(self.axes):
            if axis.is_latitude:
                shape = [1] * len(self.axes)
                shape[position] = axis.size
                weights = weights * (axis.widths / axis.widths.mean()).reshape(shape)
        return np.array(np.broadcast_to(weights, self.shape)) if full else weights

    def relative_to(self, other: Grid) -> Hashable:
        """Return a key of this grid relative to another; a common translation of both grids does not change it.

        Weights of interpolation depend on this key only; weights of area means on a sphere also depend on latitude.
        """
        rows = []
        for mine, its in zip(self.axes, other.axes, strict=True):
            offset, ratio = (mine.start - its.start) / its.step, mine.step / its.step
            units = (mine.name, its.name, mine.units, its.units, mine.registration, its.registration)
            rows.append((*units, mine.size, its.size, round(offset, 6), round(ratio, 9), mine.period, its.period))
        return (self.crs, other.crs, *rows)

    def coords(self) -> dict[str, tuple[str, NDArray[Any], dict[str, Any]]]:
        """Coordinates in the form that xarray accepts: `xarray.DataArray(values, grid.coords(), grid.names)`."""
        return {axis.name: (axis.name, axis.labels, axis.attrs) for axis in self.axes}

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, for JSON."""
        return {"crs": self.crs, "axes": [asdict(axis) for axis in self.axes]}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Grid:
        """The grid that `to_dict` wrote."""
        return cls(tuple(Axis(**axis) for axis in value["axes"]), value["crs"])

    def matches(self, other: Grid) -> bool:
        """Return whether two grids have the same cells, within a thousandth of a step."""
        return len(self.axes) == len(other.axes) and all(
            mine.matches(its) for mine, its in zip(self.axes, other.axes, strict=True)
        )


def require_same(a: Grid, b: Grid, what: str) -> None:
    """Raise `DataError` if two grids differ. `what` names them in the message, as in "forecast and observation"."""
    if a.names != b.names:
        raise DataError(f"{what}: grids differ: axes {a.names} and {b.names}")
    for mine, its in zip(a.axes, b.axes, strict=True):
        if not mine.matches(its):
            raise DataError(f"{what}: grids differ on {mine.name!r}: {_describe(mine)} and {_describe(its)}")


def _describe(axis: Axis) -> str:
    return f"{axis.size} × {axis.step:g} from {axis.start:g} to {axis.stop:g} {axis.units} ({axis.registration})"


def grid_of(data: xr.Dataset | xr.DataArray, *, time: bool = False, registration: Registration | None = None) -> Grid:
    """The grid that xarray data lie on, read from their CF coordinates; axes in canonical order and direction.

    Latitudes ascend, longitudes ascend without a jump and start in -180 … 180 (a region across the date line goes
    on, 170 … 190). Other dims are ignored; `time=True` includes time as an axis, in seconds since 1970.
    Registration: `registration`, else the coordinate's attribute of that name, else "node" for coordinates on
    multiples of the step. Non-monotonic, uneven, curvilinear, overlapping, missing or swapped coordinates raise
    `DataError` with the place.
    """
    found = find_axes(data, time=time, registration=registration)
    return Grid(tuple(item.axis for item in found), _crs_of(data, found[-1].axis))


def conform(data: Data, *, time: bool = False, registration: Registration | None = None) -> Data:
    """Rename and reorder data to the canonical axes of `grid_of`: dims `(…, time, lat, lon)`, ascending coordinates."""
    found = find_axes(data, time=time, registration=registration)
    coords = Grid(tuple(item.axis for item in found)).coords()
    for item in found:
        name = item.axis.name
        if item.order is not None:
            data = data.isel({item.dim: item.order})
        if item.coordinate != name:
            data = data.drop_vars(item.coordinate)
        if item.dim != name:
            data = data.rename({item.dim: name})
        dim, values, attrs = coords[name]
        data = data.assign_coords({name: (dim, values, {**item.attrs, **attrs})})
    lead = ["time"] if "time" in data.dims and "time" not in coords else []
    return data.transpose(..., *lead, *coords)


def _crs_of(data: xr.Dataset | xr.DataArray, axis: Axis) -> str:
    """Return WGS 84 for axes in degrees, otherwise the system of the CF grid mapping, otherwise "local"."""
    if axis.is_longitude or axis.is_latitude:
        return WGS84
    for variable in (data, *getattr(data, "data_vars", {}).values()):
        name = variable.encoding.get("grid_mapping") or variable.attrs.get("grid_mapping")
        mapping = data[name] if name in data.coords or name in getattr(data, "data_vars", ()) else None
        if mapping is not None:
            attrs = mapping.attrs
            return str(attrs.get("crs_wkt") or attrs.get("spatial_ref") or attrs.get("grid_mapping_name") or name)
    return "local"
