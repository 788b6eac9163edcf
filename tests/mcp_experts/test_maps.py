"""Radio maps at a point and path tables, from files in the layouts that the ray tracer writes."""

import json
import math

import numpy as np
import pytest

from geoml.errors import DataError, UserError
from mcp_experts.channels.loading import channel_from_file
from mcp_experts.channels.path_tables import from_deepmimo, read_path_table
from mcp_experts.serve.maps import query_map

C = 299_792_458.0
HZ = 3.5e9


def free_space(tx=(10.0, 10.0, 2.0), members=0):
    """A map of free space with a building in one corner, and voxels without a path beside it."""
    z, y, x = np.arange(1.0, 4.0), np.arange(0.5, 20), np.arange(0.5, 30)
    place = np.meshgrid(z, y, x, indexing="ij")
    distance = np.sqrt((place[2] - tx[0]) ** 2 + (place[1] - tx[1]) ** 2 + (place[0] - tx[2]) ** 2)
    gain = 20 * np.log10(C / (4 * np.pi * HZ * distance))
    building = (place[2] > 25) & (place[1] > 15)
    no_path = (place[2] > 25) & (place[1] < 3)
    gain[building | no_path] = np.nan
    fields = {
        "path_gain_db": gain[None],
        "toa_s": (distance / C)[None],
        "los": (~building & ~no_path)[None],
        "no_path": no_path[None],
        "building": building,
    }
    if members:
        shift = np.arange(members) - (members - 1) / 2
        fields["path_gain_db"] = gain[None, None] + shift[:, None, None, None, None]
        fields["member"] = np.arange(members)
    return {**fields, "z": z, "y": y, "x": x, **{f"tx_{a}": np.array([v]) for a, v in zip("xyz", tx, strict=True)}}


def test_free_space_is_friis_and_the_delay_is_the_distance(tmp_path):
    np.savez(tmp_path / "map.npz", **free_space(), frequency_hz=HZ)
    found = query_map(tmp_path / "map.npz", x_m=20.5, y_m=10.5, z_m=2.0)
    assert found["path_gain_db"] == pytest.approx(found["classical"]["value"], abs=0.1)
    assert found["toa_s"] * C == pytest.approx(found["distance_m"], rel=0.01)
    assert found["los"]
    assert not found["warnings"]
    there = query_map(tmp_path / "map.npz", x_m=10, y_m=10, z_m=2)
    assert there["classical"]["value"] == pytest.approx(20 * math.log10(1 / (4 * math.pi)), abs=0.01)
    inside = query_map(tmp_path / "map.npz", x_m=28, y_m=18)
    assert (inside["inside_building"], inside["abstained"], inside["los"]) == (True, True, None)
    shadow = query_map(tmp_path / "map.npz", x_m=28, y_m=1)
    assert (shadow["no_path"], shadow["abstained"]) == (True, True)
    with pytest.raises(UserError, match="x_m is 31; the map covers 0 to 30 m"):
        query_map(tmp_path / "map.npz", x_m=31, y_m=1)
    with pytest.raises(UserError, match="1 transmitters"):
        query_map(tmp_path / "map.npz", x_m=3, y_m=1, transmitter=1)
    np.savez(tmp_path / "still.npz", **free_space(), frequency_hz=0.0)
    with pytest.raises(DataError, match="expected a carrier"):
        query_map(tmp_path / "still.npz", x_m=3, y_m=1)


def test_members_of_a_model_give_the_uncertainty(tmp_path):
    np.savez(tmp_path / "map.npz", **free_space(members=5), frequency_hz=HZ)
    found = query_map(tmp_path / "map.npz", x_m=20.5, y_m=10.5, z_m=2.0)
    assert found["uncertainty_db"] == pytest.approx(math.sqrt(2), rel=1e-3)
    assert found["path_gain_db"] == pytest.approx(found["classical"]["value"], abs=0.1)


def test_netcdf_of_several_scenes_keeps_maps_and_buildings_together(tmp_path):
    xr = pytest.importorskip("xarray")
    one, other = free_space(), free_space(tx=(5.0, 5.0, 2.0))
    other["building"] = np.zeros_like(other["building"])
    dims = {"path_gain_db": ("scene", "tx", "z", "y", "x"), "building": ("scene", "z", "y", "x")}
    variables = {name: (axes, np.stack([one[name], other[name]])) for name, axes in dims.items()}
    variables["building"] = (dims["building"], variables["building"][1].astype("int8"))
    for letter in "xyz":
        variables[f"tx_{letter}"] = (("scene", "tx"), np.stack([one[f"tx_{letter}"], other[f"tx_{letter}"]]))
    coords = {name: one[name] for name in "zyx"}
    xr.Dataset(variables, coords, attrs={"frequency_hz": HZ}).to_netcdf(tmp_path / "maps.nc")
    assert query_map(tmp_path / "maps.nc", x_m=28, y_m=18, transmitter=0)["inside_building"]
    second = query_map(tmp_path / "maps.nc", x_m=5.5, y_m=15.5, z_m=2.0, transmitter=1)
    assert not second["inside_building"]
    assert second["path_gain_db"] == pytest.approx(second["classical"]["value"], abs=0.1)


