"""The ray tracer against closed forms: free space, two rays, a knife edge; and against itself in other cuts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import radiomaps
from geoml.constants import SPEED_OF_LIGHT
from geoml.errors import UserError
from geoml.grids.grid import Grid
from radiomaps.maps.layout import Transmitter, friis_gain_db
from radiomaps.raytrace import TraceOptions, find_paths, trace
from radiomaps.scenes import Mesh, Scene

FREQUENCY = 5.9e9
QUICK = TraceOptions(frequency_hz=FREQUENCY, rays=200_000)


def rectangle(name, corner, one, other, material, kind="object"):
    corner, one, other = (np.asarray(part, float) for part in (corner, one, other))
    vertices = np.stack([corner, corner + one, corner + one + other, corner + other])
    return Mesh(name, vertices, np.array([[0, 1, 2], [0, 2, 3]], np.int32), material, kind)


def ground(material, half=300.0, z=0.0):
    return rectangle("ground", (-half, -half, z), (2 * half, 0, 0), (0, 2 * half, 0), material, "ground")


def box(name, lower, upper, material="concrete"):
    (x0, y0, z0), (x1, y1, z1) = lower, upper
    vertices = [(x, y, z) for z in (z0, z1) for y in (y0, y1) for x in (x0, x1)]
    quads = [(0, 2, 3, 1), (4, 5, 7, 6), (0, 1, 5, 4), (2, 6, 7, 3), (0, 4, 6, 2), (1, 3, 7, 5)]
    faces = [face for a, b, c, d in quads for face in ((a, b, c), (a, c, d))]
    return Mesh(name, np.array(vertices, float), np.array(faces, np.int32), material, "building")


@pytest.fixture(scope="module")
def street():
    """Two rows of blocks along a street, with a gap: line of sight, mirrors and shadow in a small space."""
    blocks = [box(f"b{k}{side}", (-60 + 45 * k, y, 0), (-25 + 45 * k, y + 20, 15)) for k in range(3)
              for side, y in (("n", 8), ("s", -28))]  # fmt: skip
    return Scene("street", (ground("medium_dry_ground", 80), *blocks))


def grid_around(x, y, z, half=8.0, step=1.0, layers=4):
    return Grid.box(
        {"z": z - layers / 2, "y": y - half, "x": x - half}, {"z": z + layers / 2, "y": y + half, "x": x + half},
        {"z": 1.0, "y": step, "x": step},
    )  # fmt: skip


def distances(maps, transmitter):
    x, y, z = (maps[name] - at for name, at in zip("xyz", transmitter.position, strict=True))
    return np.sqrt(x**2 + y**2 + z**2).transpose("z", "y", "x").values


def unit(azimuth, zenith):
    return np.stack([np.sin(zenith) * np.cos(azimuth), np.sin(zenith) * np.sin(azimuth), np.cos(zenith)], axis=-1)


def test_free_space_is_friis():
    scene = Scene("empty", (ground("vacuum", z=-200.0),))
    transmitter = Transmitter((0.0, 0.0, 0.0))
    maps = trace(scene, [transmitter], grid_around(60, 20, 5), QUICK).isel(tx=0)
    assert maps.los.all()
    assert np.abs(maps.path_gain_db - friis_gain_db(distances(maps, transmitter), FREQUENCY)).max() < 0.01


def test_line_of_sight_has_the_time_and_direction_of_the_straight_line(street):
    transmitter = Transmitter((-50.0, 0.0, 5.0))
    maps = trace(street, [transmitter], grid_around(30, 0, 4), QUICK).isel(tx=0)
    assert maps.los.mean() > 0.3
    lit = maps.los.values
    distance = distances(maps, transmitter)
    assert np.abs(maps.toa_s.values * SPEED_OF_LIGHT - distance)[lit].max() < 0.01
    z, y, x = np.meshgrid(maps.z, maps.y, maps.x, indexing="ij")
    straight = (np.array(transmitter.position) - np.stack([x, y, z], -1)) / distance[..., None]
    miss = np.linalg.norm(unit(maps.doa_azimuth.values, maps.doa_zenith.values) - straight, axis=-1)
    assert np.degrees(miss[lit].max()) < 0.01


@pytest.mark.parametrize("estimator", ["paths", "axis"])
def test_two_rays_over_metal_add_their_powers(estimator):
    scene = Scene("mirror", (ground("metal"),))
    transmitter = Transmitter((0.0, 0.0, 10.0))
    options = TraceOptions(frequency_hz=FREQUENCY, rays=400_000, depth=1, estimator=estimator)
    maps = trace(scene, [transmitter], grid_around(60, 20, 5), options).isel(tx=0)
    direct = distances(maps, transmitter)
    mirrored = distances(maps, Transmitter((0.0, 0.0, -10.0)))
    expected = 10 * np.log10(sum(10 ** (friis_gain_db(d, FREQUENCY) / 10) for d in (direct, mirrored)))
    error = maps.path_gain_db.values - expected
    assert np.mean(10 ** (error / 10)) == pytest.approx(1, abs=0.005)
    assert np.abs(error).max() < (0.01 if estimator == "paths" else 1.5)
    late = (mirrored - direct) / SPEED_OF_LIGHT
    weight = direct**2 / (direct**2 + mirrored**2)
    spread = late * np.sqrt(weight * (1 - weight))
    np.testing.assert_allclose(maps.delay_spread_s.values, spread, rtol=0.02 if estimator == "paths" else 0.3)


@pytest.mark.parametrize("estimator", ["paths", "axis", "plane"])
def test_layers_above_a_slope_follow_it(estimator):
    """A metal slope mirrors the transmitter at its own angle: two rays in closed form, 1 … 4 m above the ground."""
    slope = np.tan(np.radians(10))
    corners = np.array([[x, y, slope * x] for x, y in ((-200, -200), (200, -200), (200, 200), (-200, 200))], float)
    scene = Scene("slope", (Mesh("g", corners, np.array([[0, 1, 2], [0, 2, 3]], np.int32), "metal", "ground"),))
    normal = np.array([-slope, 0, 1]) / np.hypot(slope, 1)
    source = np.array([0.0, 0.0, 30.0])
    grid = Grid.box({"z": 0.5, "y": 10, "x": 60}, {"z": 4.5, "y": 30, "x": 90}, 1.0)
    options = TraceOptions(frequency_hz=FREQUENCY, rays=2_000_000, depth=1, estimator=estimator, above_ground=True)
    maps = trace(scene, [Transmitter(tuple(source))], grid, options).isel(tx=0)
    assert maps.ground_m.values == pytest.approx(np.broadcast_to(slope * maps.x.values, (20, 30)))
    assert not maps.building.any()
    z, y, x = np.meshgrid(maps.z, maps.y, maps.x, indexing="ij")
    points = np.stack([x, y, z + slope * x], -1)
    lengths = [np.linalg.norm(points - place, axis=-1) for place in (source, source - 2 * (source @ normal) * normal)]
    expected = 10 * np.log10(sum(10 ** (friis_gain_db(length, FREQUENCY) / 10) for length in lengths))
    error = maps.path_gain_db.values - expected
    assert np.mean(10 ** (error / 10)) == pytest.approx(1, abs=0.005)
    assert np.abs(error).max() < (0.01 if estimator == "paths" else 1.5)
    assert np.abs(maps.toa_s.values * SPEED_OF_LIGHT - lengths[0]).max() < 0.01


def test_a_sweep_over_frequencies_has_the_maps_of_each(street):
    grid = grid_around(-16, 8, 4, half=6)
    options = {"rays": 100_000, "depth": 2}
    place = [(-50.0, 0.0, 5.0)]
    sweep = radiomaps.trace(street, place, grid, frequencies_hz=(2e9, 6e9), **options)
    assert sweep.frequency_hz.values.tolist() == [2e9, 6e9]
    assert sweep.attrs["frequency_hz"] == [2e9, 6e9]
    assert sweep.building.dims == ("z", "y", "x")
    lit = sweep.los.values[0]
    assert lit.any()
    step = sweep.path_gain_db.values[0] - sweep.path_gain_db.values[1]
    assert np.median(step[lit]) == pytest.approx(20 * np.log10(3), abs=0.5)  # mirrors change a little
    alone = radiomaps.trace(street, place, grid, frequency_hz=6e9, **options)
    np.testing.assert_allclose(sweep.path_gain_db.values[1], alone.path_gain_db.values[0], atol=1e-3)


def test_two_rays_add_coherently_in_exact_paths():
    scene = Scene("mirror", (ground("metal"),))
    transmitter = Transmitter((0.0, 0.0, 10.0))
    points = np.stack([np.linspace(40, 60, 30), np.full(30, 3.0), np.full(30, 4.0)], -1)
    paths = find_paths(scene, [transmitter], points, TraceOptions(frequency_hz=FREQUENCY, depth=1)).isel(tx=0)
    assert (paths.path_count == 2).all()
    direct, mirrored = (np.linalg.norm(points - (0, 0, z), axis=1) for z in (10, -10))
    wave = 2 * np.pi * FREQUENCY / SPEED_OF_LIGHT
    # The vertical field's sign turns with the zenith angle's side, so that metal reflects it with +1.
    total = np.exp(-1j * wave * direct) / direct + np.exp(-1j * wave * mirrored) / mirrored
    expected = friis_gain_db(1.0, FREQUENCY) + 20 * np.log10(np.abs(total))
    deep = expected < expected.max() - 12  # within a fringe's minimum a millimetre of float32 phase decides
    assert np.abs(paths.coherent_gain_db.values - expected)[~deep].max() < 0.2


def knife_loss_db(nu):
    """ITU-R P.526-15, equation (31)."""
    return 6.9 + 20 * np.log10(np.sqrt((nu - 0.1) ** 2 + 1) + nu - 0.1)


@pytest.fixture(scope="module")
def knife():
    screen = rectangle("screen", (0, -300, -200), (0, 600, 0), (0, 0, 200), "metal")
    return Scene("knife", (ground("vacuum", z=-200.0), screen))


KNIFE = TraceOptions(frequency_hz=1e9, depth=1, rays=100_000, specular=False, diffraction=True, edge_diffraction=True)


def knife_nu(points, transmitter, frequency=KNIFE.frequency_hz):
    """Diffraction parameter over the edge x = z = 0, ν² = 2Δ/(λ/2), negative where the edge is below the ray."""
    start = np.array(transmitter.position)
    over = np.linalg.norm(start[[0, 2]]) + np.linalg.norm(points[..., [0, 2]], axis=-1)
    detour = np.hypot(over, points[..., 1] - start[1]) - np.linalg.norm(points - start, axis=-1)
    height = start[2] + (points[..., 2] - start[2]) * -start[0] / (points[..., 0] - start[0])
    return -np.sign(height) * np.sqrt(4 * detour / (SPEED_OF_LIGHT / frequency))


@pytest.mark.parametrize(
    ("start", "x", "y", "frequency"),
    [
        ((-150.0, 0.0, 0.0), 150.0, 0.0, 1e9),
        ((-60.0, 0.0, -3.0), 200.0, 0.0, 1e9),  # nearer, and below the edge
        ((-200.0, 0.0, 6.0), 60.0, 0.0, 5.9e9),
        ((-100.0, -60.0, 0.0), 120.0, 60.0, 3.5e9),  # obliquely across
    ],
)
def test_a_knife_edge_loses_what_the_itu_says(knife, start, x, y, frequency):
    """Where the wave bends by less than 10°: beyond, a conducting screen is no longer the scalar theory's."""
    transmitter = Transmitter(start)
    column = np.linspace(40, -40, 8001)
    candidates = np.stack([np.full_like(column, x), np.full_like(column, y), column], -1)
    nu = knife_nu(candidates, transmitter, frequency)
    wanted = np.linspace(-0.68, 2.98, 30)
    points = candidates[[np.argmin(np.abs(nu - value)) for value in wanted]]
    nu = knife_nu(points, transmitter, frequency)
    assert nu.min() < -0.6
    assert nu.max() > 2.9
    options = replace(KNIFE, frequency_hz=frequency)
    paths = find_paths(knife, [transmitter], points, options, rays=50_000).isel(tx=0)
    distance = np.linalg.norm(points - transmitter.position, axis=1)
    loss = friis_gain_db(distance, frequency) - paths.coherent_gain_db.values
    assert np.abs(loss - knife_loss_db(nu)).max() < 1.0


