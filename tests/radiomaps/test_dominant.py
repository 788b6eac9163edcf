"""The dominant-path solver against closed forms: Friis, Fresnel's knife edge, straight lines, reciprocity."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import scipy.special
import shapely
from scipy.ndimage import distance_transform_edt

from geoml.constants import SPEED_OF_LIGHT
from geoml.errors import UserError
from geoml.grids.grid import Grid
from radiomaps.dominant import DominantOptions, trace
from radiomaps.dominant.streets import right_angle
from radiomaps.maps.layout import Transmitter, check_maps, friis_gain_db
from radiomaps.scenes import Footprint, Mesh, Scene, load
from radiomaps.scenes.extrude import scene_of_footprints

FREQUENCY = 5.9e9
WAVELENGTH = SPEED_OF_LIGHT / FREQUENCY


def line(y: float, *, first: float = 1.0, last: float = 40.0, x: float = 0.0, step: float = 0.5) -> Grid:
    """A column of voxels whose centres are at (x, y, first … last)."""
    lower = {"z": first - step / 2, "y": y - 0.5, "x": x - 0.5}
    upper = {"z": last + step / 2, "y": y + 0.5, "x": x + 0.5}
    return Grid.box(lower, upper, {"z": step, "y": 1.0, "x": 1.0})


def fresnel(detour: np.ndarray) -> np.ndarray:
    """Loss at a knife edge by the Fresnel integral, in dB."""
    s, c = scipy.special.fresnel(2 * np.sqrt(np.asarray(detour) / WAVELENGTH))
    return -20 * np.log10(np.hypot(1 - c - s, c - s) / 2)


def test_free_space_is_friis_with_exact_delay_and_direction():
    scene = scene_of_footprints("plain", [], bounds=(0, 0, 200, 200))
    transmitter = Transmitter((101.0, 55.0, 25.0))
    grid = Grid.box({"z": 0, "y": 0, "x": 0}, {"z": 40, "y": 200, "x": 200}, 5.0)
    maps = trace(scene, [transmitter], grid)
    z, y, x = np.meshgrid(*(axis.coordinates for axis in grid.axes), indexing="ij")
    towards = np.stack([101.0 - x, 55.0 - y, 25.0 - z], axis=-1)
    distance = np.linalg.norm(towards, axis=-1)
    assert maps["los"].all()
    assert maps["path_gain_db"][0].values == pytest.approx(friis_gain_db(distance, FREQUENCY), abs=1e-3)
    assert maps["toa_s"][0].values * SPEED_OF_LIGHT == pytest.approx(distance, rel=1e-6)
    azimuth, zenith = maps["doa_azimuth"][0].values, maps["doa_zenith"][0].values
    seen = np.stack([np.sin(zenith) * np.cos(azimuth), np.sin(zenith) * np.sin(azimuth), np.cos(zenith)], axis=-1)
    assert np.einsum("...i,...i", seen, towards) / distance == pytest.approx(1.0, abs=1e-6)


def test_paths_over_more_edges_than_allowed_are_left_out():
    """A roof's far edge is seen from above the roof alone: from below two edges bend the path."""
    scene = scene_of_footprints("block", [Footprint(shapely.box(-90, 40, 90, 60), 20.0)], bounds=(-100, -10, 100, 200))
    grid = line(150.0, last=15.0)
    found = {
        (height, edges): trace(
            scene, [Transmitter((0.0, 0.0, height))], grid, DominantOptions(turns=0, bounces=0, edges=edges)
        )
        for height in (10.0, 40.0)
        for edges in (0, 1, 2)
    }
    for height, edges in found:
        maps, any_number = found[height, edges], found[height, 0]
        check_maps(maps)
        assert maps["no_path"].values.all() == ((height, edges) == (10.0, 1))
        if (height, edges) != (10.0, 1):
            assert maps["path_gain_db"].equals(any_number["path_gain_db"])
    with pytest.raises(UserError, match="edges=-1"):
        DominantOptions(edges=-1)


