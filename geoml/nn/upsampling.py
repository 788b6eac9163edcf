"""A network layer that interpolates features from one grid to another."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from geoml.grids.grid import Grid
from geoml.regrid import Method, Rim, operator_for

__all__ = ["GridUpsample"]


class GridUpsample(nn.Module):
    """Maps `(batch, channel, *source.shape)` onto `target` by coordinate: any factor, 2.5 included, any registration.

    It has no parameters. The operator depends only on the relative geometry of the grids, so that all patches share it.
    It computes in single precision, also under autocast.
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
