"""Random numbers keyed on their use, so that batching and restarts do not change them."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Lengths", "WindowId", "correlated", "member_noise", "sample_noise", "seed_of"]


def seed_of(*keys: int | str) -> int:
    """A 63-bit seed from any keys, well mixed and the same on every machine.

    >>> seed_of(0, 1) == seed_of(0, 1), seed_of(0, 1) == seed_of(1, 0)
    (True, False)
    """
    digest = hashlib.blake2b(repr(keys).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class WindowId(int):
    """The id of a sample if a batch holds only a window of it: its noise is cut from the noise of the full sample.

    `windows` maps the spatial shape of a window to the shape of the full sample and the position of the window in it:
    slices, or column indices along the last axis.
    """

    windows: Mapping[tuple[int, ...], tuple[tuple[int, ...], tuple[slice, ...]]]

    def __new__(cls, sample: int, windows: Mapping[tuple[int, ...], Any]) -> WindowId:
        made = super().__new__(cls, sample)
        made.windows = windows
        return made

    def whole_of(self, shape: Sequence[int]) -> tuple[tuple[int, ...], tuple[slice, ...]]:
        """The shape of the noise to draw, and the slices to cut from it; `ValueError` for an unknown spatial shape."""
        for space, (whole, place) in self.windows.items():
            lead = len(shape) - len(space)
            if lead >= 0 and tuple(shape[lead:]) == space:
                return (*shape[:lead], *whole), (*(slice(None) for _ in range(lead)), *place)
        raise ValueError(f"noise of shape {tuple(shape)} is not one of the windows: {list(self.windows)}")

    def part(self, windows: Mapping[tuple[int, ...], tuple[tuple[int, ...], tuple[slice, ...]]]) -> WindowId:
        """Return the id of a window within this window, given by its shape and its position in this window."""
        found = {}
        for space, (outer, place) in windows.items():
            whole, cut = self.whole_of(outer)
            columns = torch.arange(whole[-1])[cut[-1]][place[-1]]
            inner = [slice(*_bounds(a, b, size)) for a, b, size in zip(cut, place, whole, strict=True)][:-1]
            found[space] = (whole, (*inner, columns))
        return WindowId(int(self), found)


def _bounds(outer: slice, inner: slice, size: int) -> tuple[int, int]:
    """Return start and stop of a slice of a slice."""
    if not isinstance(outer, slice):
        return 0, 0  # the last axis, whose columns are listed
    span = range(*outer.indices(size))[inner]
    return span.start, span.stop


@functools.lru_cache(maxsize=16)
def _root(size: int, length: float) -> Tensor:
    """The Cholesky factor of the correlation exp(-distance / length) of `size` cells."""
    places = torch.arange(size, dtype=torch.float64)
    correlation = torch.exp(-(places[:, None] - places[None, :]).abs() / length)
    return torch.linalg.cholesky(correlation).float()


#: Correlation lengths in cells along the last axes, common to all channels or one row per channel.
Lengths = Sequence[float] | Sequence[Sequence[float]]


def correlated(noise: Float[Tensor, "*lead"], lengths: Lengths) -> Float[Tensor, "*lead"]:
    """Noise with the correlation exp(-distance / length) along each of the last axes, from independent noise.

    `lengths` are in cells: one for each of the last axes, or one such row per channel (the axis before these axes); 0
    leaves an axis independent. The variance stays 1 in every cell, at the edges too.

    >>> wave = correlated(torch.randn(2000, 8, generator=torch.Generator().manual_seed(0)), [4.0])
    >>> [round(float((wave[:, 0] * wave[:, lag]).mean()), 1) for lag in (0, 4)]
    [1.0, 0.4]
    """
    rows = [row for row in lengths if isinstance(row, Sequence)]
    if rows:
        channel = noise.ndim - len(rows[0]) - 1
        return torch.stack(
            [correlated(part, row) for part, row in zip(noise.unbind(channel), rows, strict=True)], dim=channel
        )
    for axis, length in enumerate(lengths, start=noise.ndim - len(lengths)):
        assert isinstance(length, float | int)
        if length > 0:
            root = _root(noise.shape[axis], float(length)).to(noise)
            noise = torch.movedim(torch.movedim(noise, axis, -1) @ root.T, -1, axis)
    return noise.contiguous()


def member_noise(
    shape: Sequence[int],
    ids: Sequence[int],
    *,
    members: int | range,
    seed: int,
    device: torch.device | str = "cpu",
    lengths: Lengths = (),
) -> Tensor:
    """Standard normal noise `(sample, member, *shape)`, keyed on (seed, sample id, member).

    `members` is a number of members or their indices. Drawn on the CPU, where the generator is the
    same everywhere, then moved to `device`. The noise of a `WindowId` sample is part of that of the full sample.
    `lengths`: correlation along the last axes, see `correlated`.
    """
    members = range(members) if isinstance(members, int) else members
    noise = torch.empty((len(ids), len(members), *shape))
    for i, sample in enumerate(ids):
        for j, member in enumerate(members):
            generator = torch.Generator().manual_seed(seed_of(seed, int(sample), member))
            if isinstance(sample, WindowId):
                whole, place = sample.whole_of(shape)
                noise[i, j] = correlated(torch.randn(whole, generator=generator), lengths)[place]
            else:
                noise[i, j] = correlated(torch.randn(tuple(shape), generator=generator), lengths)
    return noise.to(device)


def sample_noise(
    shape: Sequence[int], ids: Sequence[int], generator: torch.Generator, *, draw: str = "", uniform: bool = False
) -> Tensor:
    """Noise `(sample, *shape)` for a loss, keyed on (the seed of `generator`, sample id, `draw`), on its device.

    Standard normal, or uniform on [0, 1). The state of the generator is neither used nor changed. `draw` distinguishes
    several draws of one loss.

    >>> seeded = torch.Generator().manual_seed(1)
    >>> bool((sample_noise((2,), [5, 7], seeded)[1] == sample_noise((2,), [7], seeded)[0]).all())
    True
    """
    noise = torch.empty((len(ids), *shape))
    fill = torch.rand if uniform else torch.randn
    for row, sample in zip(noise, ids, strict=True):
        own = torch.Generator().manual_seed(seed_of(generator.initial_seed(), draw, int(sample)))
        row.copy_(fill(tuple(shape), generator=own))
    return noise.to(generator.device)
