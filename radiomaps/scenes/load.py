"""Load a scene by its name, file or configuration."""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from geoml.errors import UserError, unknown
from radiomaps.generation.known_scenes import names, sionna_scenes
from radiomaps.scenes.geojson import FOREIGN, is_geojson, load_geojson, parse_json
from radiomaps.scenes.osm import load_osm
from radiomaps.scenes.overpass import is_overpass
from radiomaps.scenes.procedural import CityBlocks, city_blocks
from radiomaps.scenes.raster import load_raster
from radiomaps.scenes.repairs import Repairs
from radiomaps.scenes.rooms import Rooms, rooms
from radiomaps.scenes.scene import MATERIALS, Scene
from radiomaps.scenes.urbanradio3d import load_buildings_json, load_height_picture
from radiomaps.scenes.xml import load_city, load_xml

__all__ = ["load", "names", "parse_options"]


def _load_json(path: Path, **options: Any) -> Scene:
    """GeoJSON, OpenStreetMap as Overpass writes it in JSON, or the polygons of UrbanRadio3D."""
    content = parse_json(path)
    if is_overpass(content):
        return _call(load_osm, path, options)
    foreign = isinstance(content, dict) and (content.get("type") in FOREIGN or "geometryType" in content)
    return _call(load_geojson if foreign or is_geojson(content) else load_buildings_json, path, options)


_READERS = {
    ".xml": load_xml, ".geojson": load_geojson, ".geojsonl": load_geojson, ".geojsons": load_geojson,
    ".ndjson": load_geojson, ".json": _load_json, ".osm": load_osm, ".tif": load_raster, ".tiff": load_raster,
    ".png": load_height_picture,
}  # fmt: skip


#: Scenes from a seed: their parameters, and the function that makes them.
_GENERATED: dict[str, tuple[Any, Any]] = {"procedural": (CityBlocks, city_blocks), "rooms": (Rooms, rooms)}

#: Hints on how to convert files of unsupported formats.
_CONVERT = {
    ".pbf": "convert it with osmium cat city.osm.pbf -o city.osm",
    ".gz": "unpack it with gunzip",
    ".bz2": "unpack it with bunzip2",
    ".zip": "unpack it with unzip",
    ".asc": "convert it with gdal_translate city.asc city.tif",
    ".vrt": "convert it with gdal_translate city.vrt city.tif",
    ".shp": "convert it with ogr2ogr city.geojson city.shp",
    ".gpkg": "convert it with ogr2ogr city.geojson city.gpkg",
    ".gml": "convert it with ogr2ogr city.geojson city.gml",
    ".kml": "convert it with ogr2ogr city.geojson city.kml",
    ".blend": "export it with Blender's Mitsuba add-on as XML",
}


def load(scene: str | os.PathLike[str] | Mapping[str, Any]) -> Scene:
    """Load a scene by a name, a path, or a mapping with `name` or `path` and the options of its reader.

    Names: those of `names()`. `procedural` takes `seed` and the fields of `CityBlocks`, `rooms` those of `Rooms`;
    `procedural-12` has seed 12.
    Paths: `.xml` with PLY meshes (or their folder), `.geojson`, `.osm` or Overpass's `.json`, `.tif`, and the `.json`
    polygons and `.png` heights of UrbanRadio3D. `materials` takes the arguments of `Scene.furnished`: a table, and
    materials of all walls, roofs or ground. Raises `UserError` for unknown names and options, `DataError` for invalid
    files.

    >>> load({"name": "procedural", "seed": 3}).hash == load("procedural-3").hash
    True
    """
    if not isinstance(scene, Mapping):
        return _with_known_materials(_read(scene), "concrete")
    read = _read({key: value for key, value in scene.items() if key != "materials"})
    if scene.get("materials"):
        read = _furnished(read, scene["materials"])
    return _with_known_materials(read, str(scene.get("material") or "concrete"))


