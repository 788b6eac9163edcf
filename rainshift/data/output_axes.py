"""Axes of a prediction: the axes of the coarse data, refined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoml.grids.grid import Grid
from rainshift.data.prediction_file import Coords

if TYPE_CHECKING:
    from rainshift.data.inputs import CoarseFields

__all__ = ["OutputAxes"]


@dataclass(frozen=True)
class OutputAxes:
    """Names, order and longitude convention of the coarse data, applied to fields on the canonical fine grid.

    `coords` are the coordinates of the prediction after `member`; without a time axis they have no time.
    """

    coords: Coords
    order: tuple[NDArray[np.int64], NDArray[np.int64]]

    @classmethod
    def of(cls, fields: CoarseFields, fine: Grid) -> OutputAxes:
        """The axes of the prediction for coarse `fields`."""
        lat, lon = fine.axes
        rows = np.arange(lat.size)
        if isinstance(order := fields.axes[0].order, slice) and (order.step or 1) < 0:
            rows = rows[::-1]
        labels, columns = _as_given(lon.coordinates, fields)
        names = [found.coordinate for found in fields.axes]
        places: dict[str, tuple[NDArray[Any], dict[str, Any]]] = {
            names[0]: (lat.coordinates[rows], lat.attrs),
            names[1]: (labels, lon.attrs),
        }
        times: dict[str, tuple[NDArray[Any], dict[str, Any]]] = (
            {} if fields.time_dim is None else {fields.time_dim: (fields.times, {})}
        )
        return cls({**times, **places}, (rows, columns))

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the dims after `member`."""
        return tuple(self.coords)

    @property
    def has_time(self) -> bool:
        """Whether the prediction has a time axis."""
        return len(self.coords) > 2

    def turned(self, layers: Any) -> Any:
        """Reorder `(layer, time, lat, lon)` from the canonical grid to the axes of the prediction."""
        rows, columns = self.order
        layers = layers[:, :, _as_slice(rows)][..., _as_slice(columns)]
        return layers if self.has_time else layers[:, 0]


def _as_slice(order: NDArray[np.int64]) -> Any:
    """Return a slice if the order is ascending or descending, since a slice needs neither a copy nor a Dask task."""
    if np.array_equal(order, np.arange(len(order))):
        return slice(None)
    return slice(None, None, -1) if np.array_equal(order, np.arange(len(order))[::-1]) else order


def _as_given(labels: NDArray[np.float64], fields: CoarseFields) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return longitudes in the convention of the data, and the index that reorders fields to them."""
    axis = fields.grid.axes[-1]
    if axis.period is not None:
        base = 0.0 if fields.first_longitude >= 0 else -180.0
    else:
        base = fields.first_longitude - axis.step / 2
    turned = np.round((labels - base) % 360 + base, 10)
    order = np.argsort(turned, kind="stable")
    jumps = np.diff(turned[order]) > 1.5 * abs(axis.step)
    if jumps.any():  # 350 … 10 across Greenwich: the canonical -10 … 10 has no jump
        return labels, np.arange(len(labels))
    return turned[order], order
