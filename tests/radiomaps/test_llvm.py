"""Whether ray tracing works is found out in a child process: real libraries that are too old, or missing, or fatal."""

from __future__ import annotations

import glob
import os
import signal
from pathlib import Path

import pytest

from geoml.errors import UserError
from radiomaps.raytrace import availability as llvm

OLD = [path for version in (14, 15, 16) for path in sorted(glob.glob(f"/usr/lib/*/libLLVM-{version}.so"))]


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """No kept proof, and none left behind."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(llvm, "VARIANTS", llvm.VARIANTS[1:])
    llvm.prove.cache_clear()
    yield
    llvm.prove.cache_clear()


@pytest.mark.parametrize("library", OLD or [pytest.param("", marks=pytest.mark.skip(reason="no old LLVM here"))])
def test_an_old_llvm_is_one_message_and_kills_nobody_else(library: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DRJIT_LIBLLVM_PATH", library)
    with pytest.raises(UserError, match=r"LLVM 19 or newer: install it with  apt-get install -y libllvm19"):
        llvm.prove()
    assert not llvm._cache_file().exists()


def test_a_missing_llvm_names_the_way_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "libLLVM.so").write_bytes(b"nothing of the kind")
    monkeypatch.setenv("DRJIT_LIBLLVM_PATH", str(tmp_path / "libLLVM.so"))
    with pytest.raises(UserError, match=r"no ray tracing on this machine .*libllvm19"):
        llvm.prove()


def test_a_child_that_aborts_is_quoted(monkeypatch: pytest.MonkeyPatch):
    words = "LLVM ERROR: Cannot select: f32 = fmaximum"
    monkeypatch.setattr(llvm, "_PROGRAM", f"import os, sys; print({words!r}, file=sys.stderr, flush=True); os.abort()")
    with pytest.raises(UserError, match=f"killed by signal {signal.SIGABRT:d}, {words}"):
        llvm.prove()


def test_a_proof_is_kept_until_a_library_changes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    runs = tmp_path / "runs"
    monkeypatch.setattr(llvm, "_PROGRAM", f"open({str(runs)!r}, 'a').write('.')")
    for _ in range(2):
        assert llvm.prove().variant == llvm.VARIANTS[0]
        llvm.prove.cache_clear()  # as a new process
    assert runs.read_text() == "."
    library = tmp_path / "libLLVM-19.so"
    library.touch()
    monkeypatch.setenv("DRJIT_LIBLLVM_PATH", str(library))
    for time in (1, 2):
        os.utime(library, (time, time))
        llvm.prove()
        llvm.prove.cache_clear()
    assert runs.read_text() == "..."
