"""Safe reading of XML: a document that declares entities is refused before they are expanded."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray

from geoml.errors import DataError, UserError

__all__ = ["read_xml", "transform_of"]


class _Read(Exception):
    """Raised at the first element, when everything before it has been read."""


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
        raise DataError(
            f"{path} declares XML entities ({declared[0]!r}), which are refused; replace them by their text"
        )

    def element(*_: Any) -> None:
        raise _Read

    parser = expat.ParserCreate()
    parser.EntityDeclHandler = entity
    parser.StartElementHandler = element
    try:
        with open(path, "rb") as stream:
            parser.ParseFile(stream)
    except (_Read, expat.ExpatError, LookupError, ValueError):
        pass  # the parser of the tree reports errors in the rest of the file


def transform_of(shape: ElementTree.Element, defaults: dict[str, str], *, where: str) -> NDArray[np.float64] | None:
    """The matrix (4, 4) of a shape's `to_world` transform, or None; its steps apply in the order they stand in.

    >>> shape = ElementTree.fromstring('<s><transform><scale value="2"/><translate x="1"/></transform></s>')
    >>> transform_of(shape, {}, where="x")[0].tolist()
    [2.0, 0.0, 0.0, 1.0]
    """
    transform = shape.find("transform")
    if transform is None:
        return None
    matrix = np.eye(4)
    for step in transform:
        values = {key: defaults.get(text[1:], text) if text[:1] == "$" else text for key, text in step.attrib.items()}
        try:
            matrix = _step(step.tag, values) @ matrix
        except (ValueError, ZeroDivisionError) as error:
            raise DataError(f"{where}: transform <{step.tag}> cannot be read ({error})") from error
    if not np.isfinite(matrix).all():
        raise DataError(f"{where}: its transform is not finite")
    return matrix


def _step(kind: str, values: dict[str, str]) -> NDArray[np.float64]:
    found = np.eye(4)
    listed = [float(word) for word in values.get("value", "").replace(",", " ").split()]
    if kind == "matrix":
        size = {16: 4, 9: 3}[len(listed)] if len(listed) in (16, 9) else 0
        if not size:
            raise ValueError(f"{len(listed)} numbers; 16 were expected")
        found[:size, :size] = np.reshape(listed, (size, size))
        if found[3].tolist() != [0.0, 0.0, 0.0, 1.0]:
            raise ValueError("its last row is not 0 0 0 1")
        return found
    neutral = 1.0 if kind == "scale" else 0.0
    listed = listed * 3 if len(listed) == 1 else listed
    x, y, z = listed if len(listed) == 3 else (float(values.get(axis, neutral)) for axis in "xyz")
    if kind == "translate":
        found[:3, 3] = x, y, z
    elif kind == "scale":
        found[:3, :3] = np.diag([x, y, z])
    elif kind == "rotate":
        axis = np.array([x, y, z]) / np.hypot(np.hypot(x, y), z)
        angle = np.radians(float(values.get("angle", 0.0)))
        skew = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
        found[:3, :3] = np.eye(3) + np.sin(angle) * skew + (1 - np.cos(angle)) * skew @ skew  # Rodrigues
    else:
        raise ValueError("unknown; translate, rotate, scale and matrix are read")
    return found
