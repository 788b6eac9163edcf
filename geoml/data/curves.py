"""Transforms between physical values and network inputs; their statistics are saved with the model.

A transform is a fixed monotone *curve* (logarithm, fourth root, …) followed by a linear *scale* that is fitted to the
training data (z-score or min–max). Every function takes numpy arrays and torch tensors alike and, on tensors, is
differentiable.
"""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal

from geoml.data.moments import Moments
from geoml.errors import DataError, UserError, unknown

__all__ = [
    "TRANSFORMS",
    "Decibel",
    "FourthRoot",
    "Identity",
    "Log",
    "LogEps",
    "MinMax",
    "Transform",
    "ZScore",
    "transform_from_dict",
]

Array = Any  # numpy.ndarray or torch.Tensor
Scale = Literal["none", "zscore", "minmax"]
SCALES: tuple[Scale, ...] = ("none", "zscore", "minmax")


def array_module(array: Array) -> Any:
    """Return the module `torch` if `array` is a tensor, else `numpy`; does not import torch."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(array, torch.Tensor):
        return torch
    import numpy

    return numpy


def to_numpy(array: Array) -> Any:
    """The array, or the tensor's values, as a numpy array on the host."""
    return array.detach().cpu().numpy() if hasattr(array, "detach") else array


@dataclass(frozen=True, kw_only=True)
class Transform(ABC):
    """Transform of one variable between physical and transformed values.

    Attributes:
        scale: scaling after the curve, from the training statistics: `none`, `zscore` or `minmax` (to 0…1).
        lower, upper: physical limits (0 for a rate). `inverse` clips to them: a network output of −0.01 mm/h means 0.
        headroom: a value further than `headroom − 1` training ranges beyond the training values is implausible; where
            the smallest is 0, the bound is `headroom` × the largest training value. `inverse` clips there.
        trace: `inverse` sets values below `lower + trace` to `lower`: rates too small to be measured.
        physical, curved: moments of the training values before and after the curve; None before `fitted`.
    """

    kind: ClassVar[str]
    #: Smallest value that the curve is defined for; None if it is defined for all.
    domain_lower: ClassVar[float | None] = None

    scale: Scale = "none"
    lower: float | None = None
    upper: float | None = None
    headroom: float = 3.0
    trace: float = 0.0
    physical: Moments | None = None
    curved: Moments | None = None

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise unknown("scale", self.scale, SCALES)
        if not self.headroom >= 1:
            raise UserError(f"headroom of {self.kind} is {self.headroom}; it must be at least 1")
        if self.domain_lower is not None and (self.lower is None or self.lower < self.domain_lower):
            object.__setattr__(self, "lower", self.domain_lower)
        if self.trace < 0 or (self.trace > 0 and self.lower is None):
            raise UserError(f"trace of {self.kind} is {self.trace}; it must not be negative, and needs a lower limit")
        if self.lower is not None and self.upper is not None and not self.lower < self.upper:
            raise UserError(f"{self.kind} has lower {self.lower} and upper {self.upper}; lower must be the smaller")

    @abstractmethod
    def curve(self, x: Array) -> Array:
        """The fixed increasing function before the scale, for `x` within its domain."""

    @abstractmethod
    def uncurve(self, z: Array) -> Array:
        """The inverse of `curve`."""

    def forward(self, x: Array) -> Array:
        """Transformed values of physical `x`; values below the curve's domain are set to its edge."""
        if self.domain_lower is not None:
            x = array_module(x).clip(x, self.domain_lower, None)
        offset, factor = self._affine
        return (self.curve(x) - offset) / factor

    def inverse(self, y: Array) -> Array:
        """Physical values of transformed `y`, always within `bounds`; NaN stays NaN."""
        xp = array_module(y)
        offset, factor = self._affine
        low, high = self.bounds
        # Clipped before the curve is undone, so that nothing overflows and no gradient becomes NaN; clipped again
        # after it, because rounding may step over the bound.
        if low is None and high is None:
            return self.uncurve(y * factor + offset)
        z = xp.clip(y, self._to_y(low), self._to_y(high)) * factor + offset
        x = xp.clip(self.uncurve(z), low, high)
        if self.lower is None or not self.trace:
            return x
        return xp.where(x < self.lower + self.trace, xp.full_like(x, self.lower), x)

    def clipped(self, y: Array) -> Array:
        """True where `y` is implausible or not finite, which indicates a diverged network.

        A value is implausible if it exceeds the bound set by `headroom`. Where a physical limit applies instead, it is
        implausible if it exceeds the limit by more than one transformed training range: a regression often predicts
        values slightly below a physical limit of zero.
        """
        xp = array_module(y)
        low, high = (self._to_y(bound) for bound in self.bounds)
        span = self.curved.span / self._affine[1] if self.curved else math.inf
        low_slack = span if self.lower is not None and self.bounds[0] == self.lower else 0.0
        high_slack = span if self.upper is not None and self.bounds[1] == self.upper else 0.0
        bad = ~xp.isfinite(y)
        if low is not None:
            bad = bad | (y < low - low_slack - _rounding(low))
        if high is not None:
            bad = bad | (y > high + high_slack + _rounding(high))
        return bad

    @property
    def bounds(self) -> tuple[float | None, float | None]:
        """Smallest and largest physical value that `inverse` returns; None where there is no bound."""
        low, high = self.lower, self.upper
        if self.physical is not None and self.physical.span > 0:
            reach = (self.headroom - 1) * self.physical.span
            low = self.physical.minimum - reach if low is None else low
            top = self.physical.maximum + reach
            high = top if high is None else high
        return low, high

    @property
    def _affine(self) -> tuple[float, float]:
        """Offset and factor of the scale, `y = (curve(x) − offset) / factor`; a constant field has factor 1."""
        if self.scale == "none":
            return 0.0, 1.0
        if self.curved is None:
            raise ValueError(f"{self.kind} has no statistics yet; fit it before use")
        if self.scale == "zscore":
            return self.curved.mean, self.curved.std or 1.0
        return self.curved.minimum, self.curved.span or 1.0

    def _to_y(self, bound: float | None) -> float | None:
        """Convert a physical bound to a transformed value."""
        if bound is None:
            return None
        import numpy as np

        return float(self.forward(np.float64(bound)))

    def moments(self, x: Array, mask: Array | None = None) -> tuple[Moments, Moments]:
        """Moments of the values where `mask` is True, before and after the curve."""
        import numpy as np

        values = np.asarray(to_numpy(x), dtype=np.float64)
        values = values[np.asarray(to_numpy(mask))] if mask is not None else values.ravel()
        inside = values if self.domain_lower is None else np.clip(values, self.domain_lower, None)
        curved = self.curve(inside)
        physical = Moments.of(values)
        return physical, physical if curved is values else Moments.of(curved)

    def fitted(self, physical: Moments, curved: Moments) -> Transform:
        """The same transform with these training statistics; raises `DataError` if they contradict its limits."""
        if not physical.count:
            raise DataError("no valid training value: every cell is masked")
        for name, moments in (("values", physical), ("transformed values", curved)):
            if not all(math.isfinite(v) for v in (moments.mean, moments.m2, moments.minimum, moments.maximum)):
                raise DataError(f"training {name} are not all finite (mean {moments.mean}, m2 {moments.m2})")
        tolerance = 0.01 * physical.span  # packed integers undershoot a little
        if self.lower is not None and physical.minimum < self.lower - tolerance:
            raise DataError(f"smallest value {physical.minimum:g} is below the limit {self.lower:g}; a fill value?")
        if self.upper is not None and physical.maximum > self.upper + tolerance:
            raise DataError(f"largest value {physical.maximum:g} is above the limit {self.upper:g}; a fill value?")
        return replace(self, physical=physical, curved=curved)

    def fit(self, chunks: Iterable[Array]) -> Transform:
        """Fit the transform to the values of all chunks, of any sizes; NaN raises `DataError`."""
        physical, curved = Moments(), Moments()
        for chunk in chunks:
            more = self.moments(chunk)
            physical, curved = physical.merge(more[0]), curved.merge(more[1])
        return self.fitted(physical, curved)

    def to_dict(self) -> dict[str, Any]:
        """Kind, options and statistics as plain values for JSON."""
        record: dict[str, Any] = {"kind": self.kind}
        for item in fields(self):
            value = getattr(self, item.name)
            if item.init:
                record[item.name] = value.to_dict() if isinstance(value, Moments) else value
        return record