def test_the_map_agrees_with_the_knife_edge_in_its_shadow(knife):
    transmitter = Transmitter((-150.0, 0.0, 0.0))
    grid = Grid.box({"z": -8, "y": -3, "x": 145}, {"z": 0, "y": 3, "x": 151}, 1.0)
    maps = trace(knife, [transmitter], grid, replace(KNIFE, rays=1_000_000)).isel(tx=0)
    z, y, x = np.meshgrid(maps.z, maps.y, maps.x, indexing="ij")
    points = np.stack([x, y, z], -1)
    nu = knife_nu(points, transmitter)
    distance = np.linalg.norm(points - transmitter.position, axis=-1)
    loss = friis_gain_db(distance, KNIFE.frequency_hz) - maps.path_gain_db.values
    shadow = (nu > 0.05) & (nu < 3)
    assert shadow.sum() > 100
    assert np.abs(loss - knife_loss_db(nu))[shadow].max() < 1.0
    edge = np.arctan2(0 - z, 0 - x)  # the wave comes from the edge: in the plane of incidence at y = 0
    middle = shadow & (np.abs(y) < 1)
    arrival = unit(maps.doa_azimuth.values, maps.doa_zenith.values)
    assert np.degrees(np.abs(np.arctan2(arrival[..., 2], arrival[..., 0]) - edge)[middle].max()) < 0.1


