"""Limit the threads of numerical libraries to the cores that are idle when a command starts.

OpenMP threads spin while they wait. On a busy machine they compete for the same cores, and a run of minutes can take
an hour.
"""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

from geoml.runs.environment import usable_cores

__all__ = ["VARIABLES", "free_cores", "limit_threads"]

#: Environment variables that OpenMP, MKL, OpenBLAS and Numba read on import.
VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


def free_cores(seconds: float = 0.2, stat: str | os.PathLike[str] = "/proc/stat") -> int:
    """Number of idle cores that this process may use, at least 1, measured over `seconds`.

    If the system does not report its load, all usable cores count as idle.
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
    """Set those of `VARIABLES` that are unset to the number of idle cores.

    Returns the number of threads and of usable cores, or None if `OMP_NUM_THREADS` is set, which is then kept.
    Libraries that are already imported are not affected.
    """
    if os.environ.get("OMP_NUM_THREADS"):
        return None
    threads = free_cores()
    for name in VARIABLES:
        os.environ.setdefault(name, str(threads))
    return threads, usable_cores()


def _idle(stat: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Idle ticks and total ticks of all cores since the machine started."""
    try:
        words = Path(stat).read_text(encoding="utf-8").partition("\n")[0].split()
        ticks = [int(word) for word in words[1:9]]
    except (OSError, ValueError):
        return None
    return (ticks[3] + ticks[4], sum(ticks)) if len(ticks) == 8 else None


def _quota() -> int:
    """Number of cores in the CPU quota of a container, rounded up; a large number if there is no quota."""
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
        return math.ceil(int(limit) / int(period))
    except (OSError, ValueError):
        return 1 << 16
