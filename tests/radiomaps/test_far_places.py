"""Places, angles and distances at the ends of their ranges: UTM, slopes, angles near 2π and π, satellites."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from geoml.constants import SPEED_OF_LIGHT
from geoml.grids.grid import Grid
from radiomaps.antennas.replanned import maps_of_store
from radiomaps.generation.generate import generate
from radiomaps.generation.plan import Placement, Plan, Window
from radiomaps.maps.layout import Transmitter, at_most_pi, friis_gain_db
from radiomaps.maps.store import open_maps
from radiomaps.raytrace import TraceOptions, find_paths, trace
from radiomaps.scenes import Mesh, Scene
from radiomaps.scenes.xml import save_scene
from radiomaps.tasks.encoding import Encoding, within_a_turn
from radiomaps.tasks.observations import Observations

UTM = np.array([691_234.56, 5_335_678.9, 2512.3])
SHIFTS = [np.zeros(3), UTM, np.array([1e7, -1e7, 0.0])]
OPTIONS = TraceOptions(rays=200_000)
NEAR = [(0, 1, 2), (0, 2, 3)]


def slope(by, steepness=0.1, half=400.0, material="metal"):
    corners = [(x, y, steepness * x) for x, y in ((-half, -half), (half, -half), (half, half), (-half, half))]
    return Scene("slope", (Mesh("ground", np.array(corners) + by, np.array(NEAR, np.int32), material, "ground"),))


def hills(by):
    """Ground whose squares are flat, each of two triangles, and meet at an angle."""
    ticks = np.arange(-90.0, 91.0, 15.0)
    x, y = np.meshgrid(ticks, ticks)
    vertices = np.stack([x, y, 5 * np.sin(x / 30) + 3 * np.cos(y / 25)], -1).reshape(-1, 3) + by
    corner = np.arange(len(ticks) ** 2).reshape(x.shape)[:-1, :-1].ravel()
    n = len(ticks)
    faces = np.concatenate([corner[:, None] + [0, 1, n + 1], corner[:, None] + [0, n + 1, n]])
    return Scene("hills", (Mesh("ground", vertices, faces.astype(np.int32), "medium_dry_ground", "ground"),))


def box(by, low, high, step):
    names = dict(zip("xyz", by, strict=True))
    ends = [{name: end[name] + float(names[name]) for name in "zyx"} for end in (low, high)]
    return Grid.box(*ends, step)


def antenna(place, by):
    x, y, z = (float(part) for part in np.asarray(place) + by)
    return Transmitter((x, y, z))


@pytest.mark.parametrize("by", SHIFTS)
def test_two_rays_hold_on_a_slope_with_the_transmitter_outside_the_window(by):
    place, normal = np.array([-150.0, 20.0, 40.0]), np.array([-0.1, 0.0, 1.0]) / np.hypot(0.1, 1.0)
    image = place - 2 * (place @ normal) * normal
    grid = box(by, {"z": 20, "y": -40, "x": -40}, {"z": 22, "y": 40, "x": 40}, {"z": 2.0, "y": 4.0, "x": 4.0})
    maps = trace(slope(by), [antenna(place, by)], grid, replace(OPTIONS, depth=1)).isel(tx=0)
    z, y, x = np.meshgrid(maps.z - by[2], maps.y - by[1], maps.x - by[0], indexing="ij")
    ways = [np.linalg.norm(np.stack([x, y, z], -1) - source, axis=-1) for source in (place, image)]
    expected = 10 * np.log10(sum(10 ** (friis_gain_db(way, OPTIONS.frequency_hz) / 10) for way in ways))
    assert np.abs(maps.path_gain_db.values - expected).max() < 0.01
    assert np.abs(maps.toa_s.values * SPEED_OF_LIGHT - ways[0]).max() < 0.003


@pytest.mark.parametrize("by", SHIFTS[1:])
def test_hills_have_the_same_diffraction_everywhere(by):
    """The two triangles of a flat square meet in no edge, however their corners are rounded."""
    found = []
    for here in (np.zeros(3), by):
        low, high = {"z": 1 - here[2], "y": -48, "x": -48}, {"z": 3 - here[2], "y": 48, "x": 48}
        grid = box(here, low, high, {"z": 2.0, "y": 3.0, "x": 3.0})
        options = replace(OPTIONS, diffraction=True, above_ground=True)
        maps = trace(hills(here), [antenna((0.3, 0.4, 12.0), here)], grid, options).isel(tx=0)
        found.append(maps.path_gain_db.values)
    lit = np.isfinite(found[0])
    assert (lit == np.isfinite(found[1])).mean() >= 0.999
    assert (np.abs(found[0] - found[1])[lit] < 0.01).mean() >= 0.999


@pytest.mark.parametrize("frequency_hz", [1e8, 1e11])
@pytest.mark.filterwarnings("ignore:.*outside the frequencies")
def test_no_turn_or_shift_loses_the_path_round_a_corner(frequency_hz):
    corners = np.array([(x, y, z) for z in (0, 15) for y in (0, 20) for x in (0, 35)], float)
    quads = [(0, 2, 3, 1), (4, 5, 7, 6), (0, 1, 5, 4), (2, 6, 7, 3), (0, 4, 6, 2), (1, 3, 7, 5)]
    faces = np.array([face for a, b, c, d in quads for face in ((a, b, c), (a, c, d))], np.int32)
    places = np.array([(-60.0, 8, 0), (-10, 8, 0), (-60, -28, 0), (-10, -28, 0)])
    ground = slope(np.zeros(3), steepness=0.0, half=90.0, material="concrete").meshes[0]
    meshes = (ground, *(Mesh(f"b{k}", corners + place, faces, "concrete") for k, place in enumerate(places)))
    points = np.array([(-16.0, 20.0 + k, 2.0) for k in range(4)])
    options, found = replace(OPTIONS, diffraction=True, depth=1, frequency_hz=frequency_hz), []
    for angle, by in [(0.0, SHIFTS[0]), (0.8, SHIFTS[0]), (1.2, UTM), (2.5, SHIFTS[2]), (5.5, UTM)]:
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        scene = Scene("street", tuple(replace(mesh, vertices=mesh.vertices @ turn.T + by) for mesh in meshes))
        place = antenna(turn @ [-50.3, 0.4, 5.0], by)
        found.append(find_paths(scene, [place], points @ turn.T + by, options, rays=30_000))
    for table in found[1:]:
        assert (table.path_count.values == found[0].path_count.values).all()
        assert np.abs(table.path_gain_db.values - found[0].path_gain_db.values).max() < 0.01


def test_azimuths_of_path_tables_stay_below_a_full_turn():
    scene = slope(np.zeros(3), steepness=0.0, half=2000.0)
    sides = [(1000.0, -1e-5, 2.0), (0.0, 0.0, 1.0)]  # 1e-8 rad south of east, which float32 rounds to 2π; and below
    table = find_paths(scene, [Transmitter(place) for place in sides], np.array([[0.0, 0.0, 2.0]]), OPTIONS, rays=1000)
    for end in ("arrival", "departure"):
        assert np.nanmax(table[f"{end}_azimuth"].values.astype(float)) < 2 * np.pi
        assert np.nanmax(table[f"{end}_zenith"].values.astype(float)) <= np.pi
    assert table.arrival_azimuth.values[0, 0, 0] == 0.0
    assert table.arrival_zenith.values[1, 0, 0] == pytest.approx(np.pi)


def test_predicted_and_observed_azimuths_stay_below_a_full_turn():
    angles = torch.tensor([-1e-9, -1e-30, 0.0, -1.0, 3.0])
    assert (within_a_turn(angles).double() < 2 * np.pi).all()
    encoded = torch.stack([(1 + angles.sin()) / 2, (1 + angles.cos()) / 2])[:, None, None]
    assert (Encoding().decode(["doa_azimuth"], encoded)["doa_azimuth"].double() < 2 * np.pi).all()
    read = Observations().read("doa_azimuth", np.array([-1e-9, 1.0], np.float32), 0)
    assert (read.astype(float) < 2 * np.pi).all()


def write_blocks(path: Path) -> dict[str, object]:
    rings = [[[x, y], [x + 20, y], [x + 20, y + 20], [x, y + 20], [x, y]] for x in (0, 40) for y in (0, 40)]
    features = [
        {"type": "Feature", "properties": {"height": 12}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
        for ring in rings
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return {"path": str(path), "metric": True}


def test_stored_zenith_angles_stay_at_most_pi(tmp_path):
    """A voxel straight above the transmitter: π rounded to 0.1 mrad is more than π."""
    place = Placement(positions_m=((30.0, 6.0, 0.2),))
    plan = Plan((write_blocks(tmp_path / "a.geojson"),), place, Window(60.0, 4.0, (2.0, 30.0, 4.0), (30.0, 30.0)))
    zenith = open_maps(generate(plan, tmp_path / "a.zarr"))["doa_zenith"].values
    assert np.pi - 2e-4 < np.nanmax(zenith) <= np.pi
    assert at_most_pi(np.array([np.pi, 1.0], np.float32)).astype(float).max() <= np.pi


@pytest.mark.parametrize("height_m", [1e5, 9e5, 3.6e7])
def test_a_store_keeps_the_delay_of_a_satellite(tmp_path, height_m):
    place = Placement(positions_m=((30.0, 30.0, height_m),))
    plan = Plan((write_blocks(tmp_path / "a.geojson"),), place, Window(60.0, 10.0, (2.0, 4.0, 2.0), (30.0, 30.0)))
    maps = open_maps(generate(plan, tmp_path / "a.zarr"))
    sight, away = (
        maps["los"].values,
        (height_m - maps["z"]).broadcast_like(maps["toa_s"]).transpose(*maps["toa_s"].dims),
    )
    assert maps["toa_s"].values[sight] * SPEED_OF_LIGHT == pytest.approx(away.values[sight], rel=3e-7)
    assert maps["path_gain_db"].values[sight] == pytest.approx(friis_gain_db(height_m, 5.9e9), abs=0.02)


def test_a_store_keeps_where_cells_stand_in_utm(tmp_path):
    """Positions in float32 would be up to 0.25 m off, and cells of a sites file would not be found again."""
    corners = np.array([(-100, -100, 0), (100, -100, 0), (100, 100, 0), (-100, 100, 0)], float)
    ground = Mesh("ground", corners + UTM, np.array(NEAR, np.int32), "concrete", "ground")
    scene = {"path": str(save_scene(Scene("flat", (ground,)), tmp_path / "flat"))}
    x, y, z = (float(part) for part in UTM + np.array([1.23, -4.56, 10.0]))
    sites = {"sites": [{"name": "roof/1", "x": x, "y": y, "z": z, "pattern": "iso"}]}
    window = Window(60.0, 10.0, (2514.3, 2514.3, 2.0), (float(UTM[0]), float(UTM[1])))
    options = {"paths_per_voxel": 2, "rays": 20_000, "depth": 1}
    store = generate(Plan((scene,), Placement(sites=sites), window, "sionna", options), tmp_path / "flat.zarr")
    maps = open_maps(store)
    assert [float(maps[f"tx_{axis}"].values.item()) for axis in "xyz"] == [x, y, z]
    again = maps_of_store(store, sites)
    assert again["tx"].values.tolist() == ["roof/1"]
    assert np.abs(again["path_gain_db"].values - maps["path_gain_db"].values).max() < 0.05