def _check_positive(kind: str, **options: float) -> None:
    """Raise `UserError` for an option that is not positive."""
    for name, value in options.items():
        if not value > 0:
            raise UserError(f"option {name!r} of transform {kind} is {value}; it must be positive")


def _rounding(value: float) -> float:
    """The float32 rounding error of `value`."""
    return 1e-5 * (1.0 + abs(value))


@dataclass(frozen=True, kw_only=True)
class Identity(Transform):
    """The identity; fitting only determines its bounds."""

    kind: ClassVar[str] = "identity"
    scale: Scale = field(default="none", init=False)

    def curve(self, x: Array) -> Array:
        """`x`."""
        return x

    def uncurve(self, z: Array) -> Array:
        """`z`."""
        return z


@dataclass(frozen=True, kw_only=True)
class ZScore(Identity):
    """`(x − mean) / std` of the training values."""

    kind: ClassVar[str] = "zscore"
    scale: Scale = field(default="zscore", init=False)


@dataclass(frozen=True, kw_only=True)
class MinMax(Identity):
    """`(x − min) / (max − min)` of the training values."""

    kind: ClassVar[str] = "minmax"
    scale: Scale = field(default="minmax", init=False)


@dataclass(frozen=True, kw_only=True)
class Log(Transform):
    """`log10(1 + x/unit)`: 0 stays 0, and small values keep their relative precision.

    >>> float(Log(unit=1.0).forward(99.0))
    2.0
    """

    kind: ClassVar[str] = "log"
    domain_lower: ClassVar[float | None] = 0.0
    unit: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_positive(self.kind, unit=self.unit)

    def curve(self, x: Array) -> Array:
        """`log10(1 + x/unit)`."""
        return array_module(x).log1p(x / self.unit) / math.log(10)

    def uncurve(self, z: Array) -> Array:
        """`unit · (10^z − 1)`."""
        return array_module(z).expm1(z * math.log(10)) * self.unit


