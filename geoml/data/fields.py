"""Samples and batches of fields on a pair of grids, validated on construction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from geoml.data.points import Points
    from geoml.grids.grid import Grid

    Array = Any  # numpy.ndarray or torch.Tensor: both offer shape, and indexing is not used here

__all__ = ["Batch"]


def _check_fields(what: str, array: Array | None, lead: int, grid: Grid) -> None:
    """Raise an error if the trailing axes of an array do not match its grid."""
    if array is None:
        return
    shape = tuple(array.shape)
    if len(shape) != lead + len(grid.shape) or shape[lead:] != grid.shape:
        axes = ", ".join(axis.name for axis in grid.axes)
        raise ValueError(f"{what} has shape {shape}; expected {lead} leading axes and then {grid.shape} ({axes})")


@dataclass(frozen=True)
class Batch:
    """Samples of one geometry stacked on a leading `batch` axis: `(batch, channel, *space)`.

    `condition_grid` and `target_grid` describe the first sample; the grids of every other sample are this pair, both
    shifted by the same vector, so that one regridding operator serves the whole batch. Channel names are those of the
    data set. `points` are values of the target that are known at single cells.
    """

    condition: torch.Tensor
    condition_grid: Grid
    target_grid: Grid
    target: torch.Tensor | None = None
    static: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    ids: Sequence[int] = field(default_factory=tuple)
    points: Points | None = None

    def __post_init__(self) -> None:
        _check_fields("condition", self.condition, 2, self.condition_grid)
        for name in ("target", "static", "mask"):
            _check_fields(name, getattr(self, name), 2, self.target_grid)
        if self.ids and len(self.ids) != len(self.condition):
            raise ValueError(f"{len(self.ids)} ids for a batch of {len(self.condition)}")
        if self.points is not None and len(self.points.values) != len(self.condition):
            raise ValueError(f"points of {len(self.points.values)} samples for a batch of {len(self.condition)}")

    def __len__(self) -> int:
        return len(self.condition)

    @property
    def dims(self) -> int:
        """Number of spatial (or spatio-temporal) axes, 2 or 3."""
        return len(self.target_grid.shape)

    def map(self, **changes: Any) -> Batch:
        """The same batch with some of its fields replaced."""
        return replace(self, **changes)

    def to(self, device: torch.device | str) -> Batch:
        """The batch with its tensors on `device`."""
        moved = {
            name: tensor.to(device)
            for name in ("condition", "target", "static", "mask", "points")
            if (tensor := getattr(self, name)) is not None
        }
        return replace(self, **moved)
