"""Random numbers keyed on what they are for, so that neither batch cuts nor restarts change them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["member_noise", "sample_noise", "seed_of"]


def seed_of(*keys: int | str) -> int:
    """A 63-bit seed from any keys, well mixed and the same on every machine.

    >>> seed_of(0, 1) == seed_of(0, 1), seed_of(0, 1) == seed_of(1, 0)
    (True, False)
    """
    digest = hashlib.blake2b(repr(keys).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def member_noise(
    shape: Sequence[int], ids: Sequence[int], *, members: int | range, seed: int, device: torch.device | str = "cpu"
) -> Tensor:
    """Standard normal noise `(sample, member, *shape)`, keyed on (seed, sample id, member).

    `members` says how many, or which, so that they can be had in parts. Drawn on the CPU, where the generator is the
    same everywhere, then moved to `device`.
    """
    members = range(members) if isinstance(members, int) else members
    noise = torch.empty((len(ids), len(members), *shape))
    for i, sample in enumerate(ids):
        for j, member in enumerate(members):
            generator = torch.Generator().manual_seed(seed_of(seed, int(sample), member))
            noise[i, j] = torch.randn(tuple(shape), generator=generator)
    return noise.to(device)


def sample_noise(
    shape: Sequence[int], ids: Sequence[int], generator: torch.Generator, *, draw: str = "", uniform: bool = False
) -> Tensor:
    """Noise `(sample, *shape)` for a loss, keyed on (the seed of `generator`, sample id, `draw`), on its device.

    Standard normal, or uniform on [0, 1). The state of the generator is neither used nor moved: `draw` names what is
    drawn where a loss draws several things.

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
