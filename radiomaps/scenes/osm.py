"""Scenes from OpenStreetMap, XML or JSON: buildings and their parts, as closed ways and as multipolygons."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import shapely

from geoml.errors import DataError
from radiomaps.scenes.areas import Area, scene_of_areas
from radiomaps.scenes.overpass import read_overpass
from radiomaps.scenes.projection import WGS84, reference_system
from radiomaps.scenes.repairs import Repairs
from radiomaps.scenes.rings import distinct, fill, join, unwrap
from radiomaps.scenes.scene import Scene
from radiomaps.scenes.tags import HeightKey, Tags, is_building, tidy
from radiomaps.scenes.xml_tree import read_xml

__all__ = ["load_osm"]

_LICENCE = "ODbL 1.0 (OpenStreetMap contributors)"
#: Tags of a relation whose feature is defined by the tags of its outer way, the convention until 2017.
_NEUTRAL = ("type", "source", "note", "fixme", "created_by", "name", "wikidata", "wikipedia", "ref")


def load_osm(
    path: str | os.PathLike[str],
    *,
    default_height_m: float = 9.0,
    material: str = "concrete",
    bounds_m: Sequence[float] | None = None,
    terrain: str | os.PathLike[str] | None = None,
    licence: str = _LICENCE,
) -> Scene:
    """A scene from the buildings of an `.osm` file, or of Overpass's `.json`, in metres around their middle.

    Buildings are closed ways and multipolygons tagged `building` or `building:part`, except underground ones. Holes and
    islands follow from the nesting of rings, not from roles. Parts replace the outline of their building. Heights come
    from `height` or `building:levels` (3 m each), else `default_height_m`. Buildings with missing nodes or ways are
    left out and counted among the scene's repairs.
    """
    path, repairs = Path(path), Repairs()
    root = read_xml(path, "osm") if path.suffix.lower() != ".json" else read_overpass(path)
    areas = list(_OsmFile.of(root, repairs).areas())
    if not areas:
        lines = "; ".join(repairs.lines())
        raise DataError(f"{path} holds no building{f' that can be used ({lines})' if lines else ''}")
    return scene_of_areas(
        path, areas, reference_system(WGS84, where=str(path)), default_height_m=default_height_m, key=HeightKey(),
        material=material, bounds_m=bounds_m, terrain=terrain, licence=licence, repairs=repairs,
    )  # fmt: skip


@dataclass
class _OsmFile:
    """Nodes, ways and relations of a file by their ids."""

    nodes: dict[str, tuple[float, float]]
    ways: dict[str, list[str]]
    tags: dict[str, Tags]
    relations: list[ElementTree.Element]
    repairs: Repairs
    #: Ways that are the outline of a building's relation.
    used: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, root: ElementTree.Element, repairs: Repairs) -> _OsmFile:
        nodes: dict[str, tuple[float, float]] = {}
        ways: dict[str, list[str]] = {}
        tags: dict[str, Tags] = {}
        relations = []
        for element in root:
            if element.get("action") == "delete" or element.get("visible") == "false":
                continue
            identity = element.get("id", "")
            if element.tag == "node":
                _add_node(nodes, identity, element, repairs)
            elif element.tag == "way":
                # Overpass writes a way again, bare of tags, where it is a member of a relation, too.
                ways[identity] = _refs(element, nodes, repairs) or ways.get(identity, [])
                tags[identity] = {**tags.get(identity, {}), **_tags(element)}
            elif element.tag == "relation":
                relations.append(element)
        for relation in relations:
            for member in relation.iter("member"):
                way = member.get("ref", "")
                if way not in ways and member.find("nd") is not None:
                    ways[way], tags[way] = _refs(member, nodes, repairs), {}
        return cls(nodes, ways, tags, relations, repairs)

    def areas(self) -> Iterator[Area]:
        """All buildings and parts; ways that are the outline of a relation belong to it."""
        for relation in self.relations:
            tags = _tags(relation)
            if tags.get("type") == "multipolygon":
                yield from self._relation(f"relation {relation.get('id')}", tags, relation)
        for identity, tags in self.tags.items():
            if not is_building(tags) or identity in self.used:
                continue
            name = f"way {identity}"
            refs = self.ways[identity]
            if missing := self._missing(identity):
                self.repairs.note("ways that lack nodes left out", f"{name} needs node {missing}")
            elif refs[0] != refs[-1] or len(set(refs)) < 3:
                self.repairs.note("ways that do not close left out", name)
            else:
                yield Area(name, tags, shapely.Polygon(unwrap([self.nodes[ref] for ref in refs])))

    def _missing(self, way: str) -> str | None:
        """The first node of a way that the file lacks; "" for a way without nodes."""
        refs = self.ways[way]
        return next((ref or "''" for ref in refs if ref not in self.nodes), None) if refs else "(it has none)"

    def _relation(self, name: str, tags: Tags, relation: ElementTree.Element) -> Iterator[Area]:
        members = [m.get("ref", "") for m in relation.iter("member") if m.get("type", "way") == "way"]
        members = list(dict.fromkeys(members))
        own = is_building(tags)
        bare = all(key in _NEUTRAL or key.startswith("addr:") for key in tags)
        if not own and not (bare and any(is_building(self.tags.get(way, {})) for way in members)):
            return
        lacking = [way for way in members if way not in self.ways]
        broken = [way for way in members if way in self.ways and self._missing(way)]
        for way in lacking:
            self.repairs.note("relations that lack members; download all of them", f"{name} lacks way {way}")
        for way in broken:
            self.repairs.note("relations that lack nodes", f"{name}, way {way} needs node {self._missing(way)}")
        lines = {way: self.ways[way] for way in members if way not in lacking and way not in broken}
        rings, open_ways = join(lines)
        if len(apart := distinct(rings)) < len(rings):
            self.repairs.note("relations with the same ring twice; one is used", name)
            rings = apart
        if open_ways and not (lacking or broken):
            self.repairs.note("relations with rings that do not close", f"{name}, way {open_ways[0]}")
        polygons = [shapely.Polygon(unwrap([self.nodes[ref] for ref in ring.nodes])) for ring in rings]
        solid = [shapely.make_valid(polygon) for polygon in polygons]
        if any(one.overlaps(two) for one, two in itertools.combinations(solid, 2)):
            self.repairs.note("relations whose rings cross; what one of them encloses is built", name)
        geometry, depths = fill(solid)
        if geometry.is_empty:
            self.repairs.note("relations without a closed ring left out", name)
            return
        outlines = [way for ring, depth in zip(rings, depths, strict=True) if depth % 2 == 0 for way in ring.ways]
        taken = [way for way in outlines if is_building(self.tags[way])]
        for way in taken:  # tags of the relation take precedence over those of its outlines
            tags = {**self.tags[way], **tags}
        if not is_building(tags):
            return
        self.used.update(taken)
        inner = [way for ring, depth in zip(rings, depths, strict=True) if depth % 2 for way in ring.ways]
        outer_tags = [self.tags[way] for way in taken]
        # Until 2017 a hole had the same tags as its outline; it is not a separate building.
        self.used.update(way for way in inner if not own and self.tags[way] in outer_tags)
        yield Area(name, tags, geometry)


def _refs(way: ElementTree.Element, nodes: dict[str, tuple[float, float]], notes: Repairs) -> list[str]:
    """Ids of a way's nodes. Nodes with coordinates (an option of Overpass) are added to `nodes`.

    A node without an id is identified by its coordinates.
    """
    refs = []
    for nd in way.iter("nd"):
        ref = nd.get("ref") or f"at {nd.get('lat')}, {nd.get('lon')}"
        refs.append(ref)
        if nd.get("lat") is not None:
            _add_node(nodes, ref, nd, notes)
    return refs


def _add_node(
    nodes: dict[str, tuple[float, float]], identity: str, element: ElementTree.Element, notes: Repairs
) -> None:
    try:
        longitude, latitude = float(element.get("lon", "")), float(element.get("lat", ""))
    except ValueError:
        longitude = latitude = math.nan
    if abs(latitude) <= 90 and abs(longitude) <= 360:
        nodes[identity] = (longitude, latitude)
    else:
        place = f"lat {element.get('lat')!r}, lon {element.get('lon')!r}"
        notes.note("nodes without a usable place", f"node {identity}: {place}")


def _tags(element: ElementTree.Element) -> Tags:
    return tidy({tag.get("k", ""): tag.get("v", "") for tag in element.iter("tag")})
