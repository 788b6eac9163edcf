"""Mitsuba XML with its meshes."""

from __future__ import annotations

import struct
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from radiomaps.scenes import Footprint, Scene, load, save_scene
from radiomaps.scenes.extrude import scene_of_footprints
from radiomaps.scenes.polygons import triangles_of
from tests.formats.case import Case
from tests.formats.files import CUBE, FACES, ply, shape, xml

FORM = "Mitsuba XML (`.xml`)"
_case = partial(Case, FORM)
ONE = ((400, 0, 12),)
TRIANGLES = triangles_of(CUBE, FACES)
#: A building with a notch: its roof is concave.
NOTCH = [(0, 0), (20, 0), (20, 20), (10, 20), (10, 10), (0, 10)]


def hall(folder: Path, *rest: str, file: str = "meshes/a.ply", head: str = "", bsdf: str = "", **about: Any) -> Path:
    """A hall of 20 m by 20 m by 12 m, and what else is in the scene."""
    ply(folder / "meshes" / "a.ply")
    return xml(folder, shape(file=file, **about), *rest, head=head, bsdf=bsdf)


def transform(*steps: str) -> str:
    return f'<transform name="to_world">{"".join(steps)}</transform>'


def concave(folder: Path) -> Path:
    count = len(NOTCH)
    vertices = np.array([[x, y, z] for z in (0.0, 12) for x, y in NOTCH])
    faces = [list(range(count))[::-1], list(range(count, 2 * count))]
    faces += [[k, (k + 1) % count, (k + 1) % count + count, k + count] for k in range(count)]
    ply(folder / "meshes" / "a.ply", vertices, faces)
    return xml(folder, shape())


def obj(folder: Path) -> Path:
    lines = ["# Blender", "o hall", *(f"v {x} {y} {z}" for x, y, z in CUBE.tolist()), "vn 0 0 1", "usemtl brick"]
    lines += [f"f {' '.join(f'{corner + 1}//1' for corner in face)}" for face in FACES]
    (folder / "a.obj").write_text("\r\n".join(lines))
    return xml(folder, shape(file="a.obj", kind="obj"))


def serialized(folder: Path, *, index: int = 1) -> Path:
    """Two meshes in one file, the second is the hall."""
    blocks = []
    for points in (CUBE + 100, CUBE):
        body = struct.pack("<I", 0x1000) + b"hall\0" + struct.pack("<QQ", len(points), len(TRIANGLES))
        body += points.astype("<f4").tobytes() + TRIANGLES.astype("<u4").tobytes()
        blocks.append(struct.pack("<HH", 0x041C, 4) + zlib.compress(body))
    places = struct.pack("<QQI", 0, len(blocks[0]), 2)
    (folder / "a.serialized").write_bytes(b"".join(blocks) + places)
    inside = f'<integer name="shape_index" value="{index}"/>'
    return xml(folder, shape(file="a.serialized", kind="serialized", inside=inside))


def binary(folder: Path, order: str = ">") -> Path:
    """A PLY of doubles, big-endian, with normals and quadrilaterals."""
    head = f"ply\nformat binary_{'big' if order == '>' else 'little'}_endian 1.0\nelement vertex 8\n"
    head += "".join(f"property double {axis}\n" for axis in ("x", "y", "z", "nx")) + "element face 6\n"
    head += "property list uchar int vertex_indices\nproperty uchar flag\nend_header\n"
    rows = np.column_stack([CUBE, np.zeros(8)]).astype(f"{order}f8").tobytes()
    rows += b"".join(struct.pack(f"{order}B4iB", 4, *face, 7) for face in FACES)
    (folder / "a.ply").write_bytes(head.encode() + rows)
    return xml(folder, shape(file="a.ply"))


def saved(folder: Path, *, keep: bool) -> Path:
    """A building with a courtyard and a raised one, written by `save_scene`; without its notes where not `keep`."""
    yard = shapely.box(0, 0, 60, 60).difference(shapely.box(10, 10, 50, 50))
    footprints = [Footprint(yard, 10.0), Footprint(shapely.box(80, 0, 100, 20), 6.0, 12.0)]
    path = save_scene(scene_of_footprints("yard", footprints), folder / "yard")
    if not keep:
        path.with_name("scene.json").unlink()
    return path


def again(folder: Path) -> Path:
    """Written, read and written once more, from real rings and a reference system."""
    return save_scene(load(saved(folder, keep=True)), folder / "again")


def material(name: str) -> Case:
    """A material by its name alone."""
    bsdf = f'<bsdf type="twosided" id="{name}"><bsdf type="diffuse"/></bsdf>'
    return _case(f"a material called `{name}`", "brick", lambda f: _with_material(f, name, bsdf), ONE,
                 check=lambda scene: scene.meshes[0].material == "brick")  # fmt: skip


def _with_material(folder: Path, name: str, bsdf: str) -> Path:
    ply(folder / "meshes" / "a.ply")
    return xml(folder, shape(bsdf=name), bsdf=bsdf)


def commented(folder: Path) -> Path:
    path = obj(folder)
    (mesh,) = folder.glob("**/*.obj")
    mesh.write_text("".join(f"{line} # row\n" for line in mesh.read_text().replace("\\\n", " ").splitlines()))
    return path


def about_broken(folder: Path) -> Path:
    path = saved(folder, keep=True)
    path.with_name("scene.json").write_text('{"footprints": [{"polygon": 1}]}')
    return path


def ground(scene: Scene) -> bool:
    return [mesh.kind for mesh in scene.meshes].count("ground") == 1


