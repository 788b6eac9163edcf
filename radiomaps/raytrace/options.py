"""Options of a trace: interactions, number of rays, estimator, and memory."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from geoml.errors import UserError

__all__ = ["MAX_DEPTH", "MAX_RAYS", "VERSION", "Estimator", "TraceOptions"]

#: Increased whenever the maps of equal inputs change; part of a store's identity.
VERSION = 4

Estimator = Literal["paths", "axis", "plane"]

#: A path's name has 32 bits: 28 for the ray's number, 3 for its bounces, 1 for whether it is diffracted.
MAX_RAYS = 1 << 28
MAX_DEPTH = 7


@dataclass(frozen=True, kw_only=True)
class TraceOptions:
    """Options of a trace.

    Rays: `rays` per transmitter, in `batches` randomly rotated lattices whose spread gives the error. With `error_db`,
    batches are added until the median error of path gain outside line of sight is at most that, up to `max_rays`.
    Interactions: `line_of_sight`, `specular`, `diffuse` (with `scattering`, the coefficient S of all materials),
    `diffraction` (at most once per path, at wedges, with reflections before and after it up to `depth`;
    `edge_diffraction` also at free edges), `refraction` (transmission through thin walls; off for outdoor scenes,
    whose buildings are solid).
    Estimator: "axis" is the mean over a voxel, from the rays that cross its centre plane perpendicular to the largest
    component of their direction. "plane" always takes the horizontal centre plane, as stacked two-dimensional maps do.
    "paths" uses rays only to find the walls that reflect towards a voxel, and computes these paths exactly at its
    centre; diffuse scattering is added as with "axis". Refraction needs "axis" or "plane".
    "axis" takes a fraction of the time of "paths" (a tenth or less with `diffraction`) and is noisy.
    `paths_per_voxel`: number of strongest paths stored per voxel, as seen by an isotropic antenna, for antennas that
    are applied later (estimator "paths"; without scattered rays).
    `above_ground`: heights of the grid are above the ground of each column.
    `memory_mb` limits the memory of a trace in addition to the scene: larger grids are traced in pieces.
    """

    frequency_hz: float = 5.9e9
    depth: int = 3
    rays: int = 4_000_000
    batches: int = 4
    error_db: float | None = None
    max_rays: int = 256_000_000
    line_of_sight: bool = True
    specular: bool = True
    diffuse: bool = False
    diffraction: bool = False
    edge_diffraction: bool = False
    refraction: bool = False
    scattering: float = 0.0
    thickness_m: float = 0.1
    estimator: Estimator = "paths"
    paths_per_voxel: int = 0
    above_ground: bool = False
    seed: int = 0
    chunk_rays: int = 1 << 22
    memory_mb: float = 2048.0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("frequency_hz", 1e6, 1e12),
            ("depth", 0, MAX_DEPTH),
            ("rays", 1, MAX_RAYS),
            ("max_rays", 1, MAX_RAYS),
            ("batches", 2, 4096),
            ("scattering", 0.0, 1.0),
            ("thickness_m", 1e-6, 100.0),
            ("seed", 0, 2**31 - 1),
            ("paths_per_voxel", 0, 256),
            ("chunk_rays", 1024, 1 << 26),
            ("memory_mb", 16.0, math.inf),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise UserError(f"{name}={value} of a trace; expected {low:g} … {high:g}")
        if self.estimator not in get_args(Estimator):
            raise UserError(
                f"estimator={self.estimator!r} of a trace; expected one of {', '.join(get_args(Estimator))}"
            )
        if self.estimator == "paths" and self.refraction:
            raise UserError("refraction=true is not possible with estimator=paths; set estimator=axis")
        if self.error_db is not None and not self.error_db > 0:
            raise UserError(f"error_db={self.error_db} of a trace; expected a positive number of dB")
        if self.edge_diffraction and not self.diffraction:
            raise UserError("edge_diffraction=true adds free edges to diffraction; set diffraction=true too")
        if self.rays < self.batches * 64:
            raise UserError(f"rays={self.rays} in {self.batches} batches; expected at least 64 rays per batch")

    @property
    def rays_a_batch(self) -> int:
        return -(-self.rays // self.batches)

    @property
    def bounces(self) -> bool:
        """Whether rays are followed beyond their first hit."""
        return self.depth > 0 and (self.specular or self.diffuse or self.refraction)

    def to_attrs(self) -> dict[str, Any]:
        """Options as attributes of a stored map: numbers and strings, booleans as 0 and 1."""
        attrs = {}
        for name, value in asdict(self).items():
            if value is not None and name not in ("frequency_hz", "chunk_rays", "memory_mb"):
                attrs[name] = int(value) if isinstance(value, bool) else value
        return attrs
