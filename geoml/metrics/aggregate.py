"""The table of statistics, with one row per sample: sums, groups, alignment, storage."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geoml.errors import DataError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["StatisticsTable", "merge", "require_paired"]


@dataclass(frozen=True, eq=False)
class StatisticsTable:
    """Weighted sums of statistics, one row per sample: the complete state of an evaluation.

    `ids` `(sample,)` are unique global sample ids or times in ascending order (rows are sorted on construction, so
    that averages do not depend on the order of arrival, to the last bit). `sums` and `weights` are
    `(sample, statistic)` in float64.
    """

    ids: NDArray[Any]
    names: tuple[str, ...]
    sums: NDArray[np.float64]
    weights: NDArray[np.float64]

    def __post_init__(self) -> None:
        ids = np.asarray(self.ids)
        shape = (len(ids), len(self.names))
        if ids.ndim != 1 or self.sums.shape != shape or self.weights.shape != shape:
            raise ValueError(f"sums {self.sums.shape} and weights {self.weights.shape} must be {shape}")
        order = np.argsort(ids, kind="stable")
        for name, value in (("ids", ids), ("sums", self.sums), ("weights", self.weights)):
            object.__setattr__(self, name, value[order])
        twice = self.ids[1:][self.ids[1:] == self.ids[:-1]]
        if len(twice):
            raise DataError(f"sample {twice[0]} is scored twice ({len(twice)} samples in all); keep one of each")

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, rows: Any) -> StatisticsTable:
        """The table of selected rows, by a boolean mask or indices."""
        return StatisticsTable(self.ids[rows], self.names, self.sums[rows], self.weights[rows])

    def aligned(self, ids: ArrayLike) -> StatisticsTable:
        """The rows of exactly these samples; raises `DataError` if one is missing."""
        wanted = np.asarray(ids)
        missing = wanted[~np.isin(wanted, self.ids)]
        if len(missing):
            raise DataError(f"{len(missing)} of {len(wanted)} samples are not in the table, the first is {missing[0]}")
        return self.select(np.searchsorted(self.ids, wanted))

    def means(self) -> dict[str, float]:
        """Weighted average of every statistic over all rows, NaN for a statistic without weight.

        Raises `DataError` if there is no valid cell at all.
        """
        weights = self.weights.sum(axis=0)
        if not (weights > 0).any():
            raise DataError(f"no valid cell in {len(self)} samples: nothing to average")
        values = np.divide(self.sums.sum(axis=0), weights, out=np.full(len(weights), np.nan), where=weights > 0)
        return dict(zip(self.names, values.tolist(), strict=True))

    def to_dataset(self) -> xr.Dataset:
        """Convert to an xarray data set with dims `sample` and `statistic`."""
        import xarray as xr

        dims = ("sample", "statistic")
        return xr.Dataset(
            {"sum": (dims, self.sums), "weight": (dims, self.weights)},
            {"sample": self.ids, "statistic": list(self.names)},
        )

    @classmethod
    def from_dataset(cls, data: xr.Dataset) -> StatisticsTable:
        """The inverse of `to_dataset`."""
        missing = {"sum", "weight", "sample", "statistic"} - set(data.variables)
        if missing:
            raise DataError(f"not a table of statistics: {', '.join(sorted(map(str, missing)))} missing")
        data = data.transpose("sample", "statistic")
        names = tuple(str(name) for name in data["statistic"].values)
        arrays = (data[name].values.astype(np.float64) for name in ("sum", "weight"))
        return cls(data["sample"].values, names, *arrays)


def merge(tables: Iterable[StatisticsTable], *, tiles: bool = False) -> StatisticsTable:
    """One table of all rows, in any order.

    A sample in two tables raises `DataError`, since it would count twice. With `tiles`, tables hold different cells of
    the same samples, and the rows of a sample are added.
    """
    parts: Sequence[StatisticsTable] = list(tables)
    if not parts:
        raise ValueError("no tables to merge")
    names = parts[0].names
    for part in parts[1:]:
        if part.names != names:
            raise DataError(f"tables hold different statistics: {names} and {part.names}")
    ids, sums, weights = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("ids", "sums", "weights")
    )
    if tiles:
        ids, where = np.unique(ids, return_inverse=True)
        added = np.zeros((2, len(ids), len(names)))
        np.add.at(added[0], where, sums)
        np.add.at(added[1], where, weights)
        sums, weights = added
    return StatisticsTable(ids, names, sums, weights)


def require_paired(*tables: StatisticsTable) -> None:
    """Raise `DataError` unless tables were scored on the same samples and cells."""
    first = tables[0]
    for other in tables[1:]:
        if not np.array_equal(first.ids, other.ids):
            raise DataError(f"tables of {len(first)} and {len(other)} samples are not of the same samples; align them")
        if first.names != other.names or not np.allclose(first.weights, other.weights, rtol=1e-9, atol=0):
            raise DataError("tables were scored with different statistics, masks or weights; score them alike")
