"""Layers that constrain the area means of a fine field to a coarse field, at any factor."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geoml.errors import unknown
from geoml.grids.grid import Grid
from geoml.regrid import Regridder

__all__ = ["METHODS", "Conservation", "Method", "conservation_for"]

Method = Literal["additive", "multiplicative", "softmax"]
METHODS: tuple[Method, ...] = ("additive", "multiplicative", "softmax")

Matrix = NDArray[np.float64]

#: Lower limit of a fine cell as a share of the coarse values around it, because a value of 0 cannot be scaled.
FLOOR = 1e-3
#: Number of scaling iterations, their over-relaxation, number of conjugate-gradient steps per Newton step, and largest
#: change of the logarithm of a cell per Newton step. Newton's method follows the iterative scaling.
SCALINGS, RELAXATION, CONJUGATE_STEPS, LARGEST_STEP = 24, 1.7, 24, 2.0


@dataclass(frozen=True)
class Conservation:
    """Constraint layers of Harder et al. 2023 (arXiv 2208.05424, eq. 2–5) for cells that overlap partly.

    With A the area means of `coarse` cells over `fine` ones, each layer gives fields x with A·x = the coarse means:

    - additive: x + Aᵀ(AAᵀ)⁻¹(means − A·x), the nearest such field; A and its pseudo-inverse are Kronecker products of
      one matrix per axis. With `positive`, negative values are set to 0 and the rest is scaled as below.
    - multiplicative: x·exp(Aᵀλ), the nearest in relative entropy. λ is found by iterative scaling (Darroch & Ratcliff
      1972, Ann. Math. Stat. 43, 1470), then by Newton's method; where fine cells nest in coarse ones, it is
      x·mean/(A·x).
    - softmax: the same from exp(x), so that x may have any sign.

    The last two are for amounts, means at or above 0; a coarse cell of 0 empties every fine cell that it touches.
    Coarse cells that the fine grid covers in part are not constrained.
    """

    fine: Grid
    coarse: Grid
    #: Largest error of a mean at which iterations stop, relative to the largest mean.
    tolerance: float = 2e-6
    iterations: int = 200

    @cached_property
    def whole(self) -> tuple[NDArray[np.bool_], ...]:
        """Along each axis, the coarse cells that the fine grid covers completely."""
        bands = Regridder(self.fine, self.coarse, rim="missing", valid_fraction=0.0).bands
        return tuple(band.covered > 1 - 1e-6 for band in bands)

    @cached_property
    def _means(self) -> tuple[Matrix, ...]:
        """A without the unconstrained cells, one matrix per axis."""
        matrices = Regridder(self.fine, self.coarse).matrices
        return tuple(matrix[whole] for matrix, whole in zip(matrices, self.whole, strict=True))

    @cached_property
    def _inverses(self) -> tuple[Matrix, ...]:
        return tuple(a.T @ np.linalg.inv(a @ a.T) for a in self._means)

    @cached_property
    def _transposed(self) -> tuple[Matrix, ...]:
        return tuple(a.T for a in self._means)

    @cached_property
    def _shares(self) -> tuple[Matrix, ...]:
        """Share of each fine cell that lies in each coarse cell, as one matrix per axis."""
        return tuple((a / np.maximum(a.sum(0), 1e-300)).T for a in self._means)

    def means(self, fields: Tensor) -> Tensor:
        """Area means of fields `(…, *fine)` over the coarse cells that are covered completely."""
        return _apply(self._means, fields)

    def inner(self, coarse: Tensor) -> Tensor:
        """Crop a coarse field to the constrained cells."""
        for axis, whole in enumerate(self.whole, start=coarse.ndim - len(self.whole)):
            coarse = coarse.index_select(axis, torch.as_tensor(np.flatnonzero(whole), device=coarse.device))
        return coarse

    def __call__(
        self,
        fields: Tensor,
        coarse: Tensor,
        method: Method,
        *,
        positive: bool = True,
    ) -> Tensor:
        """Adjust fields `(…, *fine)` to the means `(…, *coarse)`; in double precision, leading axes broadcast."""
        if method not in METHODS:
            raise unknown("conservation", method, METHODS)
        x, means = fields.double(), self.inner(coarse.double())
        if method == "additive":
            x = x + _apply(self._inverses, means - self.means(x))
            x = self._scaled(x, means) if positive else x
        elif method == "multiplicative":
            x = self._scaled(x, means)
        else:
            x = self._scaled((x - x.amax(self._space, keepdim=True)).exp(), means)
        return x.to(fields.dtype)

    @property
    def _space(self) -> tuple[int, ...]:
        return tuple(range(-len(self.whole), 0))

    def _scaled(self, x: Tensor, means: Tensor) -> Tensor:
        """x·exp(Aᵀλ) with the required means, from x clipped at 0; each field separately."""
        x, means = x.clamp(min=0), means.clamp(min=0)
        filled = means > 0
        limit = self.tolerance * means.detach().amax(self._space, keepdim=True)
        lacking = means - self.means(x)
        unmet = lacking.detach().abs().amax(self._space, keepdim=True) > limit
        # Only a value other than 0 can be scaled; cells that touch an empty coarse cell are 0.
        start = torch.maximum(x, FLOOR * _apply(self._shares, means))
        start = torch.where(_apply(self._shares, (~filled).double()) > 1e-9, 0.0, start)
        x = torch.where(unmet, start, x)
        for iteration in range(self.iterations):
            found = self.means(x)
            lacking = torch.where(filled, means - found, 0.0)
            unmet = unmet & (lacking.detach().abs().amax(self._space, keepdim=True) > limit)
            if not bool(unmet.any()):
                break
            if iteration < SCALINGS:
                ratio = torch.where(filled, means, 1.0) / torch.where(filled & (found > 0), found, 1.0)
                step = _apply(self._shares, RELAXATION * ratio.log())
            else:
                step = _apply(self._transposed, self._newton(x, lacking))
                most = step.detach().abs().amax(self._space, keepdim=True)
                step = step * (LARGEST_STEP / most.clamp(min=LARGEST_STEP))
            x = torch.where(unmet, x * step.exp(), x)
        return x

    def _newton(self, x: Tensor, lacking: Tensor) -> Tensor:
        """λ with A·diag(x)·Aᵀ·λ = residual, by conjugate gradients with the diagonal as preconditioner."""
        axes = self._space
        diagonal = _apply(tuple(a**2 for a in self._means), x)
        diagonal = torch.where(diagonal > 0, diagonal, 1.0)
        solution, rest = torch.zeros_like(lacking), lacking
        direction = scaled = rest / diagonal
        energy = (rest * scaled).sum(axes, keepdim=True)
        for _ in range(CONJUGATE_STEPS):
            image = self.means(x * _apply(self._transposed, direction))
            length = energy / (direction * image).sum(axes, keepdim=True).clamp(min=1e-300)
            solution, rest = solution + length * direction, rest - length * image
            scaled = rest / diagonal
            energy, before = (rest * scaled).sum(axes, keepdim=True), energy
            direction = scaled + energy / before.clamp(min=1e-300) * direction
        return solution


def _apply(matrices: tuple[Matrix, ...], fields: Tensor) -> Tensor:
    """Apply one matrix per axis to the trailing axes."""
    for axis, matrix in enumerate(matrices, start=-len(matrices)):
        operator = torch.as_tensor(matrix, dtype=fields.dtype, device=fields.device)
        fields = torch.tensordot(fields, operator, dims=([axis], [1])).movedim(-1, axis)
    return fields


@lru_cache(maxsize=32)
def conservation_for(fine: Grid, coarse: Grid) -> Conservation:
    """Return the cached layers between two grids."""
    return Conservation(fine, coarse)