def test_means_of_diffracted_rays_are_those_of_exact_paths(knife):
    transmitter = Transmitter((-150.0, 0.0, 0.0))
    grid = Grid.box({"z": -8, "y": -16, "x": 100}, {"z": 0, "y": 16, "x": 132}, 1.0)
    exact, means = (
        trace(knife, [transmitter], grid, replace(KNIFE, rays=4_000_000, estimator=estimator)).isel(tx=0)
        for estimator in ("paths", "axis")
    )
    dark = ~exact.los.values
    power, mean = (np.nan_to_num(10 ** (maps.path_gain_db.values / 10)) for maps in (exact, means))
    assert mean[dark].sum() == pytest.approx(power[dark].sum(), rel=0.03)
    for layer in range(8):
        shadow = dark[layer]
        assert mean[layer][shadow].sum() == pytest.approx(power[layer][shadow].sum(), rel=0.1)
    late = (means.toa_s - exact.toa_s).values[dark & (mean > 0)]
    assert np.median(np.abs(late)) < 0.1e-9


def test_gain_is_the_same_both_ways(street):
    a, b = (-50.0, 0.0, 5.0), (30.5, 3.5, 4.0)
    options = TraceOptions(frequency_hz=FREQUENCY, rays=2_000_000, depth=2)
    gains = []
    for start, end in ((a, b), (b, a)):
        grid = Grid.box(
            {"z": end[2] - 1.5, "y": end[1] - 1.5, "x": end[0] - 1.5},
            {"z": end[2] + 1.5, "y": end[1] + 1.5, "x": end[0] + 1.5}, 1.0)  # fmt: skip
        maps = trace(street, [Transmitter(start)], grid, options).isel(tx=0, z=1, y=1, x=1)
        gains.append(float(maps.path_gain_db))
    assert gains[0] == pytest.approx(gains[1], abs=0.05)


