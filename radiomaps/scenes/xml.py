"""Scenes as a Mitsuba XML file with meshes, including Sionna's cities."""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

import numpy as np
import shapely
from numpy.typing import NDArray

from geoml.errors import DataError, UserError, unknown
from geoml.runs.files import atomic_path, read_json, write_json
from radiomaps.generation.known_scenes import licence_of, sionna_scenes
from radiomaps.scenes.footprints import polygons_of
from radiomaps.scenes.mesh_files import CUBE, RECTANGLE, Triangles, find_file, read_mesh
from radiomaps.scenes.ply import write_ply
from radiomaps.scenes.projection import Frame
from radiomaps.scenes.repairs import Repairs
from radiomaps.scenes.scene import MATERIALS, Footprint, Kind, Mesh, Scene
from radiomaps.scenes.xml_tree import read_xml, transform_of

__all__ = ["load_city", "load_xml", "save_scene"]

_GROUND = re.compile(r"^(plane|ground|floor|terrain)(?![a-z])", re.IGNORECASE)
_OBJECT = re.compile(r"^(car\b|car[-_]|knife|reflector|screen|sphere|(box|wall|wedge)$)", re.IGNORECASE)
_PART = re.compile(r"-(itu_\w+|roof|wall|[0-9a-f]{6})$")
_ABOUT = "scene.json"
_FILES = ("ply", "obj", "serialized")


def load_city(name: str) -> Scene:
    """One of Sionna's scenes; raises `UserError` with the installation command if the package is missing."""
    known = sionna_scenes()
    if not known:
        raise UserError(f"scene {name!r} ships with Sionna RT, which is absent: pip install 'geoml[radiomaps]'")
    if name not in known:
        raise unknown("scene", name, known)
    scene = load_xml(known[name])
    return replace(scene, name=name, licence=licence_of(name))


def load_xml(path: str | os.PathLike[str], *, material: str = "concrete", licence: str = "") -> Scene:
    """A scene from Mitsuba XML of Sionna RT or Blender: PLY, OBJ and serialized meshes, with transforms.

    The kind of a mesh is read from `scene.json`, which `save_scene` writes with the XML, or else from its name (ground,
    plane, floor, terrain; car, reflector, screen; else a building). A shape without a material has `material`. A
    missing mesh raises `DataError`.
    """
    path, repairs = Path(path), Repairs()
    about = _about(path)
    reader = _SceneFile.of(path, about, material, repairs)
    meshes = list(reader.meshes())
    if not meshes:
        lines = "; ".join(repairs.lines())
        raise DataError(f"{path} holds no shape{f' that can be used ({lines})' if lines else ''}")
    if not about:
        meshes = _near_zero(_with_ground(meshes), repairs)
    footprints = about["footprints"] if about else footprints_of(meshes)
    name, crs = str(about.get("name", path.stem)), str(about.get("crs", "local"))
    licence = licence or str(about.get("licence", ""))
    repaired = (*map(str, about.get("repairs", ())), *repairs.lines())
    return Scene(name, tuple(meshes), tuple(footprints), crs, licence, repaired)


