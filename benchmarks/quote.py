"""Fill the figure blocks of pages from `benchmarks/results`; with `--check`, only compare them.

A block is the text from `<!-- figures:NAME -->` to `<!-- /figures -->`. NAME is a benchmark, NAME-full its larger
case, or `summary`, the short table of the front page.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

from geoml.cli.tables import markdown

__all__ = ["fill", "pages", "quoted", "summary"]

#: Rows of the table on the front page: benchmark, figure, and its meaning in a sentence.
SUMMARY = {
    ("raytrace", "vs_stock_20_layers"): "Tracing 20 height layers with delays and directions, `estimator=axis`: "
    "processor time of 20 stock Sionna RT calls for gain alone, over ours",
    ("raytrace", "default_vs_stock_20_layers"): "The same for the default estimator, `paths`",
    ("raytrace", "paths_agreement_db"): "Traced gain out of sight against exact paths: median difference in dB",
    ("loader", "vs_xbatcher"): "Random patches per processor second, ours over xbatcher on Dask",
    ("crps", "vs_best_m50"): "CRPS of 50 members: time of the fastest of three libraries over ours",
    ("regrid", "vs_best"): "Conservative regridding: time of the fastest peer over ours",
    ("oracle", "diffusion_crps_over_oracle"): "CRPS of a trained diffusion over the best possible CRPS",
    ("planet", "skill_lost_left_out"): "Share of a U-Net's skill that is lost in regions it was not trained on",
    ("travel", "worst_region_over_rainfarm"): "CRPS of the general rain model without local data, over RainFARM's: "
    "worst of six synthetic regions",
    ("travel", "zero_shot_over_rainfarm"): "The same on radar of four countries, worst country",
    (
        "radiodiff",
        "nmse_over_best_baseline",
    ): "RadioDiff-3D: error over that of the best baseline, worst of four targets",
    ("city_maps", "city_rmse_over_best_baseline"): "The general radio model, in two cities it was not trained on: "
    "error out of sight over that of the best baseline, worse city",
    ("mcp", "stdio_p50_over_bare"): "A question to an expert over MCP: time over that of an echo",
}

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"(<!-- figures:([\w-]+) -->\n)(.*?)(<!-- /figures -->)", re.DOTALL)


def pages(root: Path = ROOT) -> list[Path]:
    """Return the pages that may quote figures."""
    return [path for path in (root / "README.md", *sorted((root / "docs").rglob("*.md"))) if path.exists()]


def quoted(name: str, folder: Path = ROOT / "benchmarks") -> str:
    """Return the committed figures of one benchmark as Markdown."""
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
            "goal": "{} {:g}".format(*result["goals"][key]) if key in result["goals"] else "",
            "what it is": declared[key]["definition"],
            "against": declared[key]["peer"],
        }
        for key, value in result["figures"].items()
    ]
    place = ", ".join([result["cpu"], f"{result['cores']} cores", *result["gpus"]])
    return f"{markdown(rows)}\n\n`{result['command']}`, {result['date']}, {place}.\n"


def summary(folder: Path = ROOT / "benchmarks") -> str:
    """Return the short table of the front page, with the figures that have been measured."""
    rows = []
    for (script, key), about in SUMMARY.items():
        path = folder / "results" / f"{script}.json"
        result = json.loads(path.read_text()) if path.exists() else {"figures": {}}
        if result["figures"].get(key) is None:
            continue
        goal = "{} {:g}".format(*result["goals"][key]) if key in result["goals"] else None
        rows.append(
            {"figure": about, "measured": result["figures"][key], "goal": goal, "command": f"`{result['command']}`"}
        )
    return f"{markdown(rows)}\n"


def fill(text: str, folder: Path = ROOT / "benchmarks") -> str:
    """Return a page with its blocks filled from the committed results."""
    return BLOCK.sub(lambda match: match[1] + _block(match[2], folder) + match[4], text)


def _block(name: str, folder: Path) -> str:
    return summary(folder) if name == "summary" else quoted(name, folder)


def main() -> int:
    """Fill the pages; with `--check`, list the pages that are out of date (exit code 1)."""
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
