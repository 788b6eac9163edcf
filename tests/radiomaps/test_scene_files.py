"""Scenes from OpenStreetMap XML and from rasters of heights."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from geoml.errors import DataError, UserError
from geoml.grids.grid import Grid
from radiomaps.scenes import load
from radiomaps.scenes.projection import WGS84, local_crs, project

CRS = local_crs(13.4, 52.5)


class Town:
    """An OpenStreetMap file being written, in metres around a point."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.ids = 0

    def ring(self, corners: list[tuple[float, float]], **tags: str) -> int:
        refs = []
        for x, y in corners:
            lon, lat = project(np.array([[x, y]], float), CRS, WGS84)[0]
            self.ids += 1
            refs.append(self.ids)
            self.lines.append(f'<node id="{self.ids}" lon="{lon:.9f}" lat="{lat:.9f}"/>')
        self.ids += 1
        nodes = "".join(f'<nd ref="{ref}"/>' for ref in [*refs, refs[0]])
        self.lines.append(f'<way id="{self.ids}">{nodes}{self.tags(tags)}</way>')
        return self.ids

    def box(self, x: float, y: float, w: float, h: float, **tags: str) -> int:
        return self.ring([(x, y), (x + w, y), (x + w, y + h), (x, y + h)], **tags)

    def relation(self, members: list[tuple[int, str]], **tags: str) -> None:
        inside = "".join(f'<member type="way" ref="{ref}" role="{role}"/>' for ref, role in members)
        self.lines.append(f'<relation id="1">{inside}{self.tags({"type": "multipolygon", **tags})}</relation>')

    @staticmethod
    def tags(tags: dict[str, str]) -> str:
        return "".join(f'<tag k="{key.replace("__", ":")}" v="{value}"/>' for key, value in tags.items())

    def write(self, path: Path) -> Path:
        path.write_text("<osm version='0.6'>" + "\n".join(self.lines) + "</osm>")
        return path


def test_osm_buildings_courtyards_parts_and_storeys(tmp_path: Path):
    town = Town()
    town.box(0, 0, 20, 10, building="yes", building__levels="4", building__material="brick")
    town.box(100, 0, 20, 10, building="yes")
    town.box(40, 0, 20, 20, building="church", height="10")
    town.box(40, 0, 20, 18, building__part="yes", height="12 m")
    town.box(40, 18, 4, 2, building__part="tower", height="40", min_height="12")
    town.box(200, 0, 20, 20, building="yes", location="underground")
    town.box(300, 0, 20, 20, highway="service")
    outer, inner = town.box(0, 100, 40, 40), town.box(10, 110, 20, 20)
    town.relation([(outer, "outer"), (inner, "inner")], building="yes", height="15")
    scene = load(town.write(tmp_path / "town.osm"))
    found = {round(f.top_m, 2): f for f in scene.footprints}
    assert set(found) == {9.0, 12.0, 15.0, 40.0}
    twelve = [f for f in scene.footprints if f.top_m == 12]
    assert sorted(f.material for f in twelve) == ["brick", "concrete"]
    assert found[15.0].polygon.area == pytest.approx(40 * 40 - 20 * 20, rel=1e-3)
    assert found[40.0].base_m == 12
    assert "OpenStreetMap" in scene.licence


def courtyards(kind: str, town: Town) -> None:
    """Areas of OpenStreetMap with what is inside in different words."""
    boxes = {"island": (60, 40, 20), "swapped": (60, 20), "crossing": (40,)}[kind]
    rings = [town.box(50 - size / 2, 50 - size / 2, size, size) for size in boxes]
    if kind == "crossing":
        rings.append(town.box(50, 50, 40, 40))
    roles = {"island": ("outer", "inner", "outer"), "swapped": ("inner", "outer"), "crossing": ("outer", "inner")}[kind]
    town.relation(list(zip(rings, roles, strict=True)), building="yes", height="15")


@pytest.mark.parametrize(
    ("kind", "area_m2", "repair"),
    [
        ("island", 60**2 - 40**2 + 20**2, ""),
        ("swapped", 60**2 - 20**2, ""),
        ("crossing", 2 * (40**2 - 20**2), "relations whose rings cross"),
    ],
)
def test_what_is_inside_follows_from_geometry(tmp_path: Path, kind: str, area_m2: float, repair: str):
    town = Town()
    courtyards(kind, town)
    scene = load(town.write(tmp_path / "town.osm"))
    assert sum(f.polygon.area for f in scene.footprints) == pytest.approx(area_m2, rel=0.01)
    assert any(line.startswith(repair) for line in scene.repairs) if repair else scene.repairs == ()


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("<osm><way id='1'><nd ref='9'/><tag k='building' v='yes'/></way></osm>", {}, "needs node 9"),
        ("<osm></osm>", {}, "holds no building"),
        ("<osm><way", {}, "may be truncated"),
        ("<gpx></gpx>", {}, "begins with <gpx>"),
    ],
)
def test_bad_osm_is_refused(tmp_path: Path, content: str, options: dict, message: str):
    path = tmp_path / "bad.osm"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        load({"path": str(path), **options})


def write_raster(path: Path, values: np.ndarray, *, crs: str | None, x0: float, y0: float, step: float) -> Path:
    """`values` [y, x] from the south."""
    transform = from_origin(x0, y0 + step * values.shape[0], step, step)
    with rasterio.open(
        path, "w", driver="GTiff", width=values.shape[1], height=values.shape[0], count=1, dtype="float32", crs=crs,
        transform=transform,
    ) as file:  # fmt: skip
        file.write(values[::-1].astype("f4"), 1)
    return path


