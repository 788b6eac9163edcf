"""Channels, handles, files and the classical estimators, against closed forms and known limits."""

import contextlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoml.errors import DataError, UserError
from mcp_experts.channels.channel import SNAPSHOTS, SUBCARRIERS, Channel, from_paths, from_taps
from mcp_experts.channels.handles import Handles, Limits
from mcp_experts.channels.loading import channel_from_file, channel_from_lists
from mcp_experts.channels.opening import open_inside
from mcp_experts.channels.synthetic import synthesize
from mcp_experts.inference.classical import ESTIMATORS, estimate, k_factor_by_moments_db
from mcp_experts.inference.features import extract
from mcp_experts.inference.verdicts import ChannelView


def noise(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / math.sqrt(2)


def grid(subcarriers=SUBCARRIERS, snapshots=SNAPSHOTS, antennas=1, seed=0):
    return Channel(
        csi=noise(subcarriers, snapshots, antennas, seed=seed), subcarrier_spacing_hz=30e3, snapshot_interval_s=1e-3
    )


def estimates(channel):
    window = channel.window()
    row = estimate(window.csi[None], np.array([window.bandwidth_hz]))[0]
    return dict(zip(ESTIMATORS, row, strict=True)), window


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"csi": noise(31, 14, 1)}, "31 along subcarrier"),
        ({"csi": noise(64, 0, 1)}, "0 along time"),
        ({"csi": np.abs(noise(64, 14, 1))}, "magnitudes without phases; .* export I and Q"),
        ({"csi": noise(64, 14, 1).real}, "real numbers of both signs"),
        ({"csi": noise(64, 14, 1, 1)}, "expected \\[subcarrier, time, antenna\\]"),
        ({"csi": np.full((64, 14, 1), np.nan)}, "NaN or infinity"),
        ({"csi": np.full((64, 14, 1), np.inf)}, "NaN or infinity"),
        ({"csi": np.zeros((64, 14, 1))}, "must have power"),
        ({"csi": np.full((64, 14, 1), "x")}, "expected complex numbers"),
        ({"csi": np.broadcast_to(np.complex64(1), (4096, 4096, 1))}, "at most 2097152"),
        ({"subcarrier_spacing_hz": math.nan}, "finite number of Hz"),
        ({"subcarrier_spacing_hz": 0}, "expected 1000 to"),
        ({"snapshot_interval_s": "1"}, "finite number of s"),
        ({"snapshot_interval_s": True}, "finite number of s"),
    ],
)
def test_what_is_no_channel_is_refused_by_name(change, message):
    whole = {"csi": noise(64, 14, 1), "subcarrier_spacing_hz": 30e3, "snapshot_interval_s": 1e-3}
    Channel(**whole)
    with pytest.raises(DataError, match=message):
        Channel(**whole | change)


def test_a_grid_of_paths_is_their_fourier_sum():
    delays, gains = np.array([1e-7, 4e-7]), noise(2, 14, 3)
    channel = from_paths(gains, delays, bandwidth_hz=20e6, snapshot_interval_s=1e-3)
    frequency = np.arange(64) * 20e6 / 64
    wanted = np.einsum("fp,pta->fta", np.exp(-2j * np.pi * np.outer(frequency, delays)), gains)
    assert np.allclose(channel.csi / np.abs(channel.csi).max(), wanted / np.abs(wanted).max(), atol=1e-5)
    with pytest.raises(DataError, match="more subcarriers or a narrower band"):
        from_paths(gains, delays * 100, bandwidth_hz=20e6, snapshot_interval_s=1e-3)


def test_taps_and_paths_of_one_channel_agree():
    taps = np.zeros((8, 14, 1), complex)
    taps[[0, 5]] = noise(2, 14, 1)
    one = from_taps(taps, sample_rate_hz=20e6, snapshot_interval_s=1e-3)
    other = from_paths(taps[[0, 5]], np.array([0, 5 / 20e6]), bandwidth_hz=20e6, snapshot_interval_s=1e-3)
    a, b = estimates(one)[0], estimates(other)[0]
    assert a["delay_spread_cells"] == pytest.approx(b["delay_spread_cells"], rel=0.05)
    assert a["coherence_bandwidth"] == pytest.approx(b["coherence_bandwidth"], rel=0.05)


