"""Standard output of any encoding, full devices and logs that cannot be written."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from geoml.cli import app
from geoml.cli.definitions import App
from geoml.runs.log_file import LogFile

ROOT = Path(__file__).parent.parent.parent
PLAIN = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "LC_", "LANG"))}


def run(*words: str, **environment: str) -> subprocess.CompletedProcess:
    """Run a command line with its output captured as bytes."""
    return subprocess.run(
        [sys.executable, "-m", *words], env=PLAIN | {"PYTHONPATH": str(ROOT)} | environment, capture_output=True
    )


@pytest.mark.parametrize("words", [("rainshift", "--help"), ("rainshift", "predict", "--help"), ("geoml", "doctor")])
@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "latin-1"},
    ],
    ids=["ascii output", "C locale", "latin-1 output"],
)
def test_every_encoding_shows_every_page(words: tuple[str, ...], environment: dict[str, str]) -> None:
    done = run(*words, **environment)
    assert done.returncode == 0, done.stderr
    shown = run(*words, PYTHONUTF8="1").stdout.decode()
    if words[-1] == "--help":
        plain = shown.encode(environment.get("PYTHONIOENCODING", "ascii"), "backslashreplace")
        assert done.stdout == plain


@pytest.mark.parametrize("words", [["rainshift", "--help"], ["rainshift", "regions"], ["radiomaps", "scenes"]])
def test_a_full_standard_output_is_one_message(words: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", *words], env=PLAIN | {"PYTHONPATH": str(ROOT)}, stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode == 1
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("error: no space left while writing standard output")


def test_a_log_that_cannot_be_written_ends_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    handler = LogFile(Path("/dev/full"))
    logger = logging.Logger("test")
    logger.addHandler(handler)
    for _ in range(3):
        logger.error("a line that fills no disk")
    handler.close()
    assert capsys.readouterr().err == "/dev/full is not written any more: No space left on device\n"


def test_a_name_that_is_not_utf8_is_logged_and_printed(tmp_path: Path) -> None:
    handler = LogFile(tmp_path / "log.txt")
    logger = logging.Logger("test")
    logger.addHandler(handler)
    logger.error("caf\udce9")
    handler.close()
    assert (tmp_path / "log.txt").read_text() == "caf\\udce9\n"


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "in/rain.nc"), 2, "in/rain.nc: Permission denied"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "no space left while writing a file"),
        (OSError(errno.EMFILE, "Too many open files", "in/rain.nc"), 1, "too many open files, at in/rain.nc"),
        (MemoryError("Unable to allocate 9 TiB"), 1, "not enough memory: Unable to allocate 9 TiB"),
    ],
    ids=str,
)
def test_errors_of_the_system_name_what_they_are_about(error, code, words, monkeypatch, capsys) -> None:
    def fail(*_: object) -> int:
        raise error

    monkeypatch.setattr(app, "_dispatch", fail)
    assert app.main(App("rainshift", "", ()), []) == code
    assert words in capsys.readouterr().err


def test_an_error_of_the_program_keeps_its_traceback(monkeypatch) -> None:
    def fail(*_: object) -> int:
        raise FileExistsError(errno.EEXIST, "File exists", "made/twice")

    monkeypatch.setattr(app, "_dispatch", fail)
    with pytest.raises(FileExistsError):
        app.main(App("rainshift", "", ()), [])
