"""Scores of connected objects: numbers of separate areas at or above a threshold, and of areas of a single cell.

Scores cell by cell hardly distinguish a field of rain from noise of the same amounts; the number of objects does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from geoml.metrics.base import Direction, Forecast, Means, Metric, Statistic, ratio, reached, vector

__all__ = ["ObjectsRatio", "OneCellShare", "count_objects"]

Array = NDArray[Any]


def count_objects(events: Array) -> tuple[int, int]:
    """Return the number of objects in a field of events `(y, x)`, and the number of objects of a single cell.

    Cells that share an edge belong to the same object.

    >>> count_objects(np.array([[1, 1, 0], [0, 0, 0], [0, 1, 0]]))
    (2, 1)
    """
    from scipy import ndimage

    labels, count = ndimage.label(events)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    return int(count), int((sizes == 1).sum())


@dataclass(frozen=True)
class Objects(Statistic):
    """Objects per member and one-cell objects per member at or above a threshold, then both numbers of the truth."""

    threshold: float

    @property
    def name(self) -> str:  # type: ignore[override]
        """Name of the statistic's columns."""
        return f"objects_{self.threshold:g}"

    def evaluate(self, forecast: Forecast) -> tuple[Array, Array]:
        """Counts of each sample, averaged over members; every sample has weight 1. Unknown cells are not events."""
        prediction, truth, weights = forecast.planes
        least, known = reached(self.threshold), weights > 0
        sums = np.zeros((len(truth), 4))
        for i, plane in np.ndindex(truth.shape[:2]):
            members = [count_objects((field >= least) & known[i, plane]) for field in prediction[i, :, plane]]
            sums[i, :2] += np.mean(members, axis=0)
            sums[i, 2:] += count_objects((truth[i, plane] >= least) & known[i, plane])
        return sums, np.ones(len(truth))


class _OfObjects(Metric):
    unit, perfect = "1", 1.0
    direction: ClassVar[Direction] = "nearer"
    takes_threshold = True

    @property
    def statistics(self) -> tuple[Statistic, ...]:
        """The statistic of this threshold."""
        assert self.threshold is not None
        return (Objects(self.threshold),)

    def _counts(self, means: Means) -> tuple[Array, ...]:
        return tuple(np.moveaxis(vector(means, self.statistics[0].name), -1, 0))


class ObjectsRatio(_OfObjects):
    """Objects of a member over those of the truth, `Σ n(x ≥ t) / Σ n(y ≥ t)`; undefined where the truth has none."""

    name = "objects_ratio"

    def compute(self, means: Means) -> Any:
        """Ratio of the two counts."""
        members, _, truth, _ = self._counts(means)
        return ratio(members, truth)


class OneCellShare(_OfObjects):
    """Share of single cells among objects, over that of the truth, `(Σ n₁(x) / Σ n(x)) / (Σ n₁(y) / Σ n(y))`.

    Undefined if prediction or truth has no object, or the truth has no one-cell object.
    """

    name = "one_cell_share"

    def compute(self, means: Means) -> Any:
        """Ratio of the two shares."""
        members, single, truth, single_truth = self._counts(means)
        return ratio(ratio(single, members), ratio(single_truth, truth))
