"""Channel files of others: names, axes, form and units by options, by a profile, and by that of a folder."""

import numpy as np
import pytest
from mcp import Client

from geoml.errors import UserError
from mcp_experts import load_channel
from mcp_experts.__main__ import main
from mcp_experts.channels.importing import PROFILE, parse_options, read_profile
from mcp_experts.channels.synthetic import synthesize
from mcp_experts.serve.server import build_server

LINK = synthesize(k_factor_db=12, snr_db=25, antennas=2)
SAMPLING = {"bandwidth": "20MHz", "snapshot_interval": "1ms"}


def assert_same(found):
    assert np.allclose(found.csi, LINK.csi, atol=1e-5)
    assert found.subcarrier_spacing_hz == pytest.approx(LINK.subcarrier_spacing_hz)
    assert found.snapshot_interval_s == pytest.approx(LINK.snapshot_interval_s)


@pytest.fixture
def rig(tmp_path):
    frequency = 3500 + np.arange(64) * LINK.subcarrier_spacing_hz / 1e6
    np.savez(
        tmp_path / "rig.npz", data=LINK.csi.transpose(1, 0, 2), mhz=frequency, khz=312.5, uneven=np.arange(64.0) ** 2
    )
    return tmp_path / "rig.npz"


@pytest.mark.parametrize(
    "sampling",
    [
        SAMPLING,
        {"bandwidth": "0.02 GHz", "duration": "14ms"},
        {"subcarrier_spacing": "mhz MHz", "snapshot_interval": "1e-3"},
        {"subcarrier_spacing": "khz kHz", "snapshot_interval": "1000 us"},
    ],
)
def test_an_array_of_another_name_and_order_with_the_sampling_in_words(rig, sampling):
    assert_same(load_channel(rig, csi="data", axes="time,subcarrier,rx", **sampling))


def test_two_antenna_axes_become_one_and_missing_axes_have_one_entry(tmp_path):
    both = LINK.csi[:, :, :, None] * np.array([1, 1j])
    np.savez(tmp_path / "mimo.npz", h=both.transpose(3, 1, 2, 0))
    found = load_channel(tmp_path / "mimo.npz", csi="h", axes="tx,time,rx,f", **SAMPLING)
    assert found.csi.shape == (64, 14, 4)
    np.savez(tmp_path / "one.npz", h=LINK.csi[:, 0].T)
    assert load_channel(tmp_path / "one.npz", csi="h", axes="rx,f", bandwidth="20MHz").csi.shape == (64, 1, 2)


def test_real_and_imaginary_parts_magnitudes_in_db_and_degrees(tmp_path):
    h = LINK.csi
    np.savez(tmp_path / "iq.npz", I=h.real, Q=h.imag)
    assert_same(load_channel(tmp_path / "iq.npz", csi="I,Q", **SAMPLING))
    np.savez(tmp_path / "own.npz", csi_real=h.real, csi_imag=h.imag)
    assert_same(load_channel(tmp_path / "own.npz", **SAMPLING))
    np.savez(tmp_path / "stacked.npz", H=np.stack([h.real, h.imag]))
    assert_same(load_channel(tmp_path / "stacked.npz", csi="H", axes="parts,f,time,rx", **SAMPLING))
    np.savez(tmp_path / "polar.npz", a=np.abs(h), p=np.angle(h))
    assert_same(load_channel(tmp_path / "polar.npz", csi="a,p", form="polar", **SAMPLING))
    np.savez(tmp_path / "db.npz", a=20 * np.log10(np.abs(h)), p=np.rad2deg(np.angle(h)))
    assert_same(load_channel(tmp_path / "db.npz", csi="a,p", db="true", degrees="true", **SAMPLING))
    with pytest.raises(UserError, match="magnitudes without phases"):
        load_channel(tmp_path / "polar.npz", csi="a", **SAMPLING)


