"""Reports built once as data, from run folders: one self-contained HTML file, or Markdown with PNG files.

A domain builds `Section`s of blocks (`Text`, `Table`, `Chart`, `Viewer`); `write_report` writes the page for the
browser, which loads nothing from the network, and `write_markdown` the one for print.
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
