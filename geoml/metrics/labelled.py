"""Scores of xarray objects; axes are identified by name."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from geoml.errors import DataError, UserError
from geoml.metrics.neighbourhood import Fractions, PooledCRPS
from geoml.metrics.spectra import Power
from geoml.metrics.suite import Suite
from geoml.metrics.temporal import DailyCycle, LaggedMoments, Transitions
from geoml.metrics.variogram import Variogram

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Weights", "evaluate"]

Weights = Literal["area"] | None
#: Number of values (members × cells) that are loaded at a time.
VALUES_AT_A_TIME = 1 << 23
#: Statistics that read whole fields.
OF_FIELDS = (Fractions, PooledCRPS, Power, Variogram)
#: Names of the two last axes of a field, most common first.
PLANES = (("lat", "lon"), ("latitude", "longitude"), ("y", "x"))


def evaluate(
    suite: Suite,
    truth: xr.DataArray,
    prediction: xr.DataArray,
    *,
    member: str = "member",
    over: str | Sequence[str] | None = None,
    weights: xr.DataArray | Weights = None,
) -> xr.Dataset:
    """Compute every score of a suite; each is a variable on the dims of `truth` that are not averaged over.

    Fields, also Dask arrays, are loaded in parts. See `geoml.scores`.
    """
    import xarray as xr

    prediction = _matched(truth, prediction, member)
    layout = _Layout.of(suite, truth, over)
    area = _weights(truth, layout, weights)
    sums, totals, names = _statistics(suite, truth, prediction, layout, member, area)
    axes = tuple(layout.rows.index(dim) for dim in layout.rows if dim not in layout.kept)
    kept = tuple(truth.sizes[dim] for dim in layout.kept)
    # One entry for each combination of the kept dims: metrics take averages as numbers or as 1-D arrays.
    sums, totals = (part.sum(axis=axes).reshape(-1, len(names)) for part in (sums, totals))
    values = np.divide(sums, totals, out=np.full_like(sums, np.nan), where=totals > 0)
    means = dict(zip(names, values.T, strict=True))
    coords = {dim: truth[dim] for dim in layout.kept if dim in truth.coords}
    units = str(truth.attrs.get("units", "1"))
    members = int(prediction.sizes[member])
    variables = {}
    for label, metric in suite.metrics.items():
        about = (type(metric).__doc__ or label).strip().splitlines()[0]
        found = np.broadcast_to(np.asarray(metric.compute(means), np.float64), (math.prod(kept),))
        attrs = {
            "long_name": about.partition(",")[0].rstrip("."),
            "units": units if metric.unit == "field" else "1",
            "perfect": metric.perfect,
            "direction": metric.direction,
        }
        variables[label] = (layout.kept, found.reshape(kept), attrs)
    return xr.Dataset(variables, coords, {"members": members})


@dataclass(frozen=True)
class _Layout:
    """Dims of the truth that number the rows of the table (including kept dims), and dims of the cells of a row."""

    rows: tuple[str, ...]
    space: tuple[str, ...]
    kept: tuple[str, ...]

    @classmethod
    def of(cls, suite: Suite, truth: xr.DataArray, over: str | Sequence[str] | None) -> _Layout:
        dims = tuple(map(str, truth.dims))
        reduced = dims if over is None else (over,) if isinstance(over, str) else tuple(over)
        for dim in reduced:
            if dim not in dims:
                raise UserError(f"over names {dim!r}; the truth has the dims {', '.join(dims) or 'none'}")
        kept = tuple(dim for dim in dims if dim not in reduced)
        plane = next((pair for pair in PLANES if set(pair) <= set(dims)), dims[-2:])
        kinds = [type(statistic) for statistic in suite.statistics.values()]
        time = next((dim for dim in dims if truth.coords.get(dim) is not None and truth[dim].dtype.kind == "M"), "time")
        fields = [name for name, statistic in suite.statistics.items() if isinstance(statistic, OF_FIELDS)]
        if fields and not set(plane) <= set(reduced):
            raise UserError(
                f"{fields[0]} is a statistic of whole fields; average over {' and '.join(plane)} too, or leave over out"
            )
        if any(kind in (LaggedMoments, Transitions) for kind in kinds):
            if time not in reduced:
                raise UserError(f"scores of sequences are averaged over {time!r}; it is not among {reduced}")
            plane = (time, *plane)
        if not set(plane) <= set(reduced):
            return cls(kept, tuple(dim for dim in dims if dim in reduced), kept)
        rows = tuple(dim for dim in dims if dim not in plane)
        # Time is the innermost row axis: statistics of the daily cycle read the valid times of their rows.
        rows = tuple(dim for dim in rows if dim != time) + tuple(dim for dim in rows if dim == time)
        if DailyCycle in kinds and (time not in rows or truth[time].dtype.kind != "M"):
            raise DataError(f"the daily cycle needs a dim of datetimes; the truth has {', '.join(dims)}")
        return cls(rows, tuple(plane), tuple(dim for dim in rows if dim in kept))


def _statistics(
    suite: Suite, truth: xr.DataArray, prediction: xr.DataArray, layout: _Layout, member: str, area: Any
) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[str, ...]]:
    """Weighted sums and weights `(*rows, statistic)`, and the names of the statistics."""
    shape = tuple(truth.sizes[dim] for dim in layout.rows)
    inner = layout.rows[-1] if layout.rows else None
    times = truth[inner].values if inner in truth.coords and truth[inner].dtype.kind == "M" else None
    sums: NDArray[np.float64] | None = None
    totals: NDArray[np.float64] | None = None
    names: tuple[str, ...] = ()
    for place, part in _parts(truth, prediction, layout):
        x = prediction.isel(part).transpose(*([inner] if inner else []), member, *layout.space).values
        y = truth.isel(part).transpose(*([inner] if inner else []), *layout.space).values
        x, y = (x, y) if inner else (x[None], y[None])
        ids = np.arange(len(y)) if times is None else times[part[str(inner)]]
        order = np.argsort(ids, kind="stable")
        table = suite.update(x[order], y[order], ids=ids[order], mask=np.isfinite(y[order]), weights=area)
        if sums is None or totals is None:
            names = table.names
            sums, totals = np.zeros((2, *(shape or (1,)), len(names)))
        back = np.argsort(order, kind="stable")
        sums[place], totals[place] = table.sums[back], table.weights[back]
    if sums is None or totals is None:
        raise DataError(f"the truth has no values: its sizes are {dict(truth.sizes)}")
    return (sums, totals, names) if shape else (sums[0], totals[0], names)


def _parts(truth: xr.DataArray, prediction: xr.DataArray, layout: _Layout) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield parts that fit in memory: the index of their rows in the table, and the same rows as indexers of `isel`."""
    if not layout.rows:
        yield slice(None), {}
        return
    *outer, inner = layout.rows
    size = truth.sizes[inner]
    each = max(1, prediction.size // max(1, math.prod(truth.sizes[dim] for dim in layout.rows)))
    step = max(1, VALUES_AT_A_TIME // each)
    for index in np.ndindex(*(truth.sizes[dim] for dim in outer)):
        for start in range(0, size, step):
            rows = slice(start, min(start + step, size))
            yield (*index, rows), {**dict(zip(outer, index, strict=True)), inner: rows}


def _matched(truth: xr.DataArray, prediction: xr.DataArray, member: str) -> xr.DataArray:
    """Return the prediction with a member axis; all other axes are ordered as in the truth."""
    if member in truth.dims:
        raise UserError(f"the truth has the dim {member!r}; pass the truth first and the prediction second")
    if member not in prediction.dims:
        prediction = prediction.expand_dims(member)
    if not prediction.sizes[member]:
        raise DataError(f"the prediction has no members: {dict(prediction.sizes)}")
    here, there = set(truth.dims), set(prediction.dims) - {member}
    if here != there:
        raise DataError(
            f"dims differ: the truth has {', '.join(map(str, truth.dims))}, the prediction "
            f"{', '.join(map(str, prediction.dims))}, whose members are along {member!r}"
        )
    for dim in truth.dims:
        if truth.sizes[dim] != prediction.sizes[dim]:
            raise DataError(
                f"{dim!r} has size {truth.sizes[dim]} in the truth and {prediction.sizes[dim]} in the prediction"
            )
        if dim in truth.indexes and dim in prediction.indexes:
            order = _order(truth[dim].values, prediction[dim].values, str(dim))
            prediction = prediction if order is None else prediction.isel({dim: order})
    return prediction


def _order(wanted: NDArray[Any], given: NDArray[Any], dim: str) -> NDArray[np.intp] | None:
    """Return the indices that reorder coordinates `given` to `wanted`, None if equal; float32 rounding is ignored."""
    if np.array_equal(wanted, given):
        return None
    first, second = np.argsort(wanted, kind="stable"), np.argsort(given, kind="stable")
    a, b = wanted[first], given[second]
    if wanted.dtype.kind == "f" and given.dtype.kind in "fiu":
        width = float(np.abs(np.diff(a)).min(initial=np.inf))
        same = bool(np.allclose(a, b, rtol=1e-6, atol=1e-3 * width if np.isfinite(width) else 1e-6))
    else:
        same = bool(np.array_equal(a, b))
    if not same:
        at = int(np.flatnonzero(a != b)[0])
        raise DataError(
            f"{dim!r} differs between truth and prediction: {a[at]} and {b[at]}; select their common labels "
            "first, for example by xarray.align(truth, prediction, join='inner')"
        )
    return second[np.argsort(first, kind="stable")]


def _weights(truth: xr.DataArray, layout: _Layout, weights: xr.DataArray | Weights) -> Any:
    """Weights of the cells of a sample, in a shape that broadcasts to its space."""
    if weights is None:
        return None
    if isinstance(weights, str):
        if weights != "area":
            raise UserError(f"weights is {weights!r}; expected 'area', a DataArray or None")
        from geoml.grids.grid import grid_of

        axis = next((axis for axis in grid_of(truth).axes if axis.is_latitude), None)
        dim = next((dim for dim in layout.space if dim in ("lat", "latitude")), None)
        if axis is None or dim is None:
            raise UserError("weights='area' needs latitudes among the dims that are averaged over")
        order = np.argsort(np.argsort(truth[dim].values))
        area = (axis.widths / axis.widths.mean())[order]
        return area.reshape([-1 if name == dim else 1 for name in layout.space])
    if beyond := set(weights.dims) - set(layout.space):
        raise UserError(f"weights vary along {', '.join(map(str, beyond))}; expected dims among {layout.space}")
    missing = [name for name in layout.space if name not in weights.dims]
    return weights.expand_dims(missing).transpose(*layout.space).values