@dataclass(frozen=True, kw_only=True)
class LogEps(Transform):
    """`ln(x + eps)`, then z-score; exact to float32 relative to `x + eps`."""

    kind: ClassVar[str] = "log_eps"
    domain_lower: ClassVar[float | None] = 0.0
    scale: Scale = "zscore"
    eps: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_positive(self.kind, eps=self.eps)

    def curve(self, x: Array) -> Array:
        """`ln(x + eps)`."""
        return array_module(x).log1p(x / self.eps) + math.log(self.eps)

    def uncurve(self, z: Array) -> Array:
        """`e^z − eps`."""
        return array_module(z).expm1(z - math.log(self.eps)) * self.eps


@dataclass(frozen=True, kw_only=True)
class FourthRoot(Transform):
    """`x^(1/4)`, then z-score."""

    kind: ClassVar[str] = "fourth_root"
    domain_lower: ClassVar[float | None] = 0.0
    scale: Scale = "zscore"

    def curve(self, x: Array) -> Array:
        """`x^(1/4)`."""
        xp = array_module(x)
        return xp.sqrt(xp.sqrt(x))

    def uncurve(self, z: Array) -> Array:
        """`z^4`, for `z ≥ 0`."""
        return (array_module(z).clip(z, 0.0, None) ** 2) ** 2


@dataclass(frozen=True, kw_only=True)
class Decibel(Transform):
    """`10 log10(x / reference)` of a power-like quantity, not below `floor_db`.

    Values below the floor, including 0, are set to the floor.

    >>> float(Decibel(reference=1e-3).forward(1.0))  # watts to dBm
    30.0
    """

    kind: ClassVar[str] = "decibel"
    domain_lower: ClassVar[float | None] = 0.0
    reference: float = 1.0
    floor_db: float = -200.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_positive(self.kind, reference=self.reference)

    def curve(self, x: Array) -> Array:
        """`10 log10(max(x / reference, 10^(floor/10)))`."""
        xp = array_module(x)
        return 10.0 * xp.log10(xp.clip(x / self.reference, 10 ** (self.floor_db / 10), None))

    def uncurve(self, z: Array) -> Array:
        """`reference · 10^(z/10)`."""
        return array_module(z).exp(z * (math.log(10) / 10)) * self.reference


TRANSFORMS: dict[str, type[Transform]] = {
    cls.kind: cls for cls in (Identity, Log, LogEps, FourthRoot, ZScore, Decibel, MinMax)
}


def transform_from_dict(record: Mapping[str, Any]) -> Transform:
    """The transform that a configuration or `to_dict` describes: `{kind: log, unit: 0.1}`.

    Errors: `UserError` for an unknown kind or option, `DataError` for statistics that are not finite.
    """
    options = dict(record)
    kind = options.pop("kind", None)
    if kind not in TRANSFORMS:
        raise unknown("transform", kind, TRANSFORMS)
    cls = TRANSFORMS[kind]
    known = {item.name for item in fields(cls) if item.init}
    for name, value in options.items():
        if name not in known:
            raise unknown(f"option of transform {kind}", name, known)
        if name in ("physical", "curved") and value is not None:
            options[name] = Moments.from_dict(value)
        elif name not in ("scale", "physical", "curved") and value is not None:
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise UserError(f"option {name!r} of transform {kind} is {value!r}; expected a finite number")
            options[name] = float(value)
    return cls(**options)