def test_a_window_spans_the_grid_but_does_not_alias():
    slow = np.exp(1e-3j * np.arange(140))[None, :, None]
    smooth = from_paths(slow, np.zeros(1), bandwidth_hz=20e6, snapshot_interval_s=1e-4, subcarriers=256)
    window = smooth.window()
    assert window.csi.shape == (64, 14, 1)
    assert window.bandwidth_hz == pytest.approx(20e6)
    assert window.duration_s == pytest.approx(14e-3)
    assert not window.warnings
    still = from_paths(np.ones((1, 140, 1)), np.zeros(1), bandwidth_hz=20e6, snapshot_interval_s=1e-4).window()
    assert "all snapshots are equal" in still.warnings[0]
    turning = np.exp(2j * np.pi * 250 * 1e-4 * np.arange(140))[None, :, None] + np.exp(
        -2j * np.pi * 250 * 1e-4 * np.arange(140)
    )[None, :, None] * np.ones((1, 140, 1))
    fast = from_paths(turning, np.zeros(1), bandwidth_hz=20e6, snapshot_interval_s=1e-4).window()
    assert fast.duration_s < 14e-3 * 0.6
    assert "snapshots are outside the window" in fast.warnings[0]


def test_features_do_not_mind_gain_phase_and_delay():
    csi = synthesize(k_factor_db=5, doppler_hz=60, seed=3).csi[None]
    shifted = 7j * csi * np.exp(-2j * np.pi * np.arange(64) * 3 / 64)[:, None, None]
    assert np.allclose(extract(csi), extract(shifted.astype(np.complex64)), atol=0.02)


def test_k_factor_by_moments_of_known_fading():
    assert k_factor_by_moments_db(np.abs(noise(1, 200_000)) ** 2)[0] < -8
    for k_db in (0.0, 6.0, 12.0):
        k = 10 ** (k_db / 10)
        power = np.abs(math.sqrt(k / (1 + k)) + math.sqrt(1 / (1 + k)) * noise(1, 200_000)) ** 2
        assert k_factor_by_moments_db(power)[0] == pytest.approx(k_db, abs=0.3)


def test_two_equal_paths_have_half_their_distance_as_spread_and_a_sixth_band_of_its_inverse_as_coherence():
    # |cos(π Δ s)| falls to a half at Δ s = 1/3.
    gains = np.ones((2, 14, 1)) * np.exp(1j * np.arange(14))[None, :, None]
    found, _ = estimates(from_paths(gains, np.array([0, 8 / 20e6]), bandwidth_hz=20e6, snapshot_interval_s=1e-3))
    assert found["delay_spread_cells"] == pytest.approx(4, rel=0.05)
    assert found["coherence_bandwidth"] == pytest.approx(1 / 24, rel=0.1)


@pytest.mark.parametrize("snr_db", [0, 10, 20, 30])
def test_noise_is_found(snr_db):
    values = [estimates(synthesize(snr_db=snr_db, seed=seed, antennas=2))[0]["snr_db"] for seed in range(10)]
    assert np.median(values) == pytest.approx(snr_db, abs=1.5)


def test_clarke_doppler_and_coherence_time():
    """The autocorrelation of isotropic scattering is J0: half at 2π f τ = 1.52, that is at 0.242/f."""
    many = [synthesize(doppler_hz=150, delay_spread_s=4e-7, snr_db=40, antennas=8, seed=seed) for seed in range(8)]
    shifts = [estimates(channel)[0]["doppler_cells"] / 0.014 for channel in many]
    times = [estimates(channel)[0]["coherence_time"] * 0.014 for channel in many]
    assert np.median(shifts) == pytest.approx(150, rel=0.15)
    assert np.median(times) == pytest.approx(0.242 / 150, rel=0.15)


