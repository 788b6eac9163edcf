"""Features from one grid to another, exactly, within a network."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from geoml.grids.grid import Grid
from geoml.regrid import Method, Rim, operator_for

__all__ = ["GridUpsample"]


class GridUpsample(nn.Module):
    """Maps `(batch, channel, *source.shape)` onto `target` by coordinate: any factor, 2.5 included, any registration.

    No parameters. The operator depends on the two grids' relative geometry alone, so that patches cut anywhere share
    one; it works in single precision under autocast too.
    """

    def __init__(self, *, method: Method = "bilinear", rim: Rim = "nearest") -> None:
        super().__init__()
        self.method, self.rim = method, rim

    def forward(
        self, x: Float[Tensor, "batch channel *coarse"], source: Grid, target: Grid
    ) -> Float[Tensor, "batch channel *fine"]:
        if source == target:
            return x
        # Features have no gaps: a NaN is an error that must reach the loss.
        return operator_for(source, target, self.method, rim=self.rim, gaps=False)(x)
