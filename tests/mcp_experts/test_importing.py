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


def same(found):
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
    same(load_channel(rig, csi="data", axes="time,subcarrier,rx", **sampling))


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
    same(load_channel(tmp_path / "iq.npz", csi="I,Q", **SAMPLING))
    np.savez(tmp_path / "own.npz", csi_real=h.real, csi_imag=h.imag)
    same(load_channel(tmp_path / "own.npz", **SAMPLING))
    np.savez(tmp_path / "stacked.npz", H=np.stack([h.real, h.imag]))
    same(load_channel(tmp_path / "stacked.npz", csi="H", axes="parts,f,time,rx", **SAMPLING))
    np.savez(tmp_path / "polar.npz", a=np.abs(h), p=np.angle(h))
    same(load_channel(tmp_path / "polar.npz", csi="a,p", form="polar", **SAMPLING))
    np.savez(tmp_path / "db.npz", a=20 * np.log10(np.abs(h)), p=np.rad2deg(np.angle(h)))
    same(load_channel(tmp_path / "db.npz", csi="a,p", db="true", degrees="true", **SAMPLING))
    with pytest.raises(UserError, match="magnitudes without phases"):
        load_channel(tmp_path / "polar.npz", csi="a", **SAMPLING)


def test_groups_of_hdf5_structures_of_matlab_and_dimensions_of_netcdf(tmp_path):
    h5py, xr = pytest.importorskip("h5py"), pytest.importorskip("xarray")
    scipy_io = pytest.importorskip("scipy.io")
    scipy_io.savemat(tmp_path / "a.mat", {"rec": {"H": LINK.csi.transpose(2, 1, 0), "fs": 20.0}})
    same(load_channel(tmp_path / "a.mat", csi="H", axes="rx,time,f", bandwidth="rec.fs MHz", duration="14ms"))
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["run/one/H"] = LINK.csi
        file["run/two/G"] = LINK.csi[:, ::-1]
    same(load_channel(tmp_path / "b.h5", csi="H", **SAMPLING))
    same(load_channel(tmp_path / "b.h5", csi="run/one/H", **SAMPLING))
    parts = (
        (("time", "rx", "frequency"), LINK.csi.transpose(1, 2, 0).real),
        (
            ("time", "rx", "frequency"),
            LINK.csi.transpose(1, 2, 0).imag,
        ),
    )
    xr.Dataset({"re": parts[0], "im": parts[1]}).to_netcdf(tmp_path / "c.nc")
    same(load_channel(tmp_path / "c.nc", csi="re,im", **SAMPLING))


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
