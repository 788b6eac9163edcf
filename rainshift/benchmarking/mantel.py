"""Mantel test of the correlation between losses and climate distances."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoml.errors import UserError

__all__ = ["Mantel", "mantel"]

Array = NDArray[Any]
#: Smallest number of regions. Fewer regions have too few permutations for p < 5 %.
MIN_REGIONS = 4


@dataclass(frozen=True)
class Mantel:
    """Result of a Mantel test.

    Attributes:
        correlation: Spearman rank correlation over pairs of regions.
        p: share of permutations with at least this correlation.
        regions: number of regions.
        pairs: number of pairs of regions with finite values.
        arrangements: number of permutations.
    """

    correlation: float
    p: float
    regions: int
    pairs: int
    arrangements: int


def mantel(shift: Array, drop: Array, *, permutations: int = 9999, seed: int = 0) -> Mantel:
    """Test for a positive correlation between two matrices `(region, region)`: `shift` and `drop`.

    The n (n − 1) pairs of n regions are not independent. Therefore regions (rows and columns together) are permuted,
    not pairs. All permutations are used if there are at most `permutations`, else random ones. The diagonal and pairs
    with a NaN in either matrix are ignored. `drop` may be asymmetric. Spearman's correlation is used, since the
    relation may be nonlinear; each matrix is ranked once.
    Source: Mantel 1967; Legendre & Legendre 2012, "Numerical Ecology", sect. 10.5.1.

    Raises `UserError` for fewer than four regions or if a matrix is constant.
    """
    from scipy.stats import rankdata

    a, b = np.asarray(shift, np.float64), np.asarray(drop, np.float64)
    if a.ndim != 2 or a.shape != b.shape or a.shape[0] != a.shape[1]:
        raise ValueError(f"the matrices have shapes {a.shape} and {b.shape}; expected two equal (region, region)")
    count = len(a)
    if count < MIN_REGIONS:
        raise UserError(f"the Mantel test permutes regions; {count} are too few; expected {MIN_REGIONS} or more")
    pairs = ~np.eye(count, dtype=bool)
    ranks = []
    for matrix in (a, b):
        known = pairs & np.isfinite(matrix)
        ranked = np.full(matrix.shape, np.nan)
        ranked[known] = rankdata(matrix[known])
        ranks.append(ranked)
    observed = _correlation(*ranks)
    if not math.isfinite(observed):
        raise UserError(
            "the Mantel test cannot rank constant matrices; expected climate distances and losses that differ between "
            "pairs of regions"
        )
    every = math.factorial(count) <= permutations
    rng = np.random.default_rng(seed)
    if every:
        orders = np.array(list(itertools.permutations(range(count))))
    else:
        orders = rng.permuted(np.tile(np.arange(count), (permutations, 1)), axis=1)
    found = np.array([_correlation(ranks[0][np.ix_(order, order)], ranks[1]) for order in orders])
    reached = int((found >= observed - 1e-12).sum())
    p = reached / len(found) if every else (reached + 1) / (len(found) + 1)
    counted = int((pairs & np.isfinite(a) & np.isfinite(b)).sum())
    return Mantel(observed, p, count, counted, len(found))


def _correlation(a: Array, b: Array) -> float:
    known = np.isfinite(a) & np.isfinite(b)
    x, y = a[known] - a[known].mean(), b[known] - b[known].mean()
    spread = math.sqrt((x @ x) * (y @ y))
    return float(x @ y) / spread if spread > 0 else math.nan
