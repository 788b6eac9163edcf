"""The base class of baselines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from geoml.data.fields import Batch
from geoml.errors import UserError
from geoml.grids.grid import Grid
from geoml.models.fitted import Fitted
from radiomaps.tasks import Task

__all__ = ["Baseline", "PerMap"]

Array = NDArray[Any]


class Baseline(Fitted, ABC):
    """Base class of methods without a neural network. `task` is the given task, changed by `adapted`."""

    def __init__(self, task: Task) -> None:
        self.task = self.adapted(task)

    @classmethod
    def adapted(cls, task: Task) -> Task:
        """Return the task with the conditions that this baseline needs; raises `UserError` for unsuitable tasks."""
        return task

    @abstractmethod
    def maps(self, batch: Batch) -> Array:
        """Predicted maps `(batch, channel, z, y, x)` in the task's encoding."""

    def predict(self, batch: Batch, members: int = 1, seed: int = 0) -> tuple[torch.Tensor, float]:
        """Predicted maps `(batch, member, channel, z, y, x)` with equal members, and the share of clipped values, 0."""
        made = torch.from_numpy(np.ascontiguousarray(self.maps(batch), np.float32)).unsqueeze(1)
        return made.expand(-1, members, *(-1,) * (made.ndim - 2)), 0.0

    def channel(self, batch: Batch, name: str) -> Array:
        """A condition channel of a batch, `(batch, z, y, x)`."""
        return batch.condition[:, self.task.channels.condition.index(name)].numpy()

    def channels(self, batch: Batch, ending: str) -> Array:
        """The channels `TARGET + ending` of a batch, `(batch, channel, z, y, x)`."""
        return np.stack([self.channel(batch, f"{name}{ending}") for name in self.task.target_channels], axis=1)


class PerMap(Baseline):
    """Base class of methods that interpolate the observed voxels of each map."""

    @classmethod
    def adapted(cls, task: Task) -> Task:
        """Return the task unchanged; raises `UserError` if it has no observations."""
        if task.observations is None:
            raise UserError(f"{cls.__name__} interpolates observations; a task that is radiation=aware has none")
        return task

    def maps(self, batch: Batch) -> Array:
        """Interpolate the observations of each map; a map without observations is 0.5 everywhere."""
        grid = batch.target_grid
        places, values = positions(grid), self.channels(batch, "_observed")
        made = np.full(values.shape, 0.5, np.float32)
        for number, (row, seen) in enumerate(zip(values, self.channel(batch, "observed") > 0, strict=True)):
            if seen.any():
                found = self.fill(places[seen], row[:, seen].T.astype(np.float64), places.reshape(-1, 3), number, batch)
                made[number] = found.T.reshape(row.shape)
        return made

    @abstractmethod
    def fill(self, places: Array, values: Array, wanted: Array, number: int, batch: Batch) -> Array:
        """Interpolate to `(m, channel)` at positions `wanted` `(m, 3)`, in metres.

        The observations are `values` `(n, channel)` at positions `places` `(n, 3)`, in metres. `number` is the index of
        the map in the batch.
        """


def positions(grid: Grid) -> Array:
    """Positions of voxel centres in metres, `(z, y, x, 3)`."""
    return np.stack(np.meshgrid(*(axis.coordinates for axis in grid.axes), indexing="ij"), axis=-1)
