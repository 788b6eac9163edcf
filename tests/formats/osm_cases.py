"""OpenStreetMap XML."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from tests.formats.case import Case, near_zero, size
from tests.formats.files import Osm, box, degrees, raster

FORM = "OpenStreetMap XML (`.osm`)"
TEN = {"building": "yes", "height": "10"}
_case = partial(Case, FORM)


def tagged(folder: Path, **tags: Any) -> Path:
    """One building of 20 m by 20 m with these tags, and one of 20 m by 20 m by 10 m."""
    town = Osm()
    town.way(box(0, 0, 20, 20), **{"building": "yes", **tags})
    town.way(box(40, 0, 60, 20), **TEN)
    return town.save(folder)


def height(kind: str, outcome: str, top: float, *repairs: str, base: float = 0.0, **tags: Any) -> Case:
    """A case of one tag."""
    return _case(kind, outcome, partial(tagged, **tags), ((400, base, top), (400, 0, 10)), repairs)


def rings(
    folder: Path, roles: tuple[str, ...], relation: dict[str, Any], *ways: dict[str, Any], island: bool = False
) -> Path:
    """A relation of a ring of 60 m, one of 40 m in it, and with `island` one of 20 m in that."""
    town = Osm()
    squares = [box(0, 0, 60, 60), box(10, 10, 50, 50), box(20, 20, 40, 40)][: 3 if island else 2]
    tags = [*ways, *[{}] * (len(squares) - len(ways))]
    members = [town.way(square, **tag) for square, tag in zip(squares, tags, strict=True)]
    town.relation(zip(members, roles, strict=True), **relation)
    return town.save(folder)


def split_ring(folder: Path) -> Path:
    town = Osm()
    a = town.way([(0, 0), (60, 0), (60, 60)], closed=False)
    b = town.way([(0, 0), (0, 60), (60, 60)], closed=False)
    inner = town.way([(10, 10), (50, 10), (50, 50)], closed=False)
    rest = town.way([(50, 50), (10, 50), (10, 10)], closed=False)
    town.relation([(rest, ""), (b, "outer"), (inner, "inner"), (a, "outer")], **TEN)
    return town.save(folder)


def touching(folder: Path) -> Path:
    """Two holes that share a wall, and two outlines that do."""
    town = Osm()
    ways = [town.way(box(*b)) for b in ((0, 0, 60, 60), (10, 10, 30, 50), (30, 10, 50, 50), (60, 0, 80, 60))]
    town.relation([(way, "outer") for way in ways], **TEN)
    return town.save(folder)


def cut(folder: Path, lacking: str) -> Path:
    town = Osm()
    if lacking == "outer":
        way = town.way([(0, 0), (60, 0), (60, 60)], closed=False)
        town.relation([(way, "outer"), (999, "outer")], **TEN)
    elif lacking == "inner":
        town.relation([(town.way(box(0, 0, 60, 60)), "outer"), (999, "inner")], **TEN)
    elif lacking == "way":
        town.way([(0, 0), (60, 0), (60, 60)], closed=False, **TEN)
    else:
        way = town.way(box(0, 0, 60, 60), **TEN)
        town.lines = [line for line in town.lines if '<node id="2"' not in line]
        assert way == 5
    town.way(box(100, 0, 110, 10), **TEN)
    return town.save(folder)


def parts(folder: Path) -> Path:
    town = Osm()
    town.way(box(0, 0, 40, 20), building="yes", height="30")
    town.way(box(0, 0, 20, 20), building__part="yes", height="20")
    town.way(box(20, 0, 40, 20), building__part="yes", height="30", min_height="12")
    return town.save(folder)


def written(folder: Path, **form: Any) -> Path:
    town = Osm()
    town.way(box(0, 0, 20, 20), **TEN)
    return town.save(folder, **form)


def capitals(folder: Path) -> Path:
    town = Osm()
    town.way(box(0, 0, 20, 20), Building="Yes", HEIGHT="10 M")
    return town.save(folder, name="TOWN.OSM")


def not_standing(folder: Path) -> Path:
    town = Osm()
    town.way(box(0, 0, 20, 20), **TEN)
    for tags in ({"building": "no"}, {**TEN, "location": "underground"}, {**TEN, "layer": "-1"}, {"landuse": "forest"}):
        town.way(box(100, 0, 120, 20), **tags)
    return town.save(folder)


def deleted(folder: Path) -> Path:
    town = Osm()
    town.way(box(0, 0, 20, 20), **TEN)
    town.way(box(40, 0, 60, 20), **TEN)
    town.lines[-1] = town.lines[-1].replace("<way ", '<way action="delete" ')
    return town.save(folder)


def inline(folder: Path) -> Path:
    """Nodes inside of ways, as Overpass writes them with `out geom`."""
    places = degrees([*box(0, 0, 20, 20), (0, 0)])
    nodes = "".join(f'<nd ref="{i % 4}" lat="{lat:.10f}" lon="{lon:.10f}"/>' for i, (lon, lat) in enumerate(places))
    path = folder / "overpass.osm"
    path.write_text(
        f'<osm><note>x</note><way id="1">{nodes}<tag k="building" v="yes"/><tag k="height" v="10"/></way></osm>'
    )
    return path


def placed(folder: Path, lon: float, lat: float) -> Path:
    town = Osm(lon, lat)
    town.way(box(-50, 0, -30, 20), **TEN)
    town.way(box(30, 0, 50, 20), **TEN)
    return town.save(folder)


def on_terrain(folder: Path) -> Any:
    import numpy as np
    from rasterio import Affine

    town = Osm()
    town.way(box(-10, -10, 10, 10), **TEN)
    lon, lat = 11.0, 48.0
    slope = np.broadcast_to(500.0 + np.arange(80), (80, 80))  # a metre up a cell to the east
    step = 5 / 111_320
    place = Affine(step * 1.494, 0, lon - 40 * step * 1.494, 0, -step, lat + 40 * step)
    dem = raster(folder / "dem.tif", slope, crs="EPSG:4326", transform=place)
    return {"path": town.save(folder), "terrain": dem}


def hostile(folder: Path) -> Path:
    head = '<!DOCTYPE osm [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    path = folder / "bomb.osm"
    path.write_text(f"{head}<osm>&b;</osm>")
    return path


def text(folder: Path, content: str) -> Path:
    path = folder / "x.osm"
    path.write_text(content)
    return path


def _members(folder: Path, boxes: tuple[tuple[float, float, float, float], ...]) -> Path:
    """A relation of rectangles, all of them called outer."""
    town = Osm()
    town.relation([(town.way(box(*corners)), "outer") for corners in boxes], **TEN)
    return town.save(folder)


def twice(folder: Path) -> Path:
    """A way with its tags, and again without them."""
    town = Osm()
    town.way(box(0, 0, 20, 20), **TEN)
    town.lines.append(town.lines[-1].partition("<tag")[0] + "</way>")
    return town.save(folder)


NO_PLACE = "<way id='2'><nd ref='1'/><tag k='building' v='yes'/></way>"
YARD = ((2000, 0, 10),)
ONE = ((400, 0, 10),)
CASES = [
    _case("a hole whose role says outer", "a courtyard", partial(rings, roles=("outer", "outer"), relation=TEN), YARD),
    _case("rings without roles", "a courtyard", lambda f: rings(f, ("", ""), TEN), YARD),
    _case(
        "an outline tagged as a building, as its relation is",
        "one building with its courtyard",
        lambda f: rings(f, ("outer", "inner"), TEN, TEN),
        YARD,
    ),
    _case(
        "tags on the outline alone (before 2017)",
        "a courtyard, also where the hole has the same tags",
        lambda f: rings(f, ("outer", "inner"), {}, TEN, TEN),
        YARD,
    ),
    _case(
        "an island in a courtyard",
        "a building in the courtyard",
        lambda f: rings(f, ("outer", "inner", "inner"), TEN, island=True),
        ((2000, 0, 10), (400, 0, 10)),
    ),
    _case(
        "a hole that is tagged as another building",
        "both, each with its height",
        lambda f: rings(f, ("outer", "inner"), TEN, {}, {"building": "hut", "height": "4"}),
        ((2000, 0, 10), (1600, 0, 4)),
    ),
    _case("rings split into ways, in any order and direction", "joined rings", split_ring, YARD),
    _case("holes or outlines that share a wall", "one hole, one outline", touching, ((3200, 0, 10),)),
    _case(
        "a relation that lacks a part of its outline",
        "the building is left out and counted, with the relation and the way",
        lambda f: cut(f, "outer"),
        ((100, 0, 10),),
        ("relations that lack members", "lacks way 999", "without a closed ring left out"),
    ),
    _case(
        "a relation that lacks a hole",
        "the building without the courtyard, counted",
        lambda f: cut(f, "inner"),
        ((3600, 0, 10), (100, 0, 10)),
        ("lacks way 999",),
    ),
    _case(
        "a way that does not close", "left out and counted", lambda f: cut(f, "way"), ((100, 0, 10),), ("do not close",)
    ),
    _case(
        "a way that lacks a node", "left out and counted", lambda f: cut(f, "node"), ((100, 0, 10),), ("needs node 2",)
    ),
    _case("parts of a building", "the parts instead of the outline", parts, ((400, 0, 20), (400, 12, 30))),
    _case("no standing buildings: `building=no`, underground, landuse", "left out", not_standing, ONE),
    _case("deleted elements (JOSM)", "left out", deleted, ONE),
    _case("coordinates in the ways (Overpass `out geom`)", "the building", inline, ONE),
    _case("capital letters in tags, units and the file's name", "the same", capitals, ONE),
    _case("a byte-order mark", "the same", lambda f: written(f, head="\ufeff"), ONE),
    _case("lines that end in CR LF", "the same", lambda f: written(f, newline="\r\n"), ONE),
    height("`height=12 metres`, `12 m`, `12,0`", "12 m", 12, height="12,0 metres"),
    height("`height=40'`, `40 ft`", "12.19 m", 12.192, height="40'"),
    height("`height=5'10\"`", "1.78 m", 1.778, height="5'10&quot;"),
    height("`height=~12`", "the default, counted", 9, "height not understood", "default 9 m used", height="~12"),
    height("`height=12;15`", "the default, counted", 9, "'12;15'", "default 9 m", height="12;15"),
    height("`height=-1`", "the default, counted", 9, "height not usable", "default 9 m", height="-1"),
    height("`height=0`", "the default, counted", 9, "height not usable", "default 9 m", height="0"),
    height("`height=1e9`", "the default, counted", 9, "height not usable", "default 9 m", height="1e9"),
    height("no height and no storeys", "the default, counted", 9, "default 9 m used"),
    height("`building:levels=4`", "12 m: 3 m a storey", 12, building__levels="4"),
    height(
        "`height=~12`, `building:levels=5`", "15 m, counted", 15, "not understood", height="~12", building__levels="5"
    ),
    height("`building:levels=4`, `roof:levels=1`", "15 m", 15, building__levels="4", roof__levels="1"),
    height("`building:levels=4`, `roof:height=2`", "14 m", 14, building__levels="4", roof__height="2"),
    height("`building:levels=0`, `roof:levels=1`", "3 m", 3, building__levels="0", roof__levels="1"),
    height("`building:levels=0`", "the default, counted", 9, "storeys not usable", "default 9 m", building__levels="0"),
    height("`building:levels=2+1`", "the default, counted", 9, "'2+1'", "default 9 m", building__levels="2+1"),
    height("`building:levels=1,2`", "the default, counted: a list", 9, "'1,2'", "default 9 m", building__levels="1,2"),
    height("`height=20`, `min_height=8`", "from 8 m to 20 m", 20, base=8, height="20", min_height="8"),
    height(
        "`building:levels=6`, `building:min_level=4`",
        "from 12 m to 18 m",
        18,
        base=12,
        building__levels="6",
        building__min_level="4",
    ),
    height(
        "`height=10`, `min_height=12`",
        "from the ground, counted",
        10,
        "base above the top",
        height="10",
        min_height="12",
    ),
    height("`building=roof`, `carport`", "a slab of 0.5 m on posts", 6, base=5.5, building="roof", height="6"),
    _case("`building=proposed`, `demolished` and the like", "left out", partial(tagged, building="proposed"), ONE),
    _case(
        "`building:material=adobe`, and a table with adobe",
        "that material",
        lambda f: {
            "path": tagged(f, height="12", building__material="adobe"),
            "materials": {"table": {"adobe": {"eps_r": 3}}},
        },
        ((400, 0, 12), (400, 0, 10)),
        check=lambda scene: "adobe" in {mesh.material for mesh in scene.meshes},
    ),
    height(
        "`building:material=adobe`, and no table",
        "concrete, counted",
        12,
        "'adobe'",
        height="12",
        building__material="adobe",
    ),
    _case(
        "holes that touch in a point",
        "both holes",
        partial(_members, boxes=((0, 0, 60, 60), (10, 10, 30, 30), (30, 30, 50, 50))),
        ((2800, 0, 10),),
    ),
    _case(
        "the same outline twice in a relation",
        "one building, counted",
        partial(_members, boxes=((0, 0, 20, 20), (0, 0, 20, 20))),
        ONE,
        ("the same ring twice",),
    ),
    _case("a way that is there again without its tags (Overpass)", "the building", twice, ONE),
    height("`min_height=x`", "from the ground, counted", 10, "min_height not understood", height="10", min_height="x"),
    _case(
        "houses on both sides of 180°",
        "one place around (0, 0)",
        lambda f: placed(f, 180.0, -16.8),
        ((400, 0, 10), (400, 0, 10)),
        check=lambda scene: near_zero(scene) and abs(size(scene)[0] - 140) < 3,
    ),
    _case(
        "houses around a pole",
        "one place around (0, 0)",
        lambda f: placed(f, 0.0, -90.0),
        ((400, 0, 10), (400, 0, 10)),
        check=near_zero,
    ),
    _case(
        "`terrain=dem.tif`",
        "buildings that stand at the lowest ground below them",
        on_terrain,
        ((400, 538.2, 548.2),),
        check=lambda scene: scene.report.ground.startswith("53"),
    ),
    _case(
        "`bounds_m=[-50,-50,15,50]`",
        "ground over the bounds, and what lies in them",
        lambda f: {"path": tagged(f, height="12"), "bounds_m": [-50, -50, 15, 50]},
        ((400, 0, 12), (100, 0, 10)),
        ("cut at the bounds: 1",),
        check=lambda scene: size(scene) == (65, 100),
    ),
    _case("entities", "refused", hostile, error="declares XML entities"),
    _case("no building", "refused", lambda f: text(f, "<osm></osm>"), error="holds no building"),
    _case("nothing", "refused", lambda f: text(f, ""), error="is empty"),
    _case("its end cut off", "refused", lambda f: text(f, "<osm><way"), error="may be truncated"),
    _case("other XML", "refused", lambda f: text(f, "<gpx/>"), error="begins with <gpx>"),
    _case(
        "a latitude that is no number, in all it holds",
        "refused",
        lambda f: text(
            f, "<osm><node id='1' lat='x' lon='11'/><way id='2'><nd ref='1'/><tag k='building' v='yes'/></way></osm>"
        ),
        error="node 1: lat 'x'",
    ),
]
