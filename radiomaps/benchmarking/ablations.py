"""Scores with changed inputs, which show whether a model uses them, and with actively placed observations."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geoml.data.fields import Batch
from geoml.errors import UserError
from radiomaps.scores.scoring import Builder, MapScores, score
from radiomaps.tasks import Observations, Task
from radiomaps.tasks.priors import interpolate

if TYPE_CHECKING:
    from geoml.models.base import Channels

__all__ = ["PROBES", "observe", "probed", "score_active"]

#: Changes of the inputs by name: "shuffled" gives each map the transmitter and observations of another,
#: "without_buildings" removes all buildings.
PROBES = ("shuffled", "without_buildings")
_KEY = 0xAC7


def probed(
    builder: Builder, probe: str, store: str | os.PathLike[str], samples: Sequence[int], **options: Any
) -> MapScores:
    """The scores of a builder whose inputs are changed by a probe of `PROBES`."""
    channels = builder.task.channels
    if probe == "shuffled":
        if len(samples) % 2:
            samples = samples[:-1]  # each map needs another in its batch
        options["batch_size"] = max(2, int(options.get("batch_size", 4)) // 2 * 2)
        return score(builder, store, samples, change=lambda batch: _shuffled(batch, channels), **options)
    given = builder.task.changed(prior="free_space") if builder.task.prior == "dominant" else None
    return score(builder, store, samples, given=given, change=lambda batch: _emptied(batch, channels), **options)


def _shuffled(batch: Batch, channels: Channels) -> Batch:
    """Every map with transmitter, observations and prior of the next map in the batch."""
    condition = batch.condition.clone()
    for number, name in enumerate(channels.condition):
        if name not in ("building", "roof", "height"):
            condition[:, number] = batch.condition[:, number].roll(1, dims=0)
    return batch.map(condition=condition)


def _emptied(batch: Batch, channels: Channels) -> Batch:
    """Every map without buildings and roofs."""
    condition = batch.condition.clone()
    for name in ("building", "roof"):
        condition[:, channels.condition.index(name)] = 0
    return batch.map(condition=condition)


def observe(batch: Batch, task: Task, places: Tensor) -> Batch:
    """The batch observed without noise at `places` `(batch, z, y, x)`, where a path arrives."""
    assert batch.target is not None
    assert batch.mask is not None
    condition, names = batch.condition.clone(), task.channels.condition
    seen = places & batch.mask.all(dim=1)
    condition[:, names.index("observed")] = seen.float()
    for channel, name in enumerate(task.target_channels):
        condition[:, names.index(f"{name}_observed")] = batch.target[:, channel] * seen
    if task.prior == "interpolated":
        guesses = [names.index(f"{name}_prior") for name in task.target_channels]
        for row, here, item in zip(batch.target.numpy(), seen.numpy(), condition, strict=True):
            item[guesses] = torch.from_numpy(interpolate(np.where(here, row, 0), here, batch.target_grid))
    return batch.map(condition=condition)


def score_active(
    builder: Builder,
    store: str | os.PathLike[str],
    samples: Iterable[int] | NDArray[Any],
    *,
    rate: float,
    rounds: int = 4,
    members: int = 8,
    seed: int = 0,
    uniform: bool = False,
    batch_size: int = 4,
) -> MapScores:
    """Scores with a share `rate` of the voxels outdoors observed, on a lattice or placed actively.

    Active placement starts with a lattice (a quarter of the observations for 4 `rounds`) and adds the rest in rounds at
    the voxels with the largest spread of members, at least two voxels from each other. It uses buildings only.
    """
    task = builder.task
    if task.observations is None:
        raise UserError("observations can be placed only in tasks with observations: radiation=unaware or mixed")
    outdoors_at = task.channels.condition.index("building")

    def lattice(batch: Batch, share: float) -> Tensor:
        outdoors = batch.condition[:, outdoors_at].numpy() == 0
        pattern = Observations("uniform", share, seed=seed)
        made = [pattern.places(~row, batch.target_grid, int(n)) for row, n in zip(outdoors, batch.ids, strict=True)]
        return torch.from_numpy(np.stack(made))

    def change(batch: Batch) -> Batch:
        places = lattice(batch, rate if uniform else rate / rounds)
        if uniform:
            return observe(batch, task, places)
        outdoors = batch.condition[:, outdoors_at] == 0
        counts = (rate * outdoors.flatten(1).sum(dim=1)).round().int()
        for turn in range(1, rounds):
            told = observe(batch, task, places).map(target=None, mask=None)
            fields, _ = builder.predict(told, members=members, seed=seed)
            for row, here, free, count in zip(relative_spread(fields), places, outdoors, counts.tolist(), strict=True):
                add_uncertain(row, here, free, round(count * (turn + 1) / rounds))
        return observe(batch, task, places)

    plain = task.changed(observations=replace(task.observations, noise={}, quantisation={}))
    return score(builder, store, samples, given=plain, change=change, members=members, seed=seed, batch_size=batch_size)


def relative_spread(fields: Tensor) -> Tensor:
    """Variance of `(batch, member, channel, z, y, x)` over members, of each map and channel, divided by its mean.

    Returns the mean over channels, `(batch, z, y, x)`.
    """
    variance = fields.var(dim=1)
    return (variance / variance.mean(dim=(2, 3, 4), keepdim=True).clamp(min=1e-12)).mean(dim=1)


def add_uncertain(spread: Tensor, places: Tensor, free: Tensor, count: int) -> None:
    """Add the voxels of largest spread to `places` until there are `count`, avoiding neighbours if possible."""
    near = torch.nn.functional.max_pool3d(places[None, None].float(), 3, 1, 1)[0, 0] > 0
    for voxel in torch.argsort(spread.flatten(), descending=True).tolist():
        if int(places.sum()) >= count:
            return
        z, rest = divmod(voxel, places.shape[1] * places.shape[2])
        y, x = divmod(rest, places.shape[2])
        if free[z, y, x] and not near[z, y, x]:
            places[z, y, x] = True
            near[max(z - 1, 0) : z + 2, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2] = True