@dataclass
class _SceneFile:
    """State of reading an XML file: its materials by id, and the values of its `<default>` variables."""

    path: Path
    root: ElementTree.Element
    about: dict[str, Any]
    material: str
    repairs: Repairs
    materials: dict[str, str] = field(default_factory=dict)
    defaults: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path, about: dict[str, Any], material: str, repairs: Repairs) -> _SceneFile:
        reader = cls(path, read_xml(path, "scene"), about, material, repairs)
        reader.defaults = {d.get("name", ""): d.get("value", "") for d in reader.root.iter("default")}
        reader.materials = {b.get("id", ""): _itu_name(b) for b in reader.root.iter("bsdf")}
        repairs.note("included files not read", count=sum(1 for _ in reader.root.iter("include")))
        return reader

    def meshes(self) -> Iterator[Mesh]:
        used: set[str] = set()
        for number, shape in enumerate(self.root.iter("shape")):
            kind = shape.get("type", "")
            identity = shape.get("id") or f"shape-{number}"
            if kind == "merge":
                continue  # its children follow in the iteration
            if shape.find("emitter") is not None:
                self.repairs.note("light sources left out", identity)
                continue
            triangles = self._triangles(shape, kind, identity)
            if triangles is None:
                self.repairs.note(f"shapes of type {kind!r} not read", identity)
            elif not len(triangles[1]):
                self.repairs.note("meshes without a face left out", identity)
            else:
                name = identity.removeprefix("mesh-")
                name = f"{name}-{number}" if name in used else name
                used.add(name)
                yield self._mesh(shape, name, *triangles)

    def _mesh(
        self, shape: ElementTree.Element, name: str, vertices: NDArray[np.float64], faces: NDArray[np.int32]
    ) -> Mesh:
        where = f"{self.path}: shape {name!r}"
        to_world = transform_of(shape, self.defaults, where=where)
        if to_world is not None:
            vertices = vertices @ to_world[:3, :3].T + to_world[:3, 3]
            if np.linalg.det(to_world[:3, :3]) < 0:
                faces = faces[:, ::-1]
        kind: Kind = self.about.get("kinds", {}).get(name) or _kind(name)
        roof = str(self.about.get("roofs", {}).get(name, ""))
        return Mesh(name, vertices, faces, self._material(shape, name), kind, _PART.sub("", name), roof)

    def _material(self, shape: ElementTree.Element, name: str) -> str:
        inline = shape.find("bsdf")
        references = [ref.get("id", "") for ref in shape.iter("ref") if ref.get("name", "bsdf") == "bsdf"]
        found = [_itu_name(inline)] if inline is not None else [self.materials.get(ref, ref) for ref in references]
        suffix = re.search(r"itu[_-](\w+)$", name)
        words = [*found, suffix[1] if suffix else ""]
        # A name that is not in ITU-R P.2040 is kept, because a table may define it.
        return next((word for word in words if word in MATERIALS), words[0]) or self.material

    def _triangles(self, shape: ElementTree.Element, kind: str, identity: str) -> Triangles | None:
        if kind in ("rectangle", "cube"):
            return RECTANGLE if kind == "rectangle" else CUBE
        if kind not in _FILES:
            return None
        name = self._value(shape, "string", "filename")
        if not name:
            raise DataError(f"{self.path}: shape {identity!r} names no mesh file")
        file = find_file(self.path.parent, name)
        if file is None:
            raise DataError(f"{self.path}: mesh {name!r} of shape {identity!r} does not exist")
        number = self._value(shape, "integer", "shape_index") or "0"
        if not number.isdigit():
            raise DataError(f"{self.path}: shape {identity!r} has shape_index {number!r}; a number was expected")
        return read_mesh(file, kind, int(number))

    def _value(self, shape: ElementTree.Element, kind: str, name: str) -> str:
        text = next((child.get("value", "") for child in shape.findall(kind) if child.get("name") == name), "")
        return self.defaults.get(text[1:], text) if text.startswith("$") else text


def _itu_name(bsdf: ElementTree.Element) -> str:
    """The ITU name of a material: from its `type`, else from its id, such as mat-itu_concrete or "ITU concrete.001"."""
    typed = [child.get("value", "") for child in bsdf.iter("string") if child.get("name") == "type"]
    words = [*typed, bsdf.get("id", ""), bsdf.get("name", "")]
    plain = [re.sub(r"[-\s.]+", "_", re.sub(r"[._]\d{3}$", "", word.strip().lower())) for word in words]
    plain = [word.removeprefix("mat_").removeprefix("itu_") for word in plain]
    return next((word for word in plain if word in MATERIALS), next(filter(None, words), "").removeprefix("mat-"))


def _kind(name: str) -> Kind:
    return "ground" if _GROUND.match(name) else "object" if _OBJECT.match(name) else "building"


def _with_ground(meshes: list[Mesh]) -> list[Mesh]:
    """Without a mesh named as ground, take the flat, lowest mesh if it spans most of the scene."""
    if any(mesh.kind != "building" for mesh in meshes) or len(meshes) < 2:
        return meshes
    low, high = (np.array([f(mesh.vertices, axis=0) for mesh in meshes]) for f in (np.min, np.max))
    spans = (high - low)[:, :2].prod(axis=1) / max(float((high.max(axis=0) - low.min(axis=0))[:2].prod()), 1e-9)
    flat = (high - low)[:, 2] < 0.1
    found = np.flatnonzero(flat & (low[:, 2] < low[:, 2].min() + 0.1) & (spans > 0.5))
    return [replace(mesh, kind="ground") if number in found[:1] else mesh for number, mesh in enumerate(meshes)]


def _near_zero(meshes: list[Mesh], repairs: Repairs) -> list[Mesh]:
    """Shift coordinates far from (0, 0), such as those of UTM, to their corner."""
    frame = Frame.of(np.concatenate([mesh.vertices[:, :2] for mesh in meshes]), None, where="meshes")
    if frame.origin is None or frame.origin == (0.0, 0.0):
        return meshes
    repairs.note(f"metres of an unknown system, counted from {frame.origin}")
    return [replace(mesh, vertices=mesh.vertices - np.array([*frame.origin, 0.0])) for mesh in meshes]


