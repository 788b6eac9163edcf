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
PACKAGES = ("geoml", "rainshift", "radiomaps", "mcp_experts", "benchmarks")
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
    modules += (ROOT / "docs").rglob("*.py")
    settings = [path for package in PACKAGES for path in (ROOT / package / "conf").rglob("*.yaml")]
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "Makefile", *(ROOT / "docs").rglob("*.md")]
    pages += [ROOT / "mcp_experts" / "client" / "SKILL.md", ROOT / "benchmarks" / "targets.yaml"]
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
