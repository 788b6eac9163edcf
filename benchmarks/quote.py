"""Pages quote figures from `benchmarks/results` alone: this fills the marked blocks, and with `--check` compares them.

A block is `<!-- figures:NAME -->` to `<!-- /figures -->`; what stands between is replaced. NAME is a benchmark, or
NAME-full its larger case.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

from geoml.cli.tables import markdown

__all__ = ["fill", "pages", "quoted"]

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"(<!-- figures:([\w-]+) -->\n)(.*?)(<!-- /figures -->)", re.DOTALL)


def pages(root: Path = ROOT) -> list[Path]:
    """The pages that may quote figures."""
    return [path for path in (root / "README.md", *sorted((root / "docs").rglob("*.md"))) if path.exists()]


def quoted(name: str, folder: Path = ROOT / "benchmarks") -> str:
    """The Markdown that stands for the committed figures of one benchmark."""
    script, full = name.removesuffix("-full"), " --full" if name.endswith("-full") else ""
    declared: dict[str, Any] = yaml.safe_load((folder / "targets.yaml").read_text())[script]["figures"]
    path = folder / "results" / f"{name}.json"
    if not path.exists():
        return f"Not measured yet: `python benchmarks/{script}.py{full} --save` writes the figures.\n"
    result = json.loads(path.read_text())
    rows = [
        {
            "figure": f"`{key}`",
            "value": value,
            "goal": "{} {:g}".format(*result["goals"][key]),
            "what it is": declared[key]["definition"],
            "against": declared[key]["peer"],
        }
        for key, value in result["figures"].items()
    ]
    place = ", ".join([result["cpu"], f"{result['cores']} cores", *result["gpus"]])
    return f"{markdown(rows)}\n\n`{result['command']}`, {result['date']}, {place}.\n"


def fill(text: str, folder: Path = ROOT / "benchmarks") -> str:
    """A page with its blocks as the committed results have them."""
    return BLOCK.sub(lambda match: match[1] + quoted(match[2], folder) + match[4], text)


def main() -> int:
    """Fill the pages, or say with `--check` which are out of date (exit code 1)."""
    stale = [path for path in pages() if fill(path.read_text()) != path.read_text()]
    for path in stale:
        if "--check" in sys.argv:
            print(f"{path.name} is out of date: make figures", file=sys.stderr)
        else:
            path.write_text(fill(path.read_text()))
            print(f"filled {path.name}")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
