"""The environment of a run: Python, packages, commit, processor, accelerator."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["code_hash", "cpu_model", "describe", "packages", "usable_cores"]

DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@functools.cache
def code_hash(*modules: str) -> str:
    """A hash of the code of modules and packages as twelve hexadecimal digits.

    Cached results are named by the hash of the code that made them. Comments, docstrings and layout do not change it;
    another version of Python may change it. The value is computed once per process.

    >>> code_hash("geoml.errors") == code_hash("geoml.errors") != code_hash("geoml.errors", "geoml.runs.files")
    True
    """
    digest = hashlib.sha256()
    for name in modules:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(f"no module {name}")
        folders = [Path(place) for place in spec.submodule_search_locations or ()]
        files = sorted(file for folder in folders for file in folder.rglob("*.py")) or [Path(spec.origin)]
        for file in files:
            digest.update(_statements(file).encode())
    return digest.hexdigest()[:12]


def _statements(file: Path) -> str:
    """The syntax tree of a module without docstrings, as text."""
    tree = ast.parse(file.read_bytes(), str(file))
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    return ast.dump(tree)


def usable_cores() -> int:
    """Number of cores this process may run on, as limited by a container or batch system."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_model() -> str:
    """The processor's name as the system reports it."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found.group(1) if found else platform.processor() or platform.machine()


def packages() -> dict[str, str]:
    """Installed versions of this distribution and its requirements, extras included, by name."""
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
    """Standard output of a command, or None if it is missing or fails."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def commit() -> dict[str, Any] | None:
    """Commit of the checkout that this package is imported from, and whether it is modified; None if not a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    head = _output_of("git", "rev-parse", "HEAD", cwd=root)
    changes = _output_of("git", "status", "--porcelain", "--untracked-files=no", cwd=root)
    return {"hash": head, "modified": bool(changes)} if head else None


def gpus() -> list[str]:
    """Names of the accelerators that the driver reports, found without importing torch."""
    listing = _output_of("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader")
    return listing.splitlines() if listing else []


def describe() -> dict[str, Any]:
    """The complete environment, as written to `environment.json`."""
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages(),
        "commit": commit(),
        "cpu": {"model": cpu_model(), "cores": usable_cores()},
        "gpus": gpus(),
    }
