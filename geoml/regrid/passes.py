"""The passes of a separable operator: one band matrix per axis, in the cheapest order, for numpy and torch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoml.regrid.weights import Band

if TYPE_CHECKING:
    import torch

__all__ = ["Passes"]


class Passes:
    """Applies `bands` to the last axes of arrays without checking for missing values."""

    def __init__(self, bands: tuple[Band, ...]) -> None:
        self.bands = bands
        self.order = self._cheapest_order()
        self._cache: dict[Hashable, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": {}}

    def _cheapest_order(self) -> tuple[int, ...]:
        """The order of the changing axes with the fewest multiplications."""
        active = [i for i, band in enumerate(self.bands) if not band.is_identity]

        def cost(order: Sequence[int]) -> float:
            shape, total = [band.source_size for band in self.bands], 0.0
            for i in order:
                shape[i] = len(self.bands[i].index)
                dearer = 2.0 if i == len(shape) - 1 else 1.0  # gathers instead of whole rows
                total += dearer * math.prod(shape) * self.bands[i].index.shape[1]
            return total

        return min(itertools.permutations(active), key=cost)

    def apply_to_blocks(self, block: NDArray[Any], out: NDArray[Any]) -> None:
        """Apply all passes to C-contiguous `(n, *source shape)` and write to `out`, directly if the types agree."""
        from geoml.regrid import kernels

        for i in self.order:
            index, weight = self.bands[i].index, self._weight(i, block.dtype)
            shape = block.shape
            outer, inner = math.prod(shape[: i + 1]), math.prod(shape[i + 2 :])
            into = out if i == self.order[-1] and out.dtype == block.dtype else None
            if into is None:
                into = np.empty((*shape[: i + 1], len(index), *shape[i + 2 :]), block.dtype)
            if inner == 1:
                kernels.apply_last(block.reshape(outer, -1), index, weight, into.reshape(outer, -1))
            else:
                rows = (outer, shape[i + 1], inner)
                kernels.apply_inner(block.reshape(rows), index, weight, into.reshape(outer, len(index), inner))
            block = into
        if block is not out:
            out[...] = block

    def _weight(self, axis: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        key = ("numpy", axis, dtype.char)
        if key not in self._cache:
            self._cache[key] = np.ascontiguousarray(self.bands[axis].weight, dtype)
        return self._cache[key]

    def apply_to_tensor(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(…, *source shape)` to `(…, *target shape)` by dense matrix products; differentiable."""
        lead = x.ndim - len(self.bands)
        for i in self.order:
            matrix, shape = self._matrix(i, x), x.shape
            position = lead + i
            if position == x.ndim - 1:
                x = x @ matrix.T
            else:
                x = matrix @ x.reshape(*shape[: position + 1], math.prod(shape[position + 1 :]))
                x = x.reshape(*shape[:position], len(matrix), *shape[position + 1 :])
        return x

    def _matrix(self, axis: int, like: torch.Tensor) -> torch.Tensor:
        import torch

        key = ("torch", axis, like.dtype, like.device)
        if key not in self._cache:
            with torch.inference_mode(False):  # a matrix first used in inference is reused in training
                self._cache[key] = torch.as_tensor(self.bands[axis].dense(), dtype=like.dtype, device=like.device)
        return self._cache[key]
