"""Interpolation of observed voxels: inverse distances, nearest neighbours, radial basis functions.

Settings are chosen on the training maps: a part of each map's observed voxels is predicted from the others, and the
setting with the smallest squared error is kept.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from geoml.data.fields import Batch
from geoml.errors import DataError, UserError
from radiomaps.baselines.base import Array, PerMap, positions
from radiomaps.tasks import Task
from radiomaps.tasks.priors import inverse_distances, nearest

__all__ = ["InverseDistance", "NearestNeighbours", "RadialBasis"]

#: Number of training maps on which settings are compared.
MAPS = 64
_SEED = 0x1D3


class Chosen(PerMap):
    """An interpolation whose settings are selected from `grids` on the training maps; given settings are fixed."""

    learns = True
    #: Candidate values of each setting.
    grids: ClassVar[dict[str, Sequence[Any]]]

    def __init__(self, task: Task, **given: Any) -> None:
        super().__init__(task)
        for name in given:
            if name not in self.grids:
                raise UserError(f"{type(self).__name__} has no {name!r}; it has {', '.join(self.grids)}")
        self.given = {name: value for name, value in given.items() if value is not None}
        self.settings: dict[str, Any] = {name: values[0] for name, values in self.grids.items()} | self.given

    def fit(self, batches: Iterable[Batch]) -> None:
        """Select the settings with the smallest error on up to 64 maps.

        Half of the observed voxels of each map are predicted from the other half.
        """
        free = [name for name in self.grids if name not in self.given]
        trials = [
            self.given | dict(zip(free, values, strict=True))
            for values in itertools.product(*(self.grids[name] for name in free))
        ]
        errors, seen = np.zeros(len(trials)), 0
        for batch in batches:
            for number, (places, values) in enumerate(self._observed(batch)):
                if len(places) < 4 or seen == MAPS:
                    continue
                seen += 1
                order = np.random.default_rng([_SEED, seen]).permutation(len(places))
                held, kept = order[::2], order[1::2]
                for index, trial in enumerate(trials):
                    self.settings = trial
                    made = self.fill(places[kept], values[kept], places[held], number, batch)
                    errors[index] += np.square(made - values[held]).mean()
            if seen == MAPS:
                break
        if not seen:
            raise DataError(
                f"{type(self).__name__} needs training maps with at least 4 observed voxels; none has, "
                "increase task.observations.rate"
            )
        self.settings = trials[int(np.argmin(errors))]

    def _observed(self, batch: Batch) -> Iterable[tuple[Array, Array]]:
        """Yield positions (m) and values of each map's observed voxels."""
        places, values = positions(batch.target_grid), self.channels(batch, "_observed")
        for row, seen in zip(values, self.channel(batch, "observed") > 0, strict=True):
            yield places[seen], row[:, seen].T.astype(np.float64)

    def state(self) -> dict[str, Any]:
        """The chosen settings."""
        return dict(self.settings)

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore a state."""
        self.settings = dict(state)


class InverseDistance(Chosen):
    """Inverse-distance weighting of the nearest observed voxels (Shepard 1968); exact where observed."""

    grids: ClassVar[dict[str, Sequence[Any]]] = {"power": (2.0, 1.0, 3.0, 4.0), "neighbours": (8, 4, 16, 32)}

    def fill(self, places: Array, values: Array, wanted: Array, number: int, batch: Batch) -> Array:
        """Weighted mean of the nearest observed voxels."""
        power, neighbours = float(self.settings["power"]), int(self.settings["neighbours"])
        return inverse_distances(places, values, wanted, power=power, neighbours=neighbours)


class NearestNeighbours(Chosen):
    """The plain mean of the k nearest observed voxels; for k = 1 exact where observed."""

    grids: ClassVar[dict[str, Sequence[Any]]] = {"k": (1, 2, 3, 5, 8)}

    def fill(self, places: Array, values: Array, wanted: Array, number: int, batch: Batch) -> Array:
        """The mean of the neighbours' values."""
        return values[nearest(places, wanted, int(self.settings["k"]))[1]].mean(axis=1)


class RadialBasis(Chosen):
    """Radial basis functions with a constant (`scipy.interpolate.RBFInterpolator`); exact at smoothing 0."""

    grids: ClassVar[dict[str, Sequence[Any]]] = {
        "kernel": ("linear", "thin_plate_spline", "cubic"),
        "smoothing": (0.0, 1.0, 10.0),
    }

    def fill(self, places: Array, values: Array, wanted: Array, number: int, batch: Batch) -> Array:
        """Interpolate with all observed voxels of the map, or with the 64 nearest if there are more than 512."""
        from scipy.interpolate import RBFInterpolator

        kernel = str(self.settings["kernel"])
        degree = {"linear": 0, "thin_plate_spline": 1, "cubic": 1}[kernel]
        if degree and np.linalg.matrix_rank(np.column_stack([np.ones(len(places)), places])) < 4:
            kernel, degree = "linear", 0  # voxels in one plane: no slope across it
        neighbours = None if len(places) <= 512 else 64
        smoothing = float(self.settings["smoothing"])
        made = RBFInterpolator(places, values, neighbours, smoothing, kernel=kernel, degree=degree)
        return np.asarray(made(wanted))