def test_a_set_of_traced_maps_is_read_as_it_lies_on_disk(tmp_path):
    """Maps that the dominant-path solver traced into a store: every transmitter of two scenes, a voxel at a time."""
    pytest.importorskip("numba")
    pytest.importorskip("zarr")
    from radiomaps.generation.generate import generate
    from radiomaps.generation.plan import Placement, Plan, Window
    from radiomaps.maps.store import open_maps

    scenes = [{"name": "procedural", "size_m": 96, "seed": seed} for seed in (1, 2)]
    window = Window(size_m=16, step_m=2, heights_m=(1.0, 5.0, 2.0))
    plan = Plan(tuple(scenes), Placement(count=2, height_m=3.0), window, options={"frequency_hz": HZ})
    generate(plan, tmp_path / "maps.zarr")
    maps = open_maps(tmp_path / "maps.zarr")
    seen = []
    for number in range(4):
        one = maps.isel(scene=number // 2, tx=number % 2)
        gain = one["path_gain_db"].values
        z, y, x = np.unravel_index(np.nanargmin(gain), gain.shape)
        point = {f"{name}_m": float(one[name].values[index]) for name, index in zip("zyx", (z, y, x), strict=True)}
        found = query_map(tmp_path / "maps.zarr", **point, transmitter=number)
        assert found["path_gain_db"] == pytest.approx(float(gain[z, y, x]), abs=0.02)
        assert found["los"] == bool(one["los"].values[z, y, x])
        seen.append(found["path_gain_db"])
    assert len(set(seen)) > 1
    with pytest.raises(UserError, match="4 transmitters"):
        query_map(tmp_path / "maps.zarr", **point, transmitter=4)


def test_members_may_stand_anywhere_among_the_axes(tmp_path):
    """As a model's samples may be written: an axis of members behind that of samples, in NetCDF and in Zarr."""
    xr = pytest.importorskip("xarray")
    one = free_space(members=5)
    gain = np.moveaxis(one["path_gain_db"], 0, 1)
    dims = ("sample", "member", "z", "y", "x")
    variables = {"path_gain_db": (dims, gain), "frequency_hz": ((), HZ)}
    variables |= {f"tx_{letter}": ("sample", one[f"tx_{letter}"]) for letter in "xyz"}
    dataset = xr.Dataset(variables, {name: one[name] for name in "zyx"})
    dataset.to_netcdf(tmp_path / "made.nc")
    dataset.to_zarr(tmp_path / "made.zarr", consolidated=False)
    for name in ("made.nc", "made.zarr"):
        found = query_map(tmp_path / name, x_m=20.5, y_m=10.5, z_m=2.0)
        assert found["uncertainty_db"] == pytest.approx(math.sqrt(2), rel=1e-3)
        assert found["path_gain_db"] == pytest.approx(found["classical"]["value"], abs=0.1)
        assert found["los"] is None


def test_what_is_no_map_says_what_is_missing(tmp_path):
    whole = free_space()
    for name in ("path_gain_db", "x", "tx_z"):
        rest = {key: value for key, value in whole.items() if key != name}
        np.savez(tmp_path / "map.npz", **rest, frequency_hz=HZ)
        with pytest.raises(DataError, match=name):
            query_map(tmp_path / "map.npz", x_m=1, y_m=1)
    np.savez(tmp_path / "map.npz", **whole)
    with pytest.raises(DataError, match="frequency_hz"):
        query_map(tmp_path / "map.npz", x_m=1, y_m=1)


def path_table(path, **changes):
    """Two receivers: a direct path with an echo 100 ns later, and none at all."""
    amplitude = np.zeros((1, 2, 2, 2))
    amplitude[0, 0, 0] = 1, 0.5
    delay = np.array([[[1e-7, 2e-7], [np.nan, np.nan]]])
    arrays = {
        "amplitude_real": amplitude,
        "amplitude_imag": np.zeros_like(amplitude),
        "delay_s": delay,
        "doppler_hz": np.where(np.isfinite(delay), [30.0, -20.0], np.nan),
        "bounces": np.array([[[0, 1], [0, 0]]]),
        "rx_velocity_x": np.array([10.0, 0]),
        "rx_velocity_y": np.zeros(2),
        "rx_velocity_z": np.zeros(2),
    }
    attributes = np.array(json.dumps({"": {"frequency_hz": HZ}}))
    np.savez(path, **{**arrays, **changes}, attributes=attributes)
    return path


def test_a_path_table_becomes_links_and_a_channel(tmp_path):
    table = read_path_table(path_table(tmp_path / "paths.npz"))
    assert table.gains.shape == (2, 2, 2)
    assert table.doppler_max_hz[0] == pytest.approx(10 * HZ / C)
    channel = channel_from_file(tmp_path / "paths.npz")
    profile = np.mean(np.abs(np.fft.ifft(channel.csi[:, :, 0], axis=0)) ** 2, axis=1)
    # 100 ns are two cells of 20 MHz; the echo is 6 dB down.
    assert np.argsort(profile)[::-1][:2].tolist() == [0, 2]
    assert 10 * np.log10(profile[2] / profile[0]) == pytest.approx(-6, abs=0.5)
    with pytest.raises(DataError, match="1 links with paths"):
        channel_from_file(tmp_path / "paths.npz", 1)
    for name in ("bounces", "doppler_hz"):
        torn = path_table(tmp_path / "torn.npz", **{name: np.zeros((1, 2, 3))})
        with pytest.raises(DataError, match=f"{name} of shape"):
            channel_from_file(torn)


def test_traced_links_know_what_follows_from_their_paths(tmp_path):
    pytest.importorskip("torch")
    from mcp_experts.train.traced import traced_links

    (links,) = traced_links([path_table(tmp_path / "paths.npz")], 0)
    assert links.los.tolist() == [1.0]
    assert links.k_factor_db[0] == pytest.approx(10 * math.log10(4), abs=1e-3)
    assert np.isnan(links.profile).all()
    assert np.ptp(links.delays_s) == pytest.approx(1e-7)


def matrices(users=3):
    """DeepMIMO's of some users: a direct path and a reflection 100 ns later, 6 dB down; the last has none."""
    power = np.full((users, 4), np.nan)
    power[:-1, :2] = -80, -86
    delay = np.where(np.isfinite(power), np.array([1e-7, 2e-7, np.nan, np.nan]), np.nan)
    return {"power": power, "phase": np.where(np.isfinite(power), 30.0, np.nan), "delay": delay}


def delays_of(channel):
    profile = np.mean(np.abs(np.fft.ifft(channel.csi[:, :, 0], axis=0)) ** 2, axis=1)
    return np.argsort(profile)[::-1][:2].tolist(), 10 * np.log10(profile[2] / profile[0])


@pytest.mark.parametrize("kind", ["npz", "mat", "h5", "folder"])
def test_deepmimo_matrices_become_channels(tmp_path, kind):
    arrays = matrices()
    path = tmp_path / f"scene.{kind}"
    if kind == "npz":
        np.savez(path, **arrays)
    elif kind == "mat":
        pytest.importorskip("scipy.io").savemat(path, arrays)
    elif kind == "h5":
        with pytest.importorskip("h5py").File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = array
    else:
        for name, array in arrays.items():
            np.savez(tmp_path / f"{name}_t001_tx000_r002.npz", **{name: array})
        path = tmp_path / "delay_t001_tx000_r002.npz"
    channel = channel_from_file(path, 1)
    places, fall_db = delays_of(channel)
    # 100 ns are two cells of 20 MHz.
    assert places == [0, 2]
    assert fall_db == pytest.approx(-6, abs=0.5)
    assert "all snapshots are equal" in channel.window().warnings[0]
    with pytest.raises(DataError, match="2 links with paths"):
        channel_from_file(path, 2)


def test_deepmimo_knows_direct_paths_and_shifts():
    inter = np.array([[0, 12, np.nan, np.nan]] * 3)
    table = from_deepmimo({**matrices(), "inter": inter, "doppler": np.array([[20.0, -30, 0, 0]] * 3)})
    assert table.bounces[0].tolist() == [0, 2, -1, -1]
    assert table.doppler_max_hz[0] == 30
    with pytest.raises(DataError, match="differ in shape"):
        from_deepmimo({**matrices(), "phase": np.zeros((3, 2))})


def test_a_matrix_alone_names_what_has_to_lie_beside_it(tmp_path):
    np.savez(tmp_path / "power_t001_tx000_r002.npz", power=matrices()["power"])
    with pytest.raises(DataError, match=r"phase_t001_tx000_r002\.npz must be in the same folder"):
        channel_from_file(tmp_path / "power_t001_tx000_r002.npz")


def test_matlab_files_of_both_kinds_hold_the_same_channel(tmp_path):
    h5py, scipy_io = pytest.importorskip("h5py"), pytest.importorskip("scipy.io")
    rng = np.random.default_rng(0)
    csi = rng.standard_normal((64, 14, 2)) + 1j * rng.standard_normal((64, 14, 2))
    numbers = {"subcarrier_spacing_hz": 30e3, "snapshot_interval_s": 1e-3}
    scipy_io.savemat(tmp_path / "five.mat", {"csi": csi, **numbers})
    # As MATLAB 7.3 writes it: axes in reverse, complex numbers as pairs, 512 bytes of its own first.
    with h5py.File(tmp_path / "seven.mat", "w", userblock_size=512) as file:
        pairs = np.empty(csi.T.shape, [("real", float), ("imag", float)])
        pairs["real"], pairs["imag"] = csi.T.real, csi.T.imag
        file["csi"] = pairs
        for name, number in numbers.items():
            file[name] = np.full((1, 1), number)
    five, seven = (channel_from_file(tmp_path / name) for name in ("five.mat", "seven.mat"))
    assert np.allclose(five.csi, seven.csi)
    assert five.csi.shape == (64, 14, 2)
    assert seven.subcarrier_spacing_hz == 30e3
    (tmp_path / "none.h5").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"not a \.h5 file"):
        channel_from_file(tmp_path / "none.h5")
