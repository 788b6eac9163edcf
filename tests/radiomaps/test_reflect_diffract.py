"""Maps with diffraction hold the paths that are mirrored before and after their edge."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from geoml.constants import SPEED_OF_LIGHT
from geoml.grids.grid import Grid
from radiomaps import dominant
from radiomaps.maps.layout import Transmitter
from radiomaps.raytrace import TraceOptions, find_paths, trace
from radiomaps.scenes import Mesh, Scene, load
from radiomaps.scenes.extrude import scene_of_footprints

CANYON = "simple_street_canyon"
PLACE = (-20.0, 0.0, 5.0)
OPTIONS = TraceOptions(diffraction=True, rays=1_000_000)


@pytest.fixture(scope="module")
def corner():
    """Round a corner of the canyon, 22 m across, with the exact paths to every third voxel."""
    scene, transmitter = load(CANYON), Transmitter(PLACE)
    grid = Grid.box({"z": 1.5, "y": -25, "x": -81}, {"z": 3.5, "y": -3, "x": -59}, 2.0)
    maps = trace(scene, [transmitter], grid, OPTIONS).isel(tx=0, z=0)
    dark = np.argwhere(~maps.los.values & ~maps.building.values)[::3]
    points = np.stack([maps.x.values[dark[:, 1]], maps.y.values[dark[:, 0]], np.full(len(dark), 2.5)], -1)
    exact = find_paths(scene, [transmitter], points, OPTIONS, rays=100_000, top=64).isel(tx=0)
    return maps, dark, exact


def test_a_street_round_the_corner_has_the_gain_of_its_exact_paths(corner):
    maps, dark, exact = corner
    mine, truth = maps.path_gain_db.values[tuple(dark.T)], exact.path_gain_db.values
    lit = np.isfinite(mine), np.isfinite(truth)
    assert (lit[0] == lit[1]).mean() >= 0.99
    apart = np.abs(mine - truth)[lit[0] & lit[1]]
    assert len(apart) > 20
    assert np.median(apart) <= 1.0
    assert np.percentile(apart, 95) <= 4.0


def test_the_strongest_path_round_the_corner_has_its_delay_and_direction(corner):
    maps, dark, exact = corner
    late = np.abs(maps.toa_s.values[tuple(dark.T)] - exact.delay_s.values[:, 0]) * SPEED_OF_LIGHT
    assert np.nanmedian(late) < 0.05
    turn = maps.doa_azimuth.values[tuple(dark.T)] - exact.arrival_azimuth.values[:, 0]
    assert np.degrees(np.nanmedian(np.abs((turn + np.pi) % (2 * np.pi) - np.pi))) < 0.1


def test_paths_mirrored_about_their_edge_decide_in_the_canyon(corner):
    """-98.6 dB with them, -110.6 dB by bare edges."""
    maps, _, _ = corner
    assert float(maps.path_gain_db.sel(x=-70, y=-14)) == pytest.approx(-98.6, abs=1.0)


def test_means_of_rays_have_the_power_of_exact_paths(corner):
    """Where no part of a voxel is in the light, on voxels of 50 cm, which hardly differ from their centres."""
    grid = Grid.box({"z": 2.25, "y": -25, "x": -81}, {"z": 2.75, "y": -3, "x": -59}, 0.5)
    maps, means = (
        trace(load(CANYON), [Transmitter(PLACE)], grid, replace(OPTIONS, estimator=estimator)).isel(tx=0, z=0)
        for estimator in ("paths", "axis")
    )
    dark = (~maps.los & ~maps.building & (maps.los_fraction.fillna(0) == 0)).values
    power, mean = (np.nansum(10 ** (m.path_gain_db.values[dark] / 10)) for m in (maps, means))
    assert dark.sum() > 300
    assert mean == pytest.approx(power, rel=0.2)


def flat(walls: bool) -> Scene:
    """Level ground, or two walls that face each other without ground: nothing diffracts."""
    plain = scene_of_footprints("plain", [], bounds=(0, 0, 60, 60))
    if not walls:
        return plain
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    meshes = [Mesh(f"wall {y}", np.array([[0.0, y, 0], [60, y, 0], [60, y, 20], [0, y, 20]]), faces) for y in (0, 60)]
    return replace(plain, meshes=tuple(meshes))


@pytest.mark.parametrize("walls", [False, True])
@pytest.mark.parametrize("estimator", ["paths", "axis"])
def test_a_scene_without_an_edge_has_the_maps_without_diffraction(walls: bool, estimator: str):
    scene, transmitter = flat(walls), Transmitter((30.0, 30.0, 5.0))
    grid = Grid.box({"z": 1, "y": 10, "x": 10}, {"z": 5, "y": 50, "x": 50}, 4.0)
    options = TraceOptions(rays=20_000, estimator=estimator)
    without, with_ = (
        trace(scene, [transmitter], grid, replace(options, diffraction=on))["path_gain_db"].values
        for on in (False, True)
    )
    assert np.isfinite(without).all()
    np.testing.assert_allclose(with_, without, atol=0.01)
    points = np.array([[12.0, 12.0, 3.0]])
    tables = [find_paths(scene, [transmitter], points, replace(options, diffraction=on), top=4) for on in (False, True)]
    np.testing.assert_allclose(*(table["path_gain_db"].values for table in tables), atol=0.01)
    straight = dominant.trace(scene, [transmitter], grid)["path_gain_db"].values
    assert np.isfinite(straight).all()
    assert (straight <= with_ + 1.0).all()
