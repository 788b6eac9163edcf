"""Path tables in DeepMIMO's layout say what they said before, and are the channel they were."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy.io import savemat

from geoml.errors import DataError, UserError
from radiomaps.__main__ import main
from radiomaps.exchange import export_deepmimo, import_deepmimo, read_deepmimo
from radiomaps.maps.layout import Transmitter
from radiomaps.maps.path_files import read_paths, write_paths
from radiomaps.raytrace import TraceOptions, find_paths
from radiomaps.scenes import load

PLACES = [Transmitter((-33.0, 0.0, 12.0)), Transmitter((20.0, 0.0, 8.0))]


@pytest.fixture(scope="module")
def table() -> xr.Dataset:
    """Receivers along a street canyon, one of them out of every path's reach."""
    points = np.array([[10.0, 1.0, 1.5], [20.0, -2.0, 1.5], [5.0, 0.0, 3.0], [0.0, 0.0, -50.0]])
    velocities = np.tile([10.0, 0.0, 0.0], (4, 1))
    options = TraceOptions(frequency_hz=3.5e9, depth=2, diffraction=True)
    scene = load("simple_street_canyon")
    return find_paths(scene, PLACES, points, options, rays=50_000, top=8, velocities=velocities)


def test_the_layout_is_theirs(table: xr.Dataset, tmp_path: Path):
    rows = export_deepmimo(table, tmp_path / "canyon")
    assert [row["active"] for row in rows] == [3, 3]
    names = {path.name for path in (tmp_path / "canyon").iterdir()}
    assert {"params.json", "power_t000_tx000_r001.npz", "aoa_az_t000_tx001_r001.npz"} <= names
    params = json.loads((tmp_path / "canyon" / "params.json").read_text())
    assert params["rt_params"]["frequency"] == 3.5e9
    assert params["txrx_sets"]["txrx_set_0"]["num_points"] == 2
    assert params["txrx_sets"]["txrx_set_1"]["num_active_points"] == 3
    with np.load(tmp_path / "canyon" / "delay_t000_tx000_r001.npz", allow_pickle=False) as content:
        assert content.files == ["delay"]
        assert content["delay"].shape == (4, 8)


def test_what_comes_back_is_what_went_out(table: xr.Dataset, tmp_path: Path):
    export_deepmimo(table, tmp_path / "canyon")
    transmitters, every = read_deepmimo(tmp_path / "canyon")
    assert [t.position for t in transmitters] == [t.position for t in PLACES]
    for index, matrices in enumerate(every):
        one = table.isel(tx=index).sel(polarisation="V")
        np.testing.assert_allclose(matrices["rx_pos"], np.stack([one[f"rx_{axis}"] for axis in "xyz"], axis=-1))
        assert np.isnan(matrices["power"][3]).all()
        assert (np.diff(np.nan_to_num(matrices["power"], nan=-999), axis=1) <= 0).all()
        for user in range(3):
            count = int(np.isfinite(matrices["power"][user]).sum())
            assert count == int((np.hypot(one["amplitude_real"], one["amplitude_imag"])[user] > 0).sum())
            mine = np.argsort(matrices["delay"][user][:count])
            theirs = np.argsort(one["delay_s"].values[user])[:count]
            for name, variable in (("delay", "delay_s"), ("doppler", "doppler_hz")):
                np.testing.assert_allclose(matrices[name][user][mine], one[variable].values[user][theirs], rtol=1e-6)
            azimuth = np.degrees(one["arrival_azimuth"].values[user][theirs])
            np.testing.assert_allclose(matrices["aoa_az"][user][mine], azimuth, rtol=1e-6)
            digits = [len(str(int(code))) if code else 0 for code in matrices["inter"][user][mine]]
            assert digits == one["bounces"].values[user][theirs].tolist()
            bent = ["2" in str(int(code)) for code in matrices["inter"][user][mine]]
            assert bent == one["diffracted"].values[user][theirs].tolist()


