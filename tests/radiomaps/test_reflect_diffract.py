"""Maps with diffraction hold the paths that are mirrored before and after their edge."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from geoml.constants import SPEED_OF_LIGHT
from geoml.grids.grid import Grid
from radiomaps.maps.layout import Transmitter
from radiomaps.raytrace import TraceOptions, find_paths, trace
from radiomaps.scenes import load

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
