"""Reports for a browser: one self-contained HTML file of tables, charts and maps, made from what runs left behind.

A domain builds `Section`s of blocks (`Text`, `Table`, `Chart`, `Viewer`) and `write_report` makes the file. Nothing in
it is fetched from the network, so that it works from a disk and in ten years.
"""

from geoml.report.blocks import Axis, Block, Chart, Field, Panel, Report, Section, Table, Text, Viewer
from geoml.report.page import write_report

__all__ = ["Axis", "Block", "Chart", "Field", "Panel", "Report", "Section", "Table", "Text", "Viewer", "write_report"]