def test_the_channel_is_the_same(table: xr.Dataset, tmp_path: Path):
    export_deepmimo(table, tmp_path / "canyon", polarisation="H")
    _, every = read_deepmimo(tmp_path / "canyon")
    offset_hz = 7e6
    one = table.isel(tx=0).sel(polarisation="H")
    amplitude = one["amplitude_real"].values + 1j * one["amplitude_imag"].values
    turn = np.exp(-2j * np.pi * offset_hz * np.nan_to_num(one["delay_s"].values))
    power, phase, delay = (every[0][name].astype(np.float64) for name in ("power", "phase", "delay"))
    paths = 10 ** (power / 20) * np.exp(1j * np.radians(phase) - 2j * np.pi * offset_hz * delay)
    np.testing.assert_allclose(np.nansum(paths, axis=1), (amplitude * turn).sum(axis=1), rtol=1e-4, atol=1e-12)


def test_mistakes_are_told(table: xr.Dataset, tmp_path: Path):
    with pytest.raises(UserError, match="polarisation='X'"):
        export_deepmimo(table, tmp_path / "a", polarisation="X")
    export_deepmimo(table, tmp_path / "a")
    with pytest.raises(UserError, match="not empty"):
        export_deepmimo(table, tmp_path / "a")
    phase = tmp_path / "a" / "phase_t000_tx001_r001.npz"
    whole = phase.read_bytes()
    for damaged in (b"PK", whole[: len(whole) // 2]):
        phase.write_bytes(damaged)
        with pytest.raises(DataError, match="damaged"):
            read_deepmimo(tmp_path / "a")
    phase.unlink()
    with pytest.raises(DataError, match="lacks phase_t000_tx001_r001"):
        read_deepmimo(tmp_path / "a")


def test_the_command_line_writes_a_table_of_paths(table: xr.Dataset, tmp_path: Path):
    source = write_paths(tmp_path / "paths.npz", table)
    assert main(["export", "format=deepmimo", f"store={source}", f"target={tmp_path / 'canyon'}"]) == 0
    _, every = read_deepmimo(tmp_path / "canyon")
    export_deepmimo(table, tmp_path / "same")
    for mine, theirs in zip(every, read_deepmimo(tmp_path / "same")[1], strict=True):
        np.testing.assert_allclose(mine["power"], theirs["power"], rtol=1e-5)


@pytest.mark.parametrize("kind", ["npz", "mat"])
def test_path_files_come_in_as_a_table(table: xr.Dataset, tmp_path: Path, kind: str):
    """From the command line; `.mat` as MATLAB users of the same layout have it, its paths in no order."""
    folder = tmp_path / "canyon"
    export_deepmimo(table, folder)
    if kind == "mat":
        for file in folder.glob("*.npz"):
            name = file.name.split("_t000")[0]
            with np.load(file) as content:
                values = content[name] if name.endswith("pos") else content[name][:, ::-1]
            savemat(file.with_suffix(".mat"), {name: values})
            file.unlink()
    store = tmp_path / "paths.nc"
    assert main(["import", "format=deepmimo", f"source={folder}", f"store={store}"]) == 0
    back = read_paths(store)
    assert back.sizes["tx"] == 2
    assert back["tx_x"].values.tolist() == [-33.0, 20.0]
    np.testing.assert_allclose(back["rx_z"], table["rx_z"], rtol=1e-6)
    assert back.attrs["frequency_hz"] == 3.5e9
    one = table.sel(polarisation="V")
    gain = 20 * np.log10(np.hypot(one["amplitude_real"], one["amplitude_imag"]))
    for index in range(2):
        for user in range(3):
            order = np.argsort(-np.nan_to_num(gain[index, user].values, nan=-999.0, neginf=-999.0), kind="stable")
            count = int(back["path_count"][index, user])
            assert back["gain_db"][index, user].values[:count] == pytest.approx(
                gain.values[index, user, order][:count], abs=1e-4
            )
            for name in ("bounces", "diffracted"):
                ours = one[name].values[index, user, order][:count]
                assert back[name].values[index, user, :count].tolist() == ours.tolist()
            assert np.isnan(back["delay_s"][index, user].values[count:]).all()
        assert back["path_count"][index, 3] == 0
    coherent = np.abs((back["amplitude_real"] + 1j * back["amplitude_imag"]).sum("path")[0, 0, 0].item())
    assert float(back["coherent_gain_db"][0, 0]) == pytest.approx(20 * np.log10(coherent), abs=1e-3)
    with pytest.raises(DataError, match="exists"):
        import_deepmimo(folder, store)


def test_path_files_that_are_incomplete_are_refused(table: xr.Dataset, tmp_path: Path):
    export_deepmimo(table, tmp_path / "canyon")
    (tmp_path / "canyon" / "rx_pos_t000_tx001_r001.npz").unlink()
    with pytest.raises(DataError, match="lacks rx_pos_t000_tx001_r001"):
        import_deepmimo(tmp_path / "canyon", tmp_path / "paths.npz")
    with pytest.raises(UserError, match=r"\.npz or \.nc"):
        import_deepmimo(tmp_path / "canyon", tmp_path / "maps.zarr")


def _units(name, change):
    """A change of one matrix of the first transmitter."""

    def apply(folder: Path) -> None:
        file = folder / f"{name}_t000_tx000_r001.npz"
        with np.load(file) as content:
            values = change(content[name])
        np.savez(file, **{name: values})

    return apply


def _params(**changes):
    def apply(folder: Path) -> None:
        about = json.loads((folder / "params.json").read_text())
        (folder / "params.json").write_text(json.dumps({**about, **changes}))

    return apply


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_params(rt_params=[1]), "names no rt_params.frequency"),
        (_params(rt_params={"frequency": 3.5}), "rt_params.frequency=3.5; expected Hz"),
        (_units("delay", lambda values: values * 1e9), "expected seconds"),
        (_units("delay", lambda values: -values), "expected seconds"),
        (_units("power", lambda values: 10 ** (values / 10)), "not a linear power"),
        (_units("power", lambda values: values + 1j), "values of type complex"),
        (_units("phase", np.radians), "phase is at most .* as in radians"),
        (_units("aoa_el", lambda values: 90 - values * 1.2), "expected degrees from the zenith"),
        (_units("rx_pos", lambda values: values[:, :2]), r"rx_pos of shape \(4, 2\)"),
        (_units("rx_pos", lambda values: values[:3]), "for 3 receivers; expected user, path"),
        (_units("tx_pos", lambda values: np.tile(values, (2, 1))), "has 6 numbers"),
    ],
)
def test_path_files_in_other_units_and_shapes_are_refused(table: xr.Dataset, tmp_path: Path, spoil, message: str):
    export_deepmimo(table, tmp_path / "canyon")
    spoil(tmp_path / "canyon")
    with pytest.raises(DataError, match=message):
        import_deepmimo(tmp_path / "canyon", tmp_path / "paths.npz")


def test_one_path_of_each_user_may_lack_its_axis(table: xr.Dataset, tmp_path: Path):
    export_deepmimo(table.isel(tx=[0]), tmp_path / "canyon")
    for file in (tmp_path / "canyon").glob("*.npz"):
        name = file.name.split("_t000")[0]
        if not name.endswith("pos"):
            _units(name, lambda values: values[:, 0])(tmp_path / "canyon")
    _params(scene=None)(tmp_path / "canyon")
    import_deepmimo(tmp_path / "canyon", tmp_path / "paths.npz")
    back = read_paths(tmp_path / "paths.npz")
    assert back["path_count"].values.tolist() == [[1, 1, 1, 0]]
