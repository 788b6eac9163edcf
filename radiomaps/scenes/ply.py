"""Triangle meshes in PLY, binary and text: enough to read ray tracers' scenes and to write our own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoml.errors import DataError
from geoml.runs.files import atomic_path

__all__ = ["read_ply", "write_ply"]

_TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4",
    "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4",
    "float32": "f4", "float64": "f8",
}  # fmt: skip


def read_ply(path: str | os.PathLike[str]) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Vertices (n, 3) and triangles (m, 3) of a PLY file; anything but triangles raises `DataError`."""
    content = Path(path).read_bytes()
    head, mark, body = content.partition(b"end_header")
    if not content.startswith(b"ply") or not mark:
        raise DataError(f"{path} is no PLY file, or its header is cut off")
    body = body.split(b"\n", 1)[1] if b"\n" in body else b""
    encoding, elements = _header(head.decode("ascii", "replace"), path)
    try:
        if encoding == "ascii":
            return _read_text(body, elements)
        return _read_binary(body, elements, "<" if encoding == "binary_little_endian" else ">")
    except (ValueError, KeyError, IndexError) as error:
        raise DataError(f"{path} cannot be read as a mesh of triangles ({error}); it may be truncated") from error


def _header(text: str, path: str | os.PathLike[str]) -> tuple[str, list[tuple[str, int, list[list[str]]]]]:
    encoding = ""
    elements: list[tuple[str, int, list[list[str]]]] = []
    for words in map(str.split, text.splitlines()):
        if words[:1] == ["format"]:
            encoding = words[1]
        elif words[:1] == ["element"]:
            elements.append((words[1], int(words[2]), []))
        elif words[:1] == ["property"] and elements:
            elements[-1][2].append(words[1:])
    if encoding not in ("ascii", "binary_little_endian", "binary_big_endian"):
        raise DataError(f"{path}: PLY format {encoding!r} is unknown")
    return encoding, elements


def _read_binary(body: bytes, elements: Any, order: str) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    found: dict[str, NDArray[Any]] = {}
    offset = 0
    for name, count, properties in elements:
        fields: list[Any] = []
        for words in properties:
            if words[0] == "list":
                fields += [("count", order + _TYPES[words[1]]), ("list", order + _TYPES[words[2]], 3)]
            else:
                fields.append((words[1], order + _TYPES[words[0]]))
        layout = np.dtype(fields)
        found[name] = np.frombuffer(body, layout, count, offset)
        offset += count * layout.itemsize
    face = found["face"]
    if not (face["count"] == 3).all():
        raise ValueError("a face has other than 3 corners")
    vertex = found["vertex"]
    return np.stack([vertex[axis] for axis in "xyz"], axis=1).astype(np.float64), face["list"].astype(np.int32)


def _read_text(body: bytes, elements: Any) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    lines = body.decode("ascii").splitlines()
    found: dict[str, NDArray[np.float64]] = {}
    start = 0
    for name, count, properties in elements:
        rows = np.array([line.split() for line in lines[start : start + count]], dtype=np.float64)
        start += count
        if name == "vertex":
            names = [words[1] for words in properties]
            found[name] = rows[:, [names.index(axis) for axis in "xyz"]]
        elif name == "face":
            if not (rows[:, 0] == 3).all():
                raise ValueError("a face has other than 3 corners")
            found[name] = rows[:, 1:4]
    return found["vertex"], found["face"].astype(np.int32)


def write_ply(path: str | os.PathLike[str], vertices: NDArray[Any], faces: NDArray[Any]) -> None:
    """Binary little-endian PLY, whole or not at all; float64 vertices where float32 moves one by 0.1 mm."""
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
