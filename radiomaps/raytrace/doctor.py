"""Checks of `geoml doctor` for radio maps: an LLVM that Dr.Jit can use, and on request a test trace."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from geoml.cli.doctor import Finding
from geoml.errors import UserError
from geoml.runs import environment
from radiomaps.raytrace.availability import FOLDERS, INSTALL, libraries, prove

__all__ = ["checks", "llvm_versions"]

#: 15 and 16 load and then abort the process at the first trace; 14 and older are refused on import.
OLDEST_LLVM = 19


def checks(wanted: frozenset[str]) -> Iterable[Finding]:
    """Check for a suitable LLVM (or a GPU, which needs none); with "raytracing", also trace a box."""
    return [_llvm(), _raytracing()] if "raytracing" in wanted else [_llvm()]


def llvm_versions(folders: Iterable[str] = FOLDERS) -> list[int]:
    """Major versions of the LLVM libraries in these folders and at DRJIT_LIBLLVM_PATH, ascending."""
    names = [os.path.basename(os.path.realpath(path)) for path in libraries(folders) if os.path.exists(path)]
    matches = (re.search(r"libLLVM(?:-(\d+)|\.so\.(\d+))", name) for name in names)
    return sorted({int(match[1] or match[2]) for match in matches if match})


def _llvm() -> Finding:
    versions = llvm_versions()
    fit = [version for version in versions if version >= OLDEST_LLVM]
    text = ", ".join(map(str, versions)) or "none found"
    if fit:
        return Finding("llvm", "ok", text)
    if environment.gpus():
        return Finding("llvm", "ok", f"{text}; the GPU does not need it")
    return Finding("llvm", "missing", f"{text}; ray tracing on a CPU needs {OLDEST_LLVM} or newer", INSTALL)


def _raytracing() -> Finding:
    try:
        proof = prove()
    except UserError as error:
        return Finding("raytracing", "missing", str(error), INSTALL)
    return Finding("raytracing", "ok", f"a box was traced with {proof.variant}")
