"""GeoJSON."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from tests.formats.case import Case, near_zero, size
from tests.formats.files import box, degrees, feature, geojson

FORM = "GeoJSON (`.geojson`, `.json`, `.geojsonl`, `.ndjson`)"
_case = partial(Case, FORM)
EAST, NORTH = 691_000.0, 5_335_000.0
ONE = ((400, 0, 10),)
TWO = ((400, 0, 10), (400, 0, 12))


def moved(x: float, y: float) -> list[Any]:
    """Two buildings in metres from (x, y)."""
    return [
        feature(box(x, y, x + 20, y + 20), height=10),
        feature(box(x + 40, y, x + 60, y + 20), height=12),
    ]


def named(name: Any) -> dict[str, Any]:
    return {"crs": {"type": "name", "properties": {"name": name}}}


def utm(crs: Any) -> Case:
    """Two buildings in UTM metres of a file that names its system so."""
    shown = json.dumps(crs.get("crs", crs))
    return _case(
        f"UTM coordinates and `{shown}`",
        "metres counted from the south-west corner, in that system",
        lambda f: geojson(f, moved(EAST, NORTH), **crs),
        TWO,
        check=lambda scene: "UTM zone 32N" in scene.crs and scene.extent[0][:2] == (-20, -20),
    )


def projected(code: str, x: float, y: float, factor: float) -> Case:
    """A building whose coordinates are larger than metres by `factor`."""
    sides = box(x, y, x + 20 * factor, y + 20 * factor)
    return _case(
        f"coordinates of {code}",
        "true metres, east and north",
        lambda f: geojson(f, [feature(sides, height=10)], **named(code)),
        ONE,
        check=lambda scene: near_zero(scene) and "+proj=tmerc" in scene.crs,
    )


def lonlat(lon: float = 11.0, lat: float = 48.0, **properties: Any) -> dict[str, Any]:
    return feature(degrees(box(0, 0, 20, 20), lon, lat), **(properties or {"height": 10}))


def split_at_180(folder: Path) -> Path:
    """A building on 180°, cut there into two polygons, as the standard asks for."""
    ring = degrees(box(-10, 0, 10, 20), 180.0, -16.8)
    west = [(180.0 if x < 0 else x, y) for x, y in ring]
    east = [(-180.0 if x > 0 else x, y) for x, y in ring]
    rings = [[[*map(list, half), list(half[0])]] for half in (west, east)]
    one = {"type": "Feature", "properties": {"height": 10}, "geometry": {"type": "MultiPolygon", "coordinates": rings}}
    return geojson(folder, [one])


def text(folder: Path, content: str | bytes, name: str = "town.geojson") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def encoded(folder: Path, encoding: str, **about: Any) -> Path:
    content = {"type": "FeatureCollection", "features": [lonlat(height=10, name="Straße")]}
    return text(folder, json.dumps(content, ensure_ascii=False, **about).encode(encoding))


def geometry(kind: str, inner: Any, **rest: Any) -> dict[str, Any]:
    key = "geometries" if kind == "GeometryCollection" else "coordinates"
    return {"type": "Feature", "properties": {"height": 10}, "geometry": {"type": kind, key: inner}, **rest}


def closed(points: list[Any]) -> list[list[float]]:
    return [list(point) for point in (*points, points[0])]


def heights(kind: str, outcome: str, top: float, *repairs: str, base: float = 0.0, **properties: Any) -> Case:
    features = [lonlat(**properties), feature(degrees(box(40, 0, 60, 20)), height=10)]
    return _case(kind, outcome, lambda f: geojson(f, features), ((400, base, top), (400, 0, 10)), repairs)


NESTED = {"type": "Feature", "properties": {"tags": {"building": "yes", "height": "10"}},
    "geometry": lonlat()["geometry"]}  # fmt: skip
POLYGON = closed(degrees(box(0, 0, 20, 20)))
SMALL = [feature(box(0, 0, 20, 20), height=10)]
CASES = [
    *map(utm, (
        named("urn:ogc:def:crs:EPSG::25832"), named("EPSG:25832"), named("epsg:32632"),
        named("urn:ogc:def:crs:EPSG:9.9:25832"), named("http://www.opengis.net/def/crs/EPSG/0/25832"),
        named("http://www.opengis.net/gml/srs/epsg.xml#25832"),
        {"crs": {"type": "EPSG", "properties": {"code": 25832}}},
        {"crs": {"type": "link", "properties": {"href": "https://spatialreference.org/ref/epsg/25832/proj4/"}}},
        {"coordRefSys": "http://www.opengis.net/def/crs/EPSG/0/25832"},
    )),
    _case("UTM coordinates and `crs=EPSG:25832`", "metres in that system",
          lambda f: {"path": geojson(f, moved(EAST, NORTH)), "crs": "EPSG:25832"}, TWO,
          check=lambda scene: "UTM zone 32N" in scene.crs and near_zero(scene)),
    _case("UTM coordinates and no system", "metres counted from the south-west corner, noted",
          lambda f: geojson(f, moved(EAST, NORTH)), TWO, ("metres of an unknown system",), check=near_zero),
    _case("UTM coordinates and a system of degrees", "metres counted from the corner, noted",
          lambda f: geojson(f, moved(EAST, NORTH), **named("urn:ogc:def:crs:OGC:1.3:CRS84")), TWO,
          ("coordinates are metres, not of EPSG:4326",), check=near_zero),
    _case("degrees and a projected system", "degrees, noted",
          lambda f: geojson(f, [lonlat()], **named("EPSG:25832")), ONE, ("coordinates are degrees",)),
    _case("a system nobody knows", "by the size of the numbers, noted",
          lambda f: geojson(f, [lonlat()], **named("file:///etc/passwd")), ONE, ("reference system not understood",)),
    _case("local metres around (0, 0) and a system of UTM", "local metres, noted",
          lambda f: {"path": geojson(f, SMALL, **named("EPSG:25832")), "metric": True}, ONE, ("not of the system",),
          check=lambda scene: scene.crs == "local"),
    _case("`crs: null`, or degrees of WGS 84, ETRS89, NAD83", "metres around the middle",
          lambda f: geojson(f, [lonlat()], **named("EPSG:4258")), ONE, check=near_zero),
    projected("EPSG:3857", 1_200_000.0, 8_400_000.0, 1.9966),
    projected("EPSG:2263", 980_000.0, 190_000.0, 1 / 0.3048006),
    projected("EPSG:3413", -200_000.0, -2_000_000.0, 0.99538),
    _case("latitude before longitude, where it shows", "swapped, noted",
          lambda f: geojson(f, [feature([(y, x) for x, y in degrees(box(0, 0, 20, 20), 151.2, -33.8)], height=10)]),
          ONE, ("swapped",)),
    _case("small numbers that could be degrees or metres", "refused without `metric` or `crs`",
          lambda f: geojson(f, SMALL), error="give metric=true or metric=false"),
    _case("small numbers and `metric=true`", "local metres",
          lambda f: {"path": geojson(f, SMALL), "metric": True}, ONE, check=lambda scene: scene.extent[0][0] == -20),
    _case("houses on both sides of 180°", "one place",
          lambda f: geojson(f, [lonlat(179.9999, -16.8), lonlat(-179.9996, -16.8)]), (*ONE, *ONE),
          check=lambda scene: size(scene)[0] < 120),
    _case("a building cut at 180°", "both halves", split_at_180, ((200, 0, 10), (200, 0, 10)), check=near_zero),
    _case("longitudes from 0 to 360", "the same", lambda f: geojson(f, [lonlat(350.0, 50.0)]), ONE, check=near_zero),
    _case("a place at 89° N", "the same", lambda f: geojson(f, [lonlat(15.0, 89.0)]), ONE, check=near_zero),
    _case("corners with z", "the footprint; z is left out",
          lambda f: geojson(f, [geometry("Polygon", [[[*p, 5.0] for p in POLYGON]])]), ONE),
    _case("MultiPolygon", "each polygon", lambda f: geojson(f, [geometry("MultiPolygon", [[POLYGON]])]), ONE),
    _case("GeometryCollection", "its polygons; points and lines are counted",
          lambda f: geojson(f, [geometry("GeometryCollection", [
              {"type": "Point", "coordinates": [11, 48]}, {"type": "Polygon", "coordinates": [POLYGON]}])]),
          ONE, ("points and lines left out: 1",)),
    _case("null or lacking geometries", "left out, counted",
          lambda f: geojson(f, [lonlat(), {"type": "Feature", "properties": {"height": 3}, "geometry": None},
                                {"type": "Feature", "properties": None}]),
          ONE, ("without a geometry left out: 2",)),
    _case("points and lines", "left out, counted",
          lambda f: geojson(f, [lonlat(), geometry("LineString", POLYGON), geometry("Point", [11, 48])]), ONE,
          ("points and lines left out: 2",)),
    _case("rings that do not close", "closed, counted",
          lambda f: geojson(f, [geometry("Polygon", [POLYGON[:-1]])]), ONE, ("rings that do not close",)),
    _case("coordinates that are no numbers, or too few", "left out, counted",
          lambda f: geojson(f, [lonlat(), geometry("Polygon", [[[11, "x"], [1, 2], [3, 4]]]),
                                geometry("Polygon", [POLYGON[:2]]), geometry("Polygon", "x")]),
          ONE, ("broken coordinates left out: ", "unreadable geometries left out: 1")),
    _case("a courtyard", "a courtyard",
          lambda f: geojson(f, [feature(degrees(box(0, 0, 60, 60)), degrees(box(10, 10, 50, 50)), height=10)]),
          ((2000, 0, 10),)),
    _case("one feature, or one geometry", "one building",
          lambda f: {"path": text(f, json.dumps({"type": "Polygon", "coordinates": [POLYGON]})),
                     "default_height_m": 10}, ONE, ("default 10 m used",)),
    _case("one feature a line (GeoJSONSeq, building data sets)", "a collection",
          lambda f: text(f, "\n".join(["\x1e" + json.dumps(lonlat())] * 1), "a.geojsonl"), ONE),
    _case("a byte-order mark", "the same", lambda f: encoded(f, "utf-8-sig"), ONE),
    _case("UTF-16, or names in Latin-1", "the same", lambda f: encoded(f, "cp1252"), ONE),
    _case("lines that end in CR LF", "the same",
          lambda f: text(f, json.dumps({"type": "FeatureCollection", "features": [lonlat()]}, indent=1)
                         .replace("\n", "\r\n")), ONE),
    _case("capital keys, `HEIGHT`", "the same", lambda f: geojson(f, [lonlat(HEIGHT=10)]), ONE),
    _case("tags in an object, or in GDAL's `other_tags`", "the tags", lambda f: geojson(f, [NESTED]), ONE),
    heights("`num_floors=4`, `min_floor=1` (Overture)", "from 3 m to 12 m", 12, base=3, num_floors=4, min_floor=1),
    heights("`height` of text with a unit, `\"40 ft\"`", "12.19 m", 12.192, height="40 ft"),
    heights("a height that is null, true or a list", "9 m, counted", 9, "default 9 m", height=[3]),
    heights("a height of -1 (unknown, in building data sets)", "9 m, counted", 9, "not usable",
            "default 9 m", height=-1),
    _case("`height_key=HAUTEUR`", "the height of that name",
          lambda f: {"path": geojson(f, [lonlat(HAUTEUR=10)]), "height_key": "HAUTEUR"}, ONE),
    _case("`height_key=roof`, `height_unit=ft`", "feet",
          lambda f: {"path": geojson(f, [lonlat(roof=40)]), "height_key": "roof", "height_unit": "ft"},
          ((400, 0, 12.192),)),
    _case("`height_unit=cubits`", "refused, with the known units",
          lambda f: {"path": geojson(f, [lonlat()]), "height_unit": "cubits"}, error="expected one of m, "),
    heights("`HEIGHT_FT=40`", "12.19 m", 12.192, HEIGHT_FT=40),
    heights("`measured_height`, `storeys`, `floors`", "the height", 12, storeys=4),
    _case("no height in any feature", "refused, with the names of its numbers",
          lambda f: geojson(f, [lonlat(HAUTEUR=10)]), error="its numbers are called hauteur"),
    _case("`building` tags on some features", "those; other polygons are counted",
          lambda f: geojson(f, [lonlat(building="yes", height=10), lonlat(landuse="grass")]), ONE,
          ("no building above ground left out: 1",)),
    _case("`bounds_m=[-50,-50,50,50]`", "ground over the bounds",
          lambda f: {"path": geojson(f, [lonlat()]), "bounds_m": [-50, -50, 50, 50]}, ONE,
          check=lambda scene: size(scene) == (100, 100)),
    _case("UTM coordinates, northing before easting", "swapped, noted",
          lambda f: geojson(f, [feature([(NORTH + y, EAST + x) for x, y in box(0, 0, 20, 20)], height=10)],
                            **named("EPSG:25832")), ONE, ("northing stood before easting",),
          check=lambda scene: "UTM zone 32N" in scene.crs),
    _case("`crs=25832`", "the system of that code",
          lambda f: {"path": geojson(f, moved(EAST, NORTH)), "crs": 25832}, TWO,
          check=lambda scene: "UTM zone 32N" in scene.crs),
    _case("holes that overlap", "what is in neither", lambda f: geojson(f, [feature(
        degrees(box(0, 0, 60, 60)), degrees(box(10, 10, 40, 40)), degrees(box(20, 20, 50, 50)), height=10)]),
          ((2200, 0, 10),), ("invalid polygons resolved",)),
    _case("polygons of one line", "left out, counted",
          lambda f: geojson(f, [lonlat(), geometry("Polygon", [[POLYGON[0], POLYGON[1], POLYGON[0]]])]), ONE,
          ("fewer than three corners",)),
    _case("a building at (0, 0) among UTM coordinates", "refused",
          lambda f: geojson(f, [*moved(EAST, NORTH), *moved(0, 0)], **named("EPSG:25832")),
          error="span more than 1000 km"),
    _case("coordinates beyond the Earth", "refused",
          lambda f: geojson(f, moved(1e12, 1e12)), error="lies beyond the Earth"),
    _case("heights of 12000 alone", "refused, with the first",
          lambda f: geojson(f, [lonlat(height=12000)]), error="height not usable: 1 .a building: 12000."),
    _case("its end cut off", "refused", lambda f: text(f, '{"type": "FeatureColl'), error="may be truncated"),
    _case("nothing", "refused", lambda f: text(f, ""), error="is empty"),
    _case("no polygon", "refused", lambda f: geojson(f, []), error="holds no polygon"),
    _case("a million brackets", "refused", lambda f: text(f, "[" * 1_000_000), error="not valid JSON"),
    _case("other JSON", "refused", lambda f: text(f, '{"type": "Topology"}'), error="no GeoJSON FeatureCollection"),
    _case("CityJSON, TopoJSON, Esri's JSON", "refused, with the way out", lambda f: text(f, '{"type": "CityJSON"}'),
          error="CityJSON; convert"),
    _case("places all over the Earth", "refused", lambda f: geojson(f, [lonlat(), lonlat(100, -20)], **named("CRS84")),
          error="cut one area out"),
]  # fmt: skip