def footprints_of(meshes: list[Mesh]) -> list[Footprint]:
    """Prisms around the buildings of meshes: the area that they cover from above, from lowest to highest point."""
    groups: dict[str, list[Mesh]] = defaultdict(list)
    for mesh in meshes:
        if mesh.kind == "building":
            groups[mesh.building].append(mesh)
    footprints = []
    for name, parts in groups.items():
        triangles = np.concatenate([mesh.vertices[mesh.faces] for mesh in parts])
        covered = shapely.polygons(triangles[:, :, :2])
        covered = covered[shapely.area(covered) > 1e-4]
        if not len(covered):
            continue
        low, high = float(triangles[..., 2].min()), float(triangles[..., 2].max())
        outline = shapely.union_all(shapely.set_precision(covered, 1e-3), grid_size=1e-3)
        solid = [polygon for polygon in polygons_of(outline) if polygon.area > 1.0]
        material = max(parts, key=_wall_area).material
        footprints += [Footprint(p, high - low, low, material, name) for p in solid if high > low]
    return footprints


def _wall_area(mesh: Mesh) -> float:
    """Area of the vertical faces; the mesh with the largest one has the material of a building's walls."""
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    normals = np.cross(b - a, c - a)
    size = np.linalg.norm(normals, axis=1)
    return float(size[np.abs(normals[:, 2]) < 0.5 * size].sum())


def save_scene(scene: Scene, folder: str | os.PathLike[str]) -> Path:
    """Write `scene.xml`, `meshes/*.ply` and `scene.json` atomically; returns the path of the XML."""
    folder = Path(folder)
    with atomic_path(folder) as partial:
        (partial / "meshes").mkdir(parents=True)
        lines = ['<scene version="2.1.0">']
        for material in sorted({mesh.material for mesh in scene.meshes}):
            lines.append(f'  <bsdf type="itu-radio-material" id={quoteattr(material)}>')
            lines.append(f'    <string name="type" value={quoteattr(material)}/>')
            lines.append('    <float name="thickness" value="0.1"/>\n  </bsdf>')
        for index, mesh in enumerate(scene.meshes):
            file = f"meshes/{index:05d}.ply"
            write_ply(partial / file, mesh.vertices, mesh.faces)
            lines.append(f'  <shape type="ply" id={quoteattr("mesh-" + mesh.name)}>')
            lines.append(f'    <string name="filename" value={quoteattr(file)}/>')
            lines.append('    <boolean name="face_normals" value="true"/>')
            lines.append(f'    <ref id={quoteattr(mesh.material)} name="bsdf"/>\n  </shape>')
        (partial / "scene.xml").write_text("\n".join([*lines, "</scene>\n"]), encoding="utf-8")
        about = {"name": scene.name, "crs": scene.crs, "licence": scene.licence, "hash": scene.hash}
        kinds = {mesh.name: mesh.kind for mesh in scene.meshes}
        roofs = {mesh.name: mesh.roof_material for mesh in scene.meshes if mesh.roof_material}
        rows = [_as_dict(footprint) for footprint in scene.footprints]
        repairs = list(scene.repairs)
        write_json(partial / _ABOUT, {**about, "repairs": repairs, "kinds": kinds, "roofs": roofs, "footprints": rows})
    return folder / "scene.xml"


def _as_dict(footprint: Footprint) -> dict[str, Any]:
    return {
        "name": footprint.name,
        "height_m": footprint.height_m,
        "base_m": footprint.base_m,
        "material": footprint.material,
        "roof_material": footprint.roof_material,
        "polygon": json.loads(shapely.to_geojson(footprint.polygon)),
    }


def _about(path: Path) -> dict[str, Any]:
    """The record of the scene that `save_scene` wrote, with footprints; empty if there is no such file."""
    file = path.with_name(_ABOUT)
    if not file.exists() or path.name != "scene.xml":
        return {}
    about = read_json(file)
    try:
        footprints = [
            Footprint(
                shapely.from_geojson(json.dumps(entry["polygon"])),
                float(entry["height_m"]),
                float(entry["base_m"]),
                str(entry["material"]),
                str(entry["name"]),
                str(entry.get("roof_material", "")),
            )
            for entry in about["footprints"]
        ]
        kinds = {str(name): kind for name, kind in about["kinds"].items() if kind in ("building", "ground", "object")}
        roofs = {str(name): str(material) for name, material in about.get("roofs", {}).items()}
    except (KeyError, TypeError, ValueError, AttributeError, shapely.errors.GEOSException) as error:
        raise DataError(
            f"{file} is not as it was written with the scene ({error!r}); remove it, or save the scene again"
        ) from error
    return {**about, "kinds": kinds, "roofs": roofs, "footprints": footprints}
