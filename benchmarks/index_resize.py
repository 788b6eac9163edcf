"""Resizing by array index, as in image libraries, and its error on grids that do not share their edges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from geoml.grids.axes import Axis
from geoml.grids.grid import Grid
from geoml.regrid.operator import Regridder, operator_for

__all__ = ["IndexCost", "index_resize", "index_resize_cost"]

Fields = TypeVar("Fields")


def index_resize(fields: Fields, shape: Sequence[int]) -> Fields:
    """Bilinear resize of the last axes to `shape` by half-pixel index mapping (`align_corners=False`).

    Both arrays are assumed to cover the same box with cells. For grids with another registration the field is shifted.
    This function measures the error of such a shift; do not use it for regridding.

    >>> index_resize(np.arange(4.0), [8])
    array([0.  , 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.  ])
    """
    before = tuple(fields.shape)[-len(shape) :]  # type: ignore[attr-defined]
    grids = [
        Grid(tuple(Axis(f"axis{i}", 0.5 / n, 1 / n, n, "1") for i, n in enumerate(sizes)), "index")
        for sizes in (before, tuple(shape))
    ]
    return operator_for(grids[0], grids[1], "bilinear")(fields)


@dataclass(frozen=True)
class IndexCost:
    """Errors of interpolation by coordinate and by index against the truth, in the units of the field.

    The interpolated field has a single member, whose CRPS is the absolute error. Therefore `crps_*` are mean absolute
    errors.
    """

    rmse_by_coordinate: float
    rmse_by_index: float
    crps_by_coordinate: float
    crps_by_index: float

    @property
    def rmse_cost(self) -> float:
        """Relative increase of the RMSE from resizing by index."""
        return self.rmse_by_index / self.rmse_by_coordinate - 1

    @property
    def crps_cost(self) -> float:
        """Relative increase of the CRPS (MAE) from resizing by index."""
        return self.crps_by_index / self.crps_by_coordinate - 1


def index_resize_cost(fine: NDArray[Any], coarse_grid: Grid, fine_grid: Grid) -> IndexCost:
    """Measure the loss from upsampling the coarse version of `fine` by index instead of by coordinate.

    `fine` is the truth, `(…, *fine_grid.shape)`, NaN where unknown. Its coarse version is its exact area mean on
    `coarse_grid`, so the two methods differ only in registration. Errors are area-weighted means over the known cells
    within the extent of the coarse data, since neither method is valid beyond it.
    """
    coarse = Regridder(fine_grid, coarse_grid)(np.asarray(fine, dtype=np.float64))
    by_coordinate = Regridder(coarse_grid, fine_grid, "bilinear", rim="missing")(coarse)
    by_index = index_resize(coarse, fine_grid.shape)
    known = np.isfinite(fine) & np.isfinite(by_coordinate) & np.isfinite(by_index)
    if not known.any():
        raise ValueError("no cell is known in the truth and in both interpolations")
    weights = np.broadcast_to(fine_grid.cell_weights(), known.shape)[known]

    def scores(interpolated: NDArray[Any]) -> tuple[float, float]:
        error = interpolated[known] - fine[known]
        return float(np.sqrt(np.average(error**2, weights=weights))), float(np.average(abs(error), weights=weights))

    (rmse, crps), (rmse_by_index, crps_by_index) = scores(by_coordinate), scores(by_index)
    return IndexCost(rmse, rmse_by_index, crps, crps_by_index)