def test_handles_are_owned_expire_and_stay_within_bounds():
    now = [0.0]
    handles = Handles(Limits(lifetime_s=10, count=3, nbytes=10**6), clock=lambda: now[0])
    first = handles.put(grid(), "a")
    assert handles.get(first, "a").channel_id == first
    for wrong in ((first, "b"), ("ch_" + "0" * 32, "a"), ("", "a")):
        with pytest.raises(UserError, match="load the channel again"):
            handles.get(*wrong)
    with pytest.raises(UserError):
        handles.drop(first, "b")
    now[0] = 9
    handles.get(first, "a")
    now[0] = 18
    handles.get(first, "a")
    now[0] = 29
    with pytest.raises(UserError):
        handles.get(first, "a")
    assert (len(handles), handles.nbytes) == (0, 0)
    names = [handles.put(grid(seed=seed), "a") for seed in range(3)]
    handles.get(names[0], "a")
    handles.put(grid(), "b")
    assert handles.get(names[0], "a")
    with pytest.raises(UserError):
        handles.get(names[1], "a")
    with pytest.raises(UserError, match="at most"):
        handles.put(grid(1024, 140), "a")
    big = grid(64, 14, 64)
    for _ in range(5):
        handles.put(big, "a")
        assert handles.nbytes <= 10**6
    assert len({handles.put(grid(), "a") for _ in range(50)}) == 50


@pytest.mark.parametrize("limits", [Limits(count=4), Limits(nbytes=4 * grid().nbytes)])
def test_who_loads_much_crowds_nobody_out(limits):
    handles = Handles(limits)
    mine = [handles.put(grid(seed=seed), "a") for seed in range(2)]
    others = [handles.put(grid(seed=seed), "b") for seed in range(20)]
    for name in mine:
        assert handles.get(name, "a")
    assert [name for name in others if name in handles._held] == others[-2:]


@given(st.lists(st.tuples(st.sampled_from(["put", "get", "drop", "wait"]), st.integers(0, 5)), max_size=40))
@settings(max_examples=25, deadline=None)
def test_handles_never_exceed_their_bounds(steps):
    now, names = [0.0], []
    handles = Handles(Limits(lifetime_s=5, count=4, nbytes=40_000), clock=lambda: now[0])
    channel = grid()
    for step, number in steps:
        if step == "put":
            names.append(handles.put(channel, "a"))
        elif step == "wait":
            now[0] += number
        elif names:
            with contextlib.suppress(UserError):
                getattr(handles, step)(names[number % len(names)], "a")
        assert len(handles) <= 4
        assert handles.nbytes == len(handles) * channel.nbytes <= 40_000


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_files_give_the_channel_that_was_saved(tmp_path):
    several = np.stack([grid(seed=seed).csi for seed in range(3)])
    sampling = {"subcarrier_spacing_hz": 30e3, "snapshot_interval_s": 1e-3}
    path = save(tmp_path / "a.npz", csi=several, **sampling)
    channel = channel_from_file(path, 2)
    assert np.allclose(channel.csi, several[2] / np.abs(several[2]).max(), atol=1e-6)
    parts = save(tmp_path / "b.npz", csi_real=several.real, csi_imag=several.imag, **sampling)
    assert np.allclose(channel_from_file(parts, 2).csi, channel.csi)
    for index in (3, -1):
        with pytest.raises(UserError, match="index"):
            channel_from_file(path, index)
    for missing in sampling:
        rest = {name: value for name, value in sampling.items() if name != missing}
        with pytest.raises(DataError, match=missing):
            channel_from_file(save(tmp_path / "c.npz", csi=several, **rest))
    with pytest.raises(DataError, match="neither csi nor taps"):
        channel_from_file(save(tmp_path / "d.npz", colour=np.ones(3)))
    with pytest.raises(DataError, match="only arrays of numbers"):
        channel_from_file(save(tmp_path / "e.npz", csi=np.array([{"a": 1}], dtype=object)))
    for content in (b"PK\x03\x04 torn", b"csi, taps", b""):
        for suffix in ("npz", "h5", "mat", "nc"):
            torn = tmp_path / f"f.{suffix}"
            torn.write_bytes(content)
            with pytest.raises(DataError, match=f"{torn.name} is truncated or not an? .{suffix} file"):
                channel_from_file(torn)