@pytest.mark.parametrize("thickness", [0.05, 0.5])
def test_roof_of_a_screen_is_a_knife_edge(thickness: float):
    screen = Footprint(shapely.box(-900, 50 - thickness / 2, 900, 50 + thickness / 2), 20.0)
    scene = _uncleaned([screen], (-1000, -10, 1000, 200))
    grid = line(150.0, last=19.0)
    maps = trace(scene, [Transmitter((0.0, 0.0, 19.0))], grid, DominantOptions(turns=0))
    z = grid["z"].coordinates
    distance = np.hypot(150.0, 19.0 - z)
    detour = np.hypot(50.0, 1.0) + np.hypot(100.0, 20.0 - z) - distance
    loss = friis_gain_db(distance, FREQUENCY) - maps["path_gain_db"][0, :, 0, 0].values
    assert not maps["los"].any()
    assert loss == pytest.approx(fresnel(detour), abs=1.0)
    length = np.hypot(50.0, 1.0) + np.hypot(100.0, 20.0 - z)
    assert maps["toa_s"][0, :, 0, 0].values * SPEED_OF_LIGHT == pytest.approx(length, abs=0.2)
    assert np.tan(np.pi / 2 - maps["doa_zenith"][0, :, 0, 0].values) == pytest.approx((20.0 - z) / 100.0, abs=2e-3)


def _uncleaned(footprints: list[Footprint], bounds: tuple[float, float, float, float]) -> Scene:
    """A scene with walls thinner than cleaning lets pass."""
    plain = scene_of_footprints("screen", [], bounds=bounds)
    return Scene("screen", plain.meshes, tuple(footprints))


def test_the_first_version_bends_around_corners_as_around_knife_edges():
    wall = Footprint(shapely.box(-500, 50, 10, 50.05), 400.0)
    scene = _uncleaned([wall], (-600, -10, 600, 200))
    grid = Grid.box({"z": 1, "y": 149.5, "x": -40}, {"z": 2, "y": 150.5, "x": 27}, 1.0)
    maps = trace(scene, [Transmitter((0.0, 0.0, 1.5))], grid, DominantOptions(version=1))
    x = grid["x"].coordinates
    detour = np.hypot(10.0, 50.0) + np.hypot(x - 10.0, 100.0) - np.hypot(x, 150.0)
    loss = friis_gain_db(np.hypot(x, 150.0), FREQUENCY) - maps["path_gain_db"][0, 0, 0].values
    extra = 20 * np.log10((np.hypot(x, 150.0) + detour) / np.hypot(x, 150.0))
    assert loss - extra == pytest.approx(fresnel(detour), abs=1.0)
    with pytest.raises(UserError, match="version=3"):
        DominantOptions(version=3)


def berg(legs: list[float], turns_deg: list[float], wavelength: float = WAVELENGTH) -> float:
    """Apparent length by the recursion as Berg prints it, written once more."""
    d, k = legs[0], 1.0
    for turn, leg in zip(turns_deg, legs[1:], strict=True):
        k += d * right_angle(wavelength) * (turn / 90) ** 1.5
        d += k * leg
    return d


def test_a_corner_loses_what_bergs_recursion_says():
    block = Footprint(shapely.box(-500, 50, 10, 190), 400.0)
    scene = _uncleaned([block], (-600, -10, 600, 200))
    grid = Grid.box({"z": 1, "y": 149.5, "x": 12}, {"z": 2, "y": 150.5, "x": 28}, 1.0)
    maps = trace(scene, [Transmitter((0.0, 0.0, 1.5))], grid)
    x = grid["x"].coordinates
    first, then = np.hypot(10.0, 50.0), np.hypot(x - 10.0, 100.0)
    turn = np.degrees(np.arctan2(10.0, 50.0) - np.arctan2(x - 10, 100.0))
    expected = [berg([first, leg], [angle]) for leg, angle in zip(then, turn, strict=True)]
    assert not maps["los"].any()
    assert maps["path_gain_db"][0, 0, 0].values == pytest.approx(friis_gain_db(expected, FREQUENCY), abs=0.1)
    assert maps["toa_s"][0, 0, 0].values * SPEED_OF_LIGHT == pytest.approx(first + then, abs=0.05)
    direction = np.arctan2(50.0 - 150.0, 10.0 - x) % (2 * np.pi)
    assert maps["doa_azimuth"][0, 0, 0].values == pytest.approx(direction, abs=2e-3)


def test_bergs_apparent_length_is_that_of_free_space_or_more_and_reciprocal():
    random = np.random.default_rng(0)
    for number in (2, 3, 5):
        legs, turns = list(random.uniform(5, 80, number)), list(random.uniform(0, 90, number - 1))
        there, back = berg(legs, turns), berg(legs[::-1], turns[::-1])
        assert there == pytest.approx(back, rel=1e-12)
        assert there >= sum(legs)
        assert berg(legs, [0.0] * (number - 1)) == pytest.approx(sum(legs))


