"""Plain technical English: words of the project's earlier dialect do not come back."""

from __future__ import annotations

import ast
import functools
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
#: Packages whose language has been revised; the others follow.
PACKAGES = ("geoml", "rainshift", "radiomaps", "mcp_experts", "benchmarks")
#: Pages whose language has been revised.
PAGES = (
    *("CONTRIBUTING.md", "Makefile", "docs/reading.md", "docs/commands.md", "docs/api/rainshift.md"),
    *("docs/guides/rain.md", "docs/notebooks/downscaling.md", "docs/howto/coarse-files.md", "docs/howto/own-data.md"),
    *("docs/howto/own-model.md", "docs/howto/own-region.md", "docs/concepts/regridding.md"),
    *("docs/concepts/shift-and-scores.md", "docs/concepts/calibration-and-trust.md"),
    *("docs/api/radiomaps.md", "docs/concepts/ray-tracing.md", "docs/guides/radio-maps.md", "docs/howto/antennas.md"),
    *("docs/howto/calibration.md", "docs/howto/generalisation.md", "docs/howto/materials.md"),
    *("docs/howto/own-scene.md", "docs/howto/scene-formats.md", "docs/notebooks/radio-map.md"),
    *("benchmarks/targets.yaml", "docs/experts.md", "docs/experts-training.md", "docs/experts-scores.md"),
    *("docs/experts-evaluation.md", "docs/experts-conformance.md", "docs/evidence.md", "docs/index.md"),
    *("docs/concepts/handles-and-verdicts.md", "docs/api/mcp_experts.md", "docs/howto/own-expert.md"),
    *("docs/guides/wireless-experts.md", "mcp_experts/client/SKILL.md"),
)
#: Files of other origin or of data, and pages that are generated from them.
EXEMPT = {"docs/experts-transcript.md"}

#: A word or phrase, and what to write in its place.
BANNED = {
    r"\btold\b": "given, reported, stated",
    r"\bbeside\b": "next to, in addition to",
    r"\b(told|keep|kept|keeps|set|tell|stands?) apart\b|\bapart from\b": "distinguish, separate, except for",
    r"\bspoilt\b": "corrupted, degraded",
    r"\bdoctored\b": "mock, falsified",
    r"\blearnt\b": "learned, trained, fitted",
    r"\bmend(s|ed|ing)?\b": "fix, repair, correct",
    r"\b(came|comes?) to nothing\b|\bwhat \w+ came to\b": "result",
    r"\bwhole or not at all\b|\b(is|are) whole\b|\bwritten whole\b|\bno whole\b": "atomically, complete, valid",
    r"\bof (its|one's|their|your|our|his) own\b": "separate, user-defined, your",
    r"\bhindrance\b": "is allowed, is overwritten",
    r"\bis none (that|which)\b|\bare none (that|which)\b": "invalid, unknown",
    r"\ba row an? \w+|\bone an axis\b|\ba line an? \w+": "one row per …",
    r"\bbe it\b|\bto any eye\b|\bhas no say\b|\bin vain\b": "plain words",
    r"\bgo(es)? on (from|with it|where)\b": "resume, continue",
}


@functools.cache
def prose(path: Path) -> list[tuple[int, str]]:
    """Line and text of every docstring, comment and message of a module, or of the paragraphs of a page."""
    text = path.read_text()
    if path.suffix != ".py":
        return [(1, re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL))]
    found = [
        (node.lineno, node.value)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value
    ]
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return found + [(token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT]


def texts() -> list[Path]:
    """Modules, configurations and pages whose language the rule is for."""
    modules = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    settings = [path for package in PACKAGES for path in (ROOT / package / "conf").rglob("*.yaml")]
    pages = [ROOT / page for page in PAGES]
    return sorted(path for path in (*modules, *settings, *pages) if str(path.relative_to(ROOT)) not in EXEMPT)


@pytest.mark.parametrize("pattern", BANNED)
def test_words_of_the_old_dialect_do_not_come_back(pattern: str) -> None:
    rule = re.compile(pattern, re.IGNORECASE)
    found = [
        f"{path.relative_to(ROOT)}:{line + words[: match.start()].count(chr(10))}: {match[0]}"
        for path in texts()
        for line, words in prose(path)
        for match in rule.finditer(words)
    ]
    assert not found, f"write {BANNED[pattern]} instead of\n" + "\n".join(found)


def test_terms_of_the_glossary_are_defined_where_it_says() -> None:
    rows = [line.split("|")[1:4] for line in (ROOT / "docs" / "glossary.md").read_text().splitlines() if "`" in line]
    terms = [term.strip() for term, _, _ in rows]
    assert len(terms) > 30
    assert len(set(terms)) == len(terms)
    for _, _, places in rows:
        for name in re.findall(r"`([\w.]+)`", places):
            path = ROOT / name.replace(".", "/")
            assert path.is_dir() or path.with_suffix(".py").is_file(), name


def test_the_rule_reads_docstrings_comments_and_messages(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text('"""What is told."""\nx = f"{1} was told"  # is told\nname = "told"\n')
    assert sum("told" in words for _, words in prose(module)) == 3
