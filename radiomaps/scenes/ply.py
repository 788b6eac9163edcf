"""Triangle meshes in PLY, binary and text."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoml.errors import DataError
from geoml.runs.files import atomic_path
from radiomaps.scenes.polygons import triangles_of

__all__ = ["read_ply", "write_ply"]

_TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4",
    "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4",
    "float32": "f4", "float64": "f8",
}  # fmt: skip
_INDICES = ("vertex_indices", "vertex_index")
#: Name, number of rows, and declaration of each property.
Element = tuple[str, int, list[list[str]]]
Mesh = tuple[NDArray[np.float64], NDArray[np.int32]]


def read_ply(path: str | os.PathLike[str]) -> Mesh:
    """Vertices (n, 3) and triangles (m, 3) of a PLY file; faces with more corners are split into triangles."""
    content = Path(path).read_bytes()
    head, mark, body = content.partition(b"end_header")
    if not content.startswith(b"ply") or not mark:
        raise DataError(f"{path} is no PLY file, or its header is cut off")
    body = body.split(b"\n", 1)[1] if b"\n" in body else b""
    try:
        encoding, elements = _header(head.decode("ascii", "replace"))
        if encoding == "ascii":
            vertices, faces = _read_text(body, elements)
        else:
            vertices, faces = _read_binary(body, elements, "<" if encoding == "binary_little_endian" else ">")
        return vertices, triangles_of(vertices, faces)
    except (ValueError, KeyError, IndexError, OverflowError) as error:
        cause = " ".join(str(error).split())
        raise DataError(f"{path} cannot be read as a mesh ({cause}); it may be truncated") from error


def _header(text: str) -> tuple[str, list[Element]]:
    encoding = ""
    elements: list[Element] = []
    for words in map(str.split, text.splitlines()):
        if words[:1] == ["format"]:
            encoding = words[1]
        elif words[:1] == ["element"]:
            elements.append((words[1], int(words[2]), []))
            if elements[-1][1] < 0:
                raise ValueError(f"{words[2]} rows of {words[1]}")
        elif words[:1] == ["property"] and elements:
            elements[-1][2].append(words[1:])
    if encoding not in ("ascii", "binary_little_endian", "binary_big_endian"):
        raise ValueError(f"PLY format {encoding!r} is unknown")
    return encoding, elements


def _read_binary(body: bytes, elements: list[Element], order: str) -> tuple[NDArray[np.float64], list[Any]]:
    vertices: NDArray[np.float64] | None = None
    faces: Any = None
    offset = 0
    for name, count, properties in elements:
        lists = [words for words in properties if words[0] == "list"]
        if not lists:
            layout = np.dtype([(words[1], order + _TYPES[words[0]]) for words in properties])
            found = np.frombuffer(body, layout, count, offset)
            offset += count * layout.itemsize
            if name == "vertex":
                vertices = np.stack([found[axis] for axis in "xyz"], axis=1).astype(np.float64)
            continue
        rows, offset = _rows_of_lists(body, offset, count, properties, order)
        if name == "face":
            faces = rows
    if vertices is None or faces is None:
        raise ValueError("no vertices or no faces")
    return vertices, faces


def _rows_of_lists(body: bytes, offset: int, count: int, properties: list[list[str]], order: str) -> tuple[Any, int]:
    """The corners of faces, and the end of the rows; rows of triangles only are read in one step."""
    fields: list[Any] = []
    for number, words in enumerate(properties):
        if words[0] == "list":
            fields += [(f"count{number}", order + _TYPES[words[1]]), (words[3], order + _TYPES[words[2]], 3)]
        else:
            fields.append((f"value{number}", order + _TYPES[words[0]]))
    corners = next((words[3] for words in properties if words[0] == "list" and words[3] in _INDICES), "")
    layout = np.dtype(fields)
    if offset + count * layout.itemsize <= len(body):
        found = np.frombuffer(body, layout, count, offset)
        if corners and all((found[name] == 3).all() for name in layout.names or () if name.startswith("count")):
            return found[corners].astype(np.int64), offset + count * layout.itemsize
    rows: list[Any] = []
    for _ in range(count):
        for words in properties:
            number = 1
            if words[0] == "list":
                head = np.frombuffer(body, order + _TYPES[words[1]], 1, offset)
                number, offset = int(head[0]), offset + head.itemsize
            values = np.frombuffer(body, order + _TYPES[words[2 if words[0] == "list" else 0]], number, offset)
            offset += values.nbytes
            if words[-1] in _INDICES:
                rows.append(values.tolist())
    return rows, offset


def _read_text(body: bytes, elements: list[Element]) -> tuple[NDArray[np.float64], list[Any]]:
    lines = [line for line in body.decode("ascii").splitlines() if line.strip()]
    vertices: NDArray[np.float64] | None = None
    faces: list[Any] | None = None
    start = 0
    for name, count, properties in elements:
        rows = [line.split() for line in lines[start : start + count]]
        if len(rows) < count:
            raise ValueError(f"{len(rows)} of {count} rows of {name}")
        start += count
        if name == "vertex":
            names = [words[1] for words in properties]
            columns = [names.index(axis) for axis in "xyz"]
            vertices = np.array([[row[column] for column in columns] for row in rows], np.float64).reshape(-1, 3)
        elif name == "face":
            before = [words[0] for words in properties].index("list")
            faces = [[int(corner) for corner in row[before + 1 : before + 1 + int(row[before])]] for row in rows]
    if vertices is None or faces is None:
        raise ValueError("no vertices or no faces")
    return vertices, faces


def write_ply(path: str | os.PathLike[str], vertices: NDArray[Any], faces: NDArray[Any]) -> None:
    """Write binary little-endian PLY atomically; vertices are float64 if float32 would move one by 0.1 mm."""
    vertices = np.asarray(vertices, np.float64)
    single = np.abs(vertices - vertices.astype(np.float32)).max(initial=0.0) < 1e-4
    real, width = ("float", "<f4") if single else ("double", "<f8")
    head = (
        "ply\nformat binary_little_endian 1.0\n"
        f"element vertex {len(vertices)}\nproperty {real} x\nproperty {real} y\nproperty {real} z\n"
        f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    rows = np.empty(len(faces), np.dtype([("count", "u1"), ("list", "<i4", 3)]))
    rows["count"], rows["list"] = 3, faces
    with atomic_path(path) as partial:
        partial.write_bytes(head.encode() + vertices.astype(width).tobytes() + rows.tobytes())