def test_a_wall_mirrors_with_the_amplitude_of_its_slab():
    """A wall along x at y = 50, seen past a screen: the image of the transmitter, and Fresnel's coefficient."""
    screen = Footprint(shapely.box(-2, -200, 2, 20), 60.0)
    wall = Footprint(shapely.box(-200, 50, 200, 70), 60.0, material="concrete")
    scene = scene_of_footprints("mirror", [screen, wall], bounds=(-300, -300, 300, 300))
    grid = Grid.box({"z": 1, "y": -0.5, "x": 20}, {"z": 2, "y": 0.5, "x": 60}, 1.0)
    maps = trace(scene, [Transmitter((-30.0, 0.0, 1.5))], grid, DominantOptions(thickness_m=50.0))
    x = grid["x"].coordinates
    across, along = 100.0, x + 30.0
    length = np.hypot(across, along)
    eta = 5.24 - 1j * 0.0462 * 5.9**0.7822 / (2 * np.pi * FREQUENCY * 8.8541878128e-12)
    cosine = across / length
    root = np.sqrt(eta - along**2 / length**2)
    expected = friis_gain_db(length, FREQUENCY) + 20 * np.log10(np.abs((cosine - root) / (cosine + root)))
    assert not maps["los"].any()
    # Where the screen's side mirrors too, ways of three walls add some hundredths of a dB.
    assert maps["path_gain_db"][0, 0, 0].values == pytest.approx(expected, abs=0.1)
    assert np.median(np.abs(maps["path_gain_db"][0, 0, 0].values - expected)) < 0.005
    assert maps["toa_s"][0, 0, 0].values * SPEED_OF_LIGHT == pytest.approx(length, rel=1e-6)
    assert maps["doa_azimuth"][0, 0, 0].values == pytest.approx(np.arctan2(across, -along), abs=1e-5)


def test_a_high_transmitter_is_mirrored_over_low_roofs():
    """Over a low building, from the facade behind the receiver: Ikegami's second ray."""
    low = Footprint(shapely.box(20, -200, 40, 200), 10.0)
    facade = Footprint(shapely.box(60, -200, 80, 200), 40.0)
    scene = scene_of_footprints("facade", [low, facade], bounds=(-300, -300, 300, 300))
    grid = Grid.box({"z": 1, "y": 0, "x": 41}, {"z": 2, "y": 1, "x": 60}, 1.0)
    maps = trace(scene, [Transmitter((0.0, 0.5, 20.0))], grid)
    x = grid["x"].coordinates
    # The mirrored ray descends by 18.5 m over its length and has to pass the edge at 40 m above 10 m.
    length = 60 + (60 - x)
    passes = 20 - 18.5 * 40 / length > 10
    assert passes.any()
    assert not passes.all()
    mirrored = maps["doa_azimuth"][0, 0, 0].values < np.pi / 2
    assert (mirrored == passes).all()


@pytest.mark.parametrize("name", ["munich", "etoile"])
def test_maps_move_and_turn_with_their_scene(name: str):
    pytest.importorskip("sionna")
    city = load(name)
    grid = Grid.box({"z": 1, "y": -64, "x": -64}, {"z": 3, "y": 64, "x": 64}, {"z": 2, "y": 4, "x": 4})
    source = {"munich": (59.0, 59.0, 1.5), "etoile": (0.0, -10.0, 1.5)}[name]
    base = trace(city, [Transmitter(source)], grid)
    far = (500_000.0, 5_300_000.0)
    moved = trace(
        _placed(city, lambda p: p + far), [Transmitter((source[0] + far[0], source[1] + far[1], 1.5))],
        Grid.box({"z": 1, "y": far[1] - 64, "x": far[0] - 64}, {"z": 3, "y": far[1] + 64, "x": far[0] + 64},
                 {"z": 2, "y": 4, "x": 4}),
    )  # fmt: skip
    turned = trace(
        _placed(city, lambda p: np.column_stack([-p[:, 1], p[:, 0]])), [Transmitter((-source[1], source[0], 1.5))], grid
    )
    gain = base["path_gain_db"][0].values
    back = turned["path_gain_db"][0].values[:, :, ::-1].transpose(0, 2, 1)
    for other in (moved["path_gain_db"][0].values, back):
        both = np.isfinite(gain) & np.isfinite(other)
        assert both.sum() > 0.99 * np.isfinite(gain).sum()
        assert (np.abs(other - gain)[both] < 0.05).mean() > 0.97


def _placed(scene: Scene, place) -> Scene:
    """A scene whose x and y are mapped by `place`."""
    meshes = tuple(
        replace(mesh, vertices=np.column_stack([place(mesh.vertices[:, :2]), mesh.vertices[:, 2]]))
        for mesh in scene.meshes
    )
    prints = tuple(replace(f, polygon=shapely.transform(f.polygon, place)) for f in scene.footprints)
    return Scene(scene.name, meshes, prints)


