"""The documentation: every page is reachable, links lead somewhere, it builds without warnings, notebooks run."""

import ast
import importlib
import json
import operator
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.md"))


def prose(page: Path) -> str:
    """The text of a page without its fenced blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def code(page: Path) -> list[str]:
    """The cells of a notebook."""
    return re.findall(r"^```\{code-cell\} python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def entries(page: Path) -> set[Path]:
    """The pages that a page's tables of contents name."""
    found: set[Path] = set()
    for block in re.findall(r"^:::\{toctree\}\n(.*?)^:::", page.read_text(), re.DOTALL | re.MULTILINE):
        names = [line.strip() for line in block.splitlines() if line.strip() and not line.startswith(":")]
        found.update(path for name in names for path in page.parent.glob(f"{name}.md"))
    return found


def test_every_page_is_reached_from_the_first_one() -> None:
    reached, pending = set(), [DOCS / "index.md"]
    while pending:
        page = pending.pop()
        if page not in reached:
            reached.add(page)
            pending += entries(page)
    assert {str(page.relative_to(DOCS)) for page in set(PAGES) - reached} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", prose(page))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_a_page_begins_with_its_title(page: Path) -> None:
    text = re.sub(r"\A---\n.*?\n---\n", "", page.read_text(), flags=re.DOTALL).lstrip()
    assert text.startswith("# ")
    assert len(re.findall(r"^# ", prose(page), re.MULTILINE)) == 1


def test_three_notebooks() -> None:
    assert len(NOTEBOOKS) == 3


@pytest.mark.parametrize("package", ["geoml", "rainshift", "radiomaps", "mcp_experts"])
def test_the_reference_of_a_package_has_exactly_its_public_names(package: str) -> None:
    """`dir` of the package, its page of the reference, and the imports for type checkers name the same."""
    module = importlib.import_module(package)
    page = (DOCS / "api" / f"{package}.md").read_text()
    described = set(re.findall(rf"^\.\. auto\w+:: {package}\.(\w+)$", page, re.MULTILINE))
    described |= {
        name for name in dir(module) if re.search(rf"^\.\. auto\w+:: {package}\.{name}\.", page, re.MULTILINE)
    }
    assert sorted(described) == dir(module)
    tree = ast.parse(Path(module.__file__).read_text())
    aliases = [alias for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert sorted(alias.asname for alias in aliases if alias.asname) == dir(module)


def test_the_notebook_on_rain_uses_every_public_function() -> None:
    cells = " ".join(code(DOCS / "notebooks" / "downscaling.md"))
    assert set(re.findall(r"\brainshift\.(\w+)\(", cells)) == {"open", "train", "load", "evaluate", "benchmark"}
    assert "model.predict(" in cells


@pytest.mark.slow
@pytest.mark.parametrize("page", NOTEBOOKS, ids=lambda page: page.stem)
def test_a_notebook_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from myst_nb.core.read import read_myst_markdown_notebook
    from nbclient import NotebookClient

    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    notebook = read_myst_markdown_notebook(page.read_text())
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert cells
    assert all(cell.execution_count for cell in cells)


@pytest.mark.slow
def test_it_builds_without_warnings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Notebooks are left out: they have a test of their own."""
    monkeypatch.setenv("GEOML_NOTEBOOKS", "off")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-W",
        "--keep-going",
        "-b",
        "html",
        str(DOCS),
        str(tmp_path / "html"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "html" / "guides" / "rain.html").exists()
    assert "crps_fair" in (tmp_path / "html" / "api" / "radiomaps.html").read_text()
    assert "<mfrac>" in (tmp_path / "html" / "concepts" / "regridding.html").read_text()
    fetched = r"""<(?:script|link|img)\b[^>]*(?:src|href)=["'](?:https?:)?//"""
    assert [page.name for page in (tmp_path / "html").rglob("*.html") if re.search(fetched, page.read_text())] == []
    shutil.rmtree(tmp_path / "html")


def test_the_evidence_names_every_figure_and_every_miss() -> None:
    benchmarks = DOCS.parent / "benchmarks"
    known, missed = (DOCS / "evidence.md").read_text().split("## What misses its goal")
    compare = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
    for name in yaml.safe_load((benchmarks / "targets.yaml").read_text()):
        assert f"`{name}`" in known, f"docs/evidence.md says nowhere what {name} is measured on"
    for path in (benchmarks / "results").glob("*.json"):
        result = json.loads(path.read_text())
        for key, (sign, goal) in result["goals"].items():
            value = result["figures"][key]
            if value is not None and not compare[sign](value, goal):
                assert f"`{key}` of `{path.stem}`" in missed, (
                    f"{key} of {path.stem} misses its goal; docs/evidence.md has to say so"
                )


def test_third_party_notices_name_all_that_is_needed() -> None:
    text = (DOCS.parent / "THIRD_PARTY_NOTICES.md").read_text()
    named = {line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")}
    sys.path.insert(0, str(DOCS))
    try:
        from notices import required
    finally:
        sys.path.remove(str(DOCS))
    assert set(required()) <= named, "python docs/notices.py writes the page again"
