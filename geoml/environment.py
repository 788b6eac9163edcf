"""What a result was made with: Python, packages, commit, processor, accelerator."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["cpu_model", "describe", "packages", "usable_cores"]


def usable_cores() -> int:
    """Cores this process may run on, which a container or a batch system may have cut down."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_model() -> str:
    """The processor's name as the system gives it."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found.group(1) if found else platform.processor() or platform.machine()


def packages() -> dict[str, str]:
    """Installed versions of this distribution and of what it and its extras require, by name."""
    try:
        required = importlib.metadata.requires("geoml") or []
    except importlib.metadata.PackageNotFoundError:
        required = []
    names = {re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in required}
    versions = {}
    for name in sorted(names | {"geoml"}, key=str.lower):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _output_of(*command: str, cwd: Path | None = None) -> str | None:
    """Standard output of a command, None where it is missing or fails."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def commit() -> dict[str, Any] | None:
    """Commit of the checkout this package is imported from and whether files differ from it; None outside of one."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    head = _output_of("git", "rev-parse", "HEAD", cwd=root)
    changes = _output_of("git", "status", "--porcelain", "--untracked-files=no", cwd=root)
    return {"hash": head, "modified": bool(changes)} if head else None


def gpus() -> list[str]:
    """Names of the accelerators the driver shows; found without importing torch."""
    listing = _output_of("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader")
    return listing.splitlines() if listing else []


def describe() -> dict[str, Any]:
    """The whole of it, as what goes into `environment.json`."""
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages(),
        "commit": commit(),
        "cpu": {"model": cpu_model(), "cores": usable_cores()},
        "gpus": gpus(),
    }
