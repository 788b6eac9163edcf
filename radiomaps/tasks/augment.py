"""Flips and quarter turns of batches; directions are transformed with the scene."""

from __future__ import annotations

import torch
from torch import Tensor

from geoml.data.fields import Batch
from geoml.data.shuffling import keyed_uniform
from geoml.errors import UserError
from geoml.models.base import Channels

__all__ = ["Flips", "flipped"]

#: Suffixes of channels that are the "east" and "north" components of a horizontal direction.
_SIN, _COS = "doa_azimuth_sin", "doa_azimuth_cos"
_KEY = 0xF11B


class Flips:
    """Apply a random one of the 8 symmetries of a square to each item of a batch, for training.

    The choice is keyed on (seed, epoch, item), so that it does not depend on batches or processes. The caller sets
    `epoch`. x and y must have the same length.
    """

    def __init__(self, channels: Channels, *, seed: int = 0) -> None:
        self.channels, self.seed, self.epoch = channels, seed, 0

    def __call__(self, batch: Batch) -> Batch:
        """The batch with a symmetry applied to each item."""
        import numpy as np

        if not len(batch):
            return batch
        chosen = (keyed_uniform((_KEY, self.seed, self.epoch), np.asarray(batch.ids)) * 8).astype(int)
        return flipped(batch, self.channels, chosen.tolist())


def flipped(batch: Batch, channels: Channels, symmetries: list[int]) -> Batch:
    """The batch with each item in a symmetry 0 … 7: bit 0 mirrors x, bit 1 mirrors y, bit 2 swaps x and y afterwards.

    Scalars are moved with their voxels; `tx_east`, `tx_north` and the sine and cosine of azimuths, which are kept as
    (1 + sin) / 2, also change as the vector (cos, sin) does. Raises `UserError` if x and y differ in length.
    """
    rows, columns = batch.target_grid.shape[-2:]
    if rows != columns and any(symmetry & 4 for symmetry in symmetries):
        raise UserError(f"maps of {rows} × {columns} voxels have no quarter turns; use square patches")
    changes: dict[str, Tensor | None] = {}
    for role, names in (("condition", channels.condition), ("target", channels.target), ("mask", channels.target)):
        field = getattr(batch, role)
        if field is not None:
            items = [
                _one(item, names, symmetry, turn=role != "mask")
                for item, symmetry in zip(field, symmetries, strict=True)
            ]
            changes[role] = torch.stack(items)
    return batch.map(**changes)


def _one(field: Tensor, names: tuple[str, ...], symmetry: int, *, turn: bool) -> Tensor:
    """One item `(channel, z, y, x)` in one symmetry."""
    axes = [axis for bit, axis in ((1, -1), (2, -2)) if symmetry & bit]
    moved = torch.flip(field, axes) if axes else field
    if symmetry & 4:
        moved = moved.transpose(-1, -2)
    if not turn:
        return moved
    moved = moved.clone()
    for east, north, middle in _vectors(names):
        u, v = moved[east].clone(), moved[north].clone()
        if symmetry & 1:
            u = 2 * middle - u
        if symmetry & 2:
            v = 2 * middle - v
        moved[east], moved[north] = (v, u) if symmetry & 4 else (u, v)
    return _unread_stays_zero(moved, names)


def _vectors(names: tuple[str, ...]) -> list[tuple[int, int, float]]:
    """Channels of horizontal vectors: east, north, and the encoded value of 0."""
    found = []
    if "tx_east" in names:
        found.append((names.index("tx_east"), names.index("tx_north"), 0.0))
    for ending in ("", "_observed", "_prior"):
        if f"{_COS}{ending}" in names:
            found.append((names.index(f"{_COS}{ending}"), names.index(f"{_SIN}{ending}"), 0.5))
    return found


def _unread_stays_zero(field: Tensor, names: tuple[str, ...]) -> Tensor:
    """Set the channels of observations to 0 in voxels without an observation."""
    if "observed" in names and f"{_COS}_observed" in names:
        nowhere = field[names.index("observed")] == 0
        for channel in (_COS, _SIN):
            field[names.index(f"{channel}_observed")].masked_fill_(nowhere, 0.0)
    return field
