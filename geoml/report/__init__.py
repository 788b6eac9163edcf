"""Reports as one self-contained HTML file of tables, charts and maps, built from run folders.

A domain builds `Section`s of blocks (`Text`, `Table`, `Chart`, `Viewer`) and `write_report` writes the file. It loads
nothing from the network.
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
