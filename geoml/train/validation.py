"""The loss on validation samples."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

from geoml.data.fields import Batch
from geoml.errors import DataError
from geoml.models.base import Model
from geoml.models.noise import seed_of
from geoml.train.device import world

if TYPE_CHECKING:
    from geoml.data.transforms import Transforms

__all__ = ["known_cells", "validation_loss"]


@torch.no_grad()
def validation_loss(
    model: Model, transforms: Transforms, batches: Iterable[Batch], *, phase: str = "main", seed: int = 0
) -> float:
    """Mean loss over all batches, weighted by the number of known target cells, so that it does not depend on batching.

    Batches are distributed over processes; each process needs a loader of all batches.
    """
    device, group = next(model.parameters()).device, world()
    total = weight = 0.0
    for batch in itertools.islice(batches, group.rank, None, group.size):
        batch = transforms.forward(batch.to(device))
        if batch.target is None:
            raise ValueError("validation needs targets")
        known = known_cells(batch)
        generator = torch.Generator(device).manual_seed(seed_of(seed, "validation"))
        total += known * float(model.loss(batch, phase=phase, generator=generator))
        weight += known
    total, weight = group.sum(torch.tensor([total, weight], dtype=torch.float64)).tolist()
    if weight == 0:
        raise DataError("validation has no known target cell; check its time range and mask")
    return total / weight


def known_cells(batch: Batch) -> float:
    """Number of known target cells."""
    if batch.target is None:
        return float(len(batch))
    return float(batch.mask.sum()) if batch.mask is not None else float(batch.target.numel())
