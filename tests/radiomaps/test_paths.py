"""Path tables: Doppler is the rate of the delay, walks keep their speed, files are read with NumPy alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from geoml.constants import SPEED_OF_LIGHT
from geoml.errors import DataError, UserError
from radiomaps.__main__ import main
from radiomaps.generation.plan import Window
from radiomaps.generation.receivers import Receivers
from radiomaps.maps.layout import Transmitter, friis_gain_db
from radiomaps.maps.path_files import read_paths, write_paths
from radiomaps.raytrace import TraceOptions, find_paths
from radiomaps.scenes import load

FREQUENCY = 3.5e9
CANYON = "simple_street_canyon"


@pytest.fixture(scope="module")
def walk() -> xr.Dataset:
    """A receiver that walks along a street canyon, at steps of 1 mm."""
    receivers = Receivers(waypoints_m=((-10, 1, 1.5), (30, 1, 1.5)), speed_m_s=10, interval_s=1e-4)
    scene = load(CANYON)
    motion = receivers.motion(scene, Window(size_m=64).grid(scene), 0)
    chosen = slice(20_000, 20_020)
    table = find_paths(
        scene, [Transmitter((-33.0, 0.0, 12.0))], motion.position_m[chosen],
        TraceOptions(frequency_hz=FREQUENCY, depth=2), rays=200_000, top=6, velocities=motion.velocity_m_s[chosen],
    )  # fmt: skip
    return table.assign_coords(time_s=("rx", motion.time_s[chosen], {"units": "s"}))


def test_doppler_is_the_rate_at_which_delays_shrink(walk: xr.Dataset):
    delay = walk["delay_s"].isel(tx=0).values.astype(np.float64)
    known = np.isfinite(delay).all(axis=0)
    assert known.sum() >= 3
    time = walk["time_s"].values
    slope = np.polynomial.polynomial.polyfit(time - time.mean(), delay[:, known], 1)[1]
    doppler = walk["doppler_hz"].isel(tx=0).values[:, known]
    limit = 10 * FREQUENCY / SPEED_OF_LIGHT
    assert doppler.mean(axis=0) == pytest.approx(-FREQUENCY * slope, abs=0.02 * limit)
    assert np.abs(doppler).max() <= limit * (1 + 1e-6)
    assert np.ptp(doppler.mean(axis=0)) > 0.01 * limit


def test_the_direct_path_is_friis_and_first(walk: xr.Dataset):
    direct = walk.isel(tx=0, path=0)
    assert (direct["bounces"] == 0).all()
    away = np.stack([walk[f"tx_{a}"].values[0] - walk[f"rx_{a}"].values for a in "xyz"], axis=1)
    distance = np.linalg.norm(away, axis=1)
    assert direct["delay_s"].values * SPEED_OF_LIGHT == pytest.approx(distance, abs=0.01)
    assert direct["gain_db"].values == pytest.approx(friis_gain_db(distance, FREQUENCY), abs=0.05)
    azimuth = np.arctan2(away[:, 1], away[:, 0]) % (2 * np.pi)
    assert direct["arrival_azimuth"].values == pytest.approx(azimuth, abs=2e-4)
    gains = walk["gain_db"].isel(tx=0).values
    assert (np.diff(np.nan_to_num(gains, nan=-999.0), axis=1) <= 0).all()


def test_the_channel_follows_from_the_amplitudes(walk: xr.Dataset, tmp_path: Path):
    """A channel from one place's Doppler and delays is that of the place 1 mm on, as the docstring says."""
    content = np.load(write_paths(tmp_path / "walk.npz", walk), allow_pickle=False)
    amplitude = (content["amplitude_real"] + 1j * content["amplitude_imag"])[0, :, 0]
    turn = np.exp(2j * np.pi * np.nan_to_num(content["doppler_hz"][0]) * 1e-4)
    step = (amplitude[:-1] * turn[:-1])[:, 0] / amplitude[1:, 0]
    assert np.degrees(np.abs(np.angle(step))).max() < 3  # of 360 a wavelength of 86 mm; 1 mm is 4.2


def test_files_hold_the_table(walk: xr.Dataset, tmp_path: Path):
    for name in ("walk.npz", "walk.nc"):
        again = read_paths(write_paths(tmp_path / name, walk))
        for variable in walk.variables:
            assert again[variable].dims == walk[variable].dims, variable
            equal = np.testing.assert_allclose if walk[variable].dtype == float else np.testing.assert_array_equal
            equal(again[variable].values, walk[variable].values)
            assert again[variable].attrs.get("units") == walk[variable].attrs.get("units"), variable
        assert again.attrs["frequency_hz"] == FREQUENCY
        assert set(again.coords) >= {"time_s", "rx_velocity_x", "tx_x"}
    with np.load(tmp_path / "walk.npz", allow_pickle=False) as content:
        dims = json.loads(str(content["dims"]))
        assert dims["gain_db"] == ["tx", "rx", "path"]
        assert content["gain_db"].shape == (1, 20, 6)
        assert json.loads(str(content["attributes"]))["gain_db"]["units"] == "dB"