def test_groups_of_hdf5_structures_of_matlab_and_dimensions_of_netcdf(tmp_path):
    h5py, xr = pytest.importorskip("h5py"), pytest.importorskip("xarray")
    scipy_io = pytest.importorskip("scipy.io")
    scipy_io.savemat(tmp_path / "a.mat", {"rec": {"H": LINK.csi.transpose(2, 1, 0), "fs": 20.0}})
    assert_same(load_channel(tmp_path / "a.mat", csi="H", axes="rx,time,f", bandwidth="rec.fs MHz", duration="14ms"))
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["run/one/H"] = LINK.csi
        file["run/two/G"] = LINK.csi[:, ::-1]
    assert_same(load_channel(tmp_path / "b.h5", csi="H", **SAMPLING))
    assert_same(load_channel(tmp_path / "b.h5", csi="run/one/H", **SAMPLING))
    parts = (
        (("time", "rx", "frequency"), LINK.csi.transpose(1, 2, 0).real),
        (
            ("time", "rx", "frequency"),
            LINK.csi.transpose(1, 2, 0).imag,
        ),
    )
    xr.Dataset({"re": parts[0], "im": parts[1]}).to_netcdf(tmp_path / "c.nc")
    assert_same(load_channel(tmp_path / "c.nc", csi="re,im", **SAMPLING))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"csi": "dat"}, "rig.npz has no array 'dat'; it holds data 14×64×2"),
        ({"cs": "data"}, "option 'cs' unknown; did you mean 'csi'"),
        ({"csi": "data", "taps": "data"}, "csi and taps are both named"),
        ({"axes": "time,f"}, "axes without an array"),
        ({"csi": "data", "form": "iqq"}, "form 'iqq' unknown"),
        ({"csi": "data", "db": "maybe"}, "db=maybe; expected true or false"),
        ({"csi": "data", "axes": "time,f"}, "expected one name for each of its 3 axes"),
        ({"csi": "data", "axes": "time,f,colour"}, "expected one name for each of its 3 axes"),
        ({"csi": "data", "axes": "time,f,f"}, "has 2 axes subcarrier"),
        ({"csi": "data", "axes": "time,rx,tx"}, "has 0 axes subcarrier"),
        ({"csi": "data", "axes": "time,f,rx", "bandwidth": "20m"}, "unit m unknown; expected one of hz, khz"),
        ({"csi": "data", "axes": "time,f,rx", "subcarrier_spacing": "uneven"}, "is not evenly spaced"),
        ({"csi": "data", "axes": "time,f,rx", "bandwidth": "20MHz"}, "an option such as snapshot_interval=1ms"),
        ({"csi": "data,mhz"}, "expected two arrays of real numbers of one shape"),
        ({"csi": "data", "axes": "time,f,parts"}, "expected"),
    ],
)
def test_options_that_do_not_fit_say_what_does(rig, options, message):
    with pytest.raises(UserError) as refused:
        load_channel(rig, **options)
    assert message in str(refused.value)


def test_a_check_saves_the_profile_of_a_rig(rig, tmp_path, capsys):
    words = ["csi=data", "axes=time,subcarrier,rx", "bandwidth=20MHz", "snapshot_interval=1ms", "carrier=3.5GHz"]
    profile = tmp_path / "rig.yaml"
    assert main(["check", str(rig), *words, "--save", str(profile)]) == 0
    out = capsys.readouterr().out
    assert [line.split()[1] for line in out.splitlines()[:-1]] == [
        *("axes", "band", "coherence", "padding", "noise", "training", "carrier")
    ]
    assert "100 Hz of Doppler shift are 8.57 m/s" in out
    assert read_profile(profile) == parse_options(words)
    assert main(["describe", str(rig), f"profile={profile}", "--json"]) == 0
    capsys.readouterr()
    assert main(["check", str(rig), *words[:-1], "carrier=3.5"]) == 2
    assert "is 3.5 Hz; expected 1 MHz to 1 THz" in capsys.readouterr().err
    assert main(["check", str(rig)]) == 1
    assert "holds neither csi nor taps and is not a path table, but data 14×64×2" in capsys.readouterr().out
    assert main(["check", str(rig), f"profile={tmp_path / 'none.yaml'}"]) == 2
    assert main(["check", str(rig), "--save", str(profile)]) == 2