PLANE = '<shape type="rectangle" id="elm__3"><transform name="to_world"><scale x="100" y="100"/></transform></shape>'
HALF_TURN = '<rotate z="1" angle="180"/>'
CASES = [
    _case("PLY meshes as Blender exports them", "buildings; faces of more corners become triangles", hall, ONE),
    _case("concave faces", "triangles inside of them", concave, ((300, 0, 12),)),
    _case("binary PLY of either byte order, with more properties", "the same", binary, ONE),
    _case("PLY lines that end in CR LF", "the same",
          lambda f: (ply(f / "meshes" / "a.ply", newline="\r\n"), xml(f, shape()))[1], ONE),
    _case("Wavefront OBJ", "the same", obj, ONE),
    _case("Mitsuba's serialized meshes, by `shape_index`", "the same", serialized, ONE),
    _case("cubes", "buildings",
          lambda f: xml(f, shape(file="", kind="cube", inside=transform('<scale x="10" y="10" z="6"/>',
                                                                        '<translate z="6"/>'))), ONE),
    _case("a rectangle below all else, whatever its name", "the ground", lambda f: hall(f, PLANE), ONE, check=ground),
    _case("meshes called ground_plane, Terrain.001, Plane", "the ground",
          lambda f: hall(f, PLANE.replace("elm__3", "mesh-Ground_plane")), ONE, check=ground),
    _case("transforms: translate, rotate, scale, matrix", "applied in their order",
          lambda f: hall(f, inside=transform('<translate x="1" y="2"/>', HALF_TURN, '<scale value="2"/>')),
          ((1600, 0, 24),), check=lambda scene: abs(scene.extent[1][0] + 2) + abs(scene.extent[1][1] + 4) < 1e-9),
    _case("`$` variables with a default", "their values",
          lambda f: hall(f, '<default name="k" value="2"/>', inside=transform('<scale x="$k"/>')), ((800, 0, 12),)),
    _case("file names with backslashes (Windows)", "the mesh", lambda f: hall(f, file="meshes\\a.ply"), ONE),
    _case("file names in other capitals", "the mesh", lambda f: hall(f, file="Meshes/A.PLY"), ONE),
    _case("paths of another machine", "the mesh of that name in the folder or its `meshes`",
          lambda f: hall(f, file="C:\\Users\\me\\town\\meshes\\a.ply"), ONE),
    _case("shapes inside a merge", "the shapes",
          lambda f: (ply(f / "meshes" / "a.ply"), xml(f, f'<shape type="merge">{shape()}</shape>'))[1], ONE),
    material("mat-itu_brick"),
    material("itu-brick"),
    material("mat-itu_brick.001"),
    material("ITU brick"),
    material("brick"),
    _case("a material of type `brick`, whatever its name", "brick",
          lambda f: _with_material(f, "m1", '<bsdf type="itu-radio-material" id="m1">'
                                            '<string name="type" value="brick"/></bsdf>'),
          ONE, check=lambda scene: scene.meshes[0].material == "brick"),
    _case("a material that no table knows", "concrete, or `material`, counted",
          lambda f: _with_material(f, "mat-Beton", '<bsdf type="principled" id="mat-Beton"/>'), ONE,
          ("unknown material",),
          check=lambda scene: scene.meshes[0].material == "concrete"),
    _case("spheres, light sources and included files", "left out, counted",
          lambda f: hall(f, '<shape type="sphere" id="s"/>', '<shape type="rectangle"><emitter type="area"/></shape>'),
          ONE, ("shapes of type 'sphere' not read", "light sources left out")),
    _case("coordinates of UTM", "metres counted from the corner, noted",
          lambda f: hall(f, inside=transform('<translate x="691000" y="5335000"/>')), ONE, ("unknown system",),
          check=lambda scene: scene.extent[0][:2] == (0, 0)),
    _case("a scene that `--save` wrote", "the same, with courtyards and raised parts",
          partial(saved, keep=True), ((2000, 0, 10), (400, 12, 18))),
    _case("the same without its `scene.json`", "the same", partial(saved, keep=False), ((2000, 0, 10), (400, 12, 18))),
    _case("a scene written, read and written again", "the same", again, ((2000, 0, 10), (400, 12, 18))),
    _case("a broken `scene.json`", "refused", about_broken, error="remove it, or save the scene again"),
    _case("a mesh that is not there", "refused, with file and shape", lambda f: hall(f, file="meshes/none.ply"),
          error="'meshes/none.ply' of shape 'mesh-hall'"),
    _case("a shape that names no mesh", "refused, with file and shape", lambda f: hall(f, file=""),
          error="names no mesh file"),
    _case("a mesh cut off", "refused", lambda f: (binary(f), _cut(f / "a.ply", 0.8), f / "town.xml")[2],
          error="may be truncated"),
    _case("a serialized mesh cut off", "refused",
          lambda f: (serialized(f, index=0), _cut(f / "a.serialized", 0.3), f / "town.xml")[2],
          error="may be truncated"),
    _case("entities", "refused", lambda f: hall(f, head='<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'),
          error="declares XML entities"),
    _case("a transform that cannot be read", "refused", lambda f: hall(f, inside=transform('<scale value="x"/>')),
          error="transform <scale> cannot be read"),
    _case("a matrix of a perspective", "refused",
          lambda f: hall(f, inside=transform('<matrix value="1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 2"/>')),
          error="its last row is not 0 0 0 1"),
    _case("Wavefront OBJ with comments after its rows", "the same", commented, ONE),
    _case("no shape", "refused", lambda f: xml(f), error="holds no shape"),
]  # fmt: skip


def _cut(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
