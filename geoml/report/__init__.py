"""Reports for a browser: one self-contained HTML file of tables, charts and maps, made from what runs left behind.

A domain builds `Section`s of blocks (`Text`, `Table`, `Chart`, `Viewer`) and `write_report` makes the file. Nothing in
it is fetched from the network, so that it works from a disk and in ten years.
"""

from geoml.report.blocks import Block, Chart, Panel, Report, Section, Table, Text, Viewer, ViewerAxis, ViewerField
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
    "write_report",
]
