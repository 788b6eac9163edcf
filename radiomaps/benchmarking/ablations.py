"""Ablations: scores with changed inputs show whether a model uses these inputs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from geoml.data.fields import Batch
from radiomaps.scores.scoring import Builder, MapScores, score
from radiomaps.tasks.features import EMPTY

if TYPE_CHECKING:
    from geoml.models.base import Channels

__all__ = ["PROBES", "probed"]

#: Names of the ablations: "shuffled" gives each map the transmitter, observations and prior of another map,
#: "without_buildings" removes all buildings.
PROBES = ("shuffled", "without_buildings")


def probed(
    builder: Builder, probe: str, store: str | os.PathLike[str], samples: Sequence[int], **options: Any
) -> MapScores:
    """Score a model or baseline with inputs changed by an ablation of `PROBES`."""
    channels = builder.task.channels
    if probe == "shuffled":
        if len(samples) % 2:
            samples = samples[:-1]  # each map needs a second map in its batch to swap with
        options["batch_size"] = max(2, int(options.get("batch_size", 4)) // 2 * 2)
        return score(builder, store, samples, change=lambda batch: _shuffled(batch, channels), **options)
    given = builder.task.changed(prior="free_space") if builder.task.prior == "dominant" else None
    return score(builder, store, samples, given=given, change=lambda batch: _emptied(batch, channels), **options)


def _shuffled(batch: Batch, channels: Channels) -> Batch:
    """Give each map the transmitter, observations and prior of the next map in the batch."""
    condition = batch.condition.clone()
    for number, name in enumerate(channels.condition):
        if name not in ("building", "roof", "height", "wall_distance", "above_roofs"):
            condition[:, number] = batch.condition[:, number].roll(1, dims=0)
    return batch.map(condition=condition)


def _emptied(batch: Batch, channels: Channels) -> Batch:
    """Remove buildings and roofs from all maps."""
    condition = batch.condition.clone()
    for name, value in {"building": 0.0, "roof": 0.0, **EMPTY}.items():
        if name in channels.condition:
            condition[:, channels.condition.index(name)] = value
    if "gain_diffracted_once" in channels.condition:  # the prior is free space here
        prior = condition[:, channels.condition.index("path_gain_db_prior")]
        condition[:, channels.condition.index("gain_diffracted_once")] = prior
    if "above_roofs" in channels.condition:
        condition[:, channels.condition.index("above_roofs")] = condition[:, channels.condition.index("height")]
    return batch.map(condition=condition)
