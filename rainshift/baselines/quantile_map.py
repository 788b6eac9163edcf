"""Quantile mapping between two distributions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Kind", "QuantileMap", "Tail"]

Kind = Literal["multiplicative", "additive"]
Tail = Literal["correction", "clip"]
Values = NDArray[np.floating]


@dataclass(frozen=True)
class QuantileMap:
    """Quantile map x̂ = F_to⁻¹(F_start(x)) between two sets of quantiles.

    The map is linear between quantiles. Several equal quantiles of `start` are mapped to the lowest corresponding
    quantile of `to`, so dry values stay dry.

    Attributes:
        start, to: quantiles at the same levels, ascending.
        kind: correction beyond the outermost quantiles: a ratio ("multiplicative") or a difference ("additive").
        tail: "correction" applies the correction of the outermost quantile beyond it; "clip" limits results to the
            range of `to`.
        dry: values up to this one are unchanged.

    >>> QuantileMap(np.array([1.0, 2.0]), np.array([2.0, 6.0]))(np.array([1.0, 1.5, 2.0, 10.0]))
    array([ 2.,  4.,  6., 30.])
    """

    start: Values
    to: Values
    kind: Kind = "multiplicative"
    tail: Tail = "correction"
    dry: float = -np.inf

    @classmethod
    def fit(
        cls,
        start: Values,
        to: Values,
        *,
        quantiles: int = 1000,
        kind: Kind = "multiplicative",
        tail: Tail = "correction",
        dry: float = -np.inf,
    ) -> QuantileMap:
        """Fit the map from the distribution of the sample `start` to that of the sample `to`.

        Only finite values above `dry` are used. There are at most as many quantiles as values in the smaller sample.
        An empty sample gives the identity.
        """
        sides = [v[np.isfinite(v) & (v > dry)].astype(np.float64) for v in (start, to)]
        count = min(quantiles, *(side.size for side in sides))
        levels = (np.arange(count) + 0.5) / max(count, 1)
        start, to = (np.quantile(side, levels) if count else np.zeros(0) for side in sides)
        return cls(start, to, kind, tail, dry)

    @property
    def inverse(self) -> QuantileMap:
        """The inverse map."""
        return replace(self, start=self.to, to=self.start)

    def __call__(self, x: Values) -> Values:
        """Map values. The result has the shape and float type of `x`."""
        if not self.start.size:
            return x
        nodes, first = np.unique(self.start, return_index=True)
        to = self.to[first]
        mapped = np.interp(x, nodes, to)
        if self.tail == "correction":
            for beyond, end in ((x < nodes[0], 0), (x > nodes[-1], -1)):
                mapped = np.where(beyond, self._corrected(x, nodes[end], to[end]), mapped)
        return np.where(x > self.dry, mapped, x).astype(x.dtype)

    def _corrected(self, x: Values, node: float, to: float) -> Values:
        """Apply the correction of an outermost quantile. No change if the quantile is 0 and the correction a ratio."""
        if self.kind == "additive":
            return x + (to - node)
        return x * (to / node) if node != 0 else x