def test_a_check_says_what_keeps_experts_from_judging(tmp_path, capsys):
    rng = np.random.default_rng(3)
    noise = (rng.normal(size=(64, 14)) + 1j * rng.normal(size=(64, 14))).astype(np.complex64)
    np.savez(tmp_path / "noise.npz", csi=noise)
    assert main(["check", str(tmp_path / "noise.npz"), "bandwidth=20MHz", "duration=14ms"]) == 1
    assert "unlike the training data: all experts abstain" in capsys.readouterr().out
    turned = LINK.csi * np.exp(2j * np.pi * rng.random((1, 14, 1)))
    np.savez(tmp_path / "turned.npz", csi=turned.transpose(1, 0, 2)[:, :, :1].repeat(3, axis=0)[:40])
    assert main(["check", str(tmp_path / "turned.npz"), "bandwidth=2GHz", "duration=14ms"]) in (0, 1)
    out = capsys.readouterr().out
    assert "if time and subcarriers are swapped, add axes=time,subcarrier" in out
    assert "check the spacing and its unit" in out
    np.savez(tmp_path / "phases.npz", csi=turned)
    main(["check", str(tmp_path / "phases.npz"), "bandwidth=20MHz", "duration=14ms"])
    assert "use a common clock for both ends" in capsys.readouterr().out


def test_the_server_reads_a_folder_by_its_profile_and_again_after_a_change(rig):
    (rig.parent / PROFILE).write_text("csi: data\naxes: [time, subcarrier, rx]\nbandwidth: 20MHz\nduration: 14ms\n")
    np.savez(
        rig.parent / "own.npz",
        csi=LINK.csi,
        subcarrier_spacing_hz=LINK.subcarrier_spacing_hz,
        snapshot_interval_s=LINK.snapshot_interval_s,
    )

    async def conversation():
        server = build_server(root=rig.parent)
        try:
            async with Client(server) as client:
                well = await client.call_tool("wireless_describe", {"source": "rig.npz"})
                own = await client.call_tool("wireless_describe", {"source": "own.npz"})
                (rig.parent / PROFILE).write_text(
                    "csi: data\naxes: [time, subcarrier, rx]\nbandwidth: 40MHz\nduration: 14ms\n"
                )
                wider = await client.call_tool("wireless_describe", {"source": "rig.npz"})
                (rig.parent / PROFILE).write_text("csi: [1, {a: b}]\n")
                wrong = await client.call_tool("wireless_describe", {"source": "rig.npz"})
                (rig.parent / PROFILE).unlink()
                (rig.parent / PROFILE).symlink_to("/etc/hostname")
                linked = await client.call_tool("wireless_describe", {"source": "rig.npz"})
                return well, own, wider, wrong, linked
        finally:
            server.close()

    import anyio

    well, own, wider, wrong, linked = anyio.run(conversation)
    assert "(20 MHz over 14 ms)" in well.structured_content["answer"]
    assert "(20 MHz over 14 ms)" in own.structured_content["answer"]
    assert "(40 MHz over 14 ms)" in wider.structured_content["answer"]
    assert wrong.is_error
    assert "import.yaml: csi is a list; expected text, a number, or a list of names" in wrong.content[0].text
    assert linked.is_error
    assert "neither csi nor taps" in linked.content[0].text


@pytest.mark.parametrize(
    "text",
    [
        "[1, 2]",
        "csi: !!python/object/apply:os.system ['true']",
        "a: &a [*a]",
        "csi: {b: 1}",
        "\x00",
        "x" * 20_000,
        "- " * 5000,
    ],
)
def test_a_profile_is_data_and_never_code(tmp_path, text):
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(UserError):
        read_profile(tmp_path / "p.yaml")


def same_in_size(found):
    """Equal up to a common factor."""
    level = np.abs(found.csi).mean() / np.abs(LINK.csi).mean()
    assert np.allclose(found.csi, LINK.csi * level, atol=1e-3 * level)


def test_an_axis_that_falls_or_is_in_the_order_of_an_fft_is_sorted(tmp_path):
    frequency, time = np.arange(64) * LINK.subcarrier_spacing_hz, np.arange(14) * LINK.snapshot_interval_s
    shifted = np.fft.ifftshift(np.arange(64))
    np.savez(tmp_path / "a.npz", h=LINK.csi[::-1, ::-1], f=frequency[::-1], t=time[::-1])
    assert_same(load_channel(tmp_path / "a.npz", csi="h", subcarrier_spacing="f", snapshot_interval="t"))
    np.savez(tmp_path / "b.npz", h=LINK.csi.transpose(1, 0, 2)[:, shifted], f=frequency[shifted] / 1e6)
    assert_same(load_channel(tmp_path / "b.npz", csi="h", axes="t,f,rx", subcarrier_spacing="f MHz", duration="14ms"))


