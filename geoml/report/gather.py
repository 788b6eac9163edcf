"""`geoml report RUNS…`: write one HTML page about finished runs of any domain.

Domains register through the entry points of group `geoml.report`, so that the core does not depend on them. An
entry point is a function from a path to a `Report`, or to None if the path is not a run of the domain.
"""

from __future__ import annotations

import argparse
import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from geoml.errors import UserError
from geoml.report.blocks import Report, Text
from geoml.report.markdown import write_markdown
from geoml.report.page import write_report

__all__ = ["Makers", "gather", "main", "parser", "written"]

Makers = Mapping[str, Callable[[Path], Report | None]]
PAGE = "report.html"
GROUP = "geoml.report"
#: Size of a page in MB above which it opens slowly.
LARGEST_MB = 15


def main(arguments: Sequence[str]) -> list[dict[str, Any]]:
    """Write one page of several runs, stores or folders."""
    about = "Make one self-contained HTML page of finished runs of any domain."
    return written(parser("geoml report", about).parse_args(arguments), _makers())


def parser(prog: str, about: str) -> argparse.ArgumentParser:
    """The argument parser of every `report` verb: runs, output file and title."""
    made = argparse.ArgumentParser(prog=prog, description=about)
    made.add_argument("runs", nargs="+", metavar="RUN", help="a run folder, a store or another folder of results")
    made.add_argument(
        "--output",
        metavar="FILE",
        help=(f"path of the page (default: RUN/{PAGE}; {PAGE} of several); FILE.md is Markdown with PNG files"),
    )
    made.add_argument("--title", metavar="TEXT", help="title of the page")
    return made


def written(flags: argparse.Namespace, makers: Makers) -> list[dict[str, Any]]:
    """Write the page for parsed flags; returns a row with its path and size."""
    runs = [Path(run) for run in flags.runs]
    found = gather(runs, title=flags.title, makers=makers)
    alone = len(runs) == 1 and (runs[0] / "config.yaml").exists()
    path = Path(flags.output or (runs[0] / PAGE if alone else PAGE))
    (write_markdown if path.suffix == ".md" else write_report)(found, path)
    size = path.stat().st_size / 1e6
    heavy = f"; pages over {LARGEST_MB} MB open slowly; give fewer runs" if size > LARGEST_MB else ""
    return [{"page": str(path), "MB": round(size, 2), "open": f"{path.absolute().as_uri()}{heavy}"}]


def gather(paths: Sequence[Path], *, title: str | None = None, makers: Makers | None = None) -> Report:
    """The reports of all paths merged into one.

    `makers` maps each domain to a function from a path to a report (default: all installed domains). Raises
    `UserError` for a path that does not exist or that no maker recognises.
    """
    makers = _makers() if makers is None else makers
    found = [_report_of(path, makers) for path in paths]
    if len(found) == 1:
        return replace(found[0], title=title or found[0].title)
    sections = []
    for report in found:
        first, *others = report.sections
        told = replace(first, blocks=[Text(report.summary), *first.blocks])
        sections += [replace(section, group=report.title) for section in (told, *others)]
    names = "; ".join(report.title for report in found)
    return Report(title or names, names, sections)


def _report_of(path: Path, makers: Makers) -> Report:
    if not path.exists():
        name, setting, value = str(path).partition("=")
        hint = f"; give folders without a key: {value} instead of {name}={value}" if setting else ""
        raise UserError(f"{path} does not exist; give run folders or stores{hint}")
    for maker in makers.values():
        report = maker(path)
        if report is not None:
            return report
    raise UserError(
        f"{path} holds nothing that {', '.join(makers) or 'an installed domain'} can show; give the folder of a "
        "finished run of benchmark, predict, evaluate, trace or sample, a store of radio maps, or a folder of experts"
    )


def _makers() -> Makers:
    """The functions of installed domains by name; domains with missing packages are left out."""
    makers: dict[str, Callable[[Path], Report | None]] = {}
    for point in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda point: point.name):
        try:
            makers[point.name] = point.load()
        except ModuleNotFoundError:
            continue
    return makers
