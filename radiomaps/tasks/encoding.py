"""Encoding of physical fields for networks: about 0 … 1 by the published ranges, azimuth as sine and cosine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from geoml.errors import UserError, unknown
from radiomaps.exchange.grey import URBANRADIO3D, GreyCodec

__all__ = ["AZIMUTH", "TARGETS", "Encoding", "within_a_turn"]

#: Targets; the published data set has the same four.
TARGETS = tuple(URBANRADIO3D)
#: The circular target, which has two channels.
AZIMUTH = "doa_azimuth"


def within_a_turn(angle: Tensor) -> Tensor:
    """Angles from 0 to below 2π; float32 rounds the remainder of a small negative angle up to 2π.

    >>> within_a_turn(torch.tensor([-1e-9, -0.5]))
    tensor([0.0000, 5.7832])
    """
    turned = angle % (2 * torch.pi)
    return torch.where(turned < 2 * torch.pi, turned, 0.0)


@dataclass(frozen=True)
class Encoding:
    """Channels of targets: `(x - low) / (high - low)` in the ranges of arXiv 2507.12166; azimuth a as (1 + sin a) / 2
    and (1 + cos a) / 2.

    "physical" keeps values outside a range; "uint8" rounds to the 255 steps of the published pictures and clips to the
    range (an azimuth is rounded before its sine is taken). The mask of valid voxels is separate from the values.
    `ranges` replaces published ranges by target.
    """

    kind: Literal["physical", "uint8"] = "physical"
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in ("physical", "uint8"):
            raise unknown("encoding", self.kind, ("physical", "uint8"))
        for name, bounds in self.ranges.items():
            if name not in TARGETS:
                raise unknown("target", name, TARGETS, hint="in the ranges")
            if len(bounds) != 2:
                raise UserError(f"the range of {name} is {list(bounds)}; expected two numbers, lower end first")
        ranges = {name: (float(low), float(high)) for name, (low, high) in self.ranges.items()}
        object.__setattr__(self, "ranges", ranges)
        for name in ranges:
            self.codec(name)

    def codec(self, target: str) -> GreyCodec:
        """The range of a target."""
        return GreyCodec(*self.ranges[target]) if target in self.ranges else URBANRADIO3D[target]

    @staticmethod
    def channels(target: str) -> tuple[str, ...]:
        """Names of a target's channels.

        >>> Encoding.channels("doa_azimuth")
        ('doa_azimuth_sin', 'doa_azimuth_cos')
        """
        return (f"{target}_sin", f"{target}_cos") if target == AZIMUTH else (target,)

    def encode(self, target: str, values: NDArray[Any]) -> list[NDArray[np.float32]]:
        """The channels of physical values, NaN where they are NaN."""
        codec = self.codec(target)
        scaled = (np.asarray(values, np.float64) - codec.low) / (codec.high - codec.low)
        if self.kind == "uint8":
            scaled = np.rint(np.clip(scaled, 0, 1) * 255) / 255
        if target != AZIMUTH:
            return [scaled.astype(np.float32)]
        angle = scaled * (codec.high - codec.low) + codec.low
        return [((1 + part(angle)) / 2).astype(np.float32) for part in (np.sin, np.cos)]

    def decode(
        self, targets: Sequence[str], fields: Float[Tensor, "*lead channel z y x"]
    ) -> dict[str, Float[Tensor, "*lead z y x"]]:
        """Physical fields (dB, s, rad) of encoded channels; azimuth by atan2, 0 … 2π."""
        found: dict[str, Tensor] = {}
        at = 0
        for target in targets:
            codec = self.codec(target)
            if target == AZIMUTH:
                sine, cosine = (2 * fields[..., at + i, :, :, :] - 1 for i in (0, 1))
                found[target] = within_a_turn(torch.atan2(sine, cosine))
            else:
                found[target] = fields[..., at, :, :, :] * (codec.high - codec.low) + codec.low
            at += len(self.channels(target))
        if at != fields.shape[-4]:
            raise ValueError(f"fields have {fields.shape[-4]} channels; {', '.join(targets)} have {at}")
        return found

    def scaled(self, target: str, values: Any) -> Any:
        """Physical values scaled to the 0 … 1 range of the published scores, which treat azimuth as linear."""
        codec = self.codec(target)
        return (values - codec.low) / (codec.high - codec.low)
