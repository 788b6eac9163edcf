"""How many threads numerical libraries take: no more than the cores that are free when a command starts.

Threads of OpenMP spin while they wait for each other. On a machine whose cores are taken they take time from each
other, and a run of minutes can last an hour.
"""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

from geoml.runs.environment import usable_cores

__all__ = ["VARIABLES", "free_cores", "limit_threads"]

#: What OpenMP, MKL, OpenBLAS and Numba read when they are first imported.
VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


def free_cores(seconds: float = 0.2, stat: str | os.PathLike[str] = "/proc/stat") -> int:
    """Idle cores among those this process may use, at least 1, from the idle time within `seconds`.

    Where the system does not say how busy it is, all usable cores count as free.
    """
    cores = min(usable_cores(), _quota())
    before = _idle(stat)
    time.sleep(seconds)
    after = _idle(stat)
    if before is None or after is None or after[1] <= before[1]:
        return cores
    share = (after[0] - before[0]) / (after[1] - before[1])
    machine = os.cpu_count() or cores
    return max(1, min(cores, round(share * machine)))


def limit_threads() -> tuple[int, int] | None:
    """Set the `VARIABLES` that the environment leaves unset to the free cores.

    Returns threads and usable cores, or None where `OMP_NUM_THREADS` is set: then that is what holds. Libraries that
    are imported already keep what they have.
    """
    if os.environ.get("OMP_NUM_THREADS"):
        return None
    threads = free_cores()
    for name in VARIABLES:
        os.environ.setdefault(name, str(threads))
    return threads, usable_cores()


def _idle(stat: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Ticks that all cores together idled, and ticks in all, since the machine started."""
    try:
        words = Path(stat).read_text().partition("\n")[0].split()
        ticks = [int(word) for word in words[1:9]]
    except (OSError, ValueError):
        return None
    return (ticks[3] + ticks[4], sum(ticks)) if len(ticks) == 8 else None


def _quota() -> int:
    """Cores that a container may use by its quota of time, rounded up; a large number where there is none."""
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return math.ceil(int(limit) / int(period))
    except (OSError, ValueError):
        return 1 << 16
