"""Quality of shuffling by a loader: variance of batch means compared with a global shuffle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from geoml.data.loader import BlockLoader

__all__ = ["effective_sample_ratio"]


def effective_sample_ratio(
    loader: BlockLoader, values: NDArray[Any], *, epochs: int = 20, consecutive: int = 1
) -> float:
    """Return the effective number of samples in a batch, relative to a batch of a global shuffle.

    `values` are per-example gradients or similar values by item id: `(items,)` or `(items, components)`. The ratio is
    Var_global / Var_loader of the mean over a batch (over `consecutive` batches), summed over components. Sampling b of
    N without replacement gives Var_global = σ²/b · (N − b)/(N − 1). Var_loader is measured over `epochs` of the
    loader's order, without reading data. A ratio of 1 means as good as a global shuffle; strongly correlated samples in
    order give about 1/b. Batches are those of all ranks together.
    """
    values = np.asarray(values, np.float64).reshape(len(values), -1)
    if len(values) != loader.items:
        raise ValueError(f"{len(values)} values for {loader.items} items")
    values = values - values.mean(axis=0)
    squares, number = 0.0, 0
    size = loader.batch_size * consecutive
    for epoch in range(epochs):
        ids = [batch for batch in loader.planned_ids(epoch) if len(batch) == loader.batch_size]
        groups = len(ids) // consecutive
        if groups:
            means = values[np.array(ids[: groups * consecutive])].reshape(groups, size, -1).mean(axis=1)
            squares, number = squares + float((means**2).sum()), number + groups
    if not number:
        raise ValueError(f"an epoch of {loader.items} items holds no {consecutive} full batches")
    total = len(values)
    expected = float((values**2).sum(axis=1).mean()) / size * (total - size) / max(1, total - 1)
    return expected / (squares / number) if squares else 1.0
