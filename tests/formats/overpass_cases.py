"""OpenStreetMap as JSON, by reference and with coordinates (`out geom`)."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tests.formats.case import Case
from tests.formats.files import Osm, box

FORM = "OpenStreetMap JSON of Overpass (`.json`)"
TEN = {"building": "yes", "height": "10"}
_case = partial(Case, FORM)


def answer(folder: Path, town: Osm, *, geometry: bool = False, members: bool = False, **more: Any) -> Path:
    """A town as Overpass answers: ways with nodes, or places (`geometry`); `members`: ways in relations alone."""
    root = ElementTree.fromstring(town.save(folder).read_bytes())
    nodes = {
        node.get("id"): {"lat": float(node.get("lat")), "lon": float(node.get("lon"))} for node in root.iter("node")
    }
    ways = {way.get("id"): [nd.get("ref") for nd in way.iter("nd")] for way in root.iter("way")}

    def line(way: str) -> dict[str, Any]:
        if geometry:
            return {"geometry": [nodes.get(ref) for ref in ways[way]]}
        return {"nodes": [int(ref) for ref in ways[way]]}

    elements: list[dict[str, Any]] = []
    for element in root:
        made = {"type": element.tag, "id": int(element.get("id"))}
        if element.tag == "node":
            made |= nodes[element.get("id")]
        elif element.tag == "way":
            made |= line(element.get("id"))
        else:
            made["members"] = [
                {
                    "type": "way",
                    "ref": int(m.get("ref")),
                    "role": m.get("role"),
                    **(line(m.get("ref")) if geometry else {}),
                }
                for m in element.iter("member")
            ]
        if tags := {tag.get("k"): tag.get("v") for tag in element.iter("tag")}:
            made["tags"] = tags
        elements.append(made)
    if geometry:
        elements = [e for e in elements if e["type"] != "node" and not (members and e["type"] == "way")]
    path = folder / "answer.json"
    path.write_text(json.dumps({"version": 0.6, "generator": "Overpass API", "elements": elements[::-1], **more}))
    return path


def house(folder: Path, **how: Any) -> Path:
    town = Osm()
    town.way(box(0, 0, 20, 20), **TEN)
    return answer(folder, town, **how)


def yard(folder: Path, **how: Any) -> Path:
    town = Osm()
    ways = [town.way(box(0, 0, 60, 60)), town.way(box(10, 10, 50, 50))]
    town.relation(zip(ways, ("outer", "inner"), strict=True), **TEN)
    return answer(folder, town, **how)


def cut_off(folder: Path) -> Path:
    """A way of which one node lies beyond the box that was asked for."""
    town = Osm()
    town.way(box(0, 0, 20, 20), **TEN)
    town.way(box(40, 0, 60, 20), **TEN)
    path = answer(folder, town, geometry=True)
    content = json.loads(path.read_text())
    content["elements"][0]["geometry"][1] = None
    path.write_text(json.dumps(content))
    return path


def with_areas(folder: Path) -> Path:
    """Elements that are none of OpenStreetMap's, which a query for areas or counts gives besides."""
    path = house(folder)
    content = json.loads(path.read_text())
    content["elements"] += [{"type": "area", "id": 3600000001, "tags": {}}, {"type": "count", "id": 0}]
    path.write_text(json.dumps(content))
    return path


CASES = [
    _case("nodes and ways in any order", "the building", house, ((400, 0, 10),)),
    _case("ways with coordinates (`out geom`)", "the building", partial(house, geometry=True), ((400, 0, 10),)),
    _case("areas and counts besides", "the building", with_areas, ((400, 0, 10),)),
    _case("a courtyard", "a courtyard", yard, ((2000, 0, 10),)),
    _case(
        "a courtyard whose ways are in the relation alone (`out geom`)",
        "a courtyard",
        partial(yard, geometry=True, members=True),
        ((2000, 0, 10),),
    ),
    _case("a way cut off by the box", "left out and counted", cut_off, ((400, 0, 10),), ("ways that lack nodes",)),
    _case(
        "a query that ran out of time",
        "refused, with Overpass's remark",
        lambda f: answer(f, Osm(), remark="runtime error: Query timed out"),
        error="Overpass says: runtime error",
    ),
    _case("no element", "refused", lambda f: answer(f, Osm()), error="holds no building"),
]
