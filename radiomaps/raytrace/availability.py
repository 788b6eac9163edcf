"""Test whether this machine can trace rays, in a child process, because an unsuitable LLVM aborts its process.

Dr.Jit needs CUDA or LLVM's shared library. LLVM 15 and 16 load and then abort at the first trace; LLVM 14, or none,
fails on import; 19 works. So nothing here imports Dr.Jit: the test traces a box in a child process.
"""

from __future__ import annotations

import functools
import glob
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from geoml.errors import UserError
from geoml.runs.files import write_json

__all__ = ["FOLDERS", "INSTALL", "VARIANTS", "Proof", "libraries", "prove"]

#: Mitsuba variants with polarised fields, the fastest first.
VARIANTS = ("cuda_ad_mono_polarized", "llvm_ad_mono_polarized")
#: Folders where systems install LLVM's library.
FOLDERS = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu")
INSTALL = "apt-get install -y libllvm19"
_PACKAGES = ("sionna-rt", "mitsuba", "drjit")

# Traces a closed metal box from its middle, and requires a gain above 0.
_PROGRAM = """
import sys, mitsuba as mi
mi.set_variant(sys.argv[1])
import sionna.rt as rt
scene = rt.load_scene(rt.scene.box)
scene.tx_array = rt.PlanarArray(num_rows=1, num_cols=1, pattern="iso", polarization="V")
scene.add(rt.Transmitter("tx", position=mi.Point3f(0.0, 0.0, 1.0)))
gain = rt.RadioMapSolver()(scene, samples_per_tx=1000, max_depth=1).path_gain.numpy()
assert (gain > 0).any()
"""


@dataclass(frozen=True)
class Proof:
    """Result of the test: the variant that traced a box (empty if none did) and the failures of the others."""

    variant: str
    failures: tuple[str, ...] = ()


@functools.cache
def prove(*, timeout_s: float = 180.0) -> Proof:
    """The variant that works on this machine; if none does, raises `UserError` with the command that fixes it.

    A child process traces a box, once for each set of packages and libraries. A success is stored in the user's cache
    folder (`XDG_CACHE_HOME`), so that later processes start immediately.
    """
    missing = [name for name in _PACKAGES if _version(name) is None]
    if missing:
        raise UserError(f"ray tracing needs {', '.join(missing)}: install them with  pip install 'geoml[radiomaps]'")
    key = _fingerprint()
    kept = _read(key)
    if kept is not None:
        return kept
    failures: list[str] = []
    for variant in VARIANTS:
        reason = _attempt(variant, timeout_s)
        if reason is None:
            proof = Proof(variant, tuple(failures))
            _keep(key, proof)
            return proof
        failures.append(f"{variant.split('_')[0]}: {reason}")
    raise UserError(
        f"no ray tracing on this machine ({'; '.join(failures)}). Without a CUDA device Dr.Jit needs LLVM 19 or newer: "
        f"install it with  {INSTALL}  (DRJIT_LIBLLVM_PATH names a library elsewhere)"
    )


def _attempt(variant: str, timeout_s: float) -> str | None:
    """Trace a box with `variant` in a child process. Returns the reason of a failure, or None for a success."""
    try:
        child = subprocess.run(
            [sys.executable, "-c", _PROGRAM, variant], capture_output=True, text=True, timeout=timeout_s
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {timeout_s:g} s"
    if child.returncode == 0:
        return None
    lines = [line.strip() for line in child.stderr.splitlines() if line.strip()]
    telling = [line for line in lines if "Cannot select" in line or "Error" in line] or lines
    died = f"killed by signal {-child.returncode}" if child.returncode < 0 else f"exit code {child.returncode}"
    return f"{died}{', ' + telling[-1][:160] if telling else ''}"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def libraries(folders: Iterable[str] = FOLDERS) -> list[str]:
    """The LLVM libraries that Dr.Jit may load: those in the folders, and the one that DRJIT_LIBLLVM_PATH names."""
    found = [path for folder in folders for path in glob.glob(f"{folder}/libLLVM*.so*")]
    return [*found, *(named for named in (os.environ.get("DRJIT_LIBLLVM_PATH"),) if named)]


def _aged(path: str) -> str:
    """Path of a library with its modification time, so that an upgraded library is tested again."""
    return f"{path}:{os.stat(path).st_mtime_ns if os.path.exists(path) else 'missing'}"


def _fingerprint() -> str:
    """Hash of everything that determines whether tracing works: interpreter, packages, LLVM, CUDA devices."""
    parts = [sys.executable, *(f"{name}={_version(name)}" for name in _PACKAGES), *sorted(map(_aged, libraries()))]
    parts += [os.environ.get("CUDA_VISIBLE_DEVICES", ""), *sorted(glob.glob("/dev/nvidia*"))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _cache_file() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(root) / "geoml" / "raytracing.json"


def _read(key: str) -> Proof | None:
    try:
        kept = json.loads(_cache_file().read_text(encoding="utf-8"))
        return Proof(str(kept["variant"]), tuple(kept["failures"])) if kept["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # no stored result, or an unreadable one: test again


def _keep(key: str, proof: Proof) -> None:
    try:
        write_json(_cache_file(), {"key": key, **asdict(proof)})
    except (OSError, UserError):
        return  # with a read-only cache folder every process repeats the test