def test_netcdf_and_zarr_give_the_same_channel(tmp_path):
    xr = pytest.importorskip("xarray")
    csi = grid().csi
    dims = ("subcarrier", "time", "antenna")
    dataset = xr.Dataset(
        {"csi_real": (dims, csi.real), "csi_imag": (dims, csi.imag)},
        attrs={"subcarrier_spacing_hz": 30e3, "snapshot_interval_s": 1e-3},
    )
    dataset.to_netcdf(tmp_path / "a.nc")
    dataset.to_zarr(tmp_path / "a.zarr")
    for name in ("a.nc", "a.zarr"):
        assert np.allclose(channel_from_file(tmp_path / name).csi, csi, atol=1e-6)


def turned(tmp_path, names, csi):
    """A NetCDF file with the grid's axes in this order and with these names, as two real arrays."""
    xr = pytest.importorskip("xarray")
    parts = {f"csi_{part}": (names, getattr(csi, part)) for part in ("real", "imag")}
    attributes = {"subcarrier_spacing_hz": 30e3, "snapshot_interval_s": 1e-3}
    xr.Dataset(parts, attrs=attributes).to_netcdf(tmp_path / "turned.nc")
    return channel_from_file(tmp_path / "turned.nc").csi


@pytest.mark.parametrize(
    ("names", "axes"),
    [
        (("time", "antenna", "subcarrier"), (1, 2, 0)),
        (("Frequency", "snapshots", "rx"), (0, 1, 2)),
        (("t", "f", "a"), (1, 0, 2)),
        (("port", "symbol", "tone"), (2, 1, 0)),
        (("beam", "time", "subcarrier"), (2, 1, 0)),  # one unknown name can only be the axis that is missing
        (("x", "y", "z"), (0, 1, 2)),
    ],
)
def test_axes_are_known_by_their_names(tmp_path, names, axes):
    csi = grid(64, 64, 64).csi
    assert np.allclose(turned(tmp_path, names, np.transpose(csi, axes)), csi)


def test_axes_that_cannot_be_known_are_named(tmp_path):
    for names in (("time", "row", "column"), ("time", "snapshot", "antenna"), ("f", "t", "channel")):
        with pytest.raises(DataError, match=f"axes {', '.join(names)}; expected subcarrier, time, antenna"):
            turned(tmp_path, names, grid(64, 64, 64).csi)


@pytest.mark.parametrize("names", [("r", "i"), ("real", "imag"), ("Re", "Im"), ("i", "r")])
def test_complex_pairs_and_attributes_of_one_element_of_hdf5(tmp_path, names):
    h5py = pytest.importorskip("h5py")
    csi = grid(64, 14, 2).csi
    pairs = np.empty(csi.shape, [(name, "f4") for name in names])
    for name in names:
        pairs[name] = csi.real if name.lower().startswith("r") else csi.imag
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["csi"] = np.moveaxis(pairs, 0, 2)
        for dimension, name in zip(file["csi"].dims, ("time", "antenna", "subcarrier"), strict=True):
            dimension.label = name
        file.attrs["subcarrier_spacing_hz"], file.attrs["snapshot_interval_s"] = np.array([30e3]), np.array([[1e-3]])
    found = channel_from_file(tmp_path / "a.h5")
    assert np.allclose(found.csi, csi)
    assert (found.subcarrier_spacing_hz, found.snapshot_interval_s) == (30e3, 1e-3)