def _read(scene: str | os.PathLike[str] | Mapping[str, Any]) -> Scene:
    """The scene with the materials of its file."""
    if isinstance(scene, Mapping):
        options = {str(key): value for key, value in scene.items() if value is not None}
        what = options.pop("path", None) or options.pop("name", None)
        options.pop("name", None)
    else:
        what, options = scene, {}
    if what is None:
        raise UserError(f"a scene needs a name or a path, not {dict(scene) if isinstance(scene, Mapping) else scene!r}")
    kind, _, number = str(what).partition("-")
    if kind in _GENERATED and (not number or number.isdigit()):
        try:
            return _generated(kind, int(number) if number else int(options.pop("seed", 0)), options)
        except (TypeError, ValueError) as error:
            raise UserError(f"options of scene {kind}: {error}; expected numbers, or [low, high]") from error
    path = _file(Path(what))
    if (kind := path.suffix.lower()) in _READERS:
        if not path.is_file():
            raise UserError(f"scene file {path} {'is a folder' if path.is_dir() else 'does not exist'}")
        try:
            return _call(_READERS[kind], path, options)
        except OSError as error:
            raise UserError(f"scene file {path} cannot be read ({error.strerror or error})") from error
    if path.suffix or os.sep in str(what):
        if kind in _CONVERT:
            raise UserError(f"scene file type {kind!r} is not read; {_CONVERT[kind]}")
        raise unknown("scene file type", path.suffix or str(path), _READERS)
    if str(what) not in sionna_scenes() and sionna_scenes():
        raise unknown("scene", what, names(), hint=f"or the path of a file: {', '.join(_READERS)}")
    return _call(load_city, str(what), options)


def _file(path: Path) -> Path:
    """The XML file in a folder, or the path itself."""
    if not path.is_dir():
        return path
    found = sorted(path.glob("*.xml"))
    return path / "scene.xml" if len(found) != 1 else found[0]


def _furnished(scene: Scene, materials: Any) -> Scene:
    """The scene with the materials of a mapping `table`, `walls`, `roofs`, `ground`."""
    known = list(inspect.signature(Scene.furnished).parameters)[1:]
    if not isinstance(materials, Mapping):
        raise UserError(f"materials={materials!r} of a scene; expected {', '.join(known)}")
    for key in materials:
        if key not in known:
            raise unknown("materials:", key, known)
    return scene.furnished(**materials)


def _with_known_materials(scene: Scene, default: str) -> Scene:
    """The scene with unknown wall materials replaced by `default`, and unknown roof materials by the walls'."""
    known = {*MATERIALS, *(material.name for material in scene.materials)}
    repairs, meshes = Repairs(), []
    for mesh in scene.meshes:
        if mesh.material not in known:
            repairs.note(f"unknown material, {default} used", f"{mesh.building}: {mesh.material!r}")
            mesh = replace(mesh, material=default)
        if mesh.roof_material and mesh.roof_material not in known:
            repairs.note("unknown roof material, that of the walls used", f"{mesh.building}: {mesh.roof_material!r}")
            mesh = replace(mesh, roof_material="")
        meshes.append(mesh)
    if default not in known:
        raise unknown("material", default, known)
    return replace(scene, meshes=tuple(meshes), repairs=(*scene.repairs, *repairs.lines())) if repairs else scene


def _generated(kind: str, seed: int, options: dict[str, Any]) -> Scene:
    parameters, make = _GENERATED[kind]
    known = {field.name for field in fields(parameters)}
    for key in options:
        if key not in known:
            raise unknown(f"option of scene {kind}", key, sorted({*known, "seed"}))
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list | tuple) else value for key, value in options.items()
    }
    return make(seed, parameters(**values))


def _call(reader: Any, what: Any, options: dict[str, Any]) -> Scene:
    if reader is _load_json:
        return _load_json(what, **options)
    known = list(inspect.signature(reader).parameters)[1:]
    for key in options:
        if key not in known:
            raise unknown(f"option of scene {str(what)!r}", key, known)
        options[key] = _checked(key, options[key], str(inspect.signature(reader).parameters[key].annotation))
    return reader(what, **options)


def _checked(key: str, value: Any, annotation: str) -> Any:
    """The value of an option, checked against the type that its reader declares."""
    kinds: dict[str, tuple[type, ...]] = {"bool": (bool,), "float": (int, float), "str": (str, os.PathLike)}
    kind = next((name for name in kinds if annotation.startswith(name)), None)
    if key == "crs" and isinstance(value, int) and not isinstance(value, bool):
        return f"EPSG:{value}"
    if kind == "float" and isinstance(value, str):
        with contextlib.suppress(ValueError):
            return float(value)
    if kind and (not isinstance(value, kinds[kind]) or (kind == "float" and isinstance(value, bool))):
        expected = {"bool": "true or false", "float": "a number", "str": "a text"}[kind]
        raise UserError(f"{key}={value!r}; expected {expected}")
    return value


def parse_options(words: Iterable[str]) -> dict[str, Any]:
    """Values of KEY=VALUE arguments by key, without an optional prefix `scene.`."""
    import yaml

    settings: dict[str, Any] = {}
    for key, _, value in (word.partition("=") for word in words):
        try:
            settings[key.removeprefix("scene.")] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UserError(f"{key}={value}: the value cannot be read; write a number, text, or [a, b, …]") from None
    return settings
