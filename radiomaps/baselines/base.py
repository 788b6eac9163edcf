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
    """A builder of maps without a network; `task` is its task, `adapted` from the compared one."""

    def __init__(self, task: Task) -> None:
        self.task = self.adapted(task)

    @classmethod
    def adapted(cls, task: Task) -> Task:
        """The same task with the conditions this baseline needs; raises `UserError` if it cannot do the task."""
        return task

    @abstractmethod
    def maps(self, batch: Batch) -> Array:
        """`(batch, channel, z, y, x)` in the task's encoding."""

    def predict(self, batch: Batch, members: int = 1, seed: int = 0) -> tuple[torch.Tensor, float]:
        """`(batch, member, channel, z, y, x)`, all members equal, and the share of clipped values, 0."""
        made = torch.from_numpy(np.ascontiguousarray(self.maps(batch), np.float32)).unsqueeze(1)
        return made.expand(-1, members, *(-1,) * (made.ndim - 2)), 0.0

    def channel(self, batch: Batch, name: str) -> Array:
        """A condition channel of a batch, `(batch, z, y, x)`."""
        return batch.condition[:, self.task.channels.condition.index(name)].numpy()

    def channels(self, batch: Batch, ending: str) -> Array:
        """The channels `TARGET + ending` of a batch, `(batch, channel, z, y, x)`."""
        return np.stack([self.channel(batch, f"{name}{ending}") for name in self.task.target_channels], axis=1)


class PerMap(Baseline):
    """A baseline that uses the observed voxels of one map at a time."""

    @classmethod
    def adapted(cls, task: Task) -> Task:
        """The unchanged task, which must have observations."""
        if task.observations is None:
            raise UserError(f"{cls.__name__} interpolates observations; a task that is radiation=aware has none")
        return task

    def maps(self, batch: Batch) -> Array:
        """Each map from its observations; 0.5 everywhere without observations."""
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
        """Values `(m, channel)` at `wanted` `(m, 3)` from those `(n, channel)` at `places` `(n, 3)`, in metres."""


def positions(grid: Grid) -> Array:
    """Places of the voxels in metres, `(z, y, x, 3)`."""
    return np.stack(np.meshgrid(*(axis.coordinates for axis in grid.axes), indexing="ij"), axis=-1)
