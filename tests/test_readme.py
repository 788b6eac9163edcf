"""What the pages tell people to type exists."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

from geoml.cli import compose

ROOT = Path(__file__).parent.parent
APPS = {
    app.name: app
    for app in (
        importlib.import_module(f"{name}.__main__").APP for name in ("geoml", "rainshift", "radiomaps", "mcp_experts")
    )
}
PAGES = [
    page for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")) if page.exists()
]


def commands(page):
    """Lines of fenced blocks and inline code that begin with a command of this project."""
    text = re.sub(r"\\\n\s*", " ", page.read_text())
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
    for line in [line for block in blocks for line in block.splitlines()] + inline:
        typed = line.partition("#")[0].strip()
        if typed.partition(" ")[0] in (*APPS, "make", "python") and len(words := shlex.split(typed)) > 1:
            yield words


TYPED = sorted({shlex.join(words) for page in PAGES for words in commands(page)})


def test_the_two_commands_stand_on_top():
    first = (ROOT / "README.md").read_text().partition("```")[2].partition("```")[0]
    assert re.findall(r"^make (\w+)", first, re.MULTILINE) == ["demo", "test"]
    assert len(TYPED) > 10


@pytest.mark.parametrize("line", TYPED)
def test_a_command_names_what_exists(line):
    program, first, *rest = shlex.split(line)
    if program == "make":
        assert re.search(rf"^{first}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif program == "python":
        assert first == "-m" or (ROOT / first).exists()
    else:
        app = APPS[program]
        verb = app.verb(first)
        settings = [re.sub(r"\$\w+", "1", word) for word in rest if "=" in word]  # what a loop of the shell fills in
        if settings and not verb.plain:
            compose.load(compose.loader(app.config_module), verb.name, settings, sweep="-m" in rest)


@pytest.mark.parametrize("name", sorted(APPS))
def test_every_verb_is_in_the_readme(name):
    text = (ROOT / "README.md").read_text()
    for verb in APPS[name].verbs:
        assert f"`{name} {verb.name}`" in text
