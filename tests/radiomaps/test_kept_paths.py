"""Paths kept by a trace against exact ones, and antennas applied to them against new traces."""

from __future__ import annotations

import numpy as np
import pytest

from geoml.constants import SPEED_OF_LIGHT
from geoml.errors import DataError, UserError
from geoml.grids.grid import Grid
from radiomaps.antennas.arrays import steering_weights
from radiomaps.antennas.stored import amplitudes, apply_antenna, path_powers
from radiomaps.maps.layout import Transmitter
from radiomaps.raytrace import TraceOptions, find_paths, trace
from radiomaps.scenes import load

PLACE = (128.5, 128.5, 26.0)
OPTIONS = TraceOptions(frequency_hz=3.5e9, rays=500_000, depth=2, diffraction=True, paths_per_voxel=24)
GRID = Grid.box({"z": 1, "y": 64, "x": 64}, {"z": 5, "y": 192, "x": 192}, {"z": 4, "y": 16, "x": 16})


@pytest.fixture(scope="module")
def city():
    return load("procedural-3")


@pytest.fixture(scope="module")
def maps(city):
    return trace(city, [Transmitter(PLACE)], GRID, OPTIONS).isel(tx=0)


def wrong_db(made, truth):
    """Differences of path gain where both have a path."""
    apart = np.abs(made.path_gain_db.values - truth.path_gain_db.values)
    return apart[np.isfinite(apart)]


def test_the_strongest_paths_make_up_the_map(maps):
    again = apply_antenna(maps, Transmitter(PLACE))
    assert np.quantile(wrong_db(again, maps), 0.95) < 0.05
    assert (again.path_gain_db.isnull() == maps.path_gain_db.isnull()).all()
    known = np.isfinite(maps.toa_s.values)
    assert np.median(np.abs(again.toa_s.values - maps.toa_s.values)[known]) * SPEED_OF_LIGHT < 0.01
    power = path_powers(maps, Transmitter(PLACE))
    assert (np.diff(power, axis=-1) <= 1e-6 * power[..., :-1].max()).all()  # strongest first
    assert np.isnan(maps.path_delay_s.values[maps.building.values]).all()


def test_kept_paths_are_exact_ones(city, maps):
    """Amplitudes of both polarisations, delays and angles at both ends are those of Sionna's image method."""
    z, y, x = (part.ravel() for part in np.meshgrid(maps.z, maps.y, maps.x, indexing="ij"))
    chosen = np.flatnonzero(~maps.building.values.ravel())[::3]
    points = np.stack([x, y, z], -1)[chosen]
    flat = maps.stack(voxel=("z", "y", "x")).transpose("voxel", ...)
    for sent, polarization in enumerate("VH"):
        table = find_paths(city, [Transmitter(PLACE, polarization=polarization)], points, OPTIONS, top=24).isel(tx=0)
        ours = np.abs(amplitudes(flat))[chosen, :, sent]
        theirs = np.hypot(table.amplitude_real.values, table.amplitude_imag.values)
        agree = []
        for row in range(len(points)):
            for path in np.flatnonzero(np.nan_to_num(theirs[row].max(0)) > 10 ** (-120 / 20))[:3]:
                late = np.abs(flat.path_delay_s.values[chosen[row]] - table.delay_s.values[row, path])
                turn = np.abs(flat.path_departure_zenith.values[chosen[row]] - table.departure_zenith.values[row, path])
                both = np.nan_to_num(late * 1e9 + np.degrees(turn), nan=np.inf)
                near = int(both.argmin())
                if both[near] < 0.1:  # ns and degrees: points on edges are found to some centimetres
                    agree.append(
                        np.allclose(ours[row, near], theirs[row, :, path], atol=0.02 * theirs[row, :, path].max())
                    )
                else:
                    agree.append(False)
        assert np.mean(agree) > 0.9


