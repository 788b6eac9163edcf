"""Meshes of a Mitsuba scene: PLY, Wavefront OBJ, Mitsuba's serialized format, rectangles and cubes."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geoml.errors import DataError
from radiomaps.scenes.ply import read_ply
from radiomaps.scenes.polygons import triangles_of

__all__ = ["CUBE", "RECTANGLE", "find_file", "read_mesh"]

Triangles = tuple[NDArray[np.float64], NDArray[np.int32]]

_CORNERS = np.array([[x, y, z] for z in (-1.0, 1) for y in (-1.0, 1) for x in (-1.0, 1)])
#: From -1 to 1 along x and y at z = 0, and along x, y and z.
RECTANGLE: Triangles = (
    np.array([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]),
    np.array([[0, 1, 2], [0, 2, 3]], np.int32),
)
CUBE: Triangles = (
    _CORNERS,
    triangles_of(_CORNERS, [[0, 2, 3, 1], [4, 5, 7, 6], [0, 1, 5, 4], [2, 6, 7, 3], [0, 4, 6, 2], [1, 3, 7, 5]]),
)
_MOST_BYTES = 4_000_000_000


def find_file(folder: Path, name: str) -> Path | None:
    """Find a file that a scene in this folder refers to, with either kind of slash, in any case, or next to its meshes.

    For a path of another machine (C:\\scenes\\meshes\\a.ply) its last components are searched.
    """
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    if not parts:
        return None
    inside = not (name.startswith(("/", "\\")) or parts[0].endswith(":"))
    tries = [parts] if inside else []
    tries += [["meshes", parts[-1]], parts[-1:]]
    for words in tries:
        place: Path | None = folder
        for word in words:
            place = _entry(place, word) if place is not None else None
        if place is not None and place.is_file():
            return place
    return None


def _entry(folder: Path, name: str) -> Path | None:
    """The file or folder of this name, else the one whose name differs in case only."""
    if (folder / name).exists():
        return folder / name
    if not folder.is_dir():
        return None
    return next((entry for entry in sorted(folder.iterdir()) if entry.name.lower() == name.lower()), None)


def read_mesh(path: Path, kind: str, index: int = 0) -> Triangles:
    """Vertices (n, 3) and triangles (m, 3) of a file of kind ply, obj or serialized (its mesh of number `index`)."""
    if path.stat().st_size > _MOST_BYTES:
        raise DataError(f"{path} is larger than 4 GB; split the mesh")
    if kind == "ply":
        return read_ply(path)
    try:
        return _read_obj(path) if kind == "obj" else _read_serialized(path.read_bytes(), index)
    except (ValueError, IndexError, struct.error, zlib.error, EOFError, OverflowError) as error:
        raise DataError(
            f"{path} cannot be read as a mesh ({' '.join(str(error).split())}); it may be truncated"
        ) from error


def _read_obj(path: Path) -> Triangles:
    vertices: list[list[float]] = []
    faces: list[list[int]] = []
    text = path.read_bytes().decode("utf-8", "replace").replace("\\\r\n", " ").replace("\\\n", " ")
    for words in (line.partition("#")[0].split() for line in text.splitlines()):
        if words[:1] == ["v"]:
            vertices.append([float(word) for word in words[1:4]])
        elif words[:1] == ["f"]:
            corners = [int(word.split("/")[0]) for word in words[1:]]
            # Indices start at 1; negative ones count backwards from the vertices read so far.
            faces.append([corner - 1 if corner > 0 else len(vertices) + corner for corner in corners])
    points = np.array(vertices, np.float64).reshape(-1, 3)
    return points, triangles_of(points, faces)


def _read_serialized(content: bytes, index: int) -> Triangles:
    """Mesh `index` of Mitsuba's binary format, versions 3 and 4: deflated positions and triangles."""
    start = _offset(content, index)
    magic, version = struct.unpack_from("<HH", content, start)
    if magic != 0x041C or version not in (3, 4):
        raise ValueError("no serialized mesh of version 3 or 4")
    stream = zlib.decompressobj()
    body = stream.decompress(content[start + 4 :], _MOST_BYTES)
    (flags,) = struct.unpack_from("<I", body, 0)
    at = 4
    if version == 4:
        at = body.index(b"\0", at) + 1  # the mesh's name
    points, triangles = struct.unpack_from("<QQ", body, at)
    at += 16
    kind = np.dtype("<f8" if flags & 0x2000 else "<f4")
    vertices = np.frombuffer(body, kind, 3 * points, at).reshape(-1, 3).astype(np.float64)
    width = 3 + 3 * bool(flags & 0x1) + 2 * bool(flags & 0x2) + 3 * bool(flags & 0x8)
    at += width * points * kind.itemsize
    corner = np.dtype("<u4" if points <= 0xFFFFFFFF else "<u8")
    faces = np.frombuffer(body, corner, 3 * triangles, at).reshape(-1, 3).astype(np.int32)
    return vertices, faces


def _offset(content: bytes, index: int) -> int:
    """Offset of the mesh, from the table at the end of the file."""
    if index == 0:
        return 0
    _, version = struct.unpack_from("<HH", content, 0)
    (count,) = struct.unpack_from("<I", content, len(content) - 4)
    if not 0 <= index < count:
        raise ValueError(f"mesh {index} of {count}")
    width, form = (8, "<Q") if version == 4 else (4, "<I")
    return int(struct.unpack_from(form, content, len(content) - 4 - width * (count - index))[0])