def test_no_more_than_physics_allows_and_nothing_inside(street):
    transmitter = Transmitter((-50.0, 0.0, 5.0))
    grid = Grid.box({"z": 0, "y": -40, "x": -70}, {"z": 20, "y": 40, "x": 70}, {"z": 2, "y": 2, "x": 2})
    maps = trace(street, [transmitter], grid, TraceOptions(frequency_hz=FREQUENCY, rays=400_000)).isel(tx=0)
    distance = distances(maps, transmitter)
    building = maps.building.values
    assert building.any()
    assert np.isnan(maps.path_gain_db.values[building]).all()
    outside = ~building & ~maps.no_path.values
    assert np.nanmax(maps.path_gain_db.values) < 0
    # No path is stronger than free space over its own length, and none is shorter than the straight line.
    assert (maps.toa_s.values * SPEED_OF_LIGHT - distance)[outside].min() > -0.01
    assert (maps.first_arrival_s.values * SPEED_OF_LIGHT - distance)[outside].min() > -0.01
    assert (maps.mean_delay_s >= maps.first_arrival_s - 1e-12).values[outside].all()
    most = friis_gain_db(maps.first_arrival_s.values * SPEED_OF_LIGHT, FREQUENCY) + 10 * np.log10(16)
    assert (maps.path_gain_db.values - most)[outside].max() < 0


