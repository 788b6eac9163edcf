"""Observed voxels and their values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from geoml.data.shuffling import keyed_uniform
from geoml.errors import UserError, unknown
from geoml.grids.grid import Grid
from radiomaps.maps.layout import wrapped
from radiomaps.tasks.encoding import AZIMUTH, TARGETS

__all__ = ["PATTERNS", "Observations"]

PATTERNS = ("uniform", "random", "roads", "streets", "trajectory", "box")
Mask = NDArray[np.bool_]
_KEY = 0x0B5E


@dataclass(frozen=True)
class Observations:
    """A share `rate` of the voxels outdoors, chosen by `pattern` independently of the map's values.

    - "uniform": a lattice in each layer; "random": anywhere outdoors; "box": all voxels around one place.
    - "roads": near the ground and `clear_m` from walls; "streets": the centre lines between walls.
    - "trajectory": voxels along a drone's straight legs between random places outdoors.

    Chosen voxels without a path are not observed. Values carry Gaussian noise of `noise` (standard
    deviations by target, in dB, s, rad) and are rounded to multiples of `quantisation`. Everything is keyed on `seed`
    and the sample's number in its store; with `fresh`, on the epoch of training too.
    """

    pattern: Literal["uniform", "random", "roads", "streets", "trajectory", "box"] = "random"
    rate: float = 0.01
    noise: Mapping[str, float] = field(default_factory=dict)
    quantisation: Mapping[str, float] = field(default_factory=dict)
    clear_m: float = 3.0
    seed: int = 0
    fresh: bool = False

    def __post_init__(self) -> None:
        if self.pattern not in PATTERNS:
            raise unknown("pattern of observations", self.pattern, PATTERNS)
        if not 0 < self.rate <= 1:
            raise UserError(f"rate={self.rate} of observations; expected a share above 0, at most 1 (0.01 is 1 %)")
        for what in ("noise", "quantisation"):
            values = dict(getattr(self, what) or {})
            for name, value in values.items():
                if name not in TARGETS:
                    raise unknown(f"{what} of target", name, TARGETS)
                if not (math.isfinite(value) and value >= 0):
                    raise UserError(f"{what} of {name} is {value}; expected 0 or more")
            object.__setattr__(self, what, {name: float(value) for name, value in values.items() if value})

    def places(self, building: Mask, grid: Grid, sample: int, epoch: int = 0) -> Mask:
        """The chosen voxels of a map: a pure function of buildings, sample, seed and, if `fresh`, the epoch."""
        outdoors = ~building
        count = min(int(outdoors.sum()), max(1, round(self.rate * int(outdoors.sum()))))
        key = (_KEY, self.seed, sample, epoch if self.fresh else 0)
        if self.pattern == "uniform":
            return _lattice(outdoors, self.rate, key)
        if self.pattern == "trajectory":
            return _trajectory(outdoors, count, key)
        if self.pattern == "box":
            return _box(outdoors, count, key)
        candidates = outdoors
        if self.pattern in ("roads", "streets"):
            candidates = _near_ground(outdoors, grid, self.clear_m, lines=self.pattern == "streets")
        return _choose(candidates, count, key)

    def read(self, target: str, values: NDArray[Any], sample: int, epoch: int = 0) -> NDArray[Any]:
        """Physical values as a receiver measures them."""
        if sigma := self.noise.get(target):
            key = [_KEY, self.seed, sample, epoch if self.fresh else 0, TARGETS.index(target)]
            values = values + sigma * np.random.default_rng(key).standard_normal(values.shape)
        if step := self.quantisation.get(target):
            values = np.rint(values / step) * step
        return wrapped(values % (2 * np.pi)) if target == AZIMUTH else values


def _choose(candidates: Mask, count: int, key: tuple[int, ...]) -> Mask:
    """`count` of the candidates (or all, if fewer), uniformly at random."""
    index = np.flatnonzero(candidates)
    chosen = np.zeros(candidates.size, bool)
    if index.size > count:
        index = index[np.argpartition(keyed_uniform(key, index), count - 1)[:count]]
    chosen[index] = True
    return chosen.reshape(candidates.shape)


def _lattice(outdoors: Mask, rate: float, key: tuple[int, ...]) -> Mask:
    """A square lattice in each layer with the spacing of the rate and a random offset."""
    spacing = 1 / math.sqrt(rate)
    shifts = keyed_uniform(key, np.arange(2 * len(outdoors))).reshape(-1, 2)
    mask = np.zeros_like(outdoors)
    for layer, shift in zip(mask, shifts, strict=True):
        rows, columns = (
            np.unique(np.floor((np.arange(math.ceil(size / spacing) + 1) + part) * spacing).astype(int))
            for size, part in zip(layer.shape, shift, strict=True)
        )
        layer[np.ix_(rows[rows < layer.shape[0]], columns[columns < layer.shape[1]])] = True
    return mask & outdoors if (mask & outdoors).any() else _choose(outdoors, 1, key)


def _near_ground(outdoors: Mask, grid: Grid, clear_m: float, *, lines: bool) -> Mask:
    """The lowest layer outdoors, at least `clear_m` from walls if possible, else the lines farthest from them."""
    from scipy.ndimage import distance_transform_edt

    low = outdoors[0]
    distance = distance_transform_edt(np.pad(low, 1, mode="edge"), sampling=(grid["y"].step, grid["x"].step))
    inner = distance[1:-1, 1:-1]
    chosen = low & (inner > clear_m)
    if lines:
        ridge = np.zeros_like(low)
        for axis in (0, 1):
            before, after = (np.roll(distance, step, axis)[1:-1, 1:-1] for step in (1, -1))
            ridge |= (inner >= before) & (inner >= after) & ((inner > before) | (inner > after))
        chosen &= ridge
    mask = np.zeros_like(outdoors)
    mask[0] = chosen if chosen.any() else low
    return mask if mask.any() else outdoors


def _trajectory(outdoors: Mask, count: int, key: tuple[int, ...]) -> Mask:
    """Voxels outdoors on straight legs between random places, until enough are found."""
    free = np.argwhere(outdoors)
    generator = np.random.default_rng(list(key))
    mask = np.zeros_like(outdoors)
    here, found = free[generator.integers(len(free))], 0
    for _ in range(64 + 16 * count):
        there = free[generator.integers(len(free))]
        steps = 2 * int(np.abs(there - here).max()) + 1
        for cell in np.rint(here + np.linspace(0, 1, steps)[:, None] * (there - here)).astype(int):
            place = tuple(cell)
            if found < count and outdoors[place] and not mask[place]:
                mask[place] = True
                found += 1
        if found == count:
            break
        here = there
    return mask


def _box(outdoors: Mask, count: int, key: tuple[int, ...]) -> Mask:
    """The `count` outdoor voxels nearest to a random outdoor voxel.

    The distance is the largest offset along any axis, relative to the number of voxels along that axis.
    """
    free = np.argwhere(outdoors)
    centre = free[np.random.default_rng(list(key)).integers(len(free))]
    reach = np.abs(free - centre) / np.array(outdoors.shape)
    order = np.argsort(reach.max(axis=1), kind="stable")[:count]
    mask = np.zeros_like(outdoors)
    mask[tuple(free[order].T)] = True
    return mask
