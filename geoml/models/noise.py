"""Random numbers keyed on what they are for, so that neither batch cuts nor restarts change them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["member_noise", "seed_of"]


def seed_of(*keys: int | str) -> int:
    """A 63-bit seed from any keys, well mixed and the same on every machine.

    >>> seed_of(0, 1) == seed_of(0, 1), seed_of(0, 1) == seed_of(1, 0)
    (True, False)
    """
    digest = hashlib.blake2b(repr(keys).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def member_noise(
    shape: Sequence[int], ids: Sequence[int], *, members: int, seed: int, device: torch.device | str = "cpu"
) -> Tensor:
    """Standard normal noise `(sample, member, *shape)`, keyed on (seed, sample id, member).

    Drawn on the CPU, where the generator is the same everywhere, then moved to `device`.
    """
    noise = torch.empty((len(ids), members, *shape))
    for i, sample in enumerate(ids):
        for member in range(members):
            generator = torch.Generator().manual_seed(seed_of(seed, int(sample), member))
            noise[i, member] = torch.randn(tuple(shape), generator=generator)
    return noise.to(device)
