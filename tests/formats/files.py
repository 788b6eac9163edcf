"""Small files of every format, written in metres around a place."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from radiomaps.scenes.projection import WGS84, local_crs, project

Points = Sequence[tuple[float, float]]


def box(x0: float, y0: float, x1: float, y1: float) -> list[tuple[float, float]]:
    """The corners of a rectangle, counter-clockwise."""
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def degrees(points: Points, lon: float = 11.0, lat: float = 48.0) -> list[tuple[float, float]]:
    """Longitude and latitude of metres around a place."""
    found = project(np.array(points, float), local_crs(lon, lat), WGS84)
    return [(float(x), float(y)) for x, y in found]


class Osm:
    """An OpenStreetMap file in metres around a place."""

    def __init__(self, lon: float = 11.0, lat: float = 48.0) -> None:
        self.place = (lon, lat)
        self.lines: list[str] = []
        self.count = 0
        self.known: dict[tuple[float, float], int] = {}

    def node(self, x: float, y: float) -> int:
        if (x, y) not in self.known:
            ((lon, lat),) = degrees([(x, y)], *self.place)
            self.count += 1
            self.lines.append(f'<node id="{self.count}" lat="{lat:.10f}" lon="{lon:.10f}"/>')
            self.known[x, y] = self.count
        return self.known[x, y]

    def way(self, points: Points, *, closed: bool = True, **tags: Any) -> int:
        refs = [self.node(*point) for point in points]
        refs += refs[:1] if closed else []
        self.count += 1
        nodes = "".join(f'<nd ref="{ref}"/>' for ref in refs)
        self.lines.append(f'<way id="{self.count}">{nodes}{_tags(tags)}</way>')
        return self.count

    def relation(self, members: Iterable[tuple[int, str]], **tags: Any) -> int:
        self.count += 1
        inside = "".join(f'<member type="way" ref="{ref}" role="{role}"/>' for ref, role in members)
        self.lines.append(f'<relation id="{self.count}">{inside}{_tags({"type": "multipolygon", **tags})}</relation>')
        return self.count

    def save(self, folder: Path, *, name: str = "town.osm", head: str = "", newline: str = "\n") -> Path:
        path = folder / name
        text = newline.join([f'{head}<osm version="0.6">', *self.lines, "</osm>"])
        path.write_bytes(text.encode("utf-8"))
        return path


def _tags(tags: dict[str, Any]) -> str:
    return "".join(f'<tag k="{key.replace("__", ":")}" v="{value}"/>' for key, value in tags.items())


def feature(points: Points, *holes: Points, **properties: Any) -> dict[str, Any]:
    """A GeoJSON feature of one polygon."""
    rings = [[*map(list, ring), list(ring[0])] for ring in (points, *holes)]
    names = {key.replace("__", ":"): value for key, value in properties.items()}
    return {"type": "Feature", "properties": names, "geometry": {"type": "Polygon", "coordinates": rings}}


def geojson(folder: Path, features: list[Any], *, name: str = "town.geojson", **members: Any) -> Path:
    """A collection of features; `members` stand next to them."""
    path = folder / name
    path.write_text(json.dumps({"type": "FeatureCollection", **members, "features": features}))
    return path


def raster(
    path: Path,
    values: np.ndarray,
    *,
    crs: str | None = "EPSG:25832",
    transform: Any = None,
    dtype: str = "float32",
    nodata: float | None = None,
    **about: Any,
) -> Path:
    """A GeoTIFF of one band; cells of 1 m from (691000, 5335000) unless `transform` says otherwise."""
    import rasterio

    place = transform or rasterio.Affine(1, 0, 691_000, 0, -1, 5_335_000)
    rows, columns = values.shape
    with rasterio.open(
        path, "w", driver="GTiff", height=rows, width=columns, count=1, dtype=dtype, crs=crs, transform=place,
        nodata=nodata,
    ) as file:  # fmt: skip
        file.write(values.astype(dtype), 1)
        for key, value in about.items():
            setattr(file, key, (value,))
    return path


CUBE = np.array([[x, y, z] for z in (0.0, 12) for y in (0.0, 20) for x in (0.0, 20)])
FACES = [[0, 2, 3, 1], [4, 5, 7, 6], [0, 1, 5, 4], [2, 6, 7, 3], [0, 4, 6, 2], [1, 3, 7, 5]]


def ply(path: Path, vertices: np.ndarray = CUBE, faces: Any = FACES, *, newline: str = "\n") -> Path:
    """A PLY of text; by default a building of 20 m by 20 m by 12 m with quadrilateral faces."""
    path.parent.mkdir(exist_ok=True)
    head = ["ply", "format ascii 1.0", f"element vertex {len(vertices)}"]
    head += [f"property float {axis}" for axis in "xyz"]
    head += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header"]
    rows = [" ".join(map(str, vertex)) for vertex in np.asarray(vertices).tolist()]
    rows += [" ".join(map(str, (len(face), *face))) for face in faces]
    path.write_bytes(newline.join([*head, *rows, ""]).encode())
    return path


def xml(folder: Path, *shapes: str, bsdf: str = "", name: str = "town.xml", head: str = "") -> Path:
    """A Mitsuba scene of these shapes; by default materials as Blender exports them."""
    bsdf = bsdf or '<bsdf type="diffuse" id="mat-itu_brick"><rgb value="0.8 0.8 0.8" name="reflectance"/></bsdf>'
    path = folder / name
    path.write_text(f'{head}<scene version="2.1.0"><integrator type="path"/>{bsdf}{"".join(shapes)}</scene>')
    return path


def shape(
    *,
    file: str = "meshes/a.ply",
    kind: str = "ply",
    name: str = "mesh-hall",
    bsdf: str = "mat-itu_brick",
    inside: str = "",
) -> str:
    """A shape that names its file and its material."""
    named = f'<string name="filename" value="{file}"/>' if file else ""
    return f'<shape type="{kind}" id="{name}">{named}{inside}<ref id="{bsdf}" name="bsdf"/></shape>'