def blocks() -> np.ndarray:
    heights = np.zeros((60, 80))
    heights[10:30, 10:25] = 12
    heights[40:55, 30:60] = 30
    heights[10:20, 40:60] = 21
    return heights


def test_heights_above_ground_become_prisms(tmp_path: Path):
    path = write_raster(tmp_path / "h.tif", blocks(), crs="EPSG:32633", x0=390_000, y0=5_819_000, step=2)
    scene = load(path)
    grid = Grid.box({"z": 0, "y": 0, "x": 0}, {"z": 40, "y": 120, "x": 160}, {"z": 4, "y": 2, "x": 2})
    z = grid["z"].coordinates[:, None, None]
    assert (scene.building_mask(grid) == (z < blocks()[None])).all()
    assert sorted(f.height_m for f in scene.footprints) == [12, 21, 30]
    there = project(np.array([[20.0, 20.0]]), scene.crs, "EPSG:32633")
    assert there[0] == pytest.approx([390_020, 5_819_020], abs=1e-3)


def test_surface_over_terrain(tmp_path: Path):
    slope = np.broadcast_to(100 + 0.5 * np.arange(80), (60, 80))
    surface = write_raster(tmp_path / "s.tif", blocks() + slope, crs="EPSG:32633", x0=0, y0=0, step=2)
    terrain = write_raster(tmp_path / "t.tif", slope, crs="EPSG:32633", x0=0, y0=0, step=2)
    scene = load({"path": str(surface), "terrain": str(terrain)})
    grid = Grid.box({"z": 100, "y": 0, "x": 0}, {"z": 101, "y": 120, "x": 160}, {"z": 1, "y": 2, "x": 2})
    assert scene.ground_height(grid) == pytest.approx(slope)
    heights = scene.height_map(grid)
    outdoors = blocks() == 0
    assert heights[outdoors] == pytest.approx(slope[outdoors])
    assert heights[20, 17] == pytest.approx(100 + 0.5 * 17 + 12, abs=1.0)
    scene.require_outdoors([(10.0, 10.0, 104.0)])
    with pytest.raises(UserError, match="inside a building or the ground; the surface there is at 102"):
        scene.require_outdoors([(10.0, 10.0, 101.0)])


def test_degrees_become_metres(tmp_path: Path):
    step = 2 / 111_320
    heights = write_raster(tmp_path / "d.tif", blocks(), crs="EPSG:4326", x0=0.0, y0=0.0, step=step)
    lower, upper = load(heights).extent
    assert upper[0] - lower[0] == pytest.approx(160, rel=5e-3)
    assert upper[1] - lower[1] == pytest.approx(120, rel=1e-2)


@pytest.mark.parametrize(
    ("options", "values", "message"),
    [
        ({}, blocks(), "names no reference system"),
        ({"crs": "EPSG:999999"}, blocks(), "no reference system"),
        ({"crs": "EPSG:2263"}, blocks(), "coordinates in US survey foot"),
        ({"crs": "local"}, np.zeros((5, 5)), "no cell 2.5 m or more"),
        ({"crs": "local", "levels": 3}, blocks(), "did you mean 'level_m'"),
    ],
)
def test_bad_rasters_are_refused(tmp_path: Path, options: dict, values: np.ndarray, message: str):
    path = write_raster(tmp_path / "r.tif", values, crs=None, x0=0, y0=0, step=2)
    with pytest.raises(UserError, match=message):
        load({"path": str(path), **options})


def test_no_raster_at_all(tmp_path: Path):
    (tmp_path / "x.tif").write_text("no picture")
    with pytest.raises(DataError, match="no readable raster"):
        load(tmp_path / "x.tif")


@pytest.mark.real_data
@pytest.mark.skipif("GEOML_DATA" not in os.environ, reason="GEOML_DATA names no folder of real data")
def test_real_orography_without_a_reference_system_is_asked_for_one():
    path = Path(os.environ["GEOML_DATA"]) / "static" / "gtopo30_30arcsec_5-9E_49-52N.tif"
    with pytest.raises(UserError, match="names no reference system"):
        load(path)


def test_urbanradio3d_buildings_by_polygons_and_by_picture(tmp_path: Path):
    from PIL import Image

    levels = np.zeros((64, 64), np.uint8)
    levels[10:20, 30:50] = 255
    levels[10:20, 20:30] = 100
    Image.fromarray(levels).save(tmp_path / "3.png")
    ring = [[30, 44], [50, 44], [50, 54], [30, 54]]
    low = [[20, 44], [30, 44], [30, 54], [20, 54]]
    rows = [{"polygon": ring, "height": 19.8}, {"polygon": low, "height": 100 / 255 * 19.8}]
    (tmp_path / "3.json").write_text(json.dumps({"buildings": rows}))
    picture, polygons = load(tmp_path / "3.png"), load({"path": str(tmp_path / "3.json"), "size_m": 64})
    grid = Grid.box({"z": 0, "y": 0, "x": 0}, {"z": 20, "y": 64, "x": 64}, 1.0)
    assert (picture.building_mask(grid) == polygons.building_mask(grid)).all()
    assert picture.building_mask(grid)[0].sum() == 300
    (tmp_path / "4.json").write_text(json.dumps([{"polygon": ring}]))
    with pytest.raises(DataError, match="no polygon or no height"):
        load(tmp_path / "4.json")