def test_line_of_sight_agrees_with_polygons_cut_by_lines():
    scene = load("procedural-2")
    grid = Grid.box({"z": 0, "y": 0, "x": 0}, {"z": 24, "y": 256, "x": 256}, {"z": 4, "y": 8, "x": 8})
    source = _free_place(scene)
    maps = trace(scene, [Transmitter(source)], grid, DominantOptions(turns=0))
    random = np.random.default_rng(3)
    for k, j, i in zip(*(random.integers(0, n, 300) for n in grid.shape), strict=True):
        target = (grid["x"].coordinates[i], grid["y"].coordinates[j], grid["z"].coordinates[k])
        if bool(maps["building"][k, j, i]):
            assert np.isnan(maps["path_gain_db"][0, k, j, i])
            continue
        assert bool(maps["los"][0, k, j, i]) == _clear(scene, source, target), target


def _free_place(scene: Scene) -> tuple[float, float, float]:
    grid = Grid.box({"z": 1, "y": 0, "x": 0}, {"z": 2, "y": 256, "x": 256}, 1.0)
    room = distance_transform_edt(~scene.building_mask(grid)[0])
    j, i = np.unravel_index(np.argmax(room), room.shape)
    return (i + 0.5, j + 0.5, 1.5)


def _clear(scene: Scene, a: tuple, b: tuple) -> bool:
    """By shapely: no part of the line in plan is inside a polygon while below its roof."""
    straight = shapely.LineString([a[:2], b[:2]])
    for footprint in scene.footprints:
        cut = shapely.intersection(straight, footprint.polygon)
        for part in shapely.get_parts(cut):
            if part.length > 1e-6:
                t = [straight.project(shapely.Point(p), normalized=True) for p in (part.coords[0], part.coords[-1])]
                if min(a[2] + u * (b[2] - a[2]) for u in t) < footprint.top_m - 1e-9:
                    return False
    return True


