"""Reports on run folders: data blocks that are rendered as one self-contained HTML file, or as Markdown with PNG files.

A domain builds `Section`s of blocks (`Text`, `Table`, `Chart`, `Viewer`); `write_report` writes an HTML
page that loads nothing from the network, `write_markdown` a version for print.
"""

from geoml.report.blocks import Block, Chart, Panel, Report, Section, Table, Text, Viewer, ViewerAxis, ViewerField
from geoml.report.markdown import write_markdown, write_pages
from geoml.report.page import write_report

__all__ = [
    "Block",
    "Chart",
    "Panel",
    "Report",
    "Section",
    "Table",
    "Text",
    "Viewer",
    "ViewerAxis",
    "ViewerField",
    "write_markdown",
    "write_pages",
    "write_report",
]