def test_damaged_and_foreign_files_are_refused(walk: xr.Dataset, tmp_path: Path):
    whole = write_paths(tmp_path / "a.npz", walk).read_bytes()
    (tmp_path / "b.npz").write_bytes(whole[: len(whole) // 2])
    np.savez(tmp_path / "c.npz", x=np.zeros(3))
    for name in ("b.npz", "c.npz"):
        with pytest.raises(DataError, match="no path table"):
            read_paths(tmp_path / name)
    with pytest.raises(DataError, match="does not exist"):
        read_paths(tmp_path / "none.npz")
    with pytest.raises(UserError, match=r"\.npz or \.nc"):
        write_paths(tmp_path / "a.csv", walk)


def test_a_walk_keeps_its_speed_and_passes_its_corners():
    receivers = Receivers(waypoints_m=((0, 0, 1), (3, 0, 1), (3, 4, 1)), speed_m_s=2, interval_s=0.25)
    motion = receivers._walk()
    assert len(motion.time_s) == 15
    steps = np.diff(motion.position_m, axis=0)
    assert np.linalg.norm(steps, axis=1) == pytest.approx(0.5)
    assert motion.position_m[6] == pytest.approx([3, 0, 1])
    assert motion.position_m[-1] == pytest.approx([3, 4, 1])
    assert motion.velocity_m_s[7] == pytest.approx([0, 2, 0])


def test_receivers_by_chance_stand_outdoors_and_head_their_own_way():
    scene = load("procedural-1")
    grid = Window(size_m=256, step_m=1).grid(scene)
    motion = Receivers(count=200, speed_m_s=3.0).motion(scene, grid, 5)
    scene.require_outdoors([tuple(place) for place in motion.position_m[:50]])
    assert np.linalg.norm(motion.velocity_m_s, axis=1) == pytest.approx(3)
    assert np.unique(motion.velocity_m_s[:, 0]).size == 200
    again = Receivers(count=200, speed_m_s=3.0).motion(scene, grid, 5)
    assert (again.position_m == motion.position_m).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"waypoints_m": ((0, 0, 1),), "speed_m_s": 1}, "two waypoints_m or more"),
        ({"waypoints_m": ((0, 0, 1), (1, 0, 1))}, "speed_m_s above 0"),
        ({"positions_m": ((0, 0),)}, r"expected \[\[x, y, z\]"),
        ({"positions_m": ((0, 0, 1),), "waypoints_m": ((0, 0, 1), (1, 0, 1)), "speed_m_s": 1}, "not both"),
        ({"speed_m_s": -1}, "describe no motion"),
        ({"count": 0}, "count=0"),
    ],
)
def test_impossible_receivers_are_refused(changes: dict, message: str):
    with pytest.raises(UserError, match=message):
        Receivers(**changes)


def test_the_verb_writes_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    command = ["paths", f"scene={CANYON}", "transmitters.positions_m=[[0,0,10]]", "rays=20000", "options.depth=1"]
    assert main([*command, "receivers.positions_m=[[10,0,1.5],[20,1,1.5]]", "file=p.nc"]) == 0
    assert "los_%" in capsys.readouterr().out
    sizes = read_paths("p.nc").sizes
    assert {name: sizes[name] for name in sizes if name != "material"} == {
        "tx": 1,
        "rx": 2,
        "polarisation": 2,
        "path": 16,
    }
    assert main([*command, "receivers.waypoints_m=[[0,0,1]]"]) == 2
    assert "two waypoints_m" in capsys.readouterr().err
    assert main([*command, "file=p.csv"]) == 2
    assert ".npz or .nc" in capsys.readouterr().err


def test_waves_go_through_the_walls_of_rooms_if_refraction_is_asked_for(tmp_path: Path):
    command = [
        *("paths", "scene=rooms", "scene.open=0", "scene.halls=0", "window.size_m=16", "rays=20000"),
        *("transmitters.positions_m=[[4,2,2]]", "receivers.positions_m=[[13,2,1.5]]"),
    ]
    power = []
    for through in ("false", "true"):
        file = tmp_path / f"{through}.npz"
        assert main([*command, f"options.refraction={through}", f"file={file}", f"run.dir={tmp_path / through}"]) == 0
        with np.load(file) as found:
            power.append(float(np.nansum(found["amplitude_real"] ** 2 + found["amplitude_imag"] ** 2)))
            if through == "true":
                assert (found["bounces"][np.isfinite(found["delay_s"])] > 0).all()
    assert power[1] > power[0] == 0
