"""What the pages tell people to type exists."""

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from geoml.cli import compose
from radiomaps.raytrace.availability import prove

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
def test_every_verb_is_on_the_page_of_commands(name):
    text = (ROOT / "docs" / "commands.md").read_text()
    for verb in APPS[name].verbs:
        assert f"| `{name} {verb.name}` | {verb.help} |" in text


#: What makes the examples of the front page quick: small boxes, short records and few samples.
SMALLER = {
    '"test", size_deg=4)': '"test", size_deg=2, splits_at=SPLITS)',
    '["melanesia", "west-africa"], samples=6000, data__size_deg=4': (
        '["melanesia"], samples=16, data__size_deg=2, data__splits_at=SPLITS, model__network__base=8, '
        "model__network__multipliers=[1], "
        "loader__patch=0, loader__validation_samples=2"
    ),
    "members=8": "members=2",
    'rainshift.benchmark("experiment=demo")': "rainshift.benchmark",
    "rays=200_000": "rays=20_000",
    'mcp_experts.load_channel("channel.npz")': "mcp_experts.load_channel(CHANNEL)",
}
BEFORE = """
import numpy as np, matplotlib
matplotlib.use("Agg")
SPLITS = {part: {"start": f"{year}-01-01", "end": f"{year + 1}-01-01", "hours": 48}
          for part, year in (("train", 2001), ("validation", 2002), ("test", 2003))}
CHANNEL = "channel.npz"
np.savez(CHANNEL, csi=np.ones((64, 14, 1), np.complex64), subcarrier_spacing_hz=312500.0, snapshot_interval_s=1e-3)
"""


@pytest.mark.parametrize("package", ["rainshift", "radiomaps", "mcp_experts"])
def test_the_lines_of_python_run(package, tmp_path):
    if package == "radiomaps":
        prove()
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    (code,) = [block for block in blocks if f"import {package}" in block]
    assert len(code.strip().splitlines()) <= 11
    for long, short in SMALLER.items():
        code = code.replace(long, short)
    done = subprocess.run([sys.executable, "-c", BEFORE + code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_pictures_are_there_and_small():
    names = re.findall(r"!\[[^]]+\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    assert len(names) == 3
    for name in names:
        assert (ROOT / name).stat().st_size < 600_000
