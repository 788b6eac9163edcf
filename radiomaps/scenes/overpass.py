"""OpenStreetMap as JSON, which Overpass writes for `[out:json]`, as the elements of OpenStreetMap's XML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement

from geoml.errors import DataError
from radiomaps.scenes.geojson import parse_json

__all__ = ["is_overpass", "read_overpass"]

_KINDS = ("node", "way", "relation")


def is_overpass(content: Any) -> bool:
    """Whether a JSON value is an answer of Overpass: an object with a list of elements of OpenStreetMap."""
    elements = content.get("elements") if isinstance(content, Mapping) else None
    if not isinstance(elements, list):
        return False
    return "osm3s" in content or not elements or any(e.get("type") in _KINDS for e in _mappings(elements))


def read_overpass(path: Path) -> Element:
    """Read an answer of Overpass as the XML element `osm`, with nodes by id, or with coordinates (`out geom`)."""
    content = parse_json(path)
    if not is_overpass(content):
        raise DataError(f"{path} is no answer of Overpass: it has no list of nodes, ways and relations")
    if not content["elements"] and content.get("remark"):
        raise DataError(f"{path} holds no element; Overpass says: {str(content['remark'])[:200]}")
    root = Element("osm")
    for entry in _mappings(content["elements"]):
        if entry.get("type") not in _KINDS:  # such as the areas and counts that a query may ask for
            continue
        element = SubElement(root, entry["type"], _attributes(entry, "id", "lat", "lon"))
        _add_nodes(element, entry)
        for member in _mappings(entry.get("members")):
            _add_nodes(SubElement(element, "member", _attributes(member, "type", "ref", "role")), member)
        tags = entry.get("tags")
        for key, value in tags.items() if isinstance(tags, Mapping) else ():
            SubElement(element, "tag", {"k": str(key), "v": str(value)})
    return root


def _attributes(entry: Mapping[str, Any], *names: str) -> dict[str, str]:
    return {name: str(entry[name]) for name in names if entry.get(name) is not None}


def _add_nodes(element: Element, entry: Mapping[str, Any]) -> None:
    """The nodes of a way: ids, places, or both."""
    refs, places = entry.get("nodes"), list(_mappings(entry.get("geometry")))
    refs = refs if isinstance(refs, list) else [None] * len(places)
    for index, ref in enumerate(refs):
        place = places[index] if len(places) == len(refs) else {}
        SubElement(element, "nd", _attributes({"ref": ref, **place}, "ref", "lat", "lon"))


def _mappings(found: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the objects of a list. A null, which stands for a node outside the requested box, gives an empty object."""
    for entry in found if isinstance(found, list) else ():
        yield entry if isinstance(entry, Mapping) else {}
