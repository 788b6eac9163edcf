"""Spellings of files and questions that people and models use: read, or refused with the one that was meant."""

import unicodedata

import anyio
import numpy as np
import pytest
from mcp import Client

from geoml.errors import UserError
from mcp_experts.channels.channel import Channel, from_taps
from mcp_experts.channels.opening import open_inside
from mcp_experts.channels.synthetic import synthesize
from mcp_experts.inference.registry import Registry
from mcp_experts.serve.server import build_server

LINK = synthesize(k_factor_db=12, snr_db=25)
REGISTRY = Registry()


@pytest.fixture
def root(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "secret.npz").write_bytes(b"no")
    root = tmp_path / "data"
    (root / "sub dir").mkdir()
    for name in ("link.npz", "mein link.npz", "ümlaut.npz", "файл.npz", "sub dir/in.npz", "BIG.NPZ", "a#b.npz"):
        with open(root / name, "wb") as stream:
            np.savez(
                stream,
                csi=LINK.csi,
                subcarrier_spacing_hz=LINK.subcarrier_spacing_hz,
                snapshot_interval_s=LINK.snapshot_interval_s,
            )
    return root


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (" link.npz ", "link.npz"),
        ("'link.npz'", "link.npz"),
        ("`link.npz`", "link.npz"),
        ('"mein link.npz"', "mein link.npz"),
        ("./link.npz", "link.npz"),
        (".\\link.npz", "link.npz"),
        ("sub dir\\in.npz", "sub dir/in.npz"),
        (unicodedata.normalize("NFD", "ümlaut.npz"), "ümlaut.npz"),
        ("файл.npz", "файл.npz"),
        ("BIG.NPZ", "BIG.NPZ"),
        ("a#b.npz", "a#b.npz"),
    ],
)
def test_a_relative_path_in_another_spelling_is_the_file(root, given, name):
    with open_inside(root, given) as opened:
        assert opened.name == name


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("link", "link.npz"),
        ("Link.npz", "link.npz"),
        ("C:\\data\\link.npz", "link.npz"),
        ("/home/me/link.npz", "link.npz"),
        ("file:///home/me/link.npz", "link.npz"),
        ("file:link.npz", "link.npz"),
        ("~/link.npz", "link.npz"),
        ("sub dir/../link.npz", "link.npz"),
        ("in.npz", "sub dir/in.npz"),
        ("mein%20link.npz", "mein link.npz"),
        ("%C3%BCmlaut.npz", "ümlaut.npz"),
        ("https://example.org/link.npz", "link.npz"),
    ],
)
def test_a_path_that_is_not_opened_names_the_file_that_was_meant(root, given, meant):
    with pytest.raises(UserError) as refused, open_inside(root, given):
        pass
    assert f"did you mean {meant!r}?" in str(refused.value)
    assert str(root) not in str(refused.value)


@pytest.mark.parametrize(
    "given", ["'../secret.npz'", " ../secret.npz", "..\\secret.npz", "sub dir\\..\\..\\secret.npz"]
)
def test_no_spelling_leads_out_of_the_root(root, given):
    with pytest.raises(UserError), open_inside(root, given):
        pass


@pytest.mark.parametrize(
    ("question", "name"),
    [
        ("LOS", "los"),
        ("ｌｏｓ", "los"),
        ("lineofsight", "los"),
        ("Line-Of-Sight?", "los"),
        ("is it in line of sight", "los"),
        ("delayspread", "delay_spread"),
        ("RMS delay spread", "delay_spread"),
        ("K-Factor", "fading"),
        (" snr\n", "snr"),
    ],
)
def test_a_question_in_another_spelling_is_the_same(question, name):
    assert REGISTRY.asked(question).name == name


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ("los and doppler", "is several: ask one at a time, of doppler, line_of_sight"),
        ("dopler", "did you mean 'doppler'?"),
        ("Sichtverbindung", "unknown (known: coherence_bandwidth, "),
        ("", "unknown (known: "),
    ],
)
def test_a_question_that_is_none_says_what_there_is(question, message):
    with pytest.raises(UserError) as refused:
        REGISTRY.asked(question)
    assert message in str(refused.value)


def test_a_question_of_maps_about_a_channel_is_refused_with_a_word(root):
    async def conversation():
        server = build_server(registry=REGISTRY, root=root)
        try:
            async with Client(server) as client:
                wrong = await client.call_tool("wireless_ask", {"source": "link.npz", "question": "path_gain"})
                empty = {"source": "link.npz", "question": "los", "at": ""}
                return wrong, await client.call_tool("wireless_ask", empty)
        finally:
            server.close()

    wrong, well = anyio.run(conversation)
    assert "path_gain is for radio maps, and this is a channel" in wrong.content[0].text
    assert "Note" not in well.structured_content["answer"]


def test_values_that_are_not_finite_are_counted_and_placed():
    csi = LINK.csi.copy()
    csi[3, 4] = np.nan
    csi[5, 6] = np.inf
    sampling = {"subcarrier_spacing_hz": 3e5, "snapshot_interval_s": 1e-3}
    with pytest.raises(
        UserError, match=r"2 of 896 values of csi are NaN or infinity \(the first at subcarrier 3, snap"
    ):
        Channel(csi=csi, **sampling)
    with pytest.raises(UserError, match="of taps are NaN or infinity"):
        from_taps(csi, sample_rate_hz=2e7, snapshot_interval_s=1e-3)
    with pytest.raises(UserError, match=r"14 along subcarrier.* name the axes: axes=time,subcarrier,antenna"):
        Channel(csi=LINK.csi.transpose(1, 0, 2), **sampling)
    with pytest.raises(UserError, match="with a magnitude of 1e-30 to 1e30"):
        Channel(csi=LINK.csi.astype(complex) * 1e200, **sampling)