def test_the_paths_of_a_street_are_those_of_the_image_method(street):
    """All voxels without line of sight, against Sionna's exact paths: power, delay and direction of the strongest."""
    transmitter = Transmitter((-50.0, 0.0, 5.0))
    grid = Grid.box({"z": 2, "y": 6, "x": -20}, {"z": 6, "y": 34, "x": -12}, {"z": 2, "y": 2, "x": 2})
    options = TraceOptions(frequency_hz=FREQUENCY, rays=1_000_000)
    maps = trace(street, [transmitter], grid, options).isel(tx=0)
    z, y, x = np.meshgrid(maps.z, maps.y, maps.x, indexing="ij")
    chosen = ~maps.los.values & ~maps.building.values
    points = np.stack([x, y, z], -1)[chosen]
    exact = find_paths(street, [transmitter], points, options, rays=100_000).isel(tx=0)
    there = exact.path_count.values > 0
    assert there.sum() > 30
    covered = ~maps.no_path.values[chosen]
    assert (covered & there).sum() >= 0.95 * there.sum()
    both = there & covered
    error = np.abs(maps.path_gain_db.values[chosen] - exact.path_gain_db.values)[both]
    assert np.median(error) < 0.05
    assert np.percentile(error, 95) < 1.0
    late = np.abs(maps.toa_s.values[chosen] - exact.delay_s.values[:, 0])[both]
    assert np.median(late) < 0.1e-9
    mine = unit(maps.doa_azimuth.values[chosen], maps.doa_zenith.values[chosen])[both]
    theirs = unit(exact.arrival_azimuth.values[:, 0], exact.arrival_zenith.values[:, 0])[both]
    assert np.degrees(np.median(np.linalg.norm(mine - theirs, axis=-1))) < 0.1


@pytest.mark.parametrize("estimator", ["axis", "plane", "paths"])
def test_layers_in_one_trace_are_those_traced_one_by_one(street, estimator):
    """At depth 3. Exact paths that rays missed come from neighbours, of which a layer alone has fewer."""
    options = TraceOptions(frequency_hz=FREQUENCY, rays=200_000, estimator=estimator)
    grid = grid_around(-16, 8, 4, half=10, layers=4)
    whole = trace(street, [Transmitter((-50.0, 0.0, 5.0))], grid, options)
    layers = [trace(street, [Transmitter((-50.0, 0.0, 5.0))], grid.crop(z=slice(k, k + 1)), options) for k in range(4)]
    alone = np.concatenate([layer.path_gain_db.values for layer in layers], axis=1)
    assert (np.isnan(whole.path_gain_db.values) == np.isnan(alone)).all()
    power, power_alone = (np.nansum(10 ** (gain / 10)) for gain in (whole.path_gain_db.values, alone))
    assert power == pytest.approx(power_alone, rel=1e-4)
    assert np.nanpercentile(np.abs(whole.path_gain_db.values - alone), 99) < 0.25


def test_chunks_and_pieces_change_nothing(street):
    grid = grid_around(-16, 8, 4, half=10)
    settings = {"frequency_hz": FREQUENCY, "rays": 100_000, "diffuse": True, "scattering": 0.3, "estimator": "axis"}
    transmitters = [Transmitter((-50.0, 0.0, 5.0), name="a"), Transmitter((30.0, 2.0, 10.0), name="b")]
    whole = trace(street, transmitters, grid, TraceOptions(**settings))
    chunks = trace(street, transmitters, grid, TraceOptions(**settings, chunk_rays=7000))
    alone = trace(street, transmitters[1:], grid, TraceOptions(**settings))
    for name in ("path_gain_db", "mean_delay_s", "toa_s"):
        np.testing.assert_allclose(chunks[name].values, whole[name].values, rtol=1e-4)
        np.testing.assert_allclose(alone[name].values, whole[name].values[1:], rtol=1e-4)


