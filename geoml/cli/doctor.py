"""`geoml doctor`: report installed and missing dependencies of this machine, with the commands that install them.

Checks are registered as entry points of group `geoml.doctor`, so that the core does not depend on a domain. Each check
takes the names of items to test by running them (slower) and returns findings.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from geoml.errors import unknown
from geoml.runs import environment

__all__ = ["Check", "Finding", "checks", "examine", "main"]

GROUP = "geoml.doctor"
#: Free disk space in GB below which the preparation of a region may fail.
ENOUGH_DISK_GB = 10
#: Optional dependency groups (pip extras) that are checked.
JOBS = ("rainshift", "radiomaps", "mcp", "report", "bench", "dev")


@dataclass(frozen=True)
class Finding:
    """One line of the output: `status` is "ok", "warning" or "missing", `remedy` says how to fix it.

    An item that is `required` is always needed; other items are needed only if `--need` names them.
    """

    name: str
    status: Literal["ok", "warning", "missing"]
    detail: str
    remedy: str = ""
    required: bool = False


#: A check: takes the names of items to test by running them; returns findings.
Check = Callable[[frozenset[str]], Iterable[Finding]]


def checks(prove: frozenset[str]) -> list[Finding]:
    """Findings of the core package: Python, the machine, torch, data, and the extras."""
    return [_python(), _machine(), _disk(Path.cwd()), _data(), _torch("torch" in prove), *_extras()]


def _python() -> Finding:
    return Finding("python", "ok", f"{platform.python_version()} at {sys.executable}", required=True)


def _machine() -> Finding:
    gpus = environment.gpus()
    detail = f"{environment.usable_cores()} cores, {environment.cpu_model()}; {', '.join(gpus) or 'no GPU'}"
    return Finding("machine", "ok", detail)


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free / 1e9
    if not os.access(folder, os.W_OK):
        return Finding(
            "disk", "missing", f"{folder} cannot be written to", "change to a folder that you may write to", True
        )
    if free < ENOUGH_DISK_GB:
        remedy = f"free some, or work in a folder with {ENOUGH_DISK_GB} GB"
        return Finding("disk", "warning", f"{free:.1f} GB free in {folder}", remedy)
    return Finding("disk", "ok", f"{free:.0f} GB free in {folder}")


def _data() -> Finding:
    root = os.environ.get("GEOML_DATA")
    if not root:
        return Finding(
            "data", "warning", "GEOML_DATA is not set", "export GEOML_DATA=FOLDER for the checks on real data"
        )
    if not Path(root).is_dir():
        return Finding("data", "missing", f"GEOML_DATA names {root}, which is not a folder", "export GEOML_DATA=FOLDER")
    return Finding("data", "ok", root)


_DEVICE = """
import torch
torch.ones(2).sum()
kind = "cuda" if torch.cuda.is_available() else "cpu"
print(f"{torch.ones(2, device=kind).sum().item():.0f} on {kind}, {torch.get_num_threads()} threads")
"""


def _torch(prove: bool) -> Finding:
    try:
        version = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return Finding("torch", "missing", "not installed", "pip install 'geoml[rainshift]'")
    if not prove:
        return Finding("torch", "ok", version)
    done = subprocess.run([sys.executable, "-c", _DEVICE], capture_output=True, text=True)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return Finding("torch", "missing", f"{version} does not run: {last}", "pip install --force-reinstall torch")
    return Finding("torch", "ok", f"{version}, 1 + 1 = {done.stdout.strip()}")


def _extras() -> list[Finding]:
    """Findings on the packages of each extra."""
    findings = []
    for job in JOBS:
        needed = _packages_of(job)
        absent = sorted(name for name in needed if not _installed(name))
        if absent:
            findings.append(
                Finding(job, "missing", f"not installed: {', '.join(absent)}", f"pip install 'geoml[{job}]'")
            )
        else:
            findings.append(Finding(job, "ok", f"all {len(needed)} packages"))
    return findings


def _packages_of(extra: str) -> set[str]:
    """Names of the distributions that an extra requires, including those of nested extras."""
    found: set[str] = set()
    for line in importlib.metadata.requires("geoml") or []:
        match = re.match(r"([\w.-]+)(?:\[([\w, -]+)\])?[^;]*;.*extra == ['\"]([\w-]+)['\"]", line)
        if match and match[3] == extra:
            if match[1] == "geoml":
                for inner in match[2].split(","):
                    found |= _packages_of(inner.strip())
            else:
                found.add(match[1])
    return found


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def examine(*, need: Iterable[str] = (), prove_all: bool = False) -> list[Finding]:
    """Return the findings of all installed checks; a needed item whose status is not "ok" gets "missing".

    Raises `UserError` if no check reports a needed name.
    """
    wanted = frozenset(need)
    prove = frozenset({"torch", "raytracing"}) | wanted if prove_all else wanted
    findings: list[Finding] = []
    for entry in sorted(
        importlib.metadata.entry_points(group=GROUP), key=lambda entry: (entry.name != "geoml", entry.name)
    ):
        try:
            found: Check = entry.load()
            findings += found(prove)
        except ImportError as error:
            findings.append(Finding(entry.name, "missing", f"its checks cannot be loaded ({error})", "make setup"))
    names = [finding.name for finding in findings]
    for name in wanted:
        if name not in names:
            raise unknown("need", name, names)
    return [
        replace(finding, required=True, status="missing" if finding.status == "warning" else finding.status)
        if finding.name in wanted
        else finding
        for finding in findings
    ]


def main(arguments: Sequence[str]) -> int:
    """Print the findings; returns 1 if something needed is missing, else 0."""
    parser = argparse.ArgumentParser(
        prog="geoml doctor", description="What this machine has, what is missing, and the command that fixes it."
    )
    parser.add_argument("--json", action="store_true", help="a list of objects instead of lines")
    parser.add_argument("--need", default="", metavar="A,B", help="names that must be present, or the exit code is 1")
    parser.add_argument(
        "--prove", action="store_true", help="run torch and ray tracing instead of only looking for them"
    )
    flags = parser.parse_args(arguments)
    need = [name.strip() for name in flags.need.split(",") if name.strip()]
    findings = examine(need=need, prove_all=flags.prove)
    if flags.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            remedy = f" → {finding.remedy}" if finding.remedy and finding.status != "ok" else ""
            print(f"{finding.status:<7}  {finding.name.ljust(width)}  {finding.detail}{remedy}")
    return 1 if any(finding.required and finding.status == "missing" for finding in findings) else 0
