"""XML of others, read without entities: a document that declares some is refused before it is expanded."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

from geoml.errors import DataError, UserError

__all__ = ["read_xml"]


class _Read(Exception):
    """The first element was met: what comes before it is read."""


def read_xml(path: Path, root: str) -> ElementTree.Element:
    """The element `root` of an XML file; `DataError` in one line for a missing, empty, cut or hostile file."""
    if not path.is_file():
        raise UserError(f"{path} does not exist")
    _refuse_entities(path)
    try:
        found = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # LookupError: an encoding nobody knows
        empty = path.stat().st_size == 0
        cause = "is empty" if empty else f"is not valid XML ({error}); it may be truncated"
        raise DataError(f"{path} {cause}") from error
    if found.tag != root:
        raise DataError(f"{path} is no file of this kind: it begins with <{found.tag[:40]}>, not <{root}>")
    return found


def _refuse_entities(path: Path) -> None:
    def entity(*declared: Any) -> None:
        raise DataError(f"{path} declares XML entities ({declared[0]!r}), which are not read; write the text itself")

    def element(*_: Any) -> None:
        raise _Read

    parser = expat.ParserCreate()
    parser.EntityDeclHandler = entity
    parser.StartElementHandler = element
    try:
        with open(path, "rb") as stream:
            parser.ParseFile(stream)
    except (_Read, expat.ExpatError, LookupError, ValueError):
        pass  # what is wrong with the rest is said by the reader of the tree
