"""Scenes as a folder of one XML file and PLY meshes, the form ray tracers read; Sionna's own cities among them."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

import numpy as np
import shapely

from geoml.errors import DataError, UserError, unknown
from geoml.runs.files import atomic_path, read_json, write_json
from radiomaps.scenes.footprints import polygons_of
from radiomaps.scenes.ply import read_ply, write_ply
from radiomaps.scenes.scene import Footprint, Kind, Mesh, Scene

__all__ = ["load_city", "load_xml", "save_scene", "sionna_scenes"]

_GROUND = re.compile(r"^(plane|ground|floor|terrain)\b", re.IGNORECASE)
_OBJECT = re.compile(r"^(car\b|car[-_]|knife|reflector|screen|sphere|(box|wall|wedge)$)", re.IGNORECASE)
_PART = re.compile(r"-(itu_\w+|roof|wall|[0-9a-f]{6})$")
_ABOUT = "scene.json"
_MAP_LICENCE = "ODbL 1.0 (OpenStreetMap contributors); meshes from Sionna RT, Apache-2.0"


def sionna_scenes() -> dict[str, Path]:
    """The scenes that ship with Sionna RT by name, found by their files: the ray tracer itself is not imported."""
    spec = importlib.util.find_spec("sionna")
    folders = [Path(root) / "rt" / "scenes" for root in (spec.submodule_search_locations or ())] if spec else []
    return {
        path.stem: path
        for folder in folders
        for path in sorted(folder.glob("*/*.xml"))
        if path.stem == path.parent.name
    }


def load_city(name: str) -> Scene:
    """One of Sionna's scenes; without its package the error names the line that installs it."""
    known = sionna_scenes()
    if not known:
        raise UserError(f"scene {name!r} ships with Sionna RT, which is absent: pip install 'geoml[radiomaps]'")
    if name not in known:
        raise unknown("scene", name, known)
    scene = load_xml(known[name])
    mapped = {"munich", "etoile", "florence", "san_francisco"}
    return replace(scene, name=name, licence=_MAP_LICENCE if name in mapped else "Apache-2.0 (Sionna RT)")


def load_xml(path: str | os.PathLike[str]) -> Scene:
    """A scene from Mitsuba XML with PLY meshes and ITU materials.

    What a mesh is part of is read from its name (ground, plane, floor, terrain; car, reflector, screen; else a
    building), unless `scene.json`, which `save_scene` writes beside the XML, says so.
    """
    path = Path(path)
    try:
        root = ElementTree.parse(path).getroot()
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except ElementTree.ParseError as error:
        raise DataError(f"{path} is not valid XML ({error}); it may be truncated") from error
    about = read_json(path.with_name(_ABOUT)) if path.with_name(_ABOUT).exists() else {}
    materials = _materials(root)
    meshes = [_mesh(shape, path, materials, about) for shape in root.iter("shape")]
    if not meshes:
        raise DataError(f"{path} holds no shape")
    footprints = [_footprint(entry) for entry in about["footprints"]] if about else footprints_of(meshes)
    name = str(about.get("name", path.stem))
    return Scene(name, tuple(meshes), tuple(footprints), about.get("crs", "local"), about.get("licence", ""))


def _materials(root: ElementTree.Element) -> dict[str, str]:
    """ITU names of the materials by their id."""
    found = {}
    for bsdf in root.iter("bsdf"):
        identity = bsdf.get("id", "")
        typed = [child.get("value", "") for child in bsdf.iter("string") if child.get("name") == "type"]
        found[identity] = typed[0] if typed else identity.removeprefix("mat-").removeprefix("itu_").removeprefix("itu-")
    return found


def _mesh(shape: ElementTree.Element, path: Path, materials: dict[str, str], about: dict[str, Any]) -> Mesh:
    identity = shape.get("id", "")
    if shape.get("type") != "ply" or shape.find("transform") is not None:
        raise DataError(f"{path}: shape {identity!r} is not a plain PLY mesh; only these are read")
    name = identity.removeprefix("mesh-")
    file = next(child.get("value", "") for child in shape.iter("string") if child.get("name") == "filename")
    reference = next((child.get("id", "") for child in shape.iter("ref")), "")
    material = materials.get(reference, reference)
    vertices, faces = read_ply(path.parent / file)
    kind: Kind = about.get("kinds", {}).get(name) or _kind(name)
    return Mesh(name, vertices, faces, material, kind, _PART.sub("", name))


def _kind(name: str) -> Kind:
    return "ground" if _GROUND.match(name) else "object" if _OBJECT.match(name) else "building"


def footprints_of(meshes: list[Mesh]) -> list[Footprint]:
    """Prisms around the buildings of a mesh: what its faces cover from above, from its lowest to its highest point."""
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
        footprints += [Footprint(p, high - low, low, parts[0].material, name) for p in solid if high > low]
    return footprints


def save_scene(scene: Scene, folder: str | os.PathLike[str]) -> Path:
    """Write `scene.xml`, `meshes/*.ply` and `scene.json`, whole or not at all; returns the path of the XML."""
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
        (partial / "scene.xml").write_text("\n".join([*lines, "</scene>\n"]))
        about = {"name": scene.name, "crs": scene.crs, "licence": scene.licence, "hash": scene.hash}
        kinds = {mesh.name: mesh.kind for mesh in scene.meshes}
        rows = [_as_dict(footprint) for footprint in scene.footprints]
        write_json(partial / _ABOUT, {**about, "kinds": kinds, "footprints": rows})
    return folder / "scene.xml"


def _as_dict(footprint: Footprint) -> dict[str, Any]:
    return {
        "name": footprint.name,
        "height_m": footprint.height_m,
        "base_m": footprint.base_m,
        "material": footprint.material,
        "polygon": json.loads(shapely.to_geojson(footprint.polygon)),
    }


def _footprint(entry: dict[str, Any]) -> Footprint:
    polygon = shapely.from_geojson(json.dumps(entry["polygon"]))
    return Footprint(polygon, entry["height_m"], entry["base_m"], entry["material"], entry["name"])