def test_complex_numbers_of_netcdf_are_read_as_netcdf_libraries_write_them(tmp_path):
    xr = pytest.importorskip("xarray")
    csi = grid(64, 14, 2).csi
    sampling = {"subcarrier_spacing_hz": 30e3, "snapshot_interval_s": 1e-3}
    dataset = xr.Dataset({"csi": (("f", "t", "a"), csi.astype(complex))}, attrs=sampling)
    dataset.to_netcdf(tmp_path / "a.nc", engine="h5netcdf", invalid_netcdf=True)
    dataset.to_netcdf(tmp_path / "b.nc", engine="netcdf4", auto_complex=True)
    for name in ("a.nc", "b.nc"):
        assert np.allclose(channel_from_file(tmp_path / name).csi, csi)


def opened(root, path):
    with open_inside(root, path) as found:
        return found.name, found.path.read_bytes() if not path.endswith(".zarr") else b""


def test_only_files_under_the_root_are_opened(tmp_path):
    root = tmp_path / "root"
    (root / "deep").mkdir(parents=True)
    for place in (root / "a.npz", root / "deep/b.npz", tmp_path / "secret.npz"):
        place.write_bytes(b"x")
    (root / "link.npz").symlink_to(tmp_path / "secret.npz")
    (root / "out").symlink_to(tmp_path)
    (root / "store.zarr").mkdir()
    (root / "store.zarr/c").symlink_to(tmp_path / "secret.npz")
    assert opened(root, "deep/b.npz") == ("deep/b.npz", b"x")
    for path in (
        "../secret.npz",
        "deep/../../secret.npz",
        str(tmp_path / "secret.npz"),
        "link.npz",
        "out/secret.npz",
        "out/root/a.npz",
        "store.zarr",
        "store.zarr/c",
        "file:///etc/passwd",
        "https://host/a.npz",
        "a\x00.npz",
        "a.pkl",
        "nowhere.npz",
        "a.npz/b.npz",
        "",
        ".",
        "x" * 600,
    ):
        with pytest.raises(UserError) as caught:
            opened(root, path)
        assert str(tmp_path) not in str(caught.value)
    (root / "store.zarr/inner.npz").write_bytes(b"x")
    with pytest.raises(UserError, match=r"holds a\.npz, store\.zarr, deep/b\.npz$"):
        opened(root, "nowhere.npz")
    for number in range(9):
        (root / f"deep/c{number}.npz").write_bytes(b"x")
    with pytest.raises(UserError, match=r"deep/c4\.npz and more$"):
        opened(root, "nowhere.npz")
    with pytest.raises(UserError, match="--root"):
        opened(None, "a.npz")


def test_lists_are_checked_before_they_are_reshaped():
    sampling = {"subcarrier_spacing_hz": 30e3, "snapshot_interval_s": 1e-3}
    values = noise(64 * 14)
    shape = {"subcarriers": 64, "snapshots": 14, "antennas": 1}
    channel = channel_from_lists(values.real, values.imag, **shape, **sampling)
    assert channel.csi[1, 0, 0] / channel.csi[0, 0, 0] == pytest.approx(values[14] / values[0], rel=1e-4)
    for change in ({"subcarriers": 65}, {"snapshots": 0}, {"antennas": -1}):
        with pytest.raises(DataError, match="values for"):
            channel_from_lists(values.real, values.imag, **shape | change, **sampling)
    with pytest.raises(DataError, match="imaginary"):
        channel_from_lists(values.real, values.imag[1:], **shape, **sampling)
    with pytest.raises(DataError, match="write them to a file"):
        channel_from_lists(np.ones(20000), np.ones(20000), **shape, **sampling)


def test_a_specification_out_of_range_says_which():
    for wrong in ({"snr_db": math.nan}, {"antennas": 0}, {"bandwidth_hz": 1e12}, {"doppler_hz": -1}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            synthesize(**wrong)
    with pytest.raises(UserError, match="narrower band"):
        synthesize(delay_spread_s=5e-5, bandwidth_hz=20e6)
    assert np.array_equal(synthesize(seed=5).csi, synthesize(seed=5).csi)
    assert ChannelView(synthesize()).features.shape[0] == 1