def test_paths_are_reciprocal_and_never_better_than_free_space(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("radiomaps.dominant._BESIDE_M", 1000.0)  # both ways look at the same corners
    scene = load("procedural-5")
    here = _free_place(scene)
    grid = Grid.box({"z": 1, "y": 0, "x": 0}, {"z": 2, "y": 256, "x": 256}, {"z": 1, "y": 16, "x": 16})
    maps = trace(scene, [Transmitter(here)], grid, DominantOptions(turns=1))
    check_maps(maps)
    y, x = np.meshgrid(grid["y"].coordinates, grid["x"].coordinates, indexing="ij")
    distance = np.hypot(y - here[1], x - here[0])
    gain = maps["path_gain_db"][0, 0].values
    outside = ~maps["building"][0].values
    assert (gain[outside] <= friis_gain_db(distance, FREQUENCY)[outside] + 1e-3).all()
    assert (maps["toa_s"][0, 0].values[outside] * SPEED_OF_LIGHT >= distance[outside] - 1e-3).all()
    hidden = np.argwhere(outside & ~maps["los"][0, 0].values)[::7]
    assert len(hidden) > 5
    for j, i in hidden:
        there = (float(x[j, i]), float(y[j, i]), 1.5)
        back = trace(
            scene, [Transmitter(there)], line(here[1], first=1.5, last=1.5, x=here[0]), DominantOptions(turns=1)
        )
        assert back["path_gain_db"].item() == pytest.approx(gain[j, i], abs=0.05)


def test_more_turns_never_weaken_a_voxel():
    scene = load("procedural-3")
    grid = Grid.box({"z": 1, "y": 0, "x": 0}, {"z": 2, "y": 256, "x": 256}, {"z": 1, "y": 4, "x": 4})
    source = Transmitter(_free_place(scene))
    gains = [trace(scene, [source], grid, DominantOptions(turns=turns))["path_gain_db"].values for turns in range(3)]
    for fewer, more in itertools.pairwise(gains):
        assert np.nanmin(more - fewer) >= -1e-3
    assert np.nanmax(gains[2] - gains[0]) > 10


def test_walls_may_be_looked_through_at_a_price():
    scene = scene_of_footprints(
        "block", [Footprint(shapely.box(40, -200, 60, 200), 100.0)], bounds=(-50, -250, 200, 250)
    )
    grid = line(0.0, first=1.5, last=1.5, x=100.0)
    maps = trace(scene, [Transmitter((0.0, 0.0, 1.5))], grid, DominantOptions(turns=0, wall_loss_db=7.5))
    assert maps["path_gain_db"].item() == pytest.approx(float(friis_gain_db(100.0, FREQUENCY)) - 15.0, abs=1e-3)
    assert not maps["los"].any()


def test_a_ridge_of_the_ground_hides_what_is_behind():
    x = np.array([-50.0, 50, 50, -50, -50, 50])
    y = np.array([0.0, 0, 50, 50, 100, 100])
    z = np.array([0.0, 0, 20, 20, 0, 0])
    faces = np.array([[0, 1, 2], [0, 2, 3], [3, 2, 5], [3, 5, 4]], np.int32)
    ground = Mesh("terrain", np.column_stack([x, y, z]), faces, kind="ground")
    scene = scene_of_footprints("ridge", [], ground=ground)
    grid = Grid.box({"z": 20, "y": 0, "x": -4}, {"z": 40, "y": 100, "x": 4}, 2.0)
    maps = trace(scene, [Transmitter((0.0, 1.0, 15.0))], grid)
    behind = maps.sel(y=97, x=1, method="nearest").isel(tx=0)
    shadow_top = 15 + (20 - 15) / 49 * 96
    assert (behind["los"].values == (behind["z"].values > shadow_top)).all()
    assert (behind["path_gain_db"].diff("z") > -0.2).all()


def test_layers_may_follow_the_ground():
    x, y = np.array([-50.0, 50, 50, -50]), np.array([0.0, 0, 100, 100])
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    for slope in (0.0, 0.2):  # level, 7 m high; and rising to the north
        ground = Mesh("terrain", np.column_stack([x, y, 7 + slope * y]), faces, kind="ground")
        scene = scene_of_footprints("hill", [], ground=ground)
        grid = Grid.box({"z": 1, "y": 20, "x": -20}, {"z": 5, "y": 80, "x": 20}, 2.0)
        source = (0.0, 2.0, 40.0)
        maps = trace(scene, [Transmitter(source)], grid, DominantOptions(above_ground=True)).isel(tx=0)
        z, y_, x_ = np.meshgrid(*(grid[name].coordinates for name in "zyx"), indexing="ij")
        height = z + 7 + slope * y_
        assert maps["ground_m"].values == pytest.approx(7 + slope * y_[0])
        distance = np.sqrt((x_ - source[0]) ** 2 + (y_ - source[1]) ** 2 + (height - source[2]) ** 2)
        assert maps["los"].all()
        assert maps["path_gain_db"].values == pytest.approx(friis_gain_db(distance, FREQUENCY), abs=1e-3)
        assert maps["toa_s"].values * SPEED_OF_LIGHT == pytest.approx(distance, rel=1e-6)


@pytest.mark.parametrize(
    ("transmitter", "grid", "message"),
    [
        (Transmitter((20.0, 20.0, 3.0)), line(50.0, x=50.0, last=10.0), "inside a building"),
        (Transmitter((5.0, 5.0, 3.0), pattern="dipole"), line(50.0, x=50.0, last=10.0), "isotropic"),
        (Transmitter((5.0, 5.0, 3.0)), line(500.0, x=50.0, last=10.0), "choose a grid inside"),
    ],
)
def test_what_cannot_be_traced_is_refused(transmitter: Transmitter, grid: Grid, message: str):
    scene = scene_of_footprints("b", [Footprint(shapely.box(10, 10, 30, 30), 9.0)], bounds=(0, 0, 100, 100))
    with pytest.raises(UserError, match=message):
        trace(scene, [transmitter], grid)


def test_shadows_of_another_map_are_filled_and_marked():
    from radiomaps.dominant.fill import fill_shadows

    scene = load("procedural-3")
    grid = Grid.box({"z": 1, "y": 0, "x": 0}, {"z": 3, "y": 256, "x": 256}, {"z": 1, "y": 8, "x": 8})
    whole = trace(scene, [Transmitter(_free_place(scene))], grid)
    holes = whole.copy(deep=True)
    gone = ~whole["los"] & ~whole["building"] & (whole["path_gain_db"] < -130)
    assert gone.any()
    for name in ("path_gain_db", "toa_s", "doa_azimuth", "doa_zenith"):
        holes[name] = whole[name].where(~gone)
    holes["no_path"] = whole["no_path"] | gone
    check_maps(holes)
    filled = fill_shadows(holes, scene)
    assert (filled["filled"] == gone).all()
    assert not filled["no_path"].any()
    assert filled["path_gain_db"].equals(whole["path_gain_db"])
    with pytest.raises(ValueError, match="not of"):
        fill_shadows(holes, load("procedural-4"))
