"""Point observations on a target grid with standard errors, for example of stations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float, Int

__all__ = ["Points"]


@dataclass(frozen=True)
class Points:
    """Values of the first target channel at some cells, for every sample of a batch.

    `cells` are indices along the axes of the target grid; several points may share a cell. `low` and `high` are the
    values minus and plus one standard error, so that a transform of the values also transforms their errors. A value of
    NaN is unknown in that sample.
    """

    cells: Int[Tensor, "point axis"]
    values: Float[Tensor, "batch point"]
    low: Float[Tensor, "batch point"]
    high: Float[Tensor, "batch point"]

    def __post_init__(self) -> None:
        shapes = {tuple(part.shape) for part in (self.values, self.low, self.high)}
        if len(shapes) > 1 or self.values.ndim != 2 or self.cells.ndim != 2 or self.values.shape[1] != len(self.cells):
            raise ValueError(f"points at {tuple(self.cells.shape)} cells have values of shapes {shapes}")

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def errors(self) -> Float[Tensor, "batch point"]:
        """Standard errors: half the distance between `low` and `high`."""
        return (self.high - self.low) / 2

    def map(self, function: Callable[[Tensor], Tensor]) -> Points:
        """Apply a monotonic function to the values and to both ends of their error intervals; NaN stays NaN."""
        parts = {name: getattr(self, name) for name in ("values", "low", "high")}
        return replace(self, **{name: function(part).where(~part.isnan(), torch.nan) for name, part in parts.items()})

    def to(self, device: torch.device | str) -> Points:
        """The points with their tensors on `device`."""
        parts = {name: getattr(self, name).to(device) for name in ("cells", "values", "low", "high")}
        return Points(**parts)

    def crop(self, spans: Sequence[slice]) -> Points | None:
        """Return the points within index ranges of the last axes, relative to their starts; None without points."""
        lead = self.cells.shape[1] - len(spans)
        first = self.cells.new_tensor([0] * lead + [span.start for span in spans])
        last = self.cells.new_tensor([span.stop for span in spans])
        cells = self.cells - first
        keep = ((cells[:, lead:] >= 0) & (cells[:, lead:] < last - first[lead:])).all(1)
        return replace(self.map(lambda part: part[:, keep]), cells=cells[keep]) if bool(keep.any()) else None

    def flat(self, shape: Sequence[int]) -> Int[Tensor, " point"]:
        """Indices of the cells in a flattened field of this shape.

        >>> Points(torch.tensor([[1, 2]]), *torch.ones(3, 1, 1)).flat((4, 5))
        tensor([7])
        """
        index = torch.zeros_like(self.cells[:, 0])
        for axis, size in enumerate(shape):
            index = index * size + self.cells[:, axis]
        return index
