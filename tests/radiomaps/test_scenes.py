"""Scenes: geometry conserved, masks against polygons, repairs counted, hashes that mean the scene."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from geoml.errors import DataError, UserError
from geoml.grids.grid import Grid
from radiomaps.scenes import Footprint, Mesh, load, names, save_scene
from radiomaps.scenes.extrude import extrude, scene_of_footprints
from radiomaps.scenes.footprints import burn, clean
from radiomaps.scenes.projection import WGS84, local_crs, project

COURTYARD = shapely.Polygon([(10, 10), (50, 10), (50, 40), (10, 40)], [[(20, 20), (20, 30), (40, 30), (40, 20)]])


def volume(mesh: Mesh) -> float:
    """By the divergence theorem: right only where the mesh is closed and all normals look outward."""
    a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)


def box_grid(size: float = 60.0, top: float = 20.0, step: float = 1.0) -> Grid:
    return Grid.box({"z": 0, "y": 0, "x": 0}, {"z": top, "y": size, "x": size}, step)


def write(path: Path, features: list, **extra: object) -> Path:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features, **extra}))
    return path


def feature(polygon: shapely.Polygon, **properties: object) -> dict:
    return {"type": "Feature", "properties": properties, "geometry": json.loads(shapely.to_geojson(polygon))}


def test_prism_with_courtyard_is_closed_and_welded():
    mesh = extrude(Footprint(COURTYARD, 12.0, 3.0))
    assert volume(mesh) == pytest.approx(COURTYARD.area * 12.0)
    assert len(mesh.vertices) == 16
    edges = np.sort(np.concatenate([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]]), axis=1)
    _, counts = np.unique(edges, axis=0, return_counts=True)
    assert (counts == 2).all()


def test_mask_is_the_polygon_and_vanishes_above_the_roof():
    scene = scene_of_footprints("c", [Footprint(COURTYARD, 12.0, name="yard")], bounds=(0, 0, 60, 60))
    grid = box_grid()
    mask = scene.building_mask(grid)
    x, y = np.meshgrid(grid["x"].coordinates, grid["y"].coordinates)
    inside = shapely.contains_xy(COURTYARD, x, y)
    assert (mask[:12] == inside).all()
    assert not mask[12:].any()
    assert (scene.height_map(grid) == np.where(inside, 12.0, 0.0)).all()
    at_roof = Grid.box({"z": 11.5, "y": 0, "x": 0}, {"z": 12.5, "y": 60, "x": 60}, {"z": 1.0, "y": 1.0, "x": 1.0})
    assert not scene.building_mask(at_roof).any()


def test_raised_part_leaves_the_passage_below_open():
    scene = scene_of_footprints("gate", [Footprint(shapely.box(10, 10, 20, 20), 5.0, 8.0)], bounds=(0, 0, 60, 60))
    column = scene.building_mask(box_grid())[:, 15, 15]
    assert column.tolist() == [8 <= z < 13 for z in range(20)]


@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_cleaning_keeps_the_covered_ground_and_leaves_no_overlap(seed: int):
    random = np.random.default_rng(seed)
    rings = random.uniform(0, 60, (6, 5, 2))  # mostly self-crossing
    polygons = [shapely.Polygon(ring) for ring in rings]
    kept, _ = clean([Footprint(p, float(h)) for p, h in zip(polygons, random.uniform(3, 30, 6), strict=True)])
    covered = shapely.union_all([shapely.make_valid(p) for p in polygons])
    union = shapely.union_all([f.polygon for f in kept])
    assert sum(f.polygon.area for f in kept) == pytest.approx(union.area, abs=0.5)
    assert union.symmetric_difference(covered).area < 0.03 * covered.area + 6
    assert all(f.polygon.is_valid and f.polygon.area >= 1 for f in kept)
    assert all(volume(extrude(f)) == pytest.approx(f.polygon.area * f.height_m, rel=1e-6) for f in kept)


def test_the_higher_building_keeps_the_ground():
    low, high = Footprint(shapely.box(0, 0, 20, 20), 5.0, name="low"), Footprint(shapely.box(10, 0, 30, 20), 9.0)
    kept, repairs = clean([low, high])
    assert [f.polygon.area for f in kept] == pytest.approx([200, 400])
    assert repairs == ("overlaps given to the higher building: 1",)


def test_polygons_are_burnt_where_they_cover_a_cells_centre_and_nobody_is_warned_of_local_metres() -> None:
    low, high = shapely.box(10, 20, 13, 22), shapely.box(12, 21, 14, 24)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = burn([(low, 3.0), (high, 9.0)], (4, 4), corner_m=(10, 20))
        local = burn([(shapely.box(0, 0, 2, 1), 1.0)], (2, 3))
    assert found.tolist() == [[3, 3, 3, 0], [3, 3, 9, 9], [0, 0, 9, 9], [0, 0, 9, 9]]
    assert local.tolist() == [[1, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize("height", [0.0, -3.0, float("nan"), float("inf")])
def test_bad_heights_name_the_building(height: float):
    with pytest.raises(DataError, match="town hall has height"):
        clean([Footprint(COURTYARD, height, name="town hall")])


def test_geojson_in_degrees_has_the_right_size_in_metres(tmp_path: Path):
    crs = local_crs(13.4, 52.5)
    ring = project(np.array([[0.0, 0], [30, 0], [30, 20], [0, 20]]), crs, WGS84)
    path = write(tmp_path / "b.geojson", [feature(shapely.Polygon(ring), **{"building:levels": "4"})])
    scene = load(path)
    assert scene.footprints[0].polygon.area == pytest.approx(600, rel=1e-3)
    assert scene.footprints[0].height_m == pytest.approx(12)
    assert "tmerc" in scene.crs


def test_geojson_tags_give_base_height_and_material(tmp_path: Path):
    tags = {"height": "40 ft", "min_height": "3 m", "building:material": "stone"}
    path = write(tmp_path / "t.geojson", [feature(shapely.box(500, 0, 520, 20), **tags)], license="ODbL")
    scene = load(path)
    footprint = scene.footprints[0]
    assert (footprint.base_m, footprint.top_m, footprint.material) == (3.0, pytest.approx(12.192), "marble")
    assert scene.licence == "ODbL"


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([feature(shapely.box(500, 0, 520, 20))], "no building has a usable height; .* default_height_m=9"),
        ([feature(shapely.box(500, 0, 520, 20), height="tall")], "no building has a usable height"),
        (
            [feature(shapely.box(500, 0, 520, 20), hoehe=4)],
            "its numbers are called hoehe; name the attribute of the height with height_key",
        ),
        ([feature(shapely.box(0, 0, 20, 20), height=4)], "could be degrees or metres"),
        ([], "holds no polygon"),
    ],
)
def test_bad_geojson_is_refused_with_the_way_out(tmp_path: Path, features: list, message: str):
    with pytest.raises(DataError, match=message):
        load(write(tmp_path / "bad.geojson", features))


def test_scene_survives_its_files(tmp_path: Path):
    scene = load("procedural-4")
    again = load(save_scene(scene, tmp_path / "p4"))
    assert again.hash == scene.hash
    assert np.array(again.extent) == pytest.approx(np.array(scene.extent), abs=1e-4)
    grid = Grid.box({"z": 0, "y": 0, "x": 0}, {"z": 20, "y": 256, "x": 256}, {"z": 4, "y": 2, "x": 2})
    assert (again.building_mask(grid) == scene.building_mask(grid)).all()
    assert [f.name for f in again.footprints] == [f.name for f in scene.footprints]


def test_hash_sees_geometry_and_material_but_not_names():
    def scene(dx: float = 0.0, material: str = "concrete", name: str = "a"):
        footprint = Footprint(shapely.box(10 + dx, 10, 20, 20), 5.0, material=material, name=name)
        return scene_of_footprints(name, [footprint], bounds=(0, 0, 60, 60))

    assert scene().hash == scene(name="b").hash
    assert scene().hash != scene(dx=0.01).hash
    assert scene().hash != scene(material="brick").hash


def test_procedural_cities_are_distinct_and_lie_in_the_published_range():
    scenes = [load(f"procedural-{seed}") for seed in range(12)]
    assert len({scene.hash for scene in scenes}) == 12
    tops = np.array([f.top_m for scene in scenes for f in scene.footprints])
    assert tops.min() >= 6.6
    assert tops.max() <= 19.8
    shares = [sum(f.polygon.area for f in scene.footprints) / 256**2 for scene in scenes]
    assert 0.2 < np.mean(shares) < 0.5


def test_towers_rise_above_the_rest():
    scene = load({"name": "procedural", "seed": 1, "towers": 1.0, "tower_height_m": [50, 60]})
    assert {f.top_m > 49 for f in scene.footprints} == {True}


def test_floors_are_distinct_and_closed_by_walls_floor_and_ceiling():
    scenes = [load(f"rooms-{seed}") for seed in range(8)]
    assert len({scene.hash for scene in scenes}) == 8
    for scene in scenes:
        low, high = scene.extent
        assert low == (0, 0, 0)
        assert high[:2] == (32, 18)
        assert 2.6 <= high[2] <= 4
        scene.require_outdoors([(16.0, 9.0, 2.5)])
    halls = [load({"name": "rooms", "seed": seed, "halls": 1.0}) for seed in range(2)]
    assert all(len(hall.buildings) > 3 for hall in halls)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"name": "rooms", "corridor": 3}, "did you mean 'corridor_m'"),
        ({"name": "rooms", "size_m": [20, 5]}, "expected 6 m or more"),
        ("etoil", "did you mean 'etoile'"),
        ("nowhere/x.geojson", "does not exist"),
        ("city.dwg", "file type '.dwg' unknown"),
        ({"name": "procedural", "seeds": 3}, "did you mean 'seed'"),
        ({"name": "procedural", "height_m": [20, 10]}, "make no city"),
    ],
)
def test_unknown_scenes_name_the_way_out(request_: object, message: str):
    if "etoile" not in names() and request_ == "etoil":
        pytest.skip("Sionna RT is absent")
    with pytest.raises(UserError, match=message):
        load(request_)


def test_positions_and_grids_outside_are_refused():
    scene = scene_of_footprints("c", [Footprint(COURTYARD, 12.0)], bounds=(0, 0, 60, 60))
    scene.require_outdoors([(30, 25, 1.5), (15, 15, 12.0)])
    for position, message in [
        ((15, 15, 5), "inside a building"),
        ((15, 15, -1), "ground"),
        ((70, 5, 2), "is outside scene"),
    ]:
        with pytest.raises(UserError, match=message):
            scene.require_outdoors([position])
    with pytest.raises(UserError, match=r"transmitter 'yard' at \(15, 15, 5\) m is inside"):
        scene.require_outdoors([(30, 25, 1.5), (15, 15, 5)], ["mast", "yard"])
    scene.require_inside(box_grid())
    with pytest.raises(UserError, match="choose a grid inside"):
        scene.require_inside(box_grid(80.0))


def test_a_million_triangles_are_rasterised_in_bounded_memory():
    side = 710
    x, y = np.meshgrid(np.linspace(0, 100, side), np.linspace(0, 100, side))
    vertices = np.column_stack([x.ravel(), y.ravel(), 0.05 * x.ravel()])
    corner = (np.arange(side - 1)[:, None] * side + np.arange(side - 1)).ravel()
    faces = np.concatenate(
        [
            np.stack([corner, corner + 1, corner + side + 1], axis=1),
            np.stack([corner, corner + side + 1, corner + side], axis=1),
        ]
    )
    ground = Mesh("terrain", vertices, faces, kind="ground")
    scene = scene_of_footprints("slope", [], ground=ground)
    grid = Grid.box({"z": 0, "y": 0, "x": 0}, {"z": 4, "y": 100, "x": 100}, 2.0)
    assert scene.triangles > 1_000_000
    assert scene.ground_height(grid) == pytest.approx(np.broadcast_to(0.05 * grid["x"].coordinates, (50, 50)))


@pytest.mark.skipif("etoile" not in names(), reason="Sionna RT's scenes are absent")
@pytest.mark.parametrize(("name", "triangles"), [("etoile", 13_098), ("simple_street_canyon", 74)])
def test_cities_come_from_their_files_without_the_ray_tracer(name: str, triangles: int):
    scene = load(name)
    assert scene.triangles == triangles
    assert scene.footprints
    lower, upper = scene.extent
    grid = scene.grid(4.0, (1.5, 21.5, 4.0))
    mask = scene.building_mask(grid)
    x, y = np.meshgrid(grid["x"].coordinates, grid["y"].coordinates)
    prisms = np.zeros(mask[0].shape, bool)
    for footprint in scene.footprints:
        if footprint.base_m <= 1.5 < footprint.top_m:
            prisms |= shapely.contains_xy(footprint.polygon, x, y)
    assert (mask[0] == prisms).mean() > 0.995
    assert lower[2] == pytest.approx(0, abs=0.05)
    assert upper[2] > 20


@pytest.mark.real_data
@pytest.mark.skipif("GEOML_DATA" not in os.environ, reason="GEOML_DATA names no folder of real data")
def test_real_footprints_make_the_city_they_were_taken_from():
    scene = load(Path(os.environ["GEOML_DATA"]) / "radio" / "etoile_footprints_heights_localm.geojson")
    assert sum(f.polygon.area for f in scene.footprints) == pytest.approx(122_800, rel=0.02)
    assert max(f.top_m for f in scene.footprints) == 50
    if "etoile" in names():
        city = load("etoile")
        grid = Grid.box({"z": 0, "y": -256, "x": -256}, {"z": 20, "y": 256, "x": 256}, {"z": 4, "y": 2, "x": 2})
        agree = scene.building_mask(grid) == city.building_mask(grid)
        assert agree.mean() > 0.985
