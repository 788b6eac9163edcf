"""Reports as Markdown with the figures as PNG files in the same folder, for print."""

from __future__ import annotations

import os
from pathlib import Path

from geoml.cli.tables import markdown
from geoml.report.blocks import Block, Report, Table, Text, Viewer
from geoml.report.drawing import draw_plot, draw_viewer, save_figure
from geoml.report.figures import Plot
from geoml.report.page import anchor, write_report
from geoml.runs.files import atomic_path

__all__ = ["write_markdown", "write_pages"]


def write_markdown(report: Report, path: str | os.PathLike[str]) -> Path:
    """Write the report as Markdown, its charts and maps as PNG files in the same folder; returns the path.

    Figures in 3-D are left out. Each file is written atomically; the Markdown file is written last.

    >>> import tempfile
    >>> page = write_markdown(Report("Nothing yet", "An empty report."), Path(tempfile.mkdtemp(), "report.md"))
    >>> page.read_text()
    '# Nothing yet\\n\\nAn empty report.\\n'
    """
    path, names = Path(path), dict[str, int]()
    parts = [f"# {report.title}", report.summary]
    for section in report.sections:
        parts.append("## " + ": ".join(filter(None, (section.group, section.title))))
        for block in section.blocks:
            parts += _parts(block, path.parent, section.title, names)
    with atomic_path(path) as partial:
        partial.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")
    return path


def write_pages(report: Report, folder: Path) -> Path:
    """Write the report as `report.html` for the browser and as `report.md` for print; returns the first path."""
    write_markdown(report, folder / "report.md")
    return write_report(report, folder / "report.html")


def _parts(block: Block, folder: Path, title: str, names: dict[str, int]) -> list[str]:
    """A block as paragraphs; a figure is written into the folder under the title of its section."""
    if isinstance(block, Text):
        return [f"```\n{block.text.strip()}\n```" if block.kind == "code" else block.text]
    if isinstance(block, Table):
        return [f"{block.caption}:", markdown(block.rows)]
    if isinstance(block, Viewer):
        figure = draw_viewer(block)
    elif isinstance(block.figure, Plot):
        figure = draw_plot(block.figure)
    else:
        return []
    file = f"{anchor(title, names)}.png"
    save_figure(figure, folder / file)
    return [f"![{block.alt}]({file})", block.caption]