@pytest.mark.parametrize(
    "antenna",
    [
        {"pattern": "tr38901", "azimuth_deg": 60, "tilt_deg": 12},
        {"pattern": "tr38901", "polarization": "cross", "azimuth_deg": 200, "tilt_deg": 4, "rows": 4, "columns": 2},
        {"pattern": "dipole", "polarization": "H", "azimuth_deg": 10, "tilt_deg": 30},
        {"pattern": "tr38901", "azimuth_deg": 300, "tilt_deg": 0, "rows": 8, "electrical": 10},
    ],
)
def test_an_antenna_after_the_trace_is_that_of_a_new_trace(city, maps, antenna):
    antenna = dict(antenna)
    azimuth, tilt = antenna.pop("azimuth_deg"), antenna.pop("tilt_deg")
    if electrical := antenna.pop("electrical", 0):
        antenna["weights"] = tuple(steering_weights(antenna["rows"], 1, tilt_deg=electrical).ravel())
    transmitter = Transmitter(PLACE, **antenna).turned(azimuth_deg=azimuth, tilt_deg=tilt)
    fresh = trace(city, [transmitter], GRID, TraceOptions(**{**vars(OPTIONS), "paths_per_voxel": 0})).isel(tx=0)
    wrong = wrong_db(apply_antenna(maps, transmitter), fresh)
    assert np.median(wrong) < 0.1
    if transmitter.rows == 1:  # nulls of a narrow beam lie on paths beyond the kept ones
        assert np.quantile(wrong, 0.9) < 1.0


def test_a_directive_antenna_keeps_the_paths_it_does_not_send(city, maps):
    narrow = Transmitter(PLACE, pattern="tr38901").turned(azimuth_deg=0, tilt_deg=0)
    kept = trace(city, [narrow], GRID, OPTIONS).isel(tx=0)
    turned = narrow.turned(azimuth_deg=180)
    assert np.median(wrong_db(apply_antenna(kept, turned), apply_antenna(maps, turned))) < 0.01


def test_maps_without_paths_say_how_to_get_them(city, maps):
    with pytest.raises(DataError, match=r"have no stored paths; trace them with .*paths_per_voxel=16"):
        apply_antenna(maps.drop_vars("path_delay_s"), Transmitter(PLACE))
    with pytest.raises(UserError, match="paths_per_voxel=4 needs estimator=paths"):
        trace(city, [Transmitter(PLACE)], GRID, TraceOptions(paths_per_voxel=4, estimator="axis"))


def test_cells_of_a_file_take_the_paths_of_a_store(tmp_path):
    """One traced mast serves three sectors; a place that was not traced is refused with those that were."""
    from radiomaps.antennas.replanned import maps_of_store
    from radiomaps.generation.generate import generate
    from radiomaps.generation.plan import Placement, Plan, Window

    options = {"frequency_hz": 2e9, "rays": 100_000, "depth": 1, "paths_per_voxel": 8}
    window = Window(64, 16, (2, 2, 1))
    plan = Plan(({"name": "procedural", "seed": 3},), Placement(positions_m=[PLACE]), window, "sionna", options)
    store = generate(plan, tmp_path / "maps.zarr")
    x, y, z = PLACE
    sectors = [{"name": str(turn), "x": x, "y": y, "z": z, "azimuth": turn, "pattern": "tr38901"} for turn in (0, 120)]
    made = maps_of_store(store, sectors)
    assert made.tx_power_dbm.values.tolist() == [43, 43]
    one = trace(load("procedural-3"), [Transmitter(PLACE)], window.grid(load("procedural-3")), TraceOptions(**options))
    for number, turn in enumerate((0, 120)):
        sector = Transmitter(PLACE, pattern="tr38901").turned(azimuth_deg=turn)
        wrong = wrong_db(made.isel(tx=number), apply_antenna(one.isel(tx=0), sector))
        assert np.quantile(wrong, 0.95) < 0.05  # what storing rounds
    with pytest.raises(
        UserError, match=r"which was not traced; the store has paths of transmitters at \(128.5, 128.5, 26\)"
    ):
        maps_of_store(store, [{**sectors[0], "x": x + 5}])