def test_estimators_agree_on_the_mean(street):
    grid = grid_around(-16, 0, 4, half=8, layers=6)
    transmitter = Transmitter((-50.0, 0.0, 12.0))
    power = {}
    for estimator in ("axis", "plane"):
        options = TraceOptions(frequency_hz=FREQUENCY, rays=2_000_000, line_of_sight=False, estimator=estimator)
        maps = trace(street, [transmitter], grid, options)
        power[estimator] = float((10 ** (maps.path_gain_db / 10)).sum())
    assert power["axis"] == pytest.approx(power["plane"], rel=0.03)


def test_the_error_that_is_told_is_the_error_made(street):
    """The median error out of sight against 20 times the rays of another seed: of a mean within a factor of two.

    Of paths, what is told bounds what is missing.
    """
    grid = grid_around(-16, 20, 4, half=8)
    place = [Transmitter((-50.0, 0.0, 5.0))]
    options = TraceOptions(frequency_hz=FREQUENCY, rays=100_000, batches=8, estimator="axis")
    some = trace(street, place, grid, options).isel(tx=0)
    truth = trace(street, place, grid, replace(options, rays=2_000_000, seed=1)).isel(tx=0)
    dark = ((truth.los_fraction == 0) & ~truth.no_path & ~some.no_path).values
    assert dark.sum() > 300
    made = float(np.median(np.abs((some.path_gain_db - truth.path_gain_db).values[dark])))
    assert 0.5 < made / (0.67 * float(some.error_db)) < 2  # half of Gaussian errors lie within 0.67 standard errors
    paths = trace(street, place, grid, replace(options, estimator="paths")).isel(tx=0)
    exact = trace(street, place, grid, replace(options, estimator="paths", rays=2_000_000, seed=1)).isel(tx=0)
    made = float(np.median(np.abs((paths.path_gain_db - exact.path_gain_db).values[dark])))
    assert made <= float(paths.error_db) + 0.01


def test_the_error_asked_for_is_reached(street):
    grid = grid_around(-16, 12, 4, half=8)
    options = TraceOptions(frequency_hz=FREQUENCY, rays=100_000, error_db=0.5, max_rays=4_000_000, estimator="axis")
    maps = trace(street, [Transmitter((-50.0, 0.0, 5.0))], grid, options)
    assert 0 < float(maps.error_db[0]) <= 0.5
    assert maps.attrs["rays"] > 100_000


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"estimator": "volume"}, "expected one of"),
        ({"refraction": True}, "estimator=axis"),
        ({"depth": 9}, "depth=9"),
        ({"edge_diffraction": True}, "diffraction=true"),
        ({"error_db": -1.0}, "positive"),
    ],
)
def test_options_that_cannot_be_are_refused(changes, words):
    with pytest.raises(UserError, match=words):
        TraceOptions(**changes)


def test_bad_places_and_patterns_are_refused(street):
    grid = grid_around(-16, 0, 4)
    with pytest.raises(UserError, match="inside a building"):
        trace(street, [Transmitter((-40.0, 15.0, 5.0))], grid, QUICK)
    with pytest.raises(UserError, match="grid inside the scene"):
        trace(street, [Transmitter((0.0, 0.0, 5.0))], grid_around(79, 0, 4), QUICK)
    with pytest.raises(UserError, match="no transmitter"):
        trace(street, [], grid, QUICK)
    with pytest.raises(UserError, match="pattern 'laser'"):
        trace(street, [Transmitter((0.0, 0.0, 5.0), pattern="laser")], grid, QUICK)
    cheese = replace(street, meshes=(*street.meshes, replace(street.meshes[1], material="cheese")))
    with pytest.raises(UserError, match="material 'cheese' unknown"):
        trace(cheese, [Transmitter((0.0, 0.0, 5.0))], grid, QUICK)


def test_an_array_has_its_gain_broadside_and_its_power_in_all():
    scene = Scene("empty", (ground("vacuum", z=-200.0),))
    grid = Grid.box({"z": -0.5, "y": -0.5, "x": 49.5}, {"z": 0.5, "y": 0.5, "x": 50.5}, 1.0)
    single, array = (Transmitter((0.0, 0.0, 0.0), columns=columns) for columns in (1, 8))
    maps = trace(scene, [single, array], grid, TraceOptions(frequency_hz=FREQUENCY, depth=0))
    gain = maps.path_gain_db.values.ravel()
    assert gain[1] - gain[0] == pytest.approx(10 * np.log10(8), abs=0.01)
