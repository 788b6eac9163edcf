"""The noise levels of a sampler: descending, the last one 0."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from geoml.errors import UserError, unknown

__all__ = ["SPACINGS", "karras", "log_snr", "spaced", "strided", "uniform_time"]


def karras(steps: int, *, smallest: float = 0.002, largest: float = 80.0, rho: float = 7.0) -> tuple[float, ...]:
    """`steps` levels evenly spaced in σ^(1/ρ), then 0 (Karras et al. 2022, eq. 5).

    >>> [round(sigma, 3) for sigma in karras(4)]
    [80.0, 9.723, 0.47, 0.002, 0.0]
    """
    _check(steps, smallest, largest)
    root = np.linspace(largest ** (1 / rho), smallest ** (1 / rho), steps)
    return (*map(float, root**rho), 0.0)


def log_snr(steps: int, *, smallest: float = 0.002, largest: float = 80.0) -> tuple[float, ...]:
    """`steps` levels evenly spaced in ln σ, then 0 (Lu et al. 2022, arXiv 2206.00927, section 3.3)."""
    _check(steps, smallest, largest)
    return (*map(float, np.geomspace(largest, smallest, steps)), 0.0)


SPACINGS: dict[str, Callable[..., tuple[float, ...]]] = {"karras": karras, "log_snr": log_snr}


def spaced(name: str, steps: int, *, smallest: float, largest: float) -> tuple[float, ...]:
    """Return `steps` noise levels of the spacing `name`, descending to 0."""
    if name not in SPACINGS:
        raise unknown("spacing", name, SPACINGS)
    return SPACINGS[name](steps, smallest=smallest, largest=largest)


def uniform_time(steps: int, *, largest: float = 80.0) -> tuple[float, ...]:
    """`steps` levels evenly spaced in the time t = σ/(1+σ) of a flow, then 0."""
    _check(steps, largest / 2, largest)
    time = np.linspace(largest / (1 + largest), 0, steps + 1)[:-1]
    return (*map(float, time / (1 - time)), 0.0)


def strided(table: Sequence[float], steps: int, *, largest: float = 80.0) -> tuple[float, ...]:
    """`steps` levels of an ascending table of noise levels, evenly spaced by index, then 0 (Song et al. 2021, DDIM).

    Levels above `largest` are left out, because the error of a network that predicts noise is multiplied by σ.
    """
    known = [sigma for sigma in table if sigma <= largest]
    if not 1 <= steps <= len(known):
        raise UserError(f"{steps} sampling steps; expected 1 to {len(known)}, the levels of the schedule")
    index = np.linspace(len(known) - 1, 0, steps + 1)[:-1].round().astype(int)
    return (*(known[i] for i in index), 0.0)


def _check(steps: int, smallest: float, largest: float) -> None:
    if steps < 1 or not 0 < smallest < largest:
        raise UserError(
            f"{steps} sampling steps between noise levels {smallest} and {largest}; expected at least 1 step "
            "and 0 < smallest < largest"
        )