def test_an_axis_with_gaps_has_subcarriers_without_a_measurement(tmp_path):
    kept = np.setdiff1d(np.arange(64), [10, 11, 40])
    np.savez(tmp_path / "a.npz", h=LINK.csi[kept], f=3e9 + kept * LINK.subcarrier_spacing_hz)
    found = load_channel(tmp_path / "a.npz", csi="h", subcarrier_spacing="f", snapshot_interval="1ms")
    assert found.csi.shape == LINK.csi.shape
    assert found.subcarrier_spacing_hz == pytest.approx(LINK.subcarrier_spacing_hz)
    assert not found.csi[[10, 11, 40]].any()


def test_parts_with_axes_in_different_orders_and_integers_of_a_radio(tmp_path):
    h5py, xr = pytest.importorskip("h5py"), pytest.importorskip("xarray")
    square = LINK.csi[:14]
    parts = {"re": (("f", "t", "rx"), square.real), "im": (("t", "f", "rx"), square.imag.transpose(1, 0, 2))}
    xr.Dataset(parts).to_netcdf(tmp_path / "a.nc")
    with pytest.raises(UserError, match="has 14 along subcarrier"):
        load_channel(tmp_path / "a.nc", csi="re,im", **SAMPLING)
    wide = np.concatenate([LINK.csi] * 5, axis=1)[:, :64]
    parts = {"re": (("f", "t", "rx"), wide.real), "im": (("t", "f", "rx"), wide.imag.transpose(1, 0, 2))}
    xr.Dataset(parts).to_netcdf(tmp_path / "b.nc")
    assert np.allclose(load_channel(tmp_path / "b.nc", csi="re,im", **SAMPLING).csi, wide, atol=1e-5)
    pairs = np.zeros(LINK.csi.shape, [("I", "i2"), ("Q", "i2")])
    pairs["I"], pairs["Q"] = (LINK.csi.real * 5000).round(), (LINK.csi.imag * 5000).round()
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["radio/csi"] = pairs
    same_in_size(load_channel(tmp_path / "c.h5", csi="csi", **SAMPLING))


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ("polar", {"csi": "a,p"}, "say form=polar for magnitude and phase, or form=iq"),
        ("degrees", {"csi": "a,p", "form": "polar"}, "say degrees=true, or degrees=false"),
        ("db", {"csi": "a,p", "form": "polar"}, "say db=true if they are in dB"),
        ("unsigned", {"csi": "a,p"}, "I and Q without a sign (uint8)"),
        ("other", {"csi": "h", "subcarrier_spacing": "f"}, "f has 63 values, and csi has 64 along that axis"),
        ("other", {"csi": "h", "subcarrier_spacing": "1.2.3kHz"}, "has no array '1.2.3kHz'"),
        ("other", {"csi": "h", "subcarrier_spacing": "30kHz", "bandwidth": "20MHz"}, "are both given"),
        ("other", {"csi": "h", "bandwidth": "20MHz", "snapshot_interval": "f"}, "f has 63 values, and csi has 14"),
    ],
)
def test_arrays_that_cannot_be_what_the_options_say(tmp_path, arrays, options, message):
    h = LINK.csi
    content = {
        "polar": {"a": np.abs(h), "p": np.angle(h)},
        "degrees": {"a": np.abs(h), "p": np.rad2deg(np.angle(h))},
        "db": {"a": 20 * np.log10(np.abs(h)), "p": np.angle(h)},
        "unsigned": {"a": (h.real * 20 + 128).astype("u1"), "p": (h.imag * 20 + 128).astype("u1")},
        "other": {"h": h, "f": np.arange(63) * 1e5},
    }[arrays]
    np.savez(tmp_path / "x.npz", **content)
    with pytest.raises(UserError) as refused:
        load_channel(tmp_path / "x.npz", **(SAMPLING if arrays != "other" else {}), **options)
    assert message in str(refused.value)


def test_what_the_command_says_goes_before_what_the_profile_says_of_the_same(tmp_path):
    (tmp_path / "p.yaml").write_text("csi: h\nbandwidth: 20MHz\nduration: 14ms\n")
    words = [f"profile={tmp_path / 'p.yaml'}", "subcarrier_spacing=30kHz"]
    assert parse_options(words) == {"csi": "h", "duration": "14ms", "subcarrier_spacing": "30kHz"}
