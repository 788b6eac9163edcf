"""Count, mean, variance and extremes of a stream of values, merged exactly."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from geoml.errors import DataError

__all__ = ["Moments"]


@dataclass(frozen=True)
class Moments:
    """Moments of a set of values; `m2` is the sum of squared deviations from the mean.

    Merging is exact up to rounding, so that any chunking gives the same moments (Chan, Golub &
    LeVeque 1983, "Algorithms for computing the sample variance", eq. 2.1).

    >>> Moments.of([1.0, 2.0]).merge(Moments.of([3.0, 6.0])) == Moments.of([1.0, 2.0, 3.0, 6.0])
    True
    """

    count: int = 0
    mean: float = 0.0
    m2: float = 0.0
    minimum: float = math.inf
    maximum: float = -math.inf

    @classmethod
    def of(cls, values: npt.ArrayLike) -> Moments:
        """Moments of all `values`, accumulated in float64."""
        array = np.asarray(values, dtype=np.float64)
        if array.size == 0:
            return cls()
        mean = float(array.mean())
        m2 = float(np.square(array - mean).sum())
        return cls(array.size, mean, m2, float(array.min()), float(array.max()))

    def merge(self, other: Moments) -> Moments:
        """Moments of the union of both sets."""
        if not self.count or not other.count:
            return self if self.count else other
        count = self.count + other.count
        shift = other.mean - self.mean
        return Moments(
            count,
            self.mean + shift * other.count / count,
            self.m2 + other.m2 + shift * shift * self.count * other.count / count,
            min(self.minimum, other.minimum),
            max(self.maximum, other.maximum),
        )

    @property
    def std(self) -> float:
        """Population standard deviation, `sqrt(m2 / count)`; 0 if `count` is 0."""
        return math.sqrt(self.m2 / self.count) if self.count else 0.0

    @property
    def span(self) -> float:
        """Largest value minus the smallest; 0 if `count` is 0."""
        return self.maximum - self.minimum if self.count else 0.0

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain numbers."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Any) -> Moments:
        """The inverse of `to_dict`; missing, unknown or non-finite entries are a `DataError`."""
        names = set(cls.__dataclass_fields__)
        if not isinstance(record, dict) or set(record) != names:
            raise DataError(f"moments must hold exactly {sorted(names)}, not {record!r}")
        for name, value in record.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise DataError(f"moment {name!r} is {value!r}, not a finite number; fit the transforms again")
        moments = cls(**record)
        if moments.count < 1 or moments.m2 < 0 or moments.minimum > moments.maximum:
            raise DataError(
                f"moments {record!r} cannot be those of a set of values (count below 1, m2 below 0, or minimum above "
                "maximum); fit the transforms again"
            )
        return moments
