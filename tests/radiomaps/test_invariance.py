"""Maps and path tables are the same wherever in the coordinates a scene lies, and right far from the transmitter."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from geoml.constants import SPEED_OF_LIGHT
from geoml.errors import UserError
from geoml.grids.grid import Grid
from radiomaps.dominant.fill import fill_shadows
from radiomaps.generation.generate import PACKING
from radiomaps.maps.layout import Transmitter, friis_gain_db, wrapped
from radiomaps.raytrace import TraceOptions, find_paths, trace
from radiomaps.scenes import Mesh, Scene
from radiomaps.scenes.xml import load_xml, save_scene

FREQUENCY = 5.9e9
OPTIONS = TraceOptions(frequency_hz=FREQUENCY, rays=400_000)
PLACES = [(97.3, -41.9, 0.0), (560.0, 560.0, 0.0), (691_234.56, 5_335_678.9, 512.3), (1e7, -1e7, 0.0)]
BLOCKS = [(-60 + 45 * k, y, 15.0 + 2 * k) for k in range(3) for y in (8.0, -28.0)]
ANTENNA = (-50.3, 0.4, 5.0)
TURNS = [lambda x, y: (x, y), lambda x, y: (-y, x), lambda x, y: (-x, -y), lambda x, y: (y, -x)]


def prism(name, x, y, width, depth, height, material="concrete", kind="building"):
    corners = [(x + a * width, y + b * depth, c * height) for c in (0, 1) for b in (0, 1) for a in (0, 1)]
    quads = [(0, 2, 3, 1), (4, 5, 7, 6), (0, 1, 5, 4), (2, 6, 7, 3), (0, 4, 6, 2), (1, 3, 7, 5)]
    faces = [face for a, b, c, d in quads for face in ((a, b, c), (a, c, d))]
    return Mesh(name, np.array(corners, float), np.array(faces, np.int32), material, kind)


def plane(half, material, z=0.0):
    corners = np.array([(-half, -half, z), (half, -half, z), (half, half, z), (-half, half, z)], float)
    return Mesh("ground", corners, np.array([[0, 1, 2], [0, 2, 3]], np.int32), material, "ground")


@cache
def street(half=90.0, at=(0.0, 0.0)):
    """Two rows of blocks along a street, about a place of a wide ground."""
    blocks = [prism(f"b{k}", x + at[0], y + at[1], 35, 20, h) for k, (x, y, h) in enumerate(BLOCKS)]
    return Scene("street", (plane(half, "medium_dry_ground"), *blocks))


def moved(scene, by):
    meshes = tuple(replace(mesh, vertices=mesh.vertices + np.asarray(by)) for mesh in scene.meshes)
    return replace(scene, meshes=meshes)


def turned(scene, turn):
    def vertices(mesh):
        x, y = turn(*mesh.vertices.T[:2])
        return np.stack([x, y, mesh.vertices[:, 2]], -1)

    return replace(scene, meshes=tuple(replace(mesh, vertices=vertices(mesh)) for mesh in scene.meshes))


def window(at=(0.0, 0.0, 0.0), half=48.0, step=2.0):
    x, y, z = at
    low, high = {"z": z + 1, "y": y - half, "x": x - half}, {"z": z + 5, "y": y + half, "x": x + half}
    return Grid.box(low, high, {"z": 2.0, "y": step, "x": step})


def shifted(place, by):
    return Transmitter(tuple(float(a + b) for a, b in zip(place, by, strict=True)))


@cache
def street_map(by, **options):
    maps = trace(moved(street(), by), [shifted(ANTENNA, by)], window(by), replace(OPTIONS, **options))
    return {name: maps[name].values[0] for name in ("path_gain_db", "toa_s", "doa_azimuth", "doa_zenith", "los")}


def agreement(one, other):
    """The share of voxels lit in both, and of these the shares alike to .01 dB, .01 ns and .01 degrees."""
    lit = [np.isfinite(maps["path_gain_db"]) for maps in (one, other)]
    both = lit[0] & lit[1]
    apart = {name: (one[name] - other[name])[both] for name in ("path_gain_db", "toa_s", "doa_azimuth", "doa_zenith")}
    turn = np.degrees(np.abs((apart["doa_azimuth"] + np.pi) % (2 * np.pi) - np.pi))
    shares = [
        (np.abs(apart["path_gain_db"]) < 0.01).mean(),
        (np.abs(apart["toa_s"]) < 0.01e-9).mean(),
        (turn * np.sin(one["doa_zenith"][both]) < 0.01).mean(),
        (np.degrees(np.abs(apart["doa_zenith"])) < 0.01).mean(),
    ]
    return both.sum() / (lit[0] | lit[1]).sum(), min(shares)


@pytest.mark.parametrize("estimator", ["paths", "axis"])
@pytest.mark.parametrize("by", PLACES)
def test_a_rigid_shift_changes_no_map(by, estimator):
    options = {"estimator": estimator, "diffraction": True}
    here, there = street_map((0.0, 0.0, 0.0), **options), street_map(by, **options)
    dark = ~here["los"]
    assert (dark & np.isfinite(here["path_gain_db"])).sum() > 500
    lit, alike = agreement(here, there)
    assert lit >= 0.999
    assert alike >= 0.999


@pytest.mark.parametrize("by", PLACES)
def test_a_rigid_shift_changes_no_path_table(by):
    points = np.array([(-16.0, 20.0 + k, 2.0) for k in range(12)])
    options = replace(OPTIONS, diffraction=True, depth=2)
    tables = [
        find_paths(moved(street(), d), [shifted(ANTENNA, d)], points + d, options, rays=30_000)
        for d in ((0.0, 0.0, 0.0), by)
    ]
    assert (tables[0].path_count.values == tables[1].path_count.values).all()
    for name, most in (("gain_db", 0.01), ("delay_s", 0.01e-9), ("arrival_zenith", 2e-4), ("departure_zenith", 2e-4)):
        apart = np.abs(tables[0][name].values - tables[1][name].values)
        assert (apart[np.isfinite(apart)] < most).mean() >= 0.999, name
    assert tables[1].rx_x.values == pytest.approx(points[:, 0] + by[0])


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_quarter_turn_turns_the_map(quarters):
    """Rays leave in other directions than before, so that here and there another path is missed."""
    turn = TURNS[quarters]
    here = street_map((0.0, 0.0, 0.0))
    place = Transmitter((*turn(*ANTENNA[:2]), ANTENNA[2]))
    maps = trace(turned(street(), turn), [place], window(), OPTIONS).isel(tx=0)
    back = np.rot90(maps.path_gain_db.values, quarters, axes=(1, 2))  # rows are y
    lit = np.isfinite(here["path_gain_db"]), np.isfinite(back)
    assert (lit[0] & lit[1]).sum() / (lit[0] | lit[1]).sum() >= 0.99
    assert np.nanmedian(np.abs(here["path_gain_db"] - back)) <= 0.01


@pytest.mark.parametrize("at", [(0.0, 0.0), (550.0, 0.0), (-550.0, 550.0)])
def test_a_block_at_the_edge_of_a_wide_window_has_the_paths_of_the_image_method(at):
    """One window 1,200 m across; the block stands at its middle, or 550 m off."""
    scene, place = street(640.0, at), shifted(ANTENNA, (*at, 0.0))
    low, high = {"z": 1, "y": -600, "x": -600}, {"z": 3, "y": 600, "x": 600}
    grid = Grid.box(low, high, {"z": 2.0, "y": 4.0, "x": 4.0})
    maps = trace(scene, [place], grid, replace(OPTIONS, rays=1_000_000)).isel(tx=0, z=0)
    near = maps.sel(x=slice(at[0] - 48, at[0] + 48), y=slice(at[1] - 48, at[1] + 48))
    chosen = ~near.los.values & ~near.building.values
    y, x = np.meshgrid(near.y, near.x, indexing="ij")
    points = np.stack([x, y, np.full_like(x, 2.0)], -1)[chosen]
    exact = find_paths(scene, [place], points, OPTIONS, rays=30_000).isel(tx=0).path_gain_db.values
    mine = near.path_gain_db.values[chosen]
    lit = np.isfinite(mine), np.isfinite(exact)
    assert lit[1].sum() > 60
    assert (lit[0] == lit[1]).mean() >= 0.99
    apart = np.abs(mine - exact)[lit[0] & lit[1]]
    assert np.median(apart) < 0.01
    assert np.percentile(apart, 95) < 0.1


@pytest.mark.parametrize("place", [(0.0, 0.0, 10.0), (-500.0, 420.0, 10.0), (590.0, 590.0, 1.5)])
def test_two_rays_hold_everywhere_in_a_wide_window(place):
    scene = Scene("mirror", (plane(700.0, "metal"),))
    low, high = {"z": 1, "y": -600, "x": -600}, {"z": 3, "y": 600, "x": 600}
    grid = Grid.box(low, high, {"z": 2.0, "y": 8.0, "x": 8.0})
    # Across the plane of incidence metal mirrors all, at grazing angles too.
    options = replace(OPTIONS, depth=1, rays=4_000_000)
    maps = trace(scene, [Transmitter(place, polarization="H")], grid, options).isel(tx=0)
    _, y, x = np.meshgrid(maps.z, maps.y, maps.x, indexing="ij")
    ways = [np.sqrt((x - place[0]) ** 2 + (y - place[1]) ** 2 + (2 - s * place[2]) ** 2) for s in (1, -1)]
    expected = 10 * np.log10(sum(10 ** (friis_gain_db(way, FREQUENCY) / 10) for way in ways))
    assert np.abs(maps.path_gain_db.values - expected).max() < 0.01
    assert np.abs(maps.toa_s.values * SPEED_OF_LIGHT - ways[0]).max() < 0.003  # 10 ps


@pytest.mark.parametrize("height", [1e4, 1e5, 6e5])
def test_a_transmitter_far_away_has_free_space_and_its_mirror(height):
    scene = Scene("mirror", (plane(90.0, "metal"), prism("b", 40, 40, 20, 20, 10.0, "metal")))
    maps = trace(scene, [Transmitter((0.0, 0.0, height))], window(), replace(OPTIONS, depth=1)).isel(tx=0)
    open_ground = maps.path_gain_db.sel(x=slice(-48, 30), y=slice(-48, 30)).values
    expected = friis_gain_db(height - 3, FREQUENCY) + 10 * np.log10(2)
    assert np.abs(open_ground - expected).max() < 0.02
    assert np.abs(maps.toa_s.values - height / SPEED_OF_LIGHT)[0, 0, 0] < 2e-8


def test_a_transmitter_too_far_away_is_refused():
    with pytest.raises(UserError, match="36000 km away; rays reach 1000 km"):
        trace(street(), [Transmitter((0.0, 0.0, 3.6e7))], window(), OPTIONS)
    with pytest.raises(UserError, match="rays reach 1000 km"):
        find_paths(street(), [Transmitter((0.0, 0.0, 3.6e7))], np.array([[0.0, 0.0, 2.0]]), OPTIONS)


@pytest.mark.parametrize("by", [PLACES[0], PLACES[2]])
def test_shadows_are_filled_in_one_layer_as_in_several(by):
    place, low, high = shifted(ANTENNA, by), {}, {}
    for name, middle, half in zip("zyx", by[::-1], (2.0, 24.0, 24.0), strict=True):
        low[name], high[name] = middle + (1.0 if name == "z" else -half), middle + (5.0 if name == "z" else half)
    maps = trace(moved(street(), by), [place], Grid.box(low, high, 2.0), replace(OPTIONS, depth=0))
    both, first = (fill_shadows(part, moved(street(), by)) for part in (maps, maps.isel(z=slice(0, 1))))
    assert first.filled.sum() > 50
    for name in ("path_gain_db", "toa_s", "doa_zenith", "filled"):
        np.testing.assert_array_equal(first[name].values, both[name].values[:, :1])


def test_shares_of_the_work_add_up():
    done = []
    trace(street(), [Transmitter(ANTENNA)] * 2, window(), replace(OPTIONS, rays=20_000), advance=done.append)
    assert len(done) > 4
    assert min(done) > 0
    assert sum(done) == pytest.approx(1)


def test_azimuths_stay_below_a_full_turn_when_stored():
    azimuth = np.concatenate([np.linspace(6.2825, 2 * np.pi, 999), [np.nan, 0.0]]).astype(np.float32)
    packing = PACKING["doa_azimuth"]
    kept = packing.encode(wrapped(azimuth, packing.scale), "doa_azimuth") * packing.scale
    assert kept[:-2].max() < 2 * np.pi
    turn = (kept[:-2] - azimuth[:-2] + np.pi) % (2 * np.pi) - np.pi
    assert np.abs(turn).max() < 1.1 * packing.scale
    assert wrapped(np.array([2 * np.pi], np.float32))[0] == 0


def test_a_scene_in_utm_metres_survives_its_file(tmp_path):
    scene = moved(street(), (691_234.56, 5_335_678.9, 512.3))
    again = load_xml(save_scene(scene, tmp_path / "scene"))
    assert again.hash == scene.hash
