"""What is published holds all that the source does, and runs where the source is not."""

from __future__ import annotations

import importlib.metadata
import itertools
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PACKAGES = ("geoml", "rainshift", "radiomaps", "mcp_experts")


def source_files() -> set[str]:
    """Every file that git keeps of the four packages, or would."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *PACKAGES],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the wheel and the source distribution, made without a network."""
    folder = tmp_path_factory.mktemp("dist")
    make = (
        "import sys; from hatchling import build; "
        "print(build.build_wheel(sys.argv[1])); print(build.build_sdist(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", make, str(folder)], cwd=ROOT, check=True, capture_output=True)
    return folder


def test_the_wheel_holds_every_file_of_the_packages_and_no_other(built) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = [name for name in archive.namelist() if ".dist-info/" in name]
    assert held == source_files()
    assert any(name.endswith("LICENSE") for name in metadata)
    assert wheel.stat().st_size < 10e6


def test_the_source_distribution_holds_the_tests_too(built) -> None:
    (source,) = built.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert source_files() <= names
    assert {"pyproject.toml", "Makefile", "constraints.txt", "tests/test_packaging.py", "LICENSE"} <= names


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (["geoml", "--version"], "geoml "),
        (["rainshift", "regions"], "melanesia"),
        (["rainshift", "benchmark", "--help"], "experiment"),
        (["radiomaps", "trace", "--help"], "scene"),
        (["mcp_experts", "config", "claude"], "mcpServers"),
    ],
)
def test_what_was_built_runs_where_the_source_is_not(built, tmp_path_factory, words, printed) -> None:
    (wheel,) = built.glob("*.whl")
    site = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    # -P: not the folder the command is typed in; PYTHONPATH goes before the editable source.
    environment = {**os.environ, "PYTHONPATH": str(site)}
    run = subprocess.run(
        [sys.executable, "-P", "-m", *words], cwd=site.parent, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert printed in run.stdout
    where = "import geoml, rainshift, radiomaps, mcp_experts; print(geoml.__file__)"
    found = subprocess.run([sys.executable, "-P", "-c", where], env=environment, capture_output=True, text=True)
    assert found.stdout.startswith(str(site))


def test_the_constraints_pin_what_is_installed_and_no_more() -> None:
    """The pinned names are the closure of the project's requirements, all extras included.

    What `[bench]` and `[llm]` bring, which `make setup` does not install, stands below a comment; it is checked where
    all of `[bench]` is installed.
    """
    blocks = re.split("^#.*$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
    pinned, of_peers = ({canonicalize_name(line.partition("==")[0]) for line in block.split()} for block in blocks)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    needed, queue, absent = set(), [Requirement(text) for text in wanted], set()
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        for extra in ("", *requirement.extras):
            if (name, extra) in needed:
                continue
            needed.add((name, extra))
            try:
                listed = importlib.metadata.requires(name) or []
            except importlib.metadata.PackageNotFoundError:
                absent.add(name)
                continue
            queue += [
                each for each in map(Requirement, listed) if not each.marker or each.marker.evaluate({"extra": extra})
            ]
    peers, model = (
        {canonicalize_name(Requirement(text).name) for text in project["optional-dependencies"][extra]}
        for extra in ("bench", "llm")
    )
    assert sorted(absent - peers - model - of_peers) == []
    names = {name for name, _ in needed} - {"geoml", "setuptools"}
    assert sorted(pinned - names) == []
    # The build of torch for CUDA brings its libraries, which it pins itself.
    of_cuda = {name for name in names if name.startswith(("cuda-", "nvidia-")) or name == "triton"}
    assert sorted(names - pinned - of_peers - of_cuda) == []
    if not absent - model:
        # jsmin: a requirement of pysteps when it is built, which its metadata do not name
        assert sorted(of_peers - names) == ["jsmin"]
