"""`geoml report RUNS…`: what runs of any domain left behind, as one page for a browser.

Domains come through the entry points of group `geoml.report`, so that the core names none: each is a function of a path
that gives a `Report`, or None where the path is not of its kind.
"""

from __future__ import annotations

import argparse
import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from geoml.errors import UserError
from geoml.report.blocks import Report, Text
from geoml.report.page import write_report

__all__ = ["gather", "main"]

GROUP = "geoml.report"
#: What a page may weigh and still open at once.
LARGEST_MB = 15


def main(arguments: Sequence[str]) -> list[dict[str, Any]]:
    """Write one page of several runs, stores or folders."""
    parser = argparse.ArgumentParser(
        prog="geoml report", description="Make one self-contained HTML page of finished runs, whatever made them."
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders and stores of radio maps")
    parser.add_argument("--output", default="report.html", help="where the page goes (default: %(default)s)")
    parser.add_argument("--title", help="what the page is called")
    flags = parser.parse_args(arguments)
    path = write_report(gather([Path(run) for run in flags.runs], title=flags.title), flags.output)
    size = path.stat().st_size / 1e6
    heavy = f"; pages above {LARGEST_MB} MB open slowly, give fewer runs" if size > LARGEST_MB else ""
    return [{"page": str(path), "MB": round(size, 2), "open": f"{path.absolute().as_uri()}{heavy}"}]


def gather(paths: Sequence[Path], *, title: str | None = None) -> Report:
    """The reports of all paths as one; a single one as it is.

    Errors: `UserError` for a path that is not there or that no domain knows.
    """
    found = [_report_of(path) for path in paths]
    if len(found) == 1:
        return replace(found[0], title=title or found[0].title)
    sections = []
    for report in found:
        first, *others = report.sections
        told = replace(first, blocks=[Text(report.summary), *first.blocks])
        sections += [replace(section, group=report.title) for section in (told, *others)]
    names = "; ".join(report.title for report in found)
    return Report(title or names, names, sections)


def _report_of(path: Path) -> Report:
    if not path.exists():
        raise UserError(f"{path} does not exist; give run folders or stores of radio maps")
    makers = _makers()
    for maker in makers.values():
        report = maker(path)
        if report is not None:
            return report
    raise UserError(
        f"{path} holds nothing that {', '.join(makers) or 'an installed domain'} can show; give the folder of a "
        "finished benchmark, a store of radio maps, or a folder of their results"
    )


def _makers() -> dict[str, Callable[[Path], Report | None]]:
    """The installed domains' functions, by name; one whose packages are absent is left out."""
    makers: dict[str, Callable[[Path], Report | None]] = {}
    for point in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda point: point.name):
        try:
            makers[point.name] = point.load()
        except ModuleNotFoundError:
            continue
    return makers
