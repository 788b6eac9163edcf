"""Learning rates as a function of the samples seen."""

from __future__ import annotations

import math

__all__ = ["learning_rate"]


def learning_rate(samples: float, *, peak: float, total: float, warmup: float = 0.0, floor: float = 0.0) -> float:
    """Linear from 0 to `peak` over `warmup` samples, then half a cosine down to `peak * floor` at `total`.

    Beyond `total` it stays at `peak * floor`. Loshchilov & Hutter 2017, arXiv 1608.03983, eq. 5, without restarts.

    >>> [learning_rate(n, peak=1.0, total=110, warmup=10, floor=0.5) for n in (5, 10, 60, 110, 200)]
    [0.5, 1.0, 0.75, 0.5, 0.5]
    """
    if samples < warmup:
        return peak * samples / warmup
    through = min(1.0, (samples - warmup) / max(total - warmup, 1e-12))
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * through)))
